"""Expected shapes on the planes between two anchors, and beyond the last one.

Between two anchors it is the classical signed-distance interpolation (Herman, Zheng &
Bucholtz, IEEE CG&A 1992)::

    s(z) = (1 − t) · s₀ + t · s₁        t = (z − z₀) / (z₁ − z₀),  mask = s > 0

with s positive inside and in pixels. Where the two masks hardly overlap, each is moved
to the interpolated centre first, or there would be nothing halfway.

This is flat where objects are round: halfway between two equal cross-sections of a ball
it expects one more of them. Where it is known on which planes the object ends, its
cross-section's radius r therefore comes from a spline::

    r²(z) = cubic spline through r² of the anchors, and 0 at both ends

(r² of an ellipsoid is a parabola of z, so that it is exact), and the outline moves in
or out by ``ρ · (r(z) / r₀(z) − 1)``, with r₀ the radius and ρ the inner radius of the
interpolated shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

from napari_cfrseg.geometry.masks import BoolMask, MaskPatch, box_of, overlap_iou
from napari_cfrseg.geometry.windows import Box, overlap, shape_of, slices, union

#: masks whose IoU is below this are moved onto each other before they are mixed
ALIGN_BELOW = 0.5
#: signed distance of a plane without the object, in pixels
_NOWHERE = -1e3
#: an outline's radius changes by no more than this factor, whatever the spline gives
_MOST_CHANGE = 1.4
#: an object ends this many planes beyond the last plane it is on
END = 0.25

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """(h, w) values in a box of a plane, positive inside the object."""

    box: Box
    values: Floats

    def over(self, box: Box, fill: float = _NOWHERE) -> Floats:
        """Return the values over another box."""
        out = np.full(shape_of(box), fill, dtype=np.float32)
        shared = overlap(box, self.box)
        out[slices(shared, box)] = self.values[slices(shared, self.box)]
        return out

    def mask(self) -> MaskPatch:
        """Return where the values are positive."""
        return MaskPatch.from_mask(self.values > 0, (self.box[0], self.box[1]))


def grown(box: Box, margin: int, plane: tuple[int, int]) -> Box:
    """Return a box grown by a margin, within the plane."""
    y0, x0, y1, x1 = box
    return overlap((y0 - margin, x0 - margin, y1 + margin, x1 + margin), (0, 0, *plane))


def signed_distance(
    mask: BoolMask, sampling: tuple[float, float] = (1.0, 1.0)
) -> Floats:
    """Distance to the outline of a (Y, X) mask, positive inside, in pixels.

    Half a pixel next to the outline; an empty mask is far from everything, and the
    array's edge is no outline. ``sampling`` is the (y, x) size of a pixel over the
    smaller of the two.
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


def interpolate(
    first: MaskPatch,
    second: MaskPatch,
    t: float,
    box: Box,
    *,
    sampling: tuple[float, float] = (1.0, 1.0),
    align: bool = True,
) -> Field:
    """Return the shape a share ``t`` of the way from one mask to another, in a box.

    The masks are not both empty; ``align``: those that hardly overlap are moved to the
    interpolated centre.
    """
    both = bool(first.mask.size and second.mask.size)
    if align and both and overlap_iou(first, second) < ALIGN_BELOW:
        (ya, xa), (yb, xb) = centre(first), centre(second)
        dy, dx = yb - ya, xb - xa
        first = moved(first, (t * dy, t * dx))
        second = moved(second, ((t - 1) * dy, (t - 1) * dx))
    y0, x0, y1, x1 = box_of(first, second) or box
    whole = union(box, (y0 - 1, x0 - 1, y1 + 1, x1 + 1))
    # an empty plane ends the object at a finite distance
    limit = float(max(whole[2] - whole[0], whole[3] - whole[1]))
    a: Floats = signed_distance(first.window(whole), sampling).clip(-limit)
    b: Floats = signed_distance(second.window(whole), sampling).clip(-limit)
    return Field(box, Field(whole, (1 - t) * a + t * b).over(box))


def mean_plane(values: NDArray[Any]) -> Floats:
    """Return (Y, X) grey values of (Y, X[, C]) pixels."""
    grey = np.asarray(values, dtype=np.float32)
    return grey.mean(axis=2) if grey.ndim == 3 else grey


class Prior(Protocol):
    """An expected shape on each plane of a stretch."""

    def box(self, index: int) -> Box | None:
        """Return a box that holds the shape, None: there is none."""

    def field(self, index: int, box: Box) -> Field:
        """Return its signed distance over a box."""


class Profile:
    """Radius of an object's cross-sections along the axis.

    ``ends`` are the first planes below and above without the object, None: not known
    (not both for a single anchor).
    """

    def __init__(
        self, anchors: Mapping[int, MaskPatch], ends: tuple[int | None, int | None]
    ) -> None:
        knots = {float(i): mask.area / math.pi for i, mask in anchors.items()}
        below, above = ends
        if below is not None:
            knots[below + 1 - END] = 0.0
        if above is not None:
            knots[above - 1 + END] = 0.0
        if len(anchors) == 1 and len(knots) == 2:
            # widest at the anchor: the other end, unknown, is as far away
            (anchor,) = anchors
            (end,) = set(knots) - {float(anchor)}
            knots[2 * anchor - end] = 0.0
        places = sorted(knots)
        self._spline = CubicSpline(places, [knots[z] for z in places])

    def radius(self, index: int) -> float:
        """Return the radius expected on a plane in pixels."""
        return math.sqrt(max(float(self._spline(index)), 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Bridge:
    """Between the anchors ``below`` and ``above``: signed-distance interpolation."""

    below: int
    above: int
    first: MaskPatch
    second: MaskPatch
    sampling: tuple[float, float]
    profile: Profile | None = None  #: None: the radius is the interpolated shape's

    def box(self, index: int) -> Box | None:
        """Return what both masks' boxes share, and a box between the two."""
        one, other = box_of(self.first), box_of(self.second)
        if one is None or other is None:
            return other if one is None else one
        t = self._share(index)
        y0, x0, y1, x1 = ((1 - t) * a + t * b for a, b in zip(one, other, strict=True))
        return union((int(y0), int(x0), int(y1) + 1, int(x1) + 1), overlap(one, other))

    def field(self, index: int, box: Box) -> Field:
        """Return the interpolated shape."""
        t = self._share(index)
        shape = interpolate(self.first, self.second, t, box, sampling=self.sampling)
        known = self.profile
        return shape if known is None else _swollen(shape, known.radius(index))

    def _share(self, index: int) -> float:
        return (index - self.below) / (self.above - self.below)


@dataclass(frozen=True, slots=True, eq=False)
class Cap:
    """From the outermost anchor to a known end of the object."""

    mask: MaskPatch
    sampling: tuple[float, float]
    profile: Profile

    def box(self, index: int) -> Box | None:
        """Return the anchor's box."""
        return box_of(self.mask)

    def field(self, index: int, box: Box) -> Field:
        """Return the shape, shrunken or swollen."""
        shape = interpolate(self.mask, self.mask, 0.0, box, sampling=self.sampling)
        return _swollen(shape, self.profile.radius(index))


def _swollen(shape: Field, radius: float) -> Field:
    """Return a shape whose outline moved so that its radius is another."""
    inside = shape.values > 0
    if not inside.any():
        return shape
    own = math.sqrt(np.count_nonzero(inside) / math.pi)
    change = min(radius / own, _MOST_CHANGE) - 1
    return Field(shape.box, shape.values + change * float(shape.values.max()))
