"""Clicks of a training batch, drawn on its device.

Initial clicks follow RITM's sampler in kind (positives inside, negatives on the border,
on other objects or on the background, geometric counts); further clicks fall in the
largest error. Depth inside an error region is the number of 3×3 erosions a pixel
survives, the chessboard distance to the outside: on a GPU by eroding.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from cfrseg_training.loop.atlas import WindowBatch
from napari_cfrseg.geometry.windows import mask_box, slices

#: further clicks at a sample's beginning: at most, and the probability of each next one
MOST_EXTRA, NEXT_SHARE = 6, 0.7
#: share of next clicks on the deepest pixel
CENTRED = 0.4
#: erosions counted at most; deeper pixels are equally deep
DEPTH_LIMIT = 48


class ClickSlots:
    """The clicks of a batch, as (B, 2N, 3) rows ``[y, x, order]``.

    Clicks beyond N (``slots``) of one sign replace that sign's last.
    """

    def __init__(self, batch: int, slots: int, device: torch.device) -> None:
        self.slots = slots
        self.points = torch.full((batch, 2 * slots, 3), -1.0, device=device)
        self.used = torch.zeros(batch, 2, dtype=torch.long, device=device)
        self.newest = torch.full((batch, 3), -1.0, device=device)
        self._rows = torch.arange(batch, device=device)

    def add(self, yx: Tensor, positive: Tensor, present: Tensor) -> None:
        """Add a click at (B, 2) float ``yx`` where ``present``; both flags are (B,)."""
        sign = (~positive).long()
        slot = self.used[self._rows, sign].clamp(max=self.slots - 1)
        row = sign * self.slots + slot
        order = self.used.sum(dim=1, keepdim=True).to(yx.dtype)
        new = torch.cat([yx, order], dim=1)
        kept = self.points[self._rows, row]
        self.points[self._rows, row] = torch.where(present[:, None], new, kept)
        self.used[self._rows, sign] += present.long()
        label = torch.where(present, positive.to(yx.dtype), -torch.ones_like(yx[:, 0]))
        self.newest = torch.cat([yx, label[:, None]], dim=1)


def depth(region: Tensor) -> Tensor:
    """Return how deep each pixel of a (B, 1, H, W) bool region lies in it.

    Float: 0 outside and beyond the window, 1 on the rim, ``DEPTH_LIMIT`` at most.
    """
    if region.device.type == "cpu":
        return _depth_by_transform(region)
    inside = functional.pad(region.to(torch.float32), (1, 1, 1, 1))
    total = inside.clone()
    for _ in range(DEPTH_LIMIT - 1):
        inside = 1 - functional.max_pool2d(1 - inside, 3, 1, 1)
        total += inside
    return total[..., 1:-1, 1:-1]


def _depth_by_transform(region: Tensor) -> Tensor:
    """Return ``depth`` of a region on the CPU, by its bounding box."""
    out = torch.zeros(region.shape)
    for sample in range(region.shape[0]):
        mask = region[sample, 0].numpy()
        found = mask_box(mask)
        if found is None:
            continue
        box = slices(found)
        padded = np.pad(mask[box], 1)
        distance = ndimage.distance_transform_cdt(padded, "chessboard")[1:-1, 1:-1]
        deep = np.minimum(distance, DEPTH_LIMIT).astype(np.float32)
        out[sample, 0][box] = torch.from_numpy(deep)
    return out


def pick(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Draw (B, 2) float (y, x) uniformly where (B, 1, H, W) ``weight`` is positive.

    Where it is positive nowhere, any pixel is drawn.
    """
    noise = torch.rand(weight.shape, generator=generator, device=weight.device)
    index = (weight * (noise + 1)).flatten(1).argmax(dim=1)
    width = weight.shape[-1]
    return torch.stack([index // width, index % width], dim=1).float()


def initial_clicks(
    windows: WindowBatch,
    generator: torch.Generator,
    *,
    slots: int = 12,
    extra: float = 0.4,
) -> ClickSlots:
    """Place the first click and, in ``extra`` of the samples, several more.

    Where the windows' first click misses the mask a pixel of the mask is drawn. Half of
    the samples with clicks that a person made get the first few of those.
    """
    mask, others, valid = windows.mask, windows.others, windows.valid
    batch, device = mask.shape[0], mask.device

    def chance() -> Tensor:
        return torch.rand(batch, generator=generator, device=device)

    inside = mask > 0.5
    height, width = mask.shape[-2:]
    first_click = windows.first_click
    pixel = first_click.round().long()
    on_grid = (pixel >= 0).all(1) & (pixel[:, 0] < height) & (pixel[:, 1] < width)
    y, x = pixel[:, 0].clamp(0, height - 1), pixel[:, 1].clamp(0, width - 1)
    hit = on_grid & inside[torch.arange(batch, device=device), 0, y, x]
    first = torch.where(hit[:, None], first_click, pick(inside, generator))
    clicks = ClickSlots(batch, slots, device)
    everywhere = torch.ones(batch, dtype=torch.bool, device=device)
    clicks.add(first, everywhere, inside.flatten(1).any(1))
    first_newest = clicks.newest
    core = depth(inside) > 2.5
    core = torch.where(core.flatten(1).any(1).view(-1, 1, 1, 1), core, inside)
    reach = max(3, int(0.06 * height)) | 1
    near = functional.max_pool2d(mask, 2 * reach + 1, 1, reach) > 0.5
    border = near & ~inside & valid
    background = ~inside & valid
    going = chance() < extra
    for _ in range(MOST_EXTRA):
        positive = chance() < 0.5
        kind = chance()
        negative_region = torch.where(
            (kind < 0.5).view(-1, 1, 1, 1),
            border,
            torch.where((kind < 0.9).view(-1, 1, 1, 1), others, background),
        )
        region = torch.where(positive.view(-1, 1, 1, 1), core, negative_region)
        present = going & region.flatten(1).any(1)
        kept = clicks.newest
        clicks.add(pick(region, generator), positive, present)
        clicks.newest = torch.where(present[:, None], clicks.newest, kept)
        going = going & (chance() < NEXT_SHARE)
    clicks.newest = torch.where((clicks.newest[:, 2:] < 0), first_newest, clicks.newest)
    if windows.real is not None:
        _replace_by_real(clicks, windows.real, (height, width), generator)
    return clicks


def _replace_by_real(
    clicks: ClickSlots, real: Tensor, size: tuple[int, int], generator: torch.Generator
) -> None:
    """Give some samples the first few of a person's clicks instead of drawn ones."""
    batch, most = real.shape[:2]
    limits = torch.tensor(size, device=real.device) - 0.5
    on_grid = ((real[..., :2] > -0.5) & (real[..., :2] < limits)).all(2)
    there = on_grid & (real[..., 2] >= 0)
    chance = torch.rand(2, batch, generator=generator, device=real.device)
    count = 1 + (chance[1] * (real[..., 2] >= 0).sum(1)).long()
    chosen = (chance[0] < 0.5) & there[:, 0] & (real[:, 0, 2] > 0.5)
    theirs = ClickSlots(batch, clicks.slots, real.device)
    for index in range(most):
        present = there[:, index] & (index < count)
        kept = theirs.newest
        theirs.add(real[:, index, :2], real[:, index, 2] > 0.5, present)
        theirs.newest = torch.where(present[:, None], theirs.newest, kept)
    clicks.points = torch.where(chosen[:, None, None], theirs.points, clicks.points)
    clicks.used = torch.where(chosen[:, None], theirs.used, clicks.used)
    clicks.newest = torch.where(chosen[:, None], theirs.newest, clicks.newest)


def next_click(
    prob: Tensor, target: Tensor, valid: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a click in the deepest error of a mask.

    Some clicks are on the deepest pixel, the others uniform where the depth is above
    half the largest. Without a generator it is always the deepest pixel (the robot
    user). Returns (B, 2) float (y, x); (B,) bool positive; (B,) bool whether there is
    an error.
    """
    truth = target > 0.5
    mask = prob > 0.5
    missed = depth(truth & ~mask & valid)
    excess = depth(~truth & mask & valid)
    missed_max = missed.amax(dim=(1, 2, 3))
    excess_max = excess.amax(dim=(1, 2, 3))
    positive = missed_max > excess_max
    depths = torch.where(positive.view(-1, 1, 1, 1), missed, excess)
    largest = torch.maximum(missed_max, excess_max).view(-1, 1, 1, 1)
    if generator is None:
        region = depths >= largest
        generator = torch.Generator(prob.device).manual_seed(0)
    else:
        exact = torch.rand(len(prob), generator=generator, device=prob.device) < CENTRED
        share = torch.where(exact, 0.999, 0.5).view(-1, 1, 1, 1)
        region = depths > largest * share
    return pick(region, generator), positive, largest.flatten() > 0
