"""The centre of an error: the pixel farthest from what is right.

The published clicker takes the exact Euclidean distance transform D of the whole plane,
padded by one pixel of outside. The same pixel is found here for less: the chessboard
transform C bounds D (C ≤ D ≤ √2·C), so the maximum of D lies where C ≥ M/√2, with M
the largest C over the pixels that may be clicked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BoolPlane = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ErrorCentre:
    """The deepest pixel of an error mask.

    Attributes
    ----------
    depth
        Its distance in pixels to the nearest pixel outside the error mask, rounded
        to float32 as published; 0.0 when no pixel is left to click.
    pixel
        (row, column); (0, 0) when no pixel is left.
    """

    depth: float
    pixel: tuple[int, int]


NOWHERE = ErrorCentre(0.0, (0, 0))
_Box = tuple[slice, slice]
#: what a further transform costs besides its pixels, in pixels
_REGION_COST_PX = 2000


@dataclass(frozen=True, slots=True, eq=False)
class _ErrorPlane:
    """An error mask with its chessboard distances, cut to its bounding box."""

    corner: tuple[int, int]
    mask: BoolPlane
    free_mask: BoolPlane
    chessboard: NDArray[np.int32]
    deepest: int

    @classmethod
    def of(cls, error_mask: BoolPlane, free_mask: BoolPlane) -> _ErrorPlane | None:
        rows = np.flatnonzero(error_mask.any(axis=1))
        if rows.size == 0:
            return None
        columns = np.flatnonzero(error_mask[rows[0] : rows[-1] + 1].any(axis=0))
        box = (
            slice(int(rows[0]), int(rows[-1]) + 1),
            slice(int(columns[0]), int(columns[-1]) + 1),
        )
        mask, free = error_mask[box], free_mask[box]
        padded = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")
        chessboard = padded[1:-1, 1:-1] * free
        corner = (box[0].start, box[1].start)
        return cls(corner, mask, free, chessboard, int(chessboard.max()))

    def centre(self) -> ErrorCentre:
        """Find the maximum of the Euclidean distance, first in row-major order."""
        if self.deepest == 0:
            return NOWHERE
        candidates = 2 * self.chessboard**2 >= self.deepest**2
        regions, _ = ndimage.label(candidates)
        best = NOWHERE
        for box in self._search_boxes(ndimage.find_objects(regions)):
            best = self._deepest_in(box, candidates, best)
        return best

    def _search_boxes(self, regions: list[tuple[slice, slice]]) -> list[_Box]:
        """Say where to transform: around each region, or once where that is less."""
        reach = self._reach
        cost = sum(
            _REGION_COST_PX
            + (rows.stop - rows.start + 2 * reach)
            * (columns.stop - columns.start + 2 * reach)
            for rows, columns in regions
        )
        if cost < self.mask.size + _REGION_COST_PX:
            return regions
        return [(slice(0, self.mask.shape[0]), slice(0, self.mask.shape[1]))]

    @property
    def _reach(self) -> int:
        # a candidate's nearest outside pixel is at most √2·M away: what lies farther
        # from the candidates does not matter
        return math.ceil(math.sqrt(2) * self.deepest) + 1

    def _deepest_in(
        self, box: _Box, candidates: BoolPlane, best: ErrorCentre
    ) -> ErrorCentre:
        y0, x0 = (max(0, side.start - self._reach) for side in box)
        part = self.mask[y0 : box[0].stop + self._reach, x0 : box[1].stop + self._reach]
        inner = (
            slice(box[0].start - y0, box[0].stop - y0),
            slice(box[1].start - x0, box[1].stop - x0),
        )
        distances = padded_distances(part)[inner] * candidates[box]
        y, x = divmod(int(distances.argmax()), distances.shape[1])
        depth = float(distances[y, x])
        pixel = (
            self.corner[0] + box[0].start + y,
            self.corner[1] + box[1].start + x,
        )
        if depth > best.depth or (depth == best.depth and pixel < best.pixel):
            return ErrorCentre(depth, pixel)
        return best


def find_error_centre(error_mask: BoolPlane, free_mask: BoolPlane) -> ErrorCentre:
    """Find the pixel farthest from the outside of an error mask.

    Equals the maximum of the exact Euclidean transform of the padded plane, at the
    cost of a chessboard transform of the error's bounding box and of the Euclidean one
    around the pixels that can hold the maximum.

    Parameters
    ----------
    error_mask
        (Y, X) bool.
    free_mask
        (Y, X) bool, False at pixels clicked before: these are not chosen again but
        still belong to the error.

    Returns
    -------
    ErrorCentre
        First maximum in row-major order.
    """
    plane = _ErrorPlane.of(error_mask, free_mask)
    return NOWHERE if plane is None else plane.centre()


def find_larger_error(
    missed_mask: BoolPlane, wrong_mask: BoolPlane, free_mask: BoolPlane
) -> tuple[ErrorCentre, bool]:
    """Find the deeper of two errors: its centre, and whether it is the missed one.

    A tie goes to the wrong pixels. The transform of the shallower error is left out
    where chessboard distances already tell which it is.
    """
    missed = _ErrorPlane.of(missed_mask, free_mask)
    wrong = _ErrorPlane.of(wrong_mask, free_mask)
    if missed is None or missed.deepest == 0:
        return (NOWHERE if wrong is None else wrong.centre()), False
    if wrong is None or 2 * wrong.deepest**2 < missed.deepest**2:
        return missed.centre(), True
    if 2 * missed.deepest**2 < wrong.deepest**2:
        return wrong.centre(), False
    missed_centre, wrong_centre = missed.centre(), wrong.centre()
    is_positive = missed_centre.depth > wrong_centre.depth
    return (missed_centre if is_positive else wrong_centre), is_positive


def padded_distances(mask: BoolPlane) -> NDArray[np.float32]:
    """Exact Euclidean distance transform with one pixel of outside around."""
    distances = ndimage.distance_transform_edt(np.pad(mask, 1))
    return np.asarray(distances[1:-1, 1:-1], np.float32)
