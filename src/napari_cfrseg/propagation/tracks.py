"""The input and the results of a propagation, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

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
    """Constants of the propagation, chosen on validation stacks.

    Attributes
    ----------
    refinement
        Of each plane; A-CFR: until the mask stops changing.
    most_positives, most_negatives
        Carried clicks on a plane at most: one in each larger part of the object; the
        nearest siblings first, then the surround.
    surround_negatives
        How many of the negatives may lie on plain background.
    drift
        How far an outline strays from the interpolation of two anchors, per plane, in
        pixels, where the spacing of planes is that of pixels.
    drift_alone
        How far it moves from plane to plane, where the plane before is all there is.
    drift_floor, most_drift
        The prior's least uncertainty in pixels, and its greatest as a share of the
        object's radius on the anchors.
    network_weight
        Weight of the network's logit against the prior's, where it can be trusted.
    faded, fading_weight
        A pixel that kept less than this share of the anchor's contrast speaks against
        the object, with up to this logit.
    least_trust
        Agreement with an anchor (IoU) at which the network is not trusted at all …
    full_trust
        … and at which it is trusted fully.
    least_overlap
        A run ends where the mask's IoU with the plane before is below this (for
        planes as far apart as pixels; farther ones are allowed less).
    most_growth
        … or its area more than this factor larger or smaller.
    least_certainty, least_confidence
        … or the network is less sure than this (mean of |2p − 1| over the mask), or the
        IoU to expect is lower were the anchor no farther than the object's radius: so
        that a mask that is only copied on ends.
    least_contrast, dip, rise
        … or less than this share of the anchor's contrast is left, or the contrast had
        dipped below ``dip`` and rises by ``rise`` again: the next object begins.
    least_area_px
        … or fewer pixels are left.
    """

    refinement: Refinement = field(default_factory=Refinement.adaptive)
    most_positives: int = 3
    most_negatives: int = 3
    surround_negatives: int = 0
    drift: float = 0.25
    drift_alone: float = 1.2
    drift_floor: float = 0.5
    most_drift: float = 0.15
    network_weight: float = 0.5
    faded: float = 0.15
    fading_weight: float = 6.0
    least_trust: float = 0.4
    full_trust: float = 0.85
    least_overlap: float = 0.3
    most_growth: float = 3.0
    least_certainty: float = 0.3
    least_confidence: float = 0.35
    least_contrast: float = 0.25
    dip: float = 0.6
    rise: float = 0.15
    least_area_px: int = 4


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One object to propagate.

    Attributes
    ----------
    object_id
        Whose mask it is.
    anchors
        Its annotated planes: index along the axis → mask (empty where the
        object is not). Never changed.
    first, last
        Planes outside are left alone; both inclusive.
    spans
        The object reaches from ``first`` to ``last``: a run does
        not end because the object fades.
    gaps
        The stretches to fill, (anchor below or None, anchor above or None); None:
        all that touch the range.
    """

    object_id: int
    anchors: Mapping[int, MaskPatch]
    first: int
    last: int
    spans: bool = False
    gaps: tuple[tuple[int | None, int | None], ...] | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """The measurements that a plane's confidence is computed from.

    Attributes
    ----------
    agreement
        IoU of the network's mask with the prior's (the plane before, or the
        interpolation of two anchors).
    certainty
        Mean of |2p − 1| of the network's answer over the mask.
    passes
        IoU of the masks that came from both sides; that with the plane before where
        there is one side only.
    trust
        How well the network repeats the anchors, 0 to 1.
    distance
        From the nearest anchor, over the object's radius there.
    """

    agreement: float
    certainty: float
    passes: float
    trust: float
    distance: float


@dataclass(frozen=True, slots=True, eq=False)
class PlaneResult:
    """One object's mask on one plane.

    Attributes
    ----------
    object_id, index
        Whose, and which plane along the axis.
    mask
        The mask; empty where the run stopped.
    confidence
        The IoU to expect, in [0, 1]; where the run stopped, of the mask that was
        refused.
    stop
        Why the run ended on this plane; None: it went on.
    below, above
        The anchors it was computed from.
    evidence
        The measurements behind the confidence.
    """

    object_id: int
    index: int
    mask: MaskPatch
    confidence: float
    stop: StopReason | None = None
    below: int | None = None
    above: int | None = None
    evidence: Evidence | None = None
