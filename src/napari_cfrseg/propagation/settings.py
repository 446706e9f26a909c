"""Settings of the propagation, and the reasons why it stops at a plane."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from napari_cfrseg.engine.refinement import Refinement


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
