"""Input and output of a propagation: settings, tracks, planes, gaps of anchors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.geometry.masks import MaskPatch


class StopReason(StrEnum):
    """Why a run from an anchor went no farther."""

    EMPTY = "nothing was found"
    UNSUPPORTED = "the image no longer looks like the object"
    UNSURE = "the network was unsure"
    FADED = "the object faded into its surround"
    LEFT = "the mask left the one on the plane before"
    AREA = "the area changed abruptly"
    RANGE = "the end of the range"
    EDGE = "the edge of the stack"


@dataclass(frozen=True, slots=True)
class PropagationSettings:
    """Constants of the propagation, chosen on validation stacks."""

    #: of each plane; A-CFR: until the mask stops changing
    refinement: Refinement = field(default_factory=Refinement.adaptive)
    #: carried clicks on a plane at most: one in each larger part of the object, and in
    #: the nearest siblings
    most_positives: int = 3
    most_negatives: int = 3
    #: how far an outline strays from the interpolation of two anchors, per plane, in
    #: pixels, where the spacing of planes is that of pixels
    drift: float = 0.25
    #: how far it moves from plane to plane, where the plane before is all there is
    drift_alone: float = 1.2
    #: the prior's least uncertainty in pixels, and its greatest as a share of the
    #: object's radius on the anchors
    drift_floor: float = 0.5
    most_drift: float = 0.15
    #: an object whose picture correlates less than this with what is where its mask was
    #: carried is looked for within this many radii; what a radius of distance (its
    #: square) costs
    least_match: float = 0.6
    reach: float = 2.0
    stray_cost: float = 0.05
    #: the share of that way that the prior's outline becomes uncertain by
    stray_sigma: float = 0.1
    #: weight of the network's logit against the prior's, where it can be trusted
    network_weight: float = 0.5
    #: a pixel that kept less than this share of the anchor's contrast speaks against
    #: the object, with up to this logit
    faded: float = 0.15
    fading_weight: float = 6.0
    #: agreement with an anchor (IoU) at which the network is not trusted at all, and at
    #: which it is trusted fully
    least_trust: float = 0.4
    full_trust: float = 0.85
    #: a run ends where the mask's IoU with the plane before is below this, or its area
    #: more than this factor larger or smaller (for planes as far apart as pixels;
    #: farther ones may differ more)
    least_overlap: float = 0.3
    most_growth: float = 3.0
    #: … or the network is less sure than this (mean of |2p − 1| over the mask), or the
    #: IoU to expect is lower were the anchor no farther than the object's radius: so
    #: that a mask that is only copied on ends
    least_certainty: float = 0.3
    least_confidence: float = 0.35
    #: … or less than this share of the anchor's contrast is left, or the contrast had
    #: dipped below ``dip`` and rises by ``rise`` again: the next object begins
    least_contrast: float = 0.05
    dip: float = 0.6
    rise: float = 0.15
    #: … or less than ``faint`` of that contrast is left and the mask has shrunk to less
    #: than ``faint_area`` of the largest anchor. Either alone is no end: deep in a
    #: stack objects are dim long before they end.
    faint: float = 0.3
    faint_area: float = 0.5
    least_area_px: int = 4  #: … or fewer pixels are left


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
    """One object's mask on one plane, computed from the anchors below and above."""

    object_id: int
    index: int
    mask: MaskPatch  #: empty where it was refused
    confidence: float  #: the IoU to expect, in [0, 1], also of a mask refused
    stop: StopReason | None = None  #: why a run ended there
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
