r"""One training step: clicks placed in rounds, every round's mask trained (ICL).

.. math::  L = \sum_{i=0}^{t-1} β_i \, NFL(Y^i, Y), \quad β = 1, 2, 3

Y⁰ is the mask of the initial clicks, Y^i that after i further clicks in the largest
errors (CFR-ICL, section 3.2, counted as in its published code). The mask fed back is
detached; gradients flow through every term. FCFI's terms on the corrected (M^r) and
the updated (M^u) feedback join in each round. All rounds share one ``embed_image``.

NFL is RITM's normalised focal loss: with p the sigmoid of the logits, y the target
and N the number of valid pixels of the image,

.. math::

    p_t = 1 - |y - p|, \quad β = (1 - p_t)^γ, \quad
    L = - \frac{1}{N} \sum_{valid} α_y\, β\, \frac{N}{\sum β}\, \log p_t

where N / Σβ is detached, one number per image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cfrseg_training.loop.atlas import WindowBatch
from cfrseg_training.loop.click_sampling import ClickSlots, initial_clicks, next_click
from napari_cfrseg.model.cfrnet import CfrNet
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput


@dataclass(frozen=True, slots=True)
class RoundsConfig:
    """How a step is made up."""

    weights: tuple[float, ...] = (1.0, 2.0, 3.0)  #: β: one round per weight
    #: share of rounds that feed their mask back once more with no new click, as the
    #: cascade does
    refined: float = 0.4
    #: share of samples that begin with a mask (an imported label, a neighbouring
    #: plane): the truth, displaced and roughened
    started: float = 0.12
    feedback_weight: float = 0.2  #: of FCFI's terms
    iou_weight: float = 0.5  #: of 1 − soft IoU
    quality_weight: float = 0.3  #: of the expected-IoU output
    #: of the cross entropy of RITM's second output (published: 0.4)
    auxiliary_weight: float = 0.4
    #: up to this many rounds without gradient come first (each number as likely), so
    #: that the late clicks of a long correction are trained, too; RITM's scheme
    earlier: int = 0
    slots: int = 12  #: click slots of each sign


@dataclass(slots=True)
class StepResult:
    """Loss to descend (a scalar) and each round's mean IoU, still on the device."""

    loss: Tensor
    iou: list[Tensor] = field(default_factory=list)


def rough_mask(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Displace, swell or shrink and smooth masks, as a neighbouring plane would.

    (B, 1, H, W) float, 0 or 1, to float in [0, 1].
    """
    batch, device = mask.shape[0], mask.device

    def spread(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device) * 2 - 1

    theta = torch.zeros(batch, 2, 3, device=device)
    theta[:, 0, 0] = torch.exp(0.25 * spread())
    theta[:, 1, 1] = torch.exp(0.25 * spread())
    theta[:, :, 2] = 0.12 * spread(2)
    grid = functional.affine_grid(theta, list(mask.shape), align_corners=False)
    waves = 0.08 * spread(2, 8, 8)
    waves = functional.interpolate(waves, mask.shape[-2:], mode="bicubic")
    grid = grid + waves.permute(0, 2, 3, 1)
    return functional.grid_sample(mask, grid, align_corners=False).clamp(0, 1)


def train_step(
    network: ClickNetwork,
    batch: WindowBatch,
    config: RoundsConfig,
    generator: torch.Generator,
    host: torch.Generator,
) -> StepResult:
    """Run all rounds of one batch with a network in training mode.

    Only ``CfrNet`` takes batches in which some samples start with a mask; other
    networks start from none. The generators are of chance on the device (pixels) and on
    the host (which rounds are refined).
    """
    device = batch.image.device
    clicks = initial_clicks(batch, generator, slots=config.slots)
    embedding = network.embed_image(batch.image)
    refine, feedback = _starting(network, batch, config, generator)
    earlier = int(torch.randint(config.earlier + 1, (), generator=host))
    with torch.no_grad():
        for _ in range(earlier):
            features = network.embed_clicks(embedding, clicks.points)
            out = refine(features, feedback, clicks.newest)
            feedback = torch.sigmoid(out.logits.float())
            clicks.add(*next_click(feedback, batch.mask, batch.valid, generator))
            refine = network.refine
    total = torch.zeros((), device=device)
    result = StepResult(total)
    for index, weight in enumerate(config.weights):
        features = network.embed_clicks(embedding, clicks.points)
        out = refine(features, feedback, clicks.newest)
        loss = _round_loss(out, batch, config)
        total = total + weight * loss
        prob = torch.sigmoid(out.logits.detach().float())
        result.iou.append(mask_iou(prob > 0.5, batch.mask, batch.valid).mean())
        refine = network.refine
        if float(torch.rand((), generator=host)) < config.refined:
            out = refine(features, prob, clicks.newest)
            loss = _round_loss(out, batch, config)
            total = total + 0.5 * weight * loss
            prob = torch.sigmoid(out.logits.detach().float())
        feedback = prob
        if index + 1 < len(config.weights):
            clicks.add(*next_click(prob, batch.mask, batch.valid, generator))
    result.loss = total / sum(config.weights)
    return result


Refine = Callable[[Any, Tensor | None, Tensor], NetworkOutput]


def _starting(
    network: ClickNetwork,
    batch: WindowBatch,
    config: RoundsConfig,
    generator: torch.Generator,
) -> tuple[Refine, Tensor | None]:
    """Return the first round's ``refine`` and the masks it starts from."""
    if not isinstance(network, CfrNet):
        return network.refine, None
    device, count = batch.image.device, batch.image.shape[0]
    started = torch.rand(count, generator=generator, device=device) < config.started
    gate = started.float().view(-1, 1, 1, 1)
    return partial(network.refine, gate=gate), rough_mask(batch.mask, generator) * gate


def _round_loss(out: NetworkOutput, batch: WindowBatch, config: RoundsConfig) -> Tensor:
    loss = normalized_focal_loss(out.logits, batch.mask, batch.valid)
    if config.iou_weight:
        overlap = soft_iou(out.logits, batch.mask, batch.valid)
        loss = loss + config.iou_weight * (1 - overlap)
    if out.corrected is not None and out.updated is not None:
        terms = feedback_loss(out.corrected, batch.mask, batch.valid, out.region)
        terms = terms + feedback_loss(out.updated, batch.mask, batch.valid)
        loss = loss + config.feedback_weight * terms
    entropy = functional.binary_cross_entropy_with_logits
    if out.quality_logits is not None:
        reached = mask_iou(out.logits.detach() > 0, batch.mask, batch.valid)
        wrong = entropy(out.quality_logits.float(), reached, reduction="none")
        loss = loss + config.quality_weight * wrong
    if out.auxiliary_logits is not None:
        logits, valid = out.auxiliary_logits.float(), batch.valid.float()
        second = entropy(logits, batch.mask, weight=valid)
        loss = loss + config.auxiliary_weight * second
    return loss.mean()


@torch.no_grad()
def clicks_to_reach(
    network: ClickNetwork,
    batch: WindowBatch,
    *,
    rounds: int = 10,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """Let the robot click; return the (B, rounds) IoU after every click.

    A quick measure during training, in windows laid around the truth: the product's
    own evaluation (whole images, automatic focus) is ``cfrseg evaluate``.
    """
    device = batch.image.device
    clicks = ClickSlots(batch.image.shape[0], rounds + 1, device)
    clicks.add(*next_click(torch.zeros_like(batch.mask), batch.mask, batch.valid, None))
    reached = []
    feedback: Tensor | None = None
    with torch.autocast(device.type, autocast, enabled=autocast is not None):
        embedding = network.embed_image(batch.image)
        for _ in range(rounds):
            features = network.embed_clicks(embedding, clicks.points)
            out = network.refine(features, feedback, clicks.newest)
            feedback = torch.sigmoid(out.logits.float())
            reached.append(mask_iou(feedback > 0.5, batch.mask, batch.valid))
            clicks.add(*next_click(feedback, batch.mask, batch.valid, None))
    return torch.stack(reached, dim=1)


def summary(reached: torch.Tensor) -> dict[str, float]:
    """Mean clicks and IoU of (B, rounds) IoUs; never reached counts as rounds."""
    rounds = reached.shape[1]
    out = {}
    for target in (0.85, 0.90):
        hit = reached >= target
        first = torch.where(hit.any(1), hit.float().argmax(1) + 1, rounds)
        out[f"noc{round(100 * target)}"] = float(first.float().mean())
    for n in (1, 3, 5):
        out[f"iou{n}"] = float(reached[:, min(n, rounds) - 1].mean())
    return out


EPS = 1e-12


def normalized_focal_loss(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    *,
    alpha: float = 0.5,
    gamma: float = 2.0,
) -> Tensor:
    """Focal loss scaled so that each image's focal weights sum to its pixel count.

    Logits, target (in [0, 1]) and ``valid`` (bool, the pixels that count; by default
    all) are (B, 1, H, W). ``alpha`` is α of the object's pixels (1 − α of the others),
    ``gamma`` the focusing exponent: 0.5 and 2 in all published trainings. Returns (B,)
    float32, the loss per image; 0 for one with no valid pixel.
    """
    logits = logits.float()
    weight = torch.ones_like(logits) if valid is None else valid.float()
    closeness = 1 - (target - torch.sigmoid(logits)).abs()
    closeness = torch.where(weight > 0, closeness, torch.ones_like(closeness))
    focus = (1 - closeness) ** gamma
    dims = (1, 2, 3)
    count = weight.sum(dims, keepdim=True)
    normaliser = (count / (focus.sum(dims, keepdim=True) + EPS)).detach()
    side = torch.where(target > 0.5, alpha, 1 - alpha)
    loss = -side * focus * normaliser * (closeness + EPS).clamp(max=1).log() * weight
    return loss.sum(dims) / (count.flatten() + EPS)


def feedback_loss(
    prob: Tensor, target: Tensor, valid: Tensor, region: Tensor | None = None
) -> Tensor:
    """NFL on a feedback that is a probability already (FCFI's M^r and M^u).

    It is turned back into a logit first; the published code does not, so it meets a
    second sigmoid and never leaves [0.5, 0.73]. Returns (B,) float32. ``prob`` is (B,
    1, h, w) in [0, 1]; ``target`` and ``valid`` are (B, 1, H, W), brought to (h, w) by
    area. Of ``region``, (B, 1, h, w) float, only cells of (nearly) 1 count: the inside
    of FFCM's box for M^r.
    """
    size = prob.shape[-2:]
    small = functional.interpolate(target, size=size, mode="area")
    known = functional.interpolate(valid.float(), size=size, mode="area") > 0.5
    if region is not None:
        known = known & (region > 0.99)
    return normalized_focal_loss(torch.logit(prob.float(), eps=1e-4), small, known)


def soft_iou(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return (B,) the IoU of sigmoid(logits) with the target over valid pixels."""
    prob = torch.sigmoid(logits.float()) * valid
    target = target * valid
    dims = (1, 2, 3)
    overlap = (prob * target).sum(dims)
    return (overlap + 1) / (prob.sum(dims) + target.sum(dims) - overlap + 1)


def mask_iou(mask: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return (B,) float IoU of boolean masks over valid pixels; 1 if both are empty."""
    dims = (1, 2, 3)
    truth = target > 0.5
    overlap = (mask & truth & valid).sum(dims).float()
    union = ((mask | truth) & valid).sum(dims).float()
    return torch.where(union > 0, overlap / union.clamp(min=1), torch.ones_like(union))
