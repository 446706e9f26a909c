"""The objects to propagate, the planes computed, and the stretches that are walked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from napari_cfrseg.geometry.masks import LabelArray, MaskPatch, box_of
from napari_cfrseg.geometry.windows import Box, Window, shape_of
from napari_cfrseg.propagation.settings import StopReason

if TYPE_CHECKING:
    from napari_cfrseg.propagation.step import Answer, Running

Gap = tuple[int | None, int | None]
"""The anchors below and above some planes; None: there is none on that side."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One object to propagate."""

    object_id: int
    #: its annotated planes: index along the axis → mask (empty where the object is
    #: not). Never changed.
    anchors: Mapping[int, MaskPatch]
    #: planes outside are left alone; both inclusive
    first: int
    last: int
    #: the object reaches from ``first`` to ``last``: a run does not end because it
    #: fades
    spans: bool = False
    #: the stretches to fill; None: all that touch the range
    gaps: tuple[Gap, ...] | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """The measurements that a plane's confidence is computed from."""

    agreement: float  #: IoU of the network's mask with the expected shape
    certainty: float  #: mean of |2p − 1| of the network's answer over the mask
    #: IoU of the masks that came from both sides; that with the plane before where
    #: there is one side only
    passes: float
    trust: float  #: how well the network repeats the anchors, 0 to 1
    distance: float  #: from the nearest anchor, over the object's radius there


@dataclass(frozen=True, slots=True, eq=False)
class PlaneResult:
    """One object's mask on one plane, computed from the anchors below and above.

    ``confidence`` is the IoU to expect, in [0, 1]. Where a run ended, ``stop`` says
    why; if it was refused there, the mask is empty and the confidence is that of the
    mask refused.
    """

    object_id: int
    index: int
    mask: MaskPatch
    confidence: float
    stop: StopReason | None = None
    below: int | None = None
    above: int | None = None
    evidence: Evidence | None = None


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


def gaps_of(anchors: Iterable[int], first: int, last: int) -> tuple[Gap, ...]:
    """Return the stretches of planes without an anchor that touch a range.

    ``(None, a)`` lies before the first anchor, ``(a, b)`` between two, ``(b, None)``
    after the last.
    """
    known = sorted(anchors)
    ends: list[int | None] = [None, *known, None]
    return tuple(
        gap
        for gap in pairwise(ends)
        for planes in [planes_of(gap, first, last)]
        if known and max(planes.start, first) < min(planes.stop, last + 1)
    )


def planes_of(gap: Gap, first: int, last: int) -> range:
    """Return a gap's planes: all between two anchors, else those in the range."""
    below, above = gap
    low = first if below is None else below + 1
    high = last if above is None else above - 1
    return range(low, high + 1)


def stretches_of(track: Track) -> list[Stretch]:
    """Return the stretches of an object that are to be walked."""
    gaps = track.gaps
    if gaps is None:
        gaps = gaps_of(track.anchors, track.first, track.last)
    trust: dict[int, float] = {}
    return [
        Stretch(track, *gap, planes, trust)
        for gap in gaps
        if (planes := planes_of(gap, track.first, track.last))
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
