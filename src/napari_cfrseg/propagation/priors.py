"""Expected shapes on the planes between two anchors, and beyond the last one.

Signed-distance interpolation is flat where objects are round: halfway between two equal
cross-sections of a ball it expects one more of them. Where it is known on which planes
the object ends, its cross-section's radius r therefore comes from a spline::

    r²(z) = cubic spline through r² of the anchors, and 0 at both ends

(r² of an ellipsoid is a parabola of z, so that it is found exactly), and the outline
moves in or out by ``ρ · (r(z) / r₀(z) − 1)``, with r₀ the radius and ρ the inner radius
of the interpolated shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.interpolate import CubicSpline

from napari_cfrseg.geometry.masks import MaskPatch, box_of
from napari_cfrseg.geometry.windows import Box, Window
from napari_cfrseg.propagation.planes import Planes, plane_steps, px_sampling
from napari_cfrseg.propagation.shapes import Field, interpolate
from napari_cfrseg.propagation.tracks import PropagationSettings, Track

if TYPE_CHECKING:
    from napari_cfrseg.propagation.step import Answer, Running

#: an outline's radius changes by no more than this factor, whatever the spline gives
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
    """From the outermost anchor to a known end of the object.

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


Gap = tuple[int | None, int | None]


@dataclass(slots=True, eq=False)
class Stretch:
    """Planes of one object between two anchors, or beyond the last one."""

    track: Track
    below: int | None
    above: int | None
    planes: range
    trust: dict[int, float]
    stored: dict[int, Answer] = field(default_factory=dict)

    @property
    def is_gap(self) -> bool:
        """Whether it lies between two anchors."""
        return self.below is not None and self.above is not None

    @property
    def object_id(self) -> int:
        """The object's number."""
        return self.track.object_id


@dataclass(slots=True, eq=False)
class Run:
    """One stretch being walked in one direction."""

    stretch: Stretch
    direction: int
    running: Running | None
    left: int = 0

    def goes_to(self, index: int) -> bool:
        """Whether a plane is still to be walked to."""
        return bool(self.left) and index in self.stretch.planes


def gaps_of(anchors: Iterable[int], first: int, last: int) -> tuple[Gap, ...]:
    """Return the stretches of planes without an anchor that touch a range.

    ``(None, a)`` lies before the first anchor, ``(a, b)`` between two, ``(b, None)``
    after the last.
    """
    known = sorted(anchors)
    ends: list[int | None] = [None, *known, None]
    gaps = []
    for below, above in pairwise(ends):
        low = first if below is None else below + 1
        high = last if above is None else above - 1
        if known and max(low, first) <= min(high, last):
            gaps.append((below, above))
    return tuple(gaps)


def planes_of(gap: Gap, first: int, last: int) -> range:
    """Return a gap's planes: all between two anchors, else those in the range."""
    below, above = gap
    low = first if below is None else below + 1
    high = last if above is None else above - 1
    return range(low, high + 1)


def prior_of(planes: Planes, stretch: Stretch) -> Prior | None:
    """Return the bridge between two anchors, or the cap towards a known end."""
    below, above = stretch.below, stretch.above
    anchors, sampling = stretch.track.anchors, px_sampling(planes)
    ends = _ends(planes, stretch.track)
    profile = None if ends == (None, None) else Profile(anchors, ends)
    if below is not None and above is not None:
        first, second = anchors[below], anchors[above]
        return Bridge(below, above, first, second, sampling, profile)
    anchor = above if below is None else below
    end = ends[0] if below is None else ends[1]
    if end is None or anchor is None or profile is None:
        return None
    return Cap(anchor, anchors[anchor], sampling, profile)


def _ends(planes: Planes, track: Track) -> tuple[int | None, int | None]:
    """Return the first planes without the object, where they are known."""
    if not track.spans:
        return None, None
    first = track.first - 1 if track.first > 0 else None
    last = track.last + 1 if track.last < planes.count - 1 else None
    return first, last


def sigma_of(
    planes: Planes, settings: PropagationSettings, stretch: Stretch, index: int
) -> float:
    """Return how uncertain the prior is, in pixels.

    Between two known places it grows like a Brownian bridge; with nothing but the plane
    before, by ``drift_alone`` a plane. A share of the radius limits both.
    """
    ends = [e for e in (stretch.below, stretch.above) if e is not None]
    areas = [stretch.track.anchors[e].area for e in ends]
    outer = _ends(planes, stretch.track)
    end = None if stretch.is_gap else outer[0 if stretch.below is None else 1]
    if end is not None:
        ends.append(end)
    drift = settings.drift_alone
    if len(ends) == 2:
        one, other = abs(index - ends[0]), abs(index - ends[1])
        drift = settings.drift * math.sqrt(one * other / (one + other))
    radius = math.sqrt(max(areas, default=0) / math.pi)
    most = settings.most_drift * radius
    return max(settings.drift_floor, min(drift * plane_steps(planes), most))


def trust_of(stretch: Stretch, index: int) -> float:
    """Return the network's weight on a plane: the anchors', by nearness."""
    below, above = stretch.below, stretch.above
    if below is None or above is None:
        anchor = above if below is None else below
        return stretch.trust.get(-1 if anchor is None else anchor, 0.0)
    t = (index - below) / (above - below)
    return (1 - t) * stretch.trust[below] + t * stretch.trust[above]


def seen_through(run: Run) -> tuple[Box | None, Window | None]:
    """Return where a run's object was last, and the window it was seen through."""
    if run.running is None:
        return None, None
    return box_of(run.running.mask), run.running.window


def others_of(here: list[Run], own: Run) -> list[tuple[int, MaskPatch]]:
    """Return the other objects' masks, where they were last."""
    return [
        (r.stretch.object_id, r.running.mask)
        for r in here
        if r.stretch.object_id != own.stretch.object_id and r.running is not None
    ]
