r"""Losses on masks: normalised focal loss (RITM), FCFI's feedback terms.

.. math::

    p_t = 1 - |y - p|, \quad β = (1 - p_t)^γ, \quad
    L = - \frac{1}{N} \sum_{valid} α_y\, β\, \frac{N}{\sum β}\, \log p_t

==========  ==================================================================
symbol      here
==========  ==================================================================
p           ``prob``, the sigmoid of the logits
y           ``target``, 0, 1 or anything between
N           number of valid pixels of the image
N / Σβ      the normaliser, detached, one number per image
==========  ==================================================================
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from napari_cfrseg.model.blocks.clickmaps import click_distance

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

    Parameters
    ----------
    logits
        (B, 1, H, W) float.
    target
        (B, 1, H, W) float in [0, 1]; soft labels are allowed.
    valid
        (B, 1, H, W) bool; other pixels count nowhere. By default all.
    alpha, gamma
        α of the object's pixels (1 − α of the others) and the focusing exponent;
        0.5 and 2 in all published trainings.

    Returns
    -------
    (B,) float32 loss per image; an image with no valid pixel has loss 0.
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
    prob: Tensor,
    target: Tensor,
    valid: Tensor,
    region: Tensor | None = None,
) -> Tensor:
    """NFL on a feedback that is a probability already (FCFI's M^r and M^u).

    The published code passes probabilities where the loss expects logits, so they
    meet a second sigmoid and never leave [0.5, 0.73]. Here the probability is turned
    back into a logit first.

    Parameters
    ----------
    prob
        (B, 1, h, w) float in [0, 1].
    target, valid
        (B, 1, H, W) float and bool on the window's grid; brought to (h, w) by area.
    region
        (B, 1, h, w) float: only cells where it is (nearly) 1 count, the inside of
        FFCM's box for M^r. By default all.

    Returns
    -------
    (B,) float32.
    """
    size = prob.shape[-2:]
    small = functional.interpolate(target, size=size, mode="area")
    known = functional.interpolate(valid.float(), size=size, mode="area") > 0.5
    if region is not None:
        known = known & (region > 0.99)
    return normalized_focal_loss(torch.logit(prob.float(), eps=1e-4), small, known)


def error_left(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    before: Tensor,
    newest_click: Tensor,
) -> Tensor:
    r"""Return the share of a mask's error that a click leaves.

    .. math::  L = \frac{\sum w |p - y|}{\sum w |M - y| + 0.04 \sum y + 8},
               \quad w = 1 + 2 e^{-|x - c|^2 / 2σ^2}

    with M the mask before the click at c and σ 12 cells. An IoU of 88 % leaves any
    other loss little to gain, and what a late click repairs on one side is easily lost
    on another: here every click has to repair the same share of the remaining error,
    most of all in its neighbourhood. Not part of either paper.

    Parameters
    ----------
    logits, target, valid
        (B, 1, H, W): the new mask, the truth in [0, 1], known pixels (bool).
    before
        (B, 1, H, W) float in [0, 1], the mask the click corrects.
    newest_click
        (B, 3) float rows ``[y, x, label]`` in cells.

    Returns
    -------
    (B,) float32.
    """
    prob = torch.sigmoid(logits.float())
    size = (prob.shape[-2], prob.shape[-1])
    distance = click_distance(newest_click.float(), size)
    bell = torch.exp(-0.5 * (distance / 12) ** 2)
    weight = valid * (1 + 2 * bell)
    dims = (1, 2, 3)
    was = (weight * ((before > 0.5).float() - target).abs()).sum(dims)
    floor = 0.04 * (valid * target).sum(dims) + 8
    return (weight * (prob - target).abs()).sum(dims) / (was + floor)


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
