"""Shapes between planes: signed distances, interpolated and moved.

The prior of a plane between two anchors is the classical signed-distance interpolation
(Herman, Zheng & Bucholtz, IEEE CG&A 1992)::

    s(z) = (1 − t) · s₀ + t · s₁        t = (z − z₀) / (z₁ − z₀),  mask = s > 0

with s positive inside and in pixels. Where the two masks hardly overlap, each is moved
to the interpolated centre first, or there would be nothing halfway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cfrseg.geometry.masks import BoolMask, MaskPatch, box_of
from napari_cfrseg.geometry.windows import Box

#: masks whose IoU is below this are moved onto each other before they are mixed
ALIGN_BELOW = 0.5
#: signed distance of a plane without the object, in pixels
_NOWHERE = -1e3

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Values in a box of a plane; outside the box the object is not.

    Attributes
    ----------
    box
        (y0, x0, y1, x1), ends exclusive, inside the plane.
    values
        (h, w) float: positive inside the object.
    """

    box: Box
    values: Floats

    def over(self, box: Box, fill: float = _NOWHERE) -> Floats:
        """Return the values over another box."""
        out = np.full((box[2] - box[0], box[3] - box[1]), fill, dtype=np.float32)
        y0, x0 = max(box[0], self.box[0]), max(box[1], self.box[1])
        y1, x1 = min(box[2], self.box[2]), min(box[3], self.box[3])
        if y0 < y1 and x0 < x1:
            out[y0 - box[0] : y1 - box[0], x0 - box[1] : x1 - box[1]] = self.values[
                y0 - self.box[0] : y1 - self.box[0], x0 - self.box[1] : x1 - self.box[1]
            ]
        return out

    def mask(self) -> MaskPatch:
        """Return where the values are positive."""
        return MaskPatch.from_mask(self.values > 0, (self.box[0], self.box[1]))


def grown(box: Box, margin: int, plane: tuple[int, int]) -> Box:
    """Return a box grown by a margin, within the plane."""
    return (
        max(box[0] - margin, 0),
        max(box[1] - margin, 0),
        min(box[2] + margin, plane[0]),
        min(box[3] + margin, plane[1]),
    )


def signed_distance(
    mask: BoolMask, sampling: tuple[float, float] = (1.0, 1.0)
) -> Floats:
    """Distance to the outline, positive inside, in pixels.

    Parameters
    ----------
    mask
        (Y, X) bool; pixels outside the array are outside the object, but the plane's
        edge is no outline.
    sampling
        (y, x) size of a pixel over the smaller of the two.

    Returns
    -------
    (Y, X) float32; half a pixel next to the outline. An empty mask is far from
    everything.
    """
    if not mask.any():
        return np.full(mask.shape, _NOWHERE, dtype=np.float32)
    if mask.all():
        return np.full(mask.shape, -_NOWHERE, dtype=np.float32)
    inside = ndimage.distance_transform_edt(mask, sampling=sampling)
    outside = ndimage.distance_transform_edt(~mask, sampling=sampling)
    out: Floats = np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)
    return out


def centre(mask: MaskPatch) -> tuple[float, float]:
    """Return the centroid (row, column) of a mask that is not empty."""
    y, x = np.nonzero(mask.mask)
    return float(y.mean()) + mask.offset[0], float(x.mean()) + mask.offset[1]


def moved(mask: MaskPatch, by: tuple[float, float]) -> MaskPatch:
    """Return a mask moved by whole pixels (rounded)."""
    y, x = mask.offset
    return MaskPatch((y + round(by[0]), x + round(by[1])), mask.mask)


def overlap_iou(first: MaskPatch, second: MaskPatch) -> float:
    """Intersection over union; 1 for two empty masks."""
    box = box_of(first, second)
    if box is None:
        return 1.0
    a, b = first.window(box), second.window(box)
    return float(np.count_nonzero(a & b) / np.count_nonzero(a | b))


def interpolate(
    first: MaskPatch,
    second: MaskPatch,
    t: float,
    box: Box,
    *,
    sampling: tuple[float, float] = (1.0, 1.0),
    align: bool = True,
) -> Field:
    """Return the shape a share ``t`` of the way from one mask to another.

    Parameters
    ----------
    first, second
        The masks of two planes, not both empty.
    t
        0 gives the first, 1 the second.
    box
        Where the result is wanted.
    align
        Whether masks that hardly overlap are moved to the interpolated centre.
    """
    both = bool(first.mask.size and second.mask.size)
    if align and both and overlap_iou(first, second) < ALIGN_BELOW:
        (ya, xa), (yb, xb) = centre(first), centre(second)
        dy, dx = yb - ya, xb - xa
        first = moved(first, (t * dy, t * dx))
        second = moved(second, ((t - 1) * dy, (t - 1) * dx))
    whole = _joined(box, first, second)
    a = signed_distance(first.window(whole), sampling)
    b = signed_distance(second.window(whole), sampling)
    # an empty plane ends the object at a finite distance
    limit = float(max(whole[2] - whole[0], whole[3] - whole[1]))
    a, b = np.maximum(a, -limit), np.maximum(b, -limit)
    return Field(box, Field(whole, (1 - t) * a + t * b).over(box))


def _joined(box: Box, *masks: MaskPatch) -> Box:
    own = box_of(*masks)
    if own is None:
        return box
    return (
        min(box[0], own[0] - 1),
        min(box[1], own[1] - 1),
        max(box[2], own[2] + 1),
        max(box[3], own[3] + 1),
    )


def mean_plane(values: NDArray[Any]) -> Floats:
    """Return (Y, X) grey values of (Y, X[, C]) pixels."""
    grey = np.asarray(values, dtype=np.float32)
    return grey.mean(axis=2) if grey.ndim == 3 else grey
