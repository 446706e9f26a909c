"""Whether a click lies apart from its object, and so begins the next one.

The network fuses a correction with the object, and leaves the next object beside it, or
joined by a narrow neck. Where the mask before is hardly what was meant, such as a dot
on a large object, a click corrects it. Objects that touch are often fused all the same:
well outside the mask, one window is first looked at as if the click began an object,
which it does if that shows a likely mask that leaves this object out. The numbers come
from validation objects (``benchmarks/next_object.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.rounds import RoundComputer
from napari_cfrseg.annotation.state import ClickEntry, ObjectState, PlaneState, Settings
from napari_cfrseg.geometry.masks import MaskPatch

if TYPE_CHECKING:
    from napari_cfrseg.engine.window_search import Attempt

#: farther from a mask's box than so many times its longer side, no click corrects it
_FAR = 2.0
#: a neck is narrower than this share of the part's own width at the click
_NECK = 0.6
#: a mask of which the network expects less is not right yet: clicks correct it
_LEAST_QUALITY = 0.6
#: a click nearer to the mask than so many of its half-widths is no new object's
_OUTSIDE = 0.8
#: side of the window that is looked at for a new object, over the mask's longer side
_GLANCE = 2.0
#: a new object's mask there: the IoU that the network expects at least, and the share
#: of the smaller mask that it and the object before have in common at most
_LEAST_ALONE, _MOST_SHARED = 0.65, 0.05
#: masks are compared on a grid of at most so many cells a side
_MOST_CELLS = 96


def is_apart(
    objects: Mapping[int, ObjectState],
    computer: RoundComputer,
    settings: Settings,
    event: ev.Event,
    if_apart: Sequence[ev.Event],
    check: Callable[[], None] = lambda: None,
) -> bool:
    """Return whether a click is another object's, asked before it is computed.

    Its own object is locked, far away, or has a likely one beside it, where
    ``if_apart``, which begins that one, ends with its first click.
    """
    if not (if_apart and isinstance(event, ev.ClickAdded)):
        return False
    whole, first = objects.get(event.object_id), if_apart[-1]
    if whole is None or not isinstance(first, ev.ClickAdded):
        return False
    state, pixel = whole.on(event.plane), event.click.pixel
    if whole.locked or (_is_right(state) and _is_far(state.mask, pixel)):
        return True
    if not _is_outside(state.mask, pixel):
        return False
    entry = ClickEntry.of(first, settings.refinement, whole.threshold)
    side_px = _GLANCE * max(state.mask.mask.shape)
    return leaves_out(state.mask, computer.glance(event.plane, entry, side_px, check))


def leaves_out(mask: MaskPatch, seen: Attempt) -> bool:
    """Whether a window shows a likely object that has next to nothing of a mask."""
    if seen.evidence is None or (seen.quality or 0.0) < _LEAST_ALONE:
        return False
    window, alone, step = seen.look.window, seen.probability > 0.5, _step(mask)
    places = np.argwhere(mask.mask[::step, ::step]) * step + mask.offset
    cells = np.floor(window.on_grid(places.astype(float)) + 0.5).astype(np.intp)
    inside = ((cells >= 0) & (cells < window.grid)).all(axis=1)
    shared = step**2 * np.count_nonzero(alone[tuple(cells[inside].T)])
    smaller = min(np.count_nonzero(alone) * window.px_per_cell**2, mask.area)
    return bool(shared < _MOST_SHARED * smaller)


def is_part(before: PlaneState, after: MaskPatch, pixel: tuple[int, int]) -> bool:
    """Return whether a click's part of a mask leaves the one before out.

    ``after`` is the mask once the click on ``pixel`` was added. False where there was
    no mask before or it may not be right, and where the click is not in the mask.
    """
    if pixel not in after or not before.mask.mask.size or not _is_right(before):
        return False
    step = _step(after)
    y, x = pixel[0] - after.offset[0], pixel[1] - after.offset[1]
    cells = np.s_[y % step :: step, x % step :: step]  # the click's pixel is a cell
    depths = ndimage.distance_transform_edt(np.pad(after.mask[cells], 1))[1:-1, 1:-1]
    here = y // step, x // step
    parts, _ = ndimage.label(depths >= _NECK * depths[here], np.ones((3, 3)))
    part = parts == parts[here]
    return not (part & before.mask.window(after.box)[cells]).any()


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


def _is_outside(mask: MaskPatch, pixel: tuple[int, int]) -> bool:
    """Whether a pixel lies well outside a mask, by its half-widths."""
    if not mask.mask.size:
        return False
    step = _step(mask)
    cells = mask.mask[::step, ::step]
    if not cells.any():
        return False
    half_width = step * ndimage.distance_transform_edt(np.pad(cells, 1)).max()
    away = (np.argwhere(cells) * step + mask.offset) - pixel
    return bool(np.hypot(*away.T).min() >= _OUTSIDE * half_width)


def _step(mask: MaskPatch) -> int:
    """Return how many pixels a cell has on the grid that masks are compared on."""
    return -(-int(max(mask.mask.shape)) // _MOST_CELLS)
