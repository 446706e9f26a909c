"""Where to click next: the plane that is probably worst, and a place on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_cfrseg.engine.masks import MaskPatch
from napari_cfrseg.engine.propagation.shapes import box_of, interpolate, slices
from napari_cfrseg.window import Box


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A click worth making.

    Attributes
    ----------
    index
        The plane.
    yx
        Where its mask is least like its neighbours', (row, column).
    confidence
        The IoU expected of the plane.
    """

    index: int
    yx: tuple[float, float]
    confidence: float


def suggest(
    masks: Mapping[int, MaskPatch], confidences: Mapping[int, float]
) -> Suggestion | None:
    """Suggest where a click would help most.

    Parameters
    ----------
    masks
        An object's masks by plane, anchors among them.
    confidences
        Of the propagated planes only.

    Returns
    -------
    The propagated plane of least confidence (the first of equals), and the middle of
    the largest part in which its mask differs from what its neighbours suggest; None
    without a propagated plane.
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
    yx = _place(own, below, above, box)
    return Suggestion(index, yx, confidences[index])


def _place(
    own: MaskPatch, below: MaskPatch, above: MaskPatch, box: Box
) -> tuple[float, float]:
    mask = own.window(slices(box))
    expected = mask
    if below.mask.size and above.mask.size:
        expected = interpolate(below, above, 0.5, box).values > 0
    elif below.mask.size or above.mask.size:
        expected = (below if below.mask.size else above).window(slices(box))
    different = mask != expected
    area = different if different.any() else mask
    depth = ndimage.distance_transform_edt(area)
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float(y + box[0]), float(x + box[1])
