"""Where the published training code puts its next click.

The error is the missed or the excess part of the mask cut at 0.49, whichever is
deeper (tie: excess); the click is uniform where the depth is above half the largest.
Depth is OpenCV's distance transform with the 5×5 mask: the cheapest path of steps
1, 1.4 and 2.1969, here in exact decimals.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

SlotRule = Literal["from_end", "first_free"]

#: one pixel in the integers that ``chamfer_depth`` returns
UNIT = 10_000
_STEPS = {(0, 1): 10_000, (1, 1): 14_000, (1, 2): 21_969}
_FAR = 1 << 30


def chamfer_depth(region: Tensor) -> Tensor:
    """Return each pixel's distance to the region's outside.

    Parameters
    ----------
    region
        (B, 1, H, W) bool; beyond the image is outside.

    Returns
    -------
    (B, 1, H, W) int32, in units of 1/``UNIT`` pixel.
    """
    height, width = region.shape[-2:]
    padded = functional.pad(region, (2, 2, 2, 2))
    # the border of 1 px is outside; the second one only feeds the 5×5 steps
    distance = torch.where(padded, _FAR, 0).int()
    while True:
        before = distance
        for (a, b), cost in _STEPS.items():
            for dy, dx in _directions(a, b):
                moved = torch.roll(distance, (dy, dx), dims=(-2, -1))
                distance = torch.minimum(distance, moved + cost)
        distance = torch.where(padded, distance, 0).int()
        if torch.equal(before, distance):
            return distance[..., 2 : 2 + height, 2 : 2 + width]


def _directions(a: int, b: int) -> set[tuple[int, int]]:
    return {
        (s * p, t * q) for p, q in ((a, b), (b, a)) for s in (-1, 1) for t in (-1, 1)
    }


def click_region(
    prob: Tensor, target: Tensor, valid: Tensor, threshold: float = 0.49
) -> tuple[Tensor, Tensor]:
    """Return where the next click may fall and of which sign it is.

    Parameters
    ----------
    prob, target, valid
        (B, 1, H, W): probability, truth and known pixels.
    threshold
        Missed: truth below it; excess: no truth above it.

    Returns
    -------
    (B, 1, H, W) bool, empty where there is no error; (B,) bool, True for positive.
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

    Parameters
    ----------
    points
        (B, 2N, 3) rows ``[y, x, order]``, positives first, −1 where unused.
    yx, positive, present
        (B, 2) float, (B,) bool, (B,) bool.
    number
        1 for the first generated click of a step, and so on.
    rule
        ``from_end`` (RITM, SimpleClick, FCFI): slot N − number of the sign, whatever
        stood there, with that number as order. ``first_free`` (CFR-ICL): the first
        free slot, the last one if none is, numbered after all others.
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
