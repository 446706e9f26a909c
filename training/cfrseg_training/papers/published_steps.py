r"""Training steps as the papers' code takes them, for any network of this project.

``ritm`` (Sofiiuk et al. 2021, also FCFI and SimpleClick): k ~ U{fewest … most}
forwards in evaluation mode, each followed by a click in its error, then one forward
that is trained.

``icl`` (CFR-ICL, section 3.2): t ~ U{fewest … most} forwards, all trained,

.. math:: L = Σ_{i<t} β_i · NFL(Y^i, gt), \quad β = (1, 2, 3),

the mask fed to Y^{i+1} being cut off from the gradient.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import product
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from cfrseg_training.loop.atlas import WindowBatch
from cfrseg_training.loop.click_sampling import ClickSlots, depth, pick
from cfrseg_training.loop.training_step import feedback_loss, normalized_focal_loss
from cfrseg_training.papers.recipe import ClicksPart, LossPart, Recipe
from napari_cfrseg.model.blocks import resize
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput


def published_step(
    network: ClickNetwork,
    batch: WindowBatch,
    recipe: Recipe,
    generator: torch.Generator,
    host: torch.Generator,
) -> Tensor:
    """Return the loss of one step, a scalar with gradient.

    The network is left in training mode. ``generator`` draws the clicks, ``host`` the
    number of forwards (equal over the batch, as published).
    """
    iteration = recipe.iteration
    spread = iteration.most - iteration.fewest + 1
    count = iteration.fewest + int(torch.randint(spread, (), generator=host))
    clicks = first_clicks(batch, recipe.clicks, generator)
    feedback: Tensor | None = None
    click_the_error = partial(_click_the_error, batch, recipe, clicks, generator)

    def forward() -> NetworkOutput:
        return network.forward(batch.image, clicks.points, feedback, clicks.newest)

    if iteration.scheme == "ritm":
        network.eval()
        with torch.no_grad():
            for number in range(1, count + 1):
                output = forward()
                feedback = click_the_error(output, number)
        network.train()
        return output_loss(forward(), batch, recipe.loss)
    network.train()
    total = batch.image.new_zeros(())
    for number, weight in enumerate(iteration.weights[: max(count, 1)], start=1):
        output = forward()
        total = total + weight * output_loss(output, batch, recipe.loss)
        feedback = click_the_error(output, number)
    return total


def _click_the_error(
    batch: WindowBatch,
    recipe: Recipe,
    clicks: ClickSlots,
    generator: torch.Generator,
    output: NetworkOutput,
    number: int,
) -> Tensor:
    """Add each sample's next click; return the mask it corrects, without gradient."""
    prob = torch.sigmoid(output.logits.detach().float())
    threshold, rule = recipe.clicks.threshold, recipe.iteration.slot
    region, positive = click_region(prob, batch.mask, batch.valid, threshold)
    present = _any(region).flatten()
    yx = pick(region, generator)
    added = clicks.points, yx, positive, present
    clicks.points = put_click(*added, number=number, rule=rule)
    # −1: without an error there is no new click (published FCFI invents one)
    label = torch.where(present, positive.to(yx.dtype), -torch.ones_like(yx[:, 0]))
    clicks.newest = torch.cat([yx, label[:, None]], dim=1)
    return prob


def output_loss(output: NetworkOutput, batch: WindowBatch, part: LossPart) -> Tensor:
    """Return the batch mean of the recipe's terms for one output."""
    valid = batch.valid

    def focal(logits: Tensor, known: Tensor) -> Tensor:
        return normalized_focal_loss(
            logits, batch.mask, known, alpha=part.alpha, gamma=part.gamma
        ).mean()

    total = focal(output.logits, valid)
    if part.auxiliary and output.auxiliary_logits is not None:
        pixels = functional.binary_cross_entropy_with_logits(
            output.auxiliary_logits.float(), batch.mask, reduction="none"
        )
        total = total + part.auxiliary * (pixels * valid).mean()
    terms = (
        (part.corrected, output.corrected, output.region),
        (part.updated, output.updated, None),
    )
    size = (batch.mask.shape[-2], batch.mask.shape[-1])
    for weight, prob, region in terms:
        if not weight or prob is None:
            continue
        if part.double_sigmoid:
            # as published: a probability where the loss expects logits, and only
            # pixels where the soft box is 1 to the last bit
            known = valid
            if region is not None:
                box = functional.interpolate(region, size, mode="nearest")
                known = valid & (box.long() == 1)
            term = focal(resize(prob, size), known)
        else:
            term = feedback_loss(prob, batch.mask, valid, region).mean()
        total = total + weight * term
    return total


def first_clicks(
    batch: WindowBatch, part: ClicksPart, generator: torch.Generator
) -> ClickSlots:
    """Draw the clicks a sample begins with (RITM's sampler).

    1 + K positive and K' negative clicks, P(K) ∝ decay^K below ``most_per_sign``.
    Positives are uniform in the object, eroded three times in ``erode_share`` of the
    samples if 10 pixels survive; negatives come from the background, other objects
    (the background where there are none) or a ring of ceil(0.1 √area) pixels.
    """
    device, count = batch.mask.device, batch.mask.shape[0]
    inside = batch.mask > 0.5
    outside = ~inside & batch.valid
    core = _core(inside, part.erode_share, generator)
    others = batch.others & outside
    others = torch.where(_any(others), others, outside)
    ring = _ring(inside) & outside
    ring = torch.where(_any(ring), ring, outside)
    clicks = ClickSlots(count, part.most_per_sign, device)
    first = core
    if part.first_at_centre:
        depths = depth(inside)
        first = depths > depths.amax(dim=(1, 2, 3), keepdim=True) / 1.7
    everywhere = torch.ones(count, dtype=torch.bool, device=device)
    clicks.add(pick(first, generator), everywhere, _any(inside).flatten())
    first_newest = clicks.newest
    shares = torch.tensor(
        [part.negative_background, part.negative_other_objects, part.negative_border],
        device=device,
    )
    for is_positive in (True, False):
        slots = part.most_per_sign - is_positive  # the first click has one
        weights = part.decay ** torch.arange(slots + 1, device=device)
        further = torch.multinomial(weights, count, True, generator=generator)
        sign = torch.full((count,), is_positive, device=device)
        for index in range(int(further.max())):
            region = core
            if not is_positive:
                kind = torch.multinomial(shares, count, True, generator=generator)
                kind = kind.view(-1, 1, 1, 1)
                region = torch.where(kind == 1, others, outside)
                region = torch.where(kind == 2, ring, region)
            present = (further > index) & _any(region).flatten()
            clicks.add(pick(region, generator), sign, present)
    # as published: the first forward's "new" click is the first positive one
    clicks.newest = first_newest
    return clicks


def _core(inside: Tensor, share: float, generator: torch.Generator) -> Tensor:
    eroded = -functional.max_pool2d(-inside.float(), 7, 1, 3) > 0.5
    enough = eroded.sum(dim=(1, 2, 3), keepdim=True) > 10
    count = (inside.shape[0], 1, 1, 1)
    chosen = torch.rand(count, generator=generator, device=inside.device) < share
    return torch.where(enough & chosen, eroded, inside)


def _ring(inside: Tensor) -> Tensor:
    rings = []
    for mask in inside:
        reach = math.ceil(0.1 * math.sqrt(float(mask.sum())))
        grown = functional.max_pool2d(mask[None].float(), 2 * reach + 1, 1, reach)
        rings.append((grown[0] > 0.5) & ~mask)
    return torch.stack(rings)


def _any(region: Tensor) -> Tensor:
    return region.flatten(1).any(dim=1).view(-1, 1, 1, 1)


SlotRule = Literal["from_end", "first_free"]

#: one pixel in the integers that ``chamfer_depth`` returns
UNIT = 10_000
_COSTS = {(0, 1): 10_000, (1, 1): 14_000, (1, 2): 21_969}
_STEPS = {
    (s * p, t * q): cost
    for (a, b), cost in _COSTS.items()
    for p, q in ((a, b), (b, a))
    for s, t in product((-1, 1), repeat=2)
}
_FAR = 1 << 30


def chamfer_depth(region: Tensor) -> Tensor:
    """Return each pixel's distance to the region's outside, in 1/``UNIT`` pixel.

    (B, 1, H, W) bool, beyond which is outside, to int32.
    """
    height, width = region.shape[-2:]
    padded = functional.pad(region, (2, 2, 2, 2))
    # the border of 1 px is outside; the second one only feeds the 5×5 steps
    distance = torch.where(padded, _FAR, 0).int()
    while True:
        before = distance
        for (dy, dx), cost in _STEPS.items():
            moved = torch.roll(distance, (dy, dx), dims=(-2, -1))
            distance = torch.minimum(distance, moved + cost)
        distance = torch.where(padded, distance, 0).int()
        if torch.equal(before, distance):
            return distance[..., 2 : 2 + height, 2 : 2 + width]


def click_region(
    prob: Tensor, target: Tensor, valid: Tensor, threshold: float = 0.49
) -> tuple[Tensor, Tensor]:
    """Return where the next click may fall and of which sign it is.

    (B, 1, H, W) bool, empty where there is no error; (B,) bool, True for positive.
    Missed is truth below the threshold, excess no truth above it.
    """
    truth = target > 0.5
    missed = chamfer_depth(truth & (prob < threshold) & valid)
    excess = chamfer_depth(~truth & (prob > threshold) & valid)
    dims = (1, 2, 3)
    positive = missed.amax(dims) > excess.amax(dims)
    depths = torch.where(positive.view(-1, 1, 1, 1), missed, excess)
    return 2 * depths > depths.amax(dims, keepdim=True), positive


def put_click(
    points: Tensor,
    yx: Tensor,
    positive: Tensor,
    present: Tensor,
    *,
    number: int,
    rule: SlotRule,
) -> Tensor:
    """Return the points with one more click per sample.

    Points are (B, 2N, 3) rows ``[y, x, order]``, positives first, −1 where unused;
    ``number`` is 1 for the first generated click of a step, and so on. ``from_end``
    (RITM, SimpleClick, FCFI) takes slot N − number of the sign, whatever was there,
    with that number as order; ``first_free`` (CFR-ICL) the first free slot, the last
    one if none is, numbered after all others.
    """
    slots = points.shape[1] // 2
    rows = torch.arange(points.shape[0], device=points.device)
    halves = points.view(-1, 2, slots, 3)
    sign = (~positive).long()
    if rule == "from_end":
        slot = torch.full_like(sign, max(slots - number, 0))
        order = torch.full_like(yx[:, 0], float(number))
    else:
        # an unused slot is −1 in y; argmax takes the first
        free = halves[rows, sign, :, 0] < 0
        slot = torch.where(free.any(1), free.int().argmax(1), slots - 1)
        order = points[:, :, 2].amax(1) + 1
    click = torch.cat([yx, order[:, None]], dim=1)
    result = halves.clone()
    kept = halves[rows, sign, slot]
    result[rows, sign, slot] = torch.where(present[:, None], click, kept)
    return result.view_as(points)
