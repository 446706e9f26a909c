"""Maps drawn from clicks: disks, distances, and the box about the newest click.

Disks are the encoding that all four published networks read: a pixel (y, x) of the
positive (negative) map is 1 where some positive (negative) click (c_y, c_x) has
(y − c_y)² + (x − c_x)² ≤ r², r = 5 px on the network's grid. Centres may be fractional
or off the grid (RITM's float variant; CFR-ICL and FCFI use the same).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

ParamsT = ParamSpec("ParamsT")
MapsT = TypeVar("MapsT")

#: with more clicks of one sign, a CPU keeps the maps and adds what is new
MANY_CLICKS = 64


def disk_maps(points: Tensor, size: tuple[int, int], radius: float = 5.0) -> Tensor:
    """Draw clicks as disks: (B, 2, H, W) float 0/1, positive, then negative clicks.

    ``points`` are (B, 2N, 3) float rows ``[y, x, order]`` on the grid, N positive
    slots, then N negative ones, else ValueError. A slot is empty when max(y, x) < 0 (so
    a click at y = −0.4, x = 10 counts, as published); ``order`` is not read. ``size``
    is (H, W), ``radius`` in grid pixels (published: 5). The (2⌈r⌉ + 1)² pixels around
    each click are visited, without a host synchronisation.
    """
    if points.ndim != 3 or points.shape[1] % 2 or points.shape[2] < 2:
        raise ValueError(f"points must be (B, 2N, 3), got {tuple(points.shape)}")
    centres = points[..., :2].reshape(points.shape[0], 2, -1, 2)  # B 2 N (y, x)
    on_cpu = torch.is_inference_mode_enabled() and centres.device.type == "cpu"
    if on_cpu and centres.shape[2] > MANY_CLICKS:
        return _more_disks(centres, size, radius)
    return _all_disks(centres, size, radius)


def _all_disks(centres: Tensor, size: tuple[int, int], radius: float) -> Tensor:
    """Draw (B, 2, N, 2) centres as :func:`disk_maps` does."""
    height, width = size
    reach = math.ceil(radius)
    offsets = torch.arange(-reach, reach + 1, device=centres.device)
    nearest = centres.round().long()
    ys = nearest[..., 0, None] + offsets  # B 2 N K
    xs = nearest[..., 1, None] + offsets
    dy2 = (ys - centres[..., 0, None]).square()
    dx2 = (xs - centres[..., 1, None]).square()
    inside = dy2[..., :, None] + dx2[..., None, :] <= radius**2  # B 2 N K K
    inside &= ((ys >= 0) & (ys < height))[..., :, None]
    inside &= ((xs >= 0) & (xs < width))[..., None, :]
    inside &= (centres.amax(dim=-1) >= 0)[..., None, None]
    index = ys[..., :, None] * width + xs[..., None, :]
    # one spare cell past the plane takes the pixels that are in no disk
    index = torch.where(inside, index, height * width).flatten(2)
    maps = centres.new_zeros(centres.shape[0], 2, height * width + 1)
    maps.scatter_(2, index, 1.0)
    return maps[..., :-1].reshape(-1, 2, height, width)


#: what ``_more_disks`` drew last: settings, centres and maps of a few objects
_drawn: deque[tuple[object, list[Tensor], Tensor]] = deque(maxlen=4)


def _more_disks(centres: Tensor, size: tuple[int, int], radius: float) -> Tensor:
    """Draw (B, 2, N, 2) centres, of which all but the last were often drawn before."""
    settings = (centres.shape[0], size, radius, centres.dtype)
    signs = [one[one.amax(dim=-1) >= 0] for one in centres.flatten(0, 1)]
    for known, old, maps in reversed(tuple(_drawn)):
        pairs = list(zip(signs, old, strict=False))
        if known == settings and all(torch.equal(a[: len(b)], b) for a, b in pairs):
            new = [sign[len(before) :] for sign, before in pairs]
            rows = pad_sequence(new, batch_first=True, padding_value=-1.0)
            added = _all_disks(rows.view(-1, 2, *rows.shape[1:]), size, radius)
            maps = torch.maximum(maps, added)
            break
    else:
        maps = _all_disks(centres, size, radius)
    _drawn.append((settings, signs, maps))
    return maps


def click_distance(click: Tensor, size: tuple[int, int], stride: int = 1) -> Tensor:
    """Return how far each position's centre lies from a click, in cells.

    ``click`` holds (B, 2 or more) float rows that begin with ``y, x`` in cells,
    ``size`` is the grid's (H, W) in cells, ``stride`` the cells per position: (B, 1, H
    / stride, W / stride) float.
    """
    rows, columns = (
        torch.arange(n // stride, device=click.device) * stride + (stride - 1) / 2
        for n in size
    )
    dy = rows[None, :] - click[:, 0, None]
    dx = columns[None, :] - click[:, 1, None]
    return torch.sqrt(dy[:, :, None] ** 2 + dx[:, None, :] ** 2)[:, None]


def once_per_click(
    compute: Callable[Concatenate[Tensor, ParamsT], MapsT],
) -> Callable[Concatenate[Tensor, ParamsT], MapsT]:
    """Compute once per click what depends on that click alone.

    Wraps a function of (B, 3) newest clicks and hashable settings. Its results are
    kept where asking for a click's numbers is free: in inference on a CPU.
    """

    @lru_cache(maxsize=16)
    def known(rows: tuple[Any, ...], *args: Any, **settings: Any) -> Any:
        return compute(torch.tensor(rows), *args, **settings)

    @wraps(compute)
    def shared(
        newest_click: Tensor, /, *args: ParamsT.args, **settings: ParamsT.kwargs
    ) -> MapsT:
        if torch.is_inference_mode_enabled() and newest_click.device.type == "cpu":
            rows = tuple(map(tuple, newest_click.tolist()))
            maps: MapsT = known(rows, *args, **settings)  # type: ignore[arg-type]  # they are hashable
            return maps
        return compute(newest_click, *args, **settings)

    return shared


#: steepness of the soft box's edges in 1 / feature cell (published code)
EDGE_STEEPNESS = 10.0


def correction_box(
    newest_click: Tensor,
    input_size: tuple[int, int],
    feature_size: tuple[int, int],
    ratio: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the box about each newest click in cells of the feature map.

    Half sides are ``int(ratio · side / 2 + 0.5)`` input pixels about the click's pixel;
    the box is clamped to the window and then grown to whole cells. ``input_size`` is
    the (H, W) of the network's input, ``feature_size`` the (h, w) of the features,
    ``ratio`` the box's side over the window's (paper: 0.3). Returns four (B,) float
    tensors: first row, row after the last, first column, column after the last.
    """
    edges = []
    for axis in (0, 1):
        side, cells = input_size[axis], feature_size[axis]
        half = int(ratio * side / 2 + 0.5)
        pixel = newest_click[:, axis].float().floor()
        start = (pixel - half).clamp(0, side)
        end = (pixel + half).clamp(0, side)
        edges += [(start * cells / side).floor(), (end * cells / side).ceil()]
    return edges[0], edges[1], edges[2], edges[3]


def region_mask(
    box: tuple[Tensor, Tensor, Tensor, Tensor],
    feature_size: tuple[int, int],
    *,
    soft: bool,
) -> Tensor:
    """Return M_box, (B, 1, h, w) float32.

    Soft: (σ₁₀(y−y0) − σ₁₀(y−y1)) · (σ₁₀(x−x0) − σ₁₀(x−x1)), which is 0.5 on the first
    row; hard: 1 on rows y0 ≤ y < y1 and columns x0 ≤ x < x1.
    """
    device = box[0].device
    sides = []
    for axis in (0, 1):
        start, end = (edge.view(-1, 1) for edge in box[2 * axis : 2 * axis + 2])
        cell = torch.arange(feature_size[axis], device=device, dtype=torch.float32)
        if soft:
            rise = torch.sigmoid(EDGE_STEEPNESS * (cell - start))
            sides.append(rise - torch.sigmoid(EDGE_STEEPNESS * (cell - end)))
        else:
            sides.append(((cell >= start) & (cell < end)).float())
    return (sides[0].unsqueeze(2) * sides[1].unsqueeze(1)).unsqueeze(1)


def click_region(
    newest_click: Tensor,
    input_size: tuple[int, int],
    feature_size: tuple[int, int],
    ratio: float,
    *,
    soft: bool,
) -> Tensor:
    """Return M_box of each sample, empty where the click's label is −1.

    The parameters are those of ``correction_box`` and ``region_mask``.
    """
    box = correction_box(newest_click, input_size, feature_size, ratio)
    region = region_mask(box, feature_size, soft=soft)
    has_click = newest_click[:, 2].view(-1, 1, 1, 1) >= 0
    return torch.where(has_click, region, torch.zeros_like(region))
