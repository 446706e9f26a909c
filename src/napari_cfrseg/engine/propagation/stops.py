"""When a run beyond the outermost anchor ends, and why."""

from __future__ import annotations

import math
from dataclasses import replace

from napari_cfrseg.engine.masks import MaskPatch
from napari_cfrseg.engine.propagation.confidence import confidence_of
from napari_cfrseg.engine.propagation.planes import Planes, plane_steps
from napari_cfrseg.engine.propagation.shapes import overlap_iou
from napari_cfrseg.engine.propagation.step import Answer, Running
from napari_cfrseg.engine.propagation.values import (
    Evidence,
    PropagationSettings,
    StopReason,
)


def stop_reason(
    planes: Planes,
    settings: PropagationSettings,
    mask: MaskPatch,
    before: Running,
    answer: Answer,
    evidence: Evidence,
    spans: bool,
) -> StopReason | None:
    """Return why a run ends on a plane, None: it goes on.

    Parameters
    ----------
    mask, answer
        What was found there.
    before
        The run up to the plane before.
    evidence
        What the confidence of the mask is computed from.
    spans
        The person said that the object reaches through: only nothing at all ends it.
    """
    if not answer.asked:
        return StopReason.UNSUPPORTED
    if mask.area < settings.least_area_px:
        return StopReason.EMPTY
    if spans:
        return None
    near = replace(evidence, distance=min(evidence.distance, 1.0))
    unsure = answer.certainty < settings.least_certainty
    if unsure or confidence_of(near) < settings.least_confidence:
        return StopReason.UNSURE
    if _has_faded(settings, before, answer):
        return StopReason.FADED
    return _jumped(planes, settings, mask, before.mask)


def _has_faded(settings: PropagationSettings, before: Running, answer: Answer) -> bool:
    least = before.least_contrast
    dipped = least < settings.dip and answer.contrast > least + settings.rise
    return dipped or answer.contrast < settings.least_contrast


def _jumped(
    planes: Planes,
    settings: PropagationSettings,
    mask: MaskPatch,
    before: MaskPatch,
) -> StopReason | None:
    """Compare with the plane before; planes far apart may differ more."""
    wide = max(1.0, math.sqrt(plane_steps(planes)))
    if overlap_iou(mask, before) < settings.least_overlap / wide:
        return StopReason.LEFT
    ratio = mask.area / max(before.area, 1)
    most = settings.most_growth * wide
    return None if 1 / most <= ratio <= most else StopReason.AREA
