"""How far the network is to be trusted with an object: asked of its anchors.

The network is shown the anchor's own plane with a *wrong* feedback, the anchor's mask
moved by a part of its size. What it makes of it, compared with the anchor, says whether
it sees the object or only repeats what it is given.
"""

from __future__ import annotations

import math

from napari_cfrseg.engine.masks import MaskPatch
from napari_cfrseg.engine.propagation.planes import Planes
from napari_cfrseg.engine.propagation.shapes import box_of, moved, overlap_iou
from napari_cfrseg.engine.propagation.step import Running, advance, look_at
from napari_cfrseg.engine.propagation.values import PropagationSettings

#: the wrong feedback is off by this share of the object's radius along both axes
_OFF = 0.3


def measure_trust(
    planes: Planes,
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
    wrong = _inside(moved(anchor, (off, off)), planes.shape)
    if not wrong.mask.size:
        return 0.0
    look = look_at(planes, index, anchor)
    answer = advance(
        planes,
        Running(index, wrong, look, look),
        index,
        object_id,
        settings,
        prior=None,
        sigma=1.0,
        trust=1.0,
    )
    iou = overlap_iou(answer.network, anchor)
    least, full = settings.least_trust, settings.full_trust
    return min(max((iou - least) / (full - least), 0.0), 1.0)


def _inside(mask: MaskPatch, plane: tuple[int, int]) -> MaskPatch:
    found = box_of(mask)
    if found is None:
        return mask
    y0, x0 = max(found[0], 0), max(found[1], 0)
    y1, x1 = min(found[2], plane[0]), min(found[3], plane[1])
    if y0 >= y1 or x0 >= x1:
        return MaskPatch.empty()
    return MaskPatch.from_mask(mask.window((slice(y0, y1), slice(x0, x1))), (y0, x0))
