"""Planes between two anchors, or beyond the last: what is expected on them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Box, Window
from napari_cfrseg.propagation.planes import Planes, plane_steps, px_sampling
from napari_cfrseg.propagation.priors import Bridge, Cap, Prior, Profile
from napari_cfrseg.propagation.shapes import box_of
from napari_cfrseg.propagation.step import Answer, Running
from napari_cfrseg.propagation.tracks import PropagationSettings, Track

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
        """Whose planes these are."""
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
    found = []
    for below, above in pairwise(ends):
        low = first if below is None else below + 1
        high = last if above is None else above - 1
        if known and max(low, first) <= min(high, last):
            found.append((below, above))
    return tuple(found)


def planes_of(gap: Gap, first: int, last: int) -> range:
    """Return the planes of a gap: a whole one between anchors, else up to the range."""
    below, above = gap
    low = first if below is None else below + 1
    high = last if above is None else above - 1
    return range(low, high + 1)


def prior_of(planes: Planes, stretch: Stretch) -> Prior | None:
    """Expect a bridge between anchors, or a cap towards an end the person gave."""
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
    """Return the first planes without the object, where the person said so."""
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
