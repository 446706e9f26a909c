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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cfrseg.clicks import Click
from napari_cfrseg.geometry.distances import depth_in
from napari_cfrseg.geometry.windows import mask_box, slices


class ExactRobot:
    """The published clicker, click for click.

    Ignored pixels count neither as missed nor as wrong. Raises ValueError if the masks
    are not (Y, X) bool of one shape.
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
                raise ValueError(
                    f"ignore_mask {ignore_mask.shape} and truth_mask "
                    f"{self._truth.shape} must have one shape"
                )
            self._truth = self._truth & ~ignore_mask
            self._outside &= ~ignore_mask
        self._free = np.ones(self._truth.shape, bool)

    def next_click(self, predicted_mask: BoolPlane | None = None) -> Click:
        """Click the centre of the largest error, and remember that pixel.

        ``predicted_mask`` is the (Y, X) mask on show; None before the first click
        (empty).
        """
        if predicted_mask is None:
            predicted_mask = np.zeros_like(self._truth)
        if predicted_mask.shape != self._truth.shape:
            raise ValueError(
                f"predicted_mask {predicted_mask.shape} must have the annotation's "
                f"shape {self._truth.shape}"
            )
        missed_mask = self._truth & ~predicted_mask
        wrong_mask = self._outside & predicted_mask
        centre, is_positive = find_larger_error(missed_mask, wrong_mask, self._free)
        pixel = self._choose(centre, missed_mask if is_positive else wrong_mask)
        self._free[pixel] = False
        return Click(pixel, is_positive=is_positive)

    def take_back(self, click: Click) -> None:
        """Forget a click that was not made after all: its pixel may be clicked."""
        self._free[click.pixel] = True

    def _choose(self, centre: ErrorCentre, error_mask: BoolPlane) -> tuple[int, int]:
        del error_mask
        return centre.pixel


#: a human-like click lies at least this share of the largest depth deep in the error
CENTRAL = 0.5
#: standard deviation of its jitter
JITTER_PX = 1.5


class HumanRobot(ExactRobot):
    """A user who clicks near the middle of the largest error, never at its very centre.

    The polarity and the error region are the exact robot's. The pixel is drawn
    uniformly from ``rng`` in the central part, then moved by Gaussian jitter within it.
    """

    def __init__(
        self,
        truth_mask: BoolPlane,
        ignore_mask: BoolPlane | None = None,
        *,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(truth_mask, ignore_mask)
        self._rng = rng

    def _choose(self, centre: ErrorCentre, error_mask: BoolPlane) -> tuple[int, int]:
        if centre.depth == 0:
            return centre.pixel
        components, _ = ndimage.label(error_mask)
        component = components[centre.pixel]
        box = ndimage.find_objects(components, max_label=component)[component - 1]
        region = components[box] == component
        free = self._free[box] & region
        candidates = np.argwhere((depth_in(region) >= CENTRAL * centre.depth) & free)
        y, x = candidates[self._rng.integers(len(candidates))]
        dy, dx = np.rint(self._rng.normal(0.0, JITTER_PX, 2)).astype(int)
        inside = 0 <= y + dy < free.shape[0] and 0 <= x + dx < free.shape[1]
        if inside and free[y + dy, x + dx]:
            y, x = y + dy, x + dx
        return int(y) + box[0].start, int(x) + box[1].start


BoolPlane = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ErrorCentre:
    """The deepest pixel of an error mask."""

    #: its distance in pixels to the nearest pixel outside the error mask, rounded to
    #: float32 as published; 0.0 when no pixel is left to click
    depth: float
    pixel: tuple[int, int]  #: (row, column); (0, 0) when no pixel is left


NOWHERE = ErrorCentre(0.0, (0, 0))


def find_deepest(error_mask: BoolPlane, free_mask: BoolPlane) -> ErrorCentre:
    """Find the free pixel of an error that is deepest in it, the first of equals."""
    box = mask_box(error_mask)
    if box is None:
        return NOWHERE
    distances = depth_in(error_mask[slices(box)]) * free_mask[slices(box)]
    y, x = divmod(int(distances.argmax()), distances.shape[1])
    depth = float(distances[y, x])
    return ErrorCentre(depth, (box[0] + y, box[1] + x)) if depth else NOWHERE


def find_larger_error(
    missed_mask: BoolPlane, wrong_mask: BoolPlane, free_mask: BoolPlane
) -> tuple[ErrorCentre, bool]:
    """Find the deeper of two errors: its centre, and whether it is the missed one.

    A tie goes to the wrong pixels.
    """
    missed, wrong = (find_deepest(m, free_mask) for m in (missed_mask, wrong_mask))
    is_positive = missed.depth > wrong.depth
    return (missed if is_positive else wrong), is_positive
