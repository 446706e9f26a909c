"""Boxes and the focus window: a square of the plane and the network's grid over it.

Pixel *i* covers [i − ½, i + ½], so the centre of plane pixel *p* lies at grid position
``(p + ½ − origin) · grid / side − ½``; the inverse is exact. Shrinking averages over
the covered area, enlarging interpolates linearly; at ``side == grid`` both are the
identity, bit for bit. Beyond the plane's edge the edge pixel is repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

#: A window is sampled on at most this many plane pixels per grid cell and axis: more
#: would change the average little, and the cost of a click must not follow the image.
OVERSAMPLING = 4

Box = tuple[int, int, int, int]
"""(y0, x0, y1, x1) in plane pixels, ends exclusive."""


def shape_of(box: Box) -> tuple[int, int]:
    """Return a box's (height, width)."""
    return box[2] - box[0], box[3] - box[1]


def slices(box: Box, within: Box = (0, 0, 0, 0)) -> tuple[slice, slice]:
    """Return a box as slices of the plane, or of an array that covers ``within``."""
    y, x = within[:2]
    return slice(box[0] - y, box[2] - y), slice(box[1] - x, box[3] - x)


def union(*boxes: Box) -> Box:
    """Return the smallest box around all that are not empty, else the last one."""
    filled = [b for b in boxes if b[0] < b[2] and b[1] < b[3]] or boxes[-1:]
    y0, x0, y1, x1 = zip(*filled, strict=True)
    return min(y0), min(x0), max(y1), max(x1)


def overlap(first: Box, second: Box) -> Box:
    """Return the box two boxes share; it may be empty."""
    y0, x0 = max(first[0], second[0]), max(first[1], second[1])
    y1, x1 = min(first[2], second[2]), min(first[3], second[3])
    return y0, x0, max(y0, y1), max(x0, x1)


def mask_box(mask: NDArray[Any]) -> Box | None:
    """Return the box of a mask's true pixels, None for an empty mask."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[y0:y1].any(axis=0))
    return y0, int(columns[0]), y1, int(columns[-1]) + 1


class PlaneLike(Protocol):
    """An array that can be read by slices: NumPy, dask, zarr and the like."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of its axes, (Y, X) or (Y, X, C)."""

    @property
    def dtype(self) -> Any:
        """The pixels' type."""

    def __getitem__(self, key: Any, /) -> Any:
        """Read a rectangle: ``plane[y0:y1:step, x0:x1:step]``."""


@dataclass(frozen=True, slots=True)
class Window:
    """A square of the plane, sampled on a square grid (Zoom-In of the papers)."""

    #: top-left pixel; negative where the window reaches beyond the plane
    y0: int
    x0: int
    side: int  #: in plane pixels, at least 1
    grid: int  #: side of the network's grid in cells, at least 1

    def __post_init__(self) -> None:
        if self.side < 1 or self.grid < 1:
            raise ValueError(
                f"window of side {self.side} on a grid of {self.grid}: both must be ≥ 1"
            )

    @classmethod
    def centred(
        cls, yx: tuple[float, float], side: int, grid: int, plane: tuple[int, int]
    ) -> Window:
        """Centre a window on a point, then shift it into the plane as far as it fits.

        Where the plane is the smaller along an axis, the plane is centred in it.
        """
        origin = []
        for centre, length in zip(yx, plane, strict=True):
            start = math.floor(centre - side / 2 + 1)
            room = length - side
            origin.append(min(max(start, 0), room) if room >= 0 else room // 2)
        return cls(origin[0], origin[1], int(side), int(grid))

    @property
    def px_per_cell(self) -> float:
        """Plane pixels per grid cell along an axis."""
        return self.side / self.grid

    @property
    def box(self) -> Box:
        """The window's box; it may reach beyond the plane."""
        return self.y0, self.x0, self.y0 + self.side, self.x0 + self.side

    def to_grid(self, yx: tuple[float, float]) -> tuple[float, float]:
        """Turn plane (row, column) into grid (row, column)."""
        y, x = yx
        return (
            (y + 0.5 - self.y0) * self.grid / self.side - 0.5,
            (x + 0.5 - self.x0) * self.grid / self.side - 0.5,
        )

    def on_grid(self, yx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn (N, 2) places on the plane into places on the grid."""
        where: NDArray[np.float64] = yx + 0.5 - (self.y0, self.x0)
        return where * self.grid / self.side - 0.5

    def cell(self, yx: tuple[float, float]) -> tuple[int, int]:
        """Return the grid cell that a plane point lies in; it may be off the grid."""
        y, x = self.to_grid(yx)
        return math.floor(y + 0.5), math.floor(x + 0.5)

    def plane_box(self, box: Box) -> Box:
        """Return the smallest box of the plane that holds a box of grid cells."""
        cell = self.px_per_cell
        y0, x0, y1, x1 = box
        return (
            math.floor(self.y0 + y0 * cell),
            math.floor(self.x0 + x0 * cell),
            math.ceil(self.y0 + y1 * cell),
            math.ceil(self.x0 + x1 * cell),
        )

    def holds(self, box: Box) -> bool:
        """Whether a box of the plane lies within the window."""
        y0, x0, y1, x1 = self.box
        return y0 <= box[0] and x0 <= box[1] and box[2] <= y1 and box[3] <= x1

    def clipped(self, shape: tuple[int, ...]) -> Box:
        """Return the part of the window inside a plane of this shape (may be empty)."""
        return overlap(self.box, (0, 0, shape[0], shape[1]))


@lru_cache(maxsize=128)
def _axis_weights(
    n_in: int, n_out: int, span: float, lead: float = 0.0
) -> sparse.csr_matrix:
    """(n_out, n_in) weights: [lead, lead + span) of n_in samples as n_out cells."""
    scale = span / n_out
    if scale <= 1:  # enlarge: linear between the two nearest sample centres
        at = np.clip((np.arange(n_out) + 0.5) * scale + (lead - 0.5), 0, n_in - 1)
        low = np.minimum(at.astype(np.int64), max(n_in - 2, 0))
        high = np.minimum(low + 1, n_in - 1)
        rows = np.repeat(np.arange(n_out), 2)
        columns = np.stack([low, high], axis=1).ravel()
        weights = np.stack([1 - (at - low), at - low], axis=1).ravel()
    else:  # shrink: by the share of the cell each sample covers
        start = np.arange(n_out) * scale + lead
        width = math.ceil(scale) + 1
        index = np.floor(start).astype(np.int64)[:, None] + np.arange(width)
        covered = np.minimum(index + 1, (start + scale)[:, None])
        covered = np.maximum(covered - np.maximum(index, start[:, None]), 0)
        covered /= covered.sum(axis=1, keepdims=True)
        rows = np.repeat(np.arange(n_out), width)
        columns = np.minimum(index, n_in - 1).ravel()
        weights = covered.ravel()
    shape = (n_out, n_in)
    return sparse.csr_matrix((weights.astype(np.float32), (rows, columns)), shape=shape)


def _apply(weights: sparse.csr_matrix, values: NDArray[Any]) -> NDArray[np.float32]:
    """Apply the weights along the first axis."""
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(len(values), -1)
    result: NDArray[np.float32] = weights @ flat
    return result.reshape(weights.shape[0], *values.shape[1:])


def _read_axis(origin: int, side: int, step: int, length: int) -> tuple[slice, Any]:
    """Return the pixels of one axis to read, and how to spread them over the window.

    Returns the slice and None, or an index array that repeats the edge pixels.
    """
    count = -(-side // step)
    first = origin + (step - 1) // 2
    low = max(0, -(-(0 - first) // step))
    high = min(count, -(-(length - first) // step))
    if low >= high:  # no sample falls inside: the nearest pixel is used
        pixel = min(max(origin + side // 2, 0), length - 1)
        return slice(pixel, pixel + 1), np.zeros(count, dtype=np.int64)
    read = slice(first + low * step, first + (high - 1) * step + 1, step)
    if low == 0 and high == count:
        return read, None
    return read, np.clip(np.arange(count), low, high - 1) - low


def crop(
    plane: PlaneLike,
    window: Window,
    convert: Callable[[NDArray[Any]], NDArray[np.float32]] | None = None,
    factors: tuple[float, float] = (1.0, 1.0),
) -> NDArray[np.float32]:
    """Sample the window on its grid: (C, grid, grid) float32, C = 1 for (Y, X) planes.

    Only pixels of the window are read, at most ``(4 · grid)²`` of them. The plane is
    (Y, X) or (Y, X, C) of any real dtype; lazy arrays are read by slices. ``convert``
    is applied to the pixels as read, (h, w, C), before they are resampled. ``factors``
    are how many of the window's pixels one pixel of ``plane`` stands for, down and
    across: it may be a coarser copy of the plane that the window lies on.
    """
    rows, row_index, down = _sampled(window, 0, plane.shape[0], factors[0])
    columns, column_index, across = _sampled(window, 1, plane.shape[1], factors[1])
    values = np.asarray(plane[rows, columns])
    if values.ndim == 2:
        values = values[:, :, None]
    if convert is not None:
        values = convert(values)
    if row_index is not None:
        values = values[row_index]
    if column_index is not None:
        values = values[:, column_index]
    if down is not None:
        values = _apply(down, values)
    if across is not None:
        values = _apply(across, values.swapaxes(0, 1)).swapaxes(0, 1)
    return np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)


def _sampled(
    window: Window, axis: int, length: int, factor: float
) -> tuple[slice, Any, sparse.csr_matrix | None]:
    """Return what to read along an axis, its spread over the window, and weights."""
    start, span = window.box[axis] / factor, window.side / factor
    first = math.floor(start)
    lead = start - first
    step = max(1, math.ceil(span / (OVERSAMPLING * window.grid)))
    side = math.ceil(lead + span)
    read, index = _read_axis(first, side, step, length)
    if lead == 0 and span == window.grid:
        return read, index, None
    return (
        read,
        index,
        _axis_weights(-(-side // step), window.grid, span / step, lead / step),
    )


def paste(
    values: NDArray[Any], window: Window, box: Box | None = None
) -> NDArray[np.float32]:
    """Put (grid, grid) values back at the plane's resolution, in float32.

    ``box`` is the part of the plane wanted, inside the window; by default the whole
    window. The cost follows it.
    """
    if values.shape != (window.grid, window.grid):
        raise ValueError(f"values of shape {values.shape} on a grid of {window.grid}²")
    y0, x0, y1, x1 = window.box if box is None else box
    if not window.holds((y0, x0, y1, x1)):
        raise ValueError(f"box {box} does not lie within the window {window.box}")
    rows = slice(y0 - window.y0, y1 - window.y0)
    columns = slice(x0 - window.x0, x1 - window.x0)
    if window.side == window.grid:
        return np.array(values[rows, columns], dtype=np.float32)
    weights = _axis_weights(window.grid, window.side, float(window.grid))
    wide = _apply(weights[columns], values.T).T
    return _apply(weights[rows], wide)  # in this order the large array is not turned
