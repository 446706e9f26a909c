"""Decide when a run beyond the outermost anchor ends; confidence and suggestions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
from scipy import ndimage

from napari_cfrseg.geometry.masks import MaskPatch, box_of, overlap_iou
from napari_cfrseg.geometry.windows import Box, overlap, slices, union
from napari_cfrseg.propagation.planes import SegmenterPlanes
from napari_cfrseg.propagation.shapes import Field, interpolate, moved
from napari_cfrseg.propagation.step import TAKEN, Answer, Running, advance, look_at
from napari_cfrseg.propagation.tracks import Evidence, PropagationSettings, StopReason


def stop_reason(
    planes: SegmenterPlanes,
    settings: PropagationSettings,
    mask: MaskPatch,
    before: Running,
    answer: Answer,
    evidence: Evidence,
    spans: bool,
) -> StopReason | None:
    """Return why a run ends on a plane with this mask; None if it continues.

    ``before`` is the run up to the plane before. Where the object is known to span the
    range, only an empty mask ends the run.
    """
    if not answer.network_ran:
        return StopReason.UNSUPPORTED
    if mask.area < settings.least_area_px:
        return StopReason.EMPTY
    if spans:
        return None
    near = replace(evidence, distance=min(evidence.distance, 1.0))
    unsure = answer.certainty < settings.least_certainty
    if unsure or confidence_of(near) < settings.least_confidence:
        return StopReason.UNSURE
    if _has_faded(settings, mask, before, answer):
        return StopReason.FADED
    return _jumped(planes, settings, mask, answer.carried)


def _has_faded(
    settings: PropagationSettings, mask: MaskPatch, before: Running, answer: Answer
) -> bool:
    least, contrast = before.least_contrast, answer.contrast
    dipped = least < settings.dip and contrast > least + settings.rise
    small = mask.area < settings.faint_area * before.anchor_area
    faint = settings.faint if small else settings.least_contrast
    return dipped or contrast < faint


def _jumped(
    planes: SegmenterPlanes,
    settings: PropagationSettings,
    mask: MaskPatch,
    before: MaskPatch,
) -> StopReason | None:
    """Compare with the plane before; planes far apart may differ more."""
    wide = max(1.0, math.sqrt(planes.plane_steps))
    if overlap_iou(mask, before) < settings.least_overlap / wide:
        return StopReason.LEFT
    ratio = mask.area / max(before.area, 1)
    most = settings.most_growth * wide
    return None if 1 / most <= ratio <= most else StopReason.AREA


#: the wrong feedback is off by this share of the object's radius along both axes
_OFF = 0.3


def measure_trust(
    planes: SegmenterPlanes,
    index: int,
    anchor: MaskPatch,
    object_id: int,
    settings: PropagationSettings,
) -> float:
    """Return the network's weight for an object, 0 to 1, from one of its anchors.

    ``least_trust`` IoU with the anchor and less give 0, ``full_trust`` and more 1.
    """
    if anchor.area < settings.least_area_px:
        return 0.0
    off = max(1.0, _OFF * math.sqrt(anchor.area / math.pi))
    shifted = moved(anchor, (off, off))
    inside = overlap(shifted.box, (0, 0, *planes.shape))
    wrong = MaskPatch.from_mask(shifted.window(inside), inside[:2])
    if not wrong.mask.size:
        return 0.0
    look, picture = look_at(planes, index, anchor)
    run = Running(index, wrong, picture, look, look, anchor.area)
    alone = partial(advance, prior=None, sigma=1.0, trust=1.0)
    iou = overlap_iou(alone(planes, run, index, object_id, settings).network, anchor)
    least, full = settings.least_trust, settings.full_trust
    return min(max((iou - least) / (full - least), 0.0), 1.0)


#: b, then the weights in the order of ``features``
COEFFICIENTS: tuple[float, ...] = (-1.267, 0.008, 1.198, 1.212, 1.505, -2.024)


def features(evidence: Evidence) -> tuple[float, ...]:
    """Return the factors of the weights, a leading 1 first."""
    e = evidence
    return 1.0, e.agreement, e.certainty, e.passes, e.trust, math.log1p(e.distance)


def confidence_of(
    evidence: Evidence, coefficients: Sequence[float] = COEFFICIENTS
) -> float:
    """Return the IoU to expect of a plane's mask, in (0, 1)."""
    total = sum(w * f for w, f in zip(coefficients, features(evidence), strict=True))
    return 1 / (1 + math.exp(-total))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A click worth making, where a plane's mask is least like its neighbours'."""

    index: int
    yx: tuple[float, float]
    confidence: float  #: the IoU expected of the plane


def suggest(
    masks: Mapping[int, MaskPatch], confidences: Mapping[int, float]
) -> Suggestion | None:
    """Suggest where a click would help most; None without a propagated plane.

    On the plane of least confidence (the first of equals), in the middle of the largest
    part in which its mask differs from the one its neighbours suggest. The masks are
    those of all planes, the confidences those of the propagated ones.
    """
    if not confidences:
        return None
    index = min(sorted(confidences), key=lambda i: confidences[i])
    own = masks.get(index, MaskPatch.empty())
    below = masks.get(index - 1, MaskPatch.empty())
    above = masks.get(index + 1, MaskPatch.empty())
    box = box_of(own, below, above)
    if box is None:
        return None
    box = (box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1)
    return Suggestion(index, _place(own, below, above, box), confidences[index])


def _place(
    own: MaskPatch, below: MaskPatch, above: MaskPatch, box: Box
) -> tuple[float, float]:
    mask = own.window(box)
    expected = mask
    if below.mask.size and above.mask.size:
        expected = interpolate(below, above, 0.5, box).values > 0
    elif below.mask.size or above.mask.size:
        expected = (below if below.mask.size else above).window(box)
    different = mask != expected
    depth = ndimage.distance_transform_edt(different if different.any() else mask)
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float(y + box[0]), float(x + box[1])


def mixed(below: Field, above: Field, t: float) -> Field:
    """Return the logits of both sides, weighted by nearness."""
    box = union(below.box, above.box)
    return Field(box, (1 - t) * below.over(box) + t * above.over(box))


def compete(answers: list[Answer]) -> None:
    """Give each pixel that two objects want to the one that wants it more."""
    for first, second in combinations([answer.logits for answer in answers], 2):
        shared = overlap(first.box, second.box)
        a = first.values[slices(shared, first.box)]
        b = second.values[slices(shared, second.box)]
        both, keeps = (a > 0) & (b > 0), a >= b
        b[both & keeps] = TAKEN
        a[both & ~keeps] = TAKEN
