"""Slice by slice: from a few annotated planes to all; anchors never change."""

from napari_cfrseg.engine.propagation.sweep import gaps_of, planes_of, propagate
from napari_cfrseg.engine.propagation.values import (
    Evidence,
    PlaneResult,
    PropagationSettings,
    StopReason,
    Track,
)

__all__ = [
    "Evidence",
    "PlaneResult",
    "PropagationSettings",
    "StopReason",
    "Track",
    "gaps_of",
    "planes_of",
    "propagate",
]
