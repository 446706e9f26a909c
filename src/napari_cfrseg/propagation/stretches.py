"""The stretches of planes that are walked, and the shape expected on each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_cfrseg.geometry.masks import LabelArray, box_of
from napari_cfrseg.geometry.windows import Box, Window, shape_of
from napari_cfrseg.propagation.planes import SegmenterPlanes
from napari_cfrseg.propagation.shapes import Bridge, Cap, Prior, Profile
from napari_cfrseg.propagation.step import Answer, Running
from napari_cfrseg.propagation.tracks import (
    PropagationSettings,
    Track,
    gaps_of,
    way_to,
)


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
    def ends(self) -> list[int]:
        """The anchors it lies between or beyond: two or one."""
        return [a for a in (self.below, self.above) if a is not None]

    @property
    def is_gap(self) -> bool:
        """Whether it lies between two anchors."""
        return len(self.ends) == 2

    @property
    def object_id(self) -> int:
        """The object's number."""
        return self.track.object_id

    def share(self, index: int) -> float:
        """Return how far a plane is from the anchor below (0) to that above (1)."""
        if self.below is None or self.above is None:
            return 0.0 if self.above is None else 1.0
        return (index - self.below) / (self.above - self.below)

    def trust_on(self, index: int) -> float:
        """Return the network's weight on a plane: the anchors', by nearness."""
        first, last = self.ends[0], self.ends[-1]
        t = self.share(index)
        return (1 - t) * self.trust[first] + t * self.trust[last]


@dataclass(slots=True, eq=False)
class Run:
    """One stretch being walked in one direction."""

    stretch: Stretch
    direction: int
    start: int
    left: int
    running: Running | None = None

    def goes_to(self, index: int) -> bool:
        """Whether a plane is still to be walked to."""
        return bool(self.left) and index in self.stretch.planes

    def seen_through(self) -> tuple[Box | None, Window | None]:
        """Return where the object was last, and the window it was seen through."""
        if self.running is None:
            return None, None
        return box_of(self.running.mask), self.running.window


def stretches_of(track: Track) -> list[Stretch]:
    """Return the stretches of an object that are to be walked."""
    gaps = track.gaps
    if gaps is None:
        gaps = gaps_of(track.anchors, track.first, track.last)
    trust: dict[int, float] = {}
    return [
        Stretch(track, *gap, planes, trust)
        for gap in gaps
        if (planes := way_to(gap, track.first, track.last))
    ]


def sibling_labels(here: Sequence[Run], own: Run) -> Callable[[Box], LabelArray] | None:
    """Return labels of the other objects' masks, where they were last."""
    others = [
        (r.stretch.object_id, r.running.mask)
        for r in here
        if r.stretch.object_id != own.stretch.object_id and r.running is not None
    ]
    if not others:
        return None

    def labels(box: Box) -> LabelArray:
        out = np.zeros(shape_of(box), np.int32)
        for object_id, mask in others:
            out[mask.window(box)] = object_id
        return out

    return labels


def prior_of(planes: SegmenterPlanes, stretch: Stretch) -> Prior | None:
    """Return the bridge between two anchors, or the cap towards a known end."""
    below, above = stretch.below, stretch.above
    anchors, sampling = stretch.track.anchors, planes.px_sampling
    ends = _ends(planes, stretch.track)
    profile = None if ends == (None, None) else Profile(anchors, ends)
    if below is not None and above is not None:
        first, second = anchors[below], anchors[above]
        return Bridge(below, above, first, second, sampling, profile)
    anchor = above if below is None else below
    end = ends[0] if below is None else ends[1]
    if end is None or anchor is None or profile is None:
        return None
    return Cap(anchors[anchor], sampling, profile)


def _ends(planes: SegmenterPlanes, track: Track) -> tuple[int | None, int | None]:
    """Return the first planes without the object, where they are known."""
    if not track.spans:
        return None, None
    known = [track.first, track.last, *(i for i, m in track.anchors.items() if m.area)]
    first, last = min(known), max(known)
    return (first - 1 if first else None, last + 1 if last < planes.count - 1 else None)


def sigma_of(
    planes: SegmenterPlanes, settings: PropagationSettings, stretch: Stretch, index: int
) -> float:
    """Return how uncertain the prior is, in pixels.

    Between two known places it grows like a Brownian bridge; with nothing but the plane
    before, by ``drift_alone`` a plane. A share of the radius limits both.
    """
    ends = stretch.ends
    areas = [stretch.track.anchors[e].area for e in ends]
    outer = _ends(planes, stretch.track)
    end = None if stretch.is_gap else outer[0 if stretch.below is None else 1]
    if end is not None:
        ends.append(end)
    drift = settings.drift_alone
    if len(ends) == 2:
        one, other = abs(index - ends[0]), abs(index - ends[1])
        drift = settings.drift * math.sqrt(one * other / (one + other))
    most = settings.most_drift * math.sqrt(max(areas, default=0) / math.pi)
    return max(settings.drift_floor, min(drift * planes.plane_steps, most))
