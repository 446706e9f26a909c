"""Whether a click lies apart from its object, and so begins the next one.

A positive click on the next nucleus looks like a correction of the one before. The
network tells them apart: it fuses a correction with the object, and leaves the next
object beside it, or joined by a narrow neck. Where the mask before is hardly what was
meant, such as a dot on a large object, a click corrects it. Objects that touch are
often fused all the same: well outside the mask, the click is also computed as the first
of a new object, which it is if that mask is a likely one and leaves this object out.
How often this is right is measured by ``benchmarks/next_object.py``; the numbers come
from validation objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.rounds import RoundComputer, mask_patch
from napari_cfrseg.annotation.state import (
    ClickEntry,
    ObjectState,
    PlaneState,
    Settings,
)
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.geometry.masks import MaskPatch

#: farther from a mask's box than so many times its longer side, no click corrects it
_FAR = 2.0
#: a neck is narrower than this share of the part's own width at the click
_NECK = 0.6
#: a mask of which the network expects less is not right yet: clicks correct it
_LEAST_QUALITY = 0.6
#: a click nearer to the mask than so many of its half-widths is no new object's
_OUTSIDE = 0.8
#: a new object's first mask: the IoU that the network expects at least, and the share
#: of the smaller mask that it and the object before have in common at most
_LEAST_ALONE, _MOST_SHARED = 0.7, 0.05
#: masks are compared on a grid of at most so many cells a side
_MOST_CELLS = 96


def is_beyond(objects: Mapping[int, ObjectState], event: ev.Event) -> bool:
    """Return whether no click there corrects its object: locked, or far away."""
    if not isinstance(event, ev.ClickAdded) or event.object_id not in objects:
        return False
    whole = objects[event.object_id]
    state = whole.on(event.plane)
    is_far = _is_right(state) and _is_far(state.mask, event.click.pixel)
    return whole.locked or is_far


def _is_right(state: PlaneState) -> bool:
    """Whether the newest click's mask may be what the person means."""
    newest = state.rounds[-1].prediction if state.rounds else None
    quality = None if newest is None else newest.quality
    return quality is None or quality >= _LEAST_QUALITY


def _is_far(mask: MaskPatch, pixel: tuple[int, int]) -> bool:
    if not mask.mask.size:
        return False
    sides = zip(pixel, mask.offset, mask.mask.shape, strict=True)
    gap = max(max(low - v, v - (low + n - 1)) for v, low, n in sides)
    return bool(gap > _FAR * max(mask.mask.shape))


def alone(
    computer: RoundComputer,
    settings: Settings,
    if_apart: Sequence[ev.Event],
    check: Callable[[], None] = lambda: None,
) -> Callable[[], Prediction]:
    """Return what computes the first click of the object that would begin.

    ``if_apart`` ends with it; its mask is kept for it. ``check`` as in
    :meth:`RoundComputer.look_ahead`.
    """
    *_, click = if_apart
    cuts = [one.threshold for one in if_apart if isinstance(one, ev.ObjectCreated)]
    if not isinstance(click, ev.ClickAdded):
        raise TypeError(f"{type(click).__name__} is not a click")
    entry = ClickEntry.of(click, settings.refinement, cuts[0])
    return lambda: computer.look_ahead(click.plane, PlaneState(), entry, check)


def is_apart(
    before: PlaneState,
    after: MaskPatch,
    pixel: tuple[int, int],
    first: Callable[[], Prediction],
) -> bool:
    """Return whether a click is on another object than the one before.

    ``after`` is the mask once the click on ``pixel`` was added, ``first`` returns what
    it gives as the first click of an object (:func:`alone`). False where there was no
    mask before.
    """
    if not before.mask.mask.size:
        return False
    if _is_part(before, after, pixel):
        return True
    if not _is_outside(before.mask, pixel):
        return False
    found = first()
    mask = mask_patch(found, found.threshold)
    shared = np.count_nonzero(mask.mask & before.mask.window(mask.box))
    smaller = min(mask.area, before.mask.area)
    is_likely = found.quality is not None and found.quality >= _LEAST_ALONE
    return is_likely and bool(shared < _MOST_SHARED * smaller)


def _is_outside(mask: MaskPatch, pixel: tuple[int, int]) -> bool:
    """Whether a pixel lies well outside a mask, by its half-widths."""
    step = -(-max(mask.mask.shape) // _MOST_CELLS)
    cells = mask.mask[::step, ::step]
    if not cells.any():
        return False
    half_width = step * ndimage.distance_transform_edt(np.pad(cells, 1)).max()
    away = (np.argwhere(cells) * step + mask.offset) - pixel
    return bool(np.hypot(*away.T).min() >= _OUTSIDE * half_width)


def _is_part(before: PlaneState, after: MaskPatch, pixel: tuple[int, int]) -> bool:
    """Whether a click's part of a mask leaves the one before out.

    False where the one before may not be right, and where the click is not in the mask.
    """
    (y, x), (y0, x0, y1, x1) = pixel, after.box
    inside = y0 <= y < y1 and x0 <= x < x1 and after.mask[y - y0, x - x0]
    if not inside or not _is_right(before):
        return False
    step = -(-max(after.mask.shape) // _MOST_CELLS)
    y, x = y - y0, x - x0
    cells = np.s_[y % step :: step, x % step :: step]  # the click's pixel is a cell
    depths = ndimage.distance_transform_edt(np.pad(after.mask[cells], 1))[1:-1, 1:-1]
    here = y // step, x // step
    parts, _ = ndimage.label(depths >= _NECK * depths[here], np.ones((3, 3)))
    part = parts == parts[here]
    return not (part & before.mask.window(after.box)[cells]).any()
