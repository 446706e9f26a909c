"""Slice by slice: from a few annotated planes to all; anchors never change."""

from napari_cfrseg.propagation.decisions import Suggestion, suggest
from napari_cfrseg.propagation.planes import SegmenterPlanes, planes_along
from napari_cfrseg.propagation.sweep import propagate
from napari_cfrseg.propagation.tracks import (
    Evidence,
    PlaneResult,
    PropagationSettings,
    StopReason,
    Track,
    gaps_of,
    planes_of,
    way_to,
)

__all__ = [
    "Evidence",
    "PlaneResult",
    "PropagationSettings",
    "SegmenterPlanes",
    "StopReason",
    "Suggestion",
    "Track",
    "gaps_of",
    "planes_along",
    "planes_of",
    "propagate",
    "suggest",
    "way_to",
]
