"""The objects to propagate, the planes computed, and the gaps between anchors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.propagation.settings import StopReason

Gap = tuple[int | None, int | None]
"""The anchors below and above some planes; None: there is none on that side."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One object to propagate."""

    object_id: int
    #: its annotated planes: index along the axis → mask (empty where the object is
    #: not). Never changed.
    anchors: Mapping[int, MaskPatch]
    #: planes outside are left alone, if walked through; both inclusive
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


def gaps_of(anchors: Iterable[int], first: int, last: int) -> tuple[Gap, ...]:
    """Return the stretches of planes without an anchor that touch a range.

    ``(None, a)`` lies before the first anchor, ``(a, b)`` between two, ``(b, None)``
    after the last.
    """
    known = sorted(anchors)
    ends: list[int | None] = [None, *known, None]
    gaps = pairwise(ends) if known else ()
    return tuple(gap for gap in gaps if planes_of(gap, first, last))


def planes_of(gap: Gap, first: int, last: int) -> range:
    """Return a gap's planes within a range."""
    below, above = gap
    low = first if below is None else max(below + 1, first)
    high = last if above is None else min(above - 1, last)
    return range(low, high + 1)


def way_to(gap: Gap, first: int, last: int) -> range:
    """Return the planes to walk, from a gap's anchors on, to fill those in a range."""
    if not planes_of(gap, first, last):
        return range(0)
    below, above = gap
    return range(
        first if below is None else below + 1, last + 1 if above is None else above
    )
