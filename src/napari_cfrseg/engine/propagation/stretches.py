"""Planes between two anchors, or beyond the last: what is expected on them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from napari_cfrseg.engine.propagation.priors import Bridge, Cap, Prior
from napari_cfrseg.engine.propagation.step import (
    Answer,
    Planes,
    plane_steps,
    px_sampling,
)
from napari_cfrseg.engine.propagation.values import PropagationSettings, Track

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
    if below is not None and above is not None:
        return Bridge(below, above, anchors[below], anchors[above], sampling)
    end = _end(planes, stretch)
    anchor = above if below is None else below
    if end is None or anchor is None:
        return None
    return Cap(anchor, end, anchors[anchor], sampling)


def _end(planes: Planes, stretch: Stretch) -> int | None:
    """Return the first plane without the object, where the person said so."""
    track = stretch.track
    if stretch.is_gap or not track.spans:
        return None
    if stretch.below is None:
        return track.first - 1 if track.first > 0 else None
    return track.last + 1 if track.last < planes.count - 1 else None


def sigma_of(
    planes: Planes, settings: PropagationSettings, stretch: Stretch, index: int
) -> float:
    """Return how uncertain the prior is: a bridge between anchors, in pixels."""
    steps = 1.0
    ends = [e for e in (stretch.below, stretch.above) if e is not None]
    end = _end(planes, stretch)
    if end is not None:
        ends.append(end)
    if len(ends) == 2:
        one, other = abs(index - ends[0]), abs(index - ends[1])
        steps = one * other / (one + other)
    drift = settings.drift * plane_steps(planes) * math.sqrt(steps)
    return max(settings.drift_floor, drift)


def trust_of(stretch: Stretch, index: int) -> float:
    """Return the network's weight on a plane: the anchors', by nearness."""
    below, above = stretch.below, stretch.above
    if below is None or above is None:
        anchor = above if below is None else below
        return stretch.trust.get(-1 if anchor is None else anchor, 0.0)
    t = (index - below) / (above - below)
    return (1 - t) * stretch.trust[below] + t * stretch.trust[above]
