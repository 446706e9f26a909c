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

import numpy as np
from scipy import ndimage

from napari_cfrseg.clicks import Click
from napari_cfrseg.evaluation.error_centre import (
    BoolPlane,
    ErrorCentre,
    find_larger_error,
    padded_distances,
)


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
        if predicted_mask is None:
            predicted_mask = np.zeros_like(self._truth)
        if predicted_mask.shape != self._truth.shape:
            msg = (
                f"predicted_mask {predicted_mask.shape} must have the annotation's "
                f"shape {self._truth.shape}"
            )
            raise ValueError(msg)
        missed_mask = self._truth & ~predicted_mask
        wrong_mask = self._outside & predicted_mask
        centre, is_positive = find_larger_error(missed_mask, wrong_mask, self._free)
        pixel = self._choose(centre, missed_mask if is_positive else wrong_mask)
        self._free[pixel] = False
        return Click(pixel, is_positive=is_positive)

    def _choose(self, centre: ErrorCentre, error_mask: BoolPlane) -> tuple[int, int]:
        del error_mask
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

    def _choose(self, centre: ErrorCentre, error_mask: BoolPlane) -> tuple[int, int]:
        if centre.depth == 0:
            return centre.pixel
        components, _ = ndimage.label(error_mask)
        component = components[centre.pixel]
        box = ndimage.find_objects(components, max_label=component)[component - 1]
        region = components[box] == component
        distances = padded_distances(region)
        candidates = np.argwhere(
            (distances >= self._central * centre.depth) & self._free[box] & region
        )
        y, x = candidates[self._rng.integers(len(candidates))]
        dy, dx = np.rint(self._rng.normal(0.0, self._jitter_px, 2)).astype(int)
        height, width = region.shape
        if 0 <= y + dy < height and 0 <= x + dx < width:
            free = self._free[box][y + dy, x + dx]
            if region[y + dy, x + dx] and free:
                y, x = y + dy, x + dx
        return int(y) + box[0].start, int(x) + box[1].start
