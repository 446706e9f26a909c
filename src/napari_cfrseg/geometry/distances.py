"""Distances of pixels: to the outside of a mask, and to the nearest of many places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cfrseg.geometry.windows import Box, shape_of

if TYPE_CHECKING:
    from napari_cfrseg.geometry.masks import MaskPatch

_FAR = np.int32(2**30)


def depth_in(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return each pixel's distance to the nearest one outside a (Y, X) mask.

    Exact, in pixels; the array is surrounded by outside.
    """
    distances = ndimage.distance_transform_edt(np.pad(mask, 1))
    return np.asarray(distances[1:-1, 1:-1], np.float32)


def innermost(mask: MaskPatch) -> tuple[int, int]:
    """Return the pixel of a mask that is farthest from its outline."""
    away = depth_in(mask.mask)
    y, x = np.unravel_index(int(away.argmax()), away.shape)
    return mask.offset[0] + int(y), mask.offset[1] + int(x)


def squared_distances(
    places: NDArray[np.intp], box: Box, reach: int
) -> NDArray[np.integer]:
    """Return each pixel's squared distance to the nearest place, for a box of a plane.

    ``places`` are (N, 2) rows and columns of pixels, in the box or not. Distances up to
    ``reach`` (in pixels, at most 20,000) are exact, greater ones are only known to be
    greater.
    """
    height, width = shape_of(box)
    # from here on the first place that can matter has the coordinates (0, 0)
    places = places - (box[0] - reach, box[1] - reach)
    inside = (places >= 0) & (places < (height + 2 * reach, width + 2 * reach))
    places = places[inside[:, 0] & inside[:, 1]]
    # what either way costs, in nanoseconds
    disks = len(places) * (3000 + 0.3 * (2 * reach) ** 2)
    lines = (height + 2 * reach) * (width + 2 * reach) * (5 + 0.5 * reach)
    if disks < lines:
        return _by_disks(places, (height, width), reach)
    return _by_lines(places, (height, width), reach)


def _by_disks(
    places: NDArray[np.intp], shape: tuple[int, int], reach: int
) -> NDArray[np.int32]:
    """Draw the distances around each place."""
    side = 2 * reach + 1
    offsets = np.arange(-reach, reach + 1, dtype=np.int32) ** 2
    disk = offsets[:, None] + offsets
    nearest = np.full((shape[0] + 4 * reach, shape[1] + 4 * reach), _FAR)
    for y, x in places.tolist():
        part = nearest[y : y + side, x : x + side]
        np.minimum(part, disk, out=part)
    return nearest[2 * reach :, 2 * reach :][: shape[0], : shape[1]]


def _by_lines(
    places: NDArray[np.intp], shape: tuple[int, int], reach: int
) -> NDArray[np.integer]:
    """Find the nearest place in each row, then the nearest row."""
    columns = np.arange(shape[1] + 2 * reach, dtype=np.int32)
    before = np.full((shape[0] + 2 * reach, len(columns)), -_FAR)
    before[tuple(places.T)] = columns[places[:, 1]]
    after = np.where(before < 0, _FAR, before)[:, ::-1]
    before = np.maximum.accumulate(before, axis=1)
    after = np.minimum.accumulate(after, axis=1)[:, ::-1]
    away = np.minimum(columns - before, after - columns)
    away = away[:, reach : reach + shape[1]]
    dtype = np.uint16 if 2 * (reach + 1) ** 2 < 2**16 else np.int32
    squared: NDArray[np.integer] = np.minimum(away, reach + 1).astype(dtype) ** 2
    nearest = squared[reach : reach + shape[0]].copy()
    moved = np.empty_like(nearest)
    for rows in range(1, reach + 1):
        for start in (reach - rows, reach + rows):
            np.add(squared[start : start + shape[0]], dtype(rows**2), out=moved)
            np.minimum(nearest, moved, out=nearest)
    return nearest
