"""What to expect on a plane before the network is asked.

Signed-distance interpolation is flat where objects are round: halfway between two equal
cross-sections of a ball it expects one more of them. Where the person said on which
planes the object ends, its cross-section's radius r is therefore taken from a spline::

    r²(z) = cubic spline through r² of the anchors, and 0 at both ends

(r² of an ellipsoid is a parabola of z, so that it is found exactly), and the outline
moves in or out by ``ρ · (r(z) / r₀(z) − 1)``, with r₀ the radius and ρ the inner radius
of the interpolated shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.interpolate import CubicSpline

from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Box
from napari_cfrseg.propagation.shapes import Field, box_of, interpolate

#: an outline's radius changes by no more than this factor, whatever the spline says
_MOST_CHANGE = 1.4
#: an object ends so many planes beyond the last plane it is on
END = 0.25


class Prior(Protocol):
    """An expected shape on each plane of a stretch."""

    def box(self, index: int) -> Box | None:
        """Return a box that holds the shape, None: there is none."""

    def field(self, index: int, box: Box) -> Field:
        """Return its signed distance over a box."""


class Profile:
    """Radius of an object's cross-sections along the axis.

    Parameters
    ----------
    anchors
        Its annotated planes.
    ends
        The first planes below and above without the object, None: not known.
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
        self._spline = None
        if len(places) > 1:
            self._spline = CubicSpline(places, [knots[z] for z in places])

    def radius(self, index: int) -> float | None:
        """Return the radius expected on a plane in pixels, None: nothing is known."""
        if self._spline is None:
            return None
        return math.sqrt(max(float(self._spline(index)), 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Bridge:
    """Between two anchors: signed-distance interpolation.

    Attributes
    ----------
    below, above
        The anchors' planes.
    first, second
        Their masks.
    sampling
        (y, x) size of a pixel over the smaller of the two.
    profile
        The radius to expect, None: that of the interpolated shape.
    """

    below: int
    above: int
    first: MaskPatch
    second: MaskPatch
    sampling: tuple[float, float]
    profile: Profile | None = None

    def box(self, index: int) -> Box | None:
        """Return the boxes of both masks, in the middle of the way between them."""
        one, other = box_of(self.first), box_of(self.second)
        if one is None or other is None:
            return other if one is None else one
        t = self._share(index)
        y0, x0, y1, x1 = ((1 - t) * a + t * b for a, b in zip(one, other, strict=True))
        meet = (
            max(one[0], other[0]),
            max(one[1], other[1]),
            min(one[2], other[2]),
            min(one[3], other[3]),
        )
        if meet[0] >= meet[2] or meet[1] >= meet[3]:
            meet = (int(y0), int(x0), int(y1) + 1, int(x1) + 1)
        return (
            min(int(y0), meet[0]),
            min(int(x0), meet[1]),
            max(int(y1) + 1, meet[2]),
            max(int(x1) + 1, meet[3]),
        )

    def field(self, index: int, box: Box) -> Field:
        """Return the interpolated shape."""
        t = self._share(index)
        shape = interpolate(self.first, self.second, t, box, sampling=self.sampling)
        radius = None if self.profile is None else self.profile.radius(index)
        return shape if radius is None else _swollen(shape, radius)

    def _share(self, index: int) -> float:
        return (index - self.below) / (self.above - self.below)


@dataclass(frozen=True, slots=True, eq=False)
class Cap:
    """From the outermost anchor to where the person said that the object ends.

    Attributes
    ----------
    anchor
        Its plane.
    mask
        Its mask.
    sampling
        As in :class:`Bridge`.
    profile
        The radius to expect.
    """

    anchor: int
    mask: MaskPatch
    sampling: tuple[float, float]
    profile: Profile

    def box(self, index: int) -> Box | None:
        """Return the anchor's box."""
        return box_of(self.mask)

    def field(self, index: int, box: Box) -> Field:
        """Return the shape, shrunken or swollen."""
        shape = interpolate(self.mask, self.mask, 0.0, box, sampling=self.sampling)
        radius = self.profile.radius(index)
        return shape if radius is None else _swollen(shape, radius)


def _swollen(shape: Field, radius: float) -> Field:
    """Return a shape whose outline moved so that its radius is another."""
    inside = shape.values > 0
    if not inside.any():
        return shape
    own = math.sqrt(np.count_nonzero(inside) / math.pi)
    change = min(radius / own, _MOST_CHANGE) - 1
    return Field(shape.box, shape.values + change * float(shape.values.max()))
