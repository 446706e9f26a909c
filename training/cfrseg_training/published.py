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

import torch
from torch import Tensor, nn
from torch.nn import functional

from cfrseg_training.atlas import WindowBatch
from cfrseg_training.click_sampling import ClickSlots, depth, pick
from cfrseg_training.losses import feedback_loss, normalized_focal_loss
from cfrseg_training.published_clicks import click_region, put_click
from cfrseg_training.recipe import ClicksPart, LossPart, Recipe
from napari_cfrseg.model.convolutions import resize
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput


def optimiser_of(network: nn.Module, recipe: Recipe) -> torch.optim.Adam:
    """Return the recipe's Adam; each parameter has the longest fitting name's rate.

    Raises
    ------
    ValueError
        If a name under ``[optimiser.scale]`` fits no parameter.
    """
    part = recipe.optimiser
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in ("", *part.scale)}
    for key, parameter in network.named_parameters():
        fitting = [n for n in part.scale if f"{key}.".startswith(f"{n}.")]
        groups[max(fitting, key=len, default="")].append(parameter)
    if idle := [name for name, members in groups.items() if name and not members]:
        msg = f"[optimiser.scale]: the network has no {', '.join(idle)}"
        raise ValueError(msg)
    return torch.optim.Adam(
        [
            {
                "params": members,
                "lr": part.learning_rate * part.scale.get(name, 1.0),
            }
            for name, members in groups.items()
            if members
        ],
        betas=part.betas,
        eps=part.eps,
        weight_decay=part.weight_decay,
    )


def schedule_of(
    optimiser: torch.optim.Optimizer, recipe: Recipe
) -> torch.optim.lr_scheduler.MultiStepLR:
    """Return the recipe's schedule; step it once per epoch."""
    part = recipe.schedule
    return torch.optim.lr_scheduler.MultiStepLR(
        optimiser, list(part.milestones), part.factor
    )


def published_step(
    network: ClickNetwork,
    batch: WindowBatch,
    recipe: Recipe,
    generator: torch.Generator,
    host: torch.Generator,
) -> Tensor:
    """Return the loss of one step, a scalar with gradient.

    Parameters
    ----------
    network
        Left in training mode.
    batch
        Windows whose clicks are drawn here.
    recipe
        Whose clicks, iteration and loss to use.
    generator
        Of the batch's device, for the clicks.
    host
        Of the CPU, for the number of forwards (equal over the batch, as published).
    """
    iteration = recipe.iteration
    spread = iteration.most - iteration.fewest + 1
    count = iteration.fewest + int(torch.randint(spread, (), generator=host))
    clicks = first_clicks(batch, recipe.clicks, generator)
    feedback: Tensor | None = None
    if iteration.scheme == "ritm":
        network.eval()
        with torch.no_grad():
            for number in range(1, count + 1):
                output = _forward(network, batch, clicks, feedback)
                feedback = _click_the_error(
                    output, batch, recipe, clicks, generator, number=number
                )
        network.train()
        return output_loss(
            _forward(network, batch, clicks, feedback), batch, recipe.loss
        )
    network.train()
    total = batch.image.new_zeros(())
    for number, weight in enumerate(iteration.weights[: max(count, 1)], start=1):
        output = _forward(network, batch, clicks, feedback)
        total = total + weight * output_loss(output, batch, recipe.loss)
        feedback = _click_the_error(
            output, batch, recipe, clicks, generator, number=number
        )
    return total


def _forward(
    network: ClickNetwork,
    batch: WindowBatch,
    clicks: ClickSlots,
    feedback: Tensor | None,
) -> NetworkOutput:
    output: NetworkOutput = network(batch.image, clicks.points, feedback, clicks.newest)
    return output


def _click_the_error(
    output: NetworkOutput,
    batch: WindowBatch,
    recipe: Recipe,
    clicks: ClickSlots,
    generator: torch.Generator,
    *,
    number: int,
) -> Tensor:
    """Add each sample's next click; return the mask it corrects, without gradient."""
    prob = torch.sigmoid(output.logits.detach().float())
    region, positive = click_region(
        prob, batch.mask, batch.valid, recipe.clicks.threshold
    )
    present = _any(region).flatten()
    yx = pick(region, generator)
    clicks.points = put_click(
        clicks.points,
        yx,
        positive,
        present,
        number=number,
        rule=recipe.iteration.slot,
    )
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
    clicks.add(
        pick(first, generator),
        torch.ones(count, dtype=torch.bool, device=device),
        _any(inside).flatten(),
    )
    first_newest = clicks.newest
    shares = torch.tensor(
        [part.negative_background, part.negative_other_objects, part.negative_border],
        device=device,
    )
    for is_positive in (True, False):
        further = _geometric(part, count, generator, device, spare=is_positive)
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


def _geometric(
    part: ClicksPart,
    count: int,
    generator: torch.Generator,
    device: torch.device,
    *,
    spare: bool,
) -> Tensor:
    """(B,) K with P(K) ∝ decay^K; one slot fewer where the first click has one."""
    values = part.most_per_sign - 1 if spare else part.most_per_sign
    weights = part.decay ** torch.arange(values + 1, device=device)
    return torch.multinomial(weights, count, True, generator=generator)


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
