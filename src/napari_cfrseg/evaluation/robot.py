"""Robot users: where a person would click next, decided from the annotation.

:class:`ExactRobot` is the published clicker of RITM, SimpleClick, CFR-ICL and FCFI::

    FN = G ∧ ¬P,  FP = ¬G ∧ P             (ignored pixels in neither)
    D  = exact Euclidean distance to the nearest pixel outside the error mask,
         the plane being surrounded by one pixel of "outside"
    click = argmax of D over pixels not clicked yet;
            positive iff max D_FN > max D_FP, else negative

G the annotated object, P the prediction shown. Ties between pixels go to the first in
row-major order, a tie between the two maxima makes the click negative, and with no
error left the click is a negative one at (0, 0), as published.

:class:`HumanRobot` clicks anywhere in the central part of the same error region.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cfrseg.clicks import Click

BoolPlane = NDArray[np.bool_]
#: 4-connectivity: it makes the transform of one component independent of the others
_CROSS = ndimage.generate_binary_structure(2, 1)


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
    corner
        (row, column) of the first pixel of ``distances`` on the plane.
    distances
        (h, w) float32 distances over the bounding box of the component the pixel
        lies in; 0 outside the component and at clicked pixels.
    """

    depth: float
    pixel: tuple[int, int]
    corner: tuple[int, int]
    distances: NDArray[np.float32]


def find_error_centre(error_mask: BoolPlane, free_mask: BoolPlane) -> ErrorCentre:
    """Find the pixel farthest from the outside of an error mask.

    Equals the transform of the whole padded plane, at the cost of the components
    that can hold the maximum: a pixel's nearest outside pixel never lies beyond its
    own 4-connected component's border (one step from a nearest pixel that belonged
    to another component towards the pixel would be nearer and outside too), nor
    beyond a one-pixel ring around the component's bounding box.

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
    best = ErrorCentre(0.0, (0, 0), (0, 0), np.zeros((0, 0), np.float32))
    rows = np.flatnonzero(error_mask.any(axis=1))
    if rows.size == 0:
        return best
    columns = np.flatnonzero(error_mask[rows[0] : rows[-1] + 1].any(axis=0))
    y0, x0 = int(rows[0]), int(columns[0])
    window = (slice(y0, int(rows[-1]) + 1), slice(x0, int(columns[-1]) + 1))
    components, _ = ndimage.label(error_mask[window], structure=_CROSS)
    areas = np.bincount(components.ravel())
    bounds = [
        (_depth_bound(box, int(areas[component])), component, box)
        for component, box in enumerate(ndimage.find_objects(components), 1)
    ]
    bounds.sort(key=lambda item: -item[0])
    for bound, component, box in bounds:
        if bound < best.depth:
            break
        corner = (box[0].start + y0, box[1].start + x0)
        distances = _padded_distances(components[box] == component)
        height, width = distances.shape
        free = free_mask[corner[0] : corner[0] + height, corner[1] : corner[1] + width]
        distances = distances * free
        flat = int(distances.argmax())
        depth = float(distances.flat[flat])
        pixel = (corner[0] + flat // width, corner[1] + flat % width)
        if depth > best.depth or (depth == best.depth > 0 and pixel < best.pixel):
            best = ErrorCentre(depth, pixel, corner, distances)
    return best


def _depth_bound(box: tuple[slice, slice], area_px: int) -> float:
    """Bound a component's depth by its box and by its area.

    Half the box's shorter side, rounded up; and, since every pixel nearer than d to a
    pixel of depth d belongs to the component and their unit squares cover a disk of
    radius d − 1/√2, no deeper than √(area/π) + 1/√2.
    """
    half = float((min(s.stop - s.start for s in box) + 1) // 2)
    return min(half, math.sqrt(area_px / math.pi) + math.sqrt(0.5) + 1e-6)


def _padded_distances(mask: BoolPlane) -> NDArray[np.float32]:
    """Exact Euclidean distance transform with one pixel of outside around."""
    distances = ndimage.distance_transform_edt(np.pad(mask, 1))
    return np.asarray(distances[1:-1, 1:-1], np.float32)


class ExactRobot:
    """The published clicker, click for click.

    Parameters
    ----------
    truth_mask
        (Y, X) bool, the annotated object.
    ignore_mask
        (Y, X) bool or None: pixels that count neither as missed nor as wrong.

    Raises
    ------
    ValueError
        If the masks are not two-dimensional or differ in shape.
    """

    def __init__(
        self, truth_mask: BoolPlane, ignore_mask: BoolPlane | None = None
    ) -> None:
        self._truth = np.asarray(truth_mask, bool)
        if self._truth.ndim != 2:
            msg = f"truth_mask must be (Y, X), got shape {self._truth.shape}"
            raise ValueError(msg)
        self._outside = ~self._truth
        if ignore_mask is not None:
            if ignore_mask.shape != self._truth.shape:
                msg = (
                    f"ignore_mask {ignore_mask.shape} and truth_mask "
                    f"{self._truth.shape} must have one shape"
                )
                raise ValueError(msg)
            self._truth = self._truth & ~ignore_mask
            self._outside &= ~ignore_mask
        self._free = np.ones(self._truth.shape, bool)

    def next_click(self, predicted_mask: BoolPlane | None = None) -> Click:
        """Click the centre of the largest error, and remember that pixel.

        Parameters
        ----------
        predicted_mask
            (Y, X) bool, the mask on show; None before the first click (empty).
        """
        centre, is_positive = self._largest_error(predicted_mask)
        pixel = self._choose(centre)
        self._free[pixel] = False
        return Click(pixel, is_positive=is_positive)

    def _largest_error(
        self, predicted_mask: BoolPlane | None
    ) -> tuple[ErrorCentre, bool]:
        if predicted_mask is None:
            missed = find_error_centre(self._truth, self._free)
            return missed, missed.depth > 0
        if predicted_mask.shape != self._truth.shape:
            msg = (
                f"predicted_mask {predicted_mask.shape} must have the annotation's "
                f"shape {self._truth.shape}"
            )
            raise ValueError(msg)
        missed = find_error_centre(self._truth & ~predicted_mask, self._free)
        wrong = find_error_centre(self._outside & predicted_mask, self._free)
        is_positive = missed.depth > wrong.depth
        return (missed if is_positive else wrong), is_positive

    def _choose(self, centre: ErrorCentre) -> tuple[int, int]:
        return centre.pixel


class HumanRobot(ExactRobot):
    """A user who clicks near the middle of the largest error, never at its very centre.

    The polarity and the error region are the exact robot's. The pixel is drawn
    uniformly among those at least ``central`` times as deep as the deepest, then
    moved by Gaussian jitter; a jittered pixel off the error region is not taken (a
    person sees the region too).

    Parameters
    ----------
    truth_mask, ignore_mask
        As for :class:`ExactRobot`.
    rng
        Source of the draws; pass ``numpy.random.default_rng(seed)``.
    central
        Fraction of the greatest depth, 0 … 1 (1: the exact robot but for ties).
    jitter_px
        Standard deviation of the jitter in pixels.
    """

    def __init__(
        self,
        truth_mask: BoolPlane,
        ignore_mask: BoolPlane | None = None,
        *,
        rng: np.random.Generator,
        central: float = 0.5,
        jitter_px: float = 1.5,
    ) -> None:
        super().__init__(truth_mask, ignore_mask)
        if not 0 <= central <= 1 or jitter_px < 0:
            msg = (
                f"central={central} must lie in [0, 1] and jitter_px={jitter_px} "
                "must not be negative"
            )
            raise ValueError(msg)
        self._rng = rng
        self._central = central
        self._jitter_px = jitter_px

    def _choose(self, centre: ErrorCentre) -> tuple[int, int]:
        if centre.depth == 0:
            return centre.pixel
        distances = centre.distances
        candidates = np.argwhere(
            (distances >= self._central * centre.depth) & (distances > 0)
        )
        y, x = candidates[self._rng.integers(len(candidates))]
        dy, dx = np.rint(self._rng.normal(0.0, self._jitter_px, 2)).astype(int)
        jittered = (y + dy, x + dx)
        height, width = distances.shape
        if (
            0 <= jittered[0] < height
            and 0 <= jittered[1] < width
            and distances[jittered] > 0
        ):
            y, x = jittered
        return int(y) + centre.corner[0], int(x) + centre.corner[1]
