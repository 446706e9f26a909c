"""Neighbours that walk together are looked at through one window, embedded once.

A window of an object's own shows it at about 1.6 times its size, so that no two objects
ever fit into the own window of one of them unless it is much the larger. Neighbours of
like size get a window around both: each is then shown up to twice as small as in its
own, as small as a click's window may show an object before it is laid anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from napari_cfrseg.engine.patch import union
from napari_cfrseg.window import Box, Window

#: side of an object's own window over its size (that of a click)
_OWN = 1.6
#: side of a window of several objects over their common size
_COMMON = 1.3
#: a shared window may be so much wider or narrower than an object's own would be
_KEPT = (0.5, 1.1)


def fits(window: Window, box: Box) -> bool:
    """Whether a window shows an object well."""
    ratio = _OWN * _extent(box) / window.side
    return _KEPT[0] <= ratio <= _KEPT[1] and window.holds(box)


def common_windows(
    objects: Sequence[tuple[Box | None, Window | None]], plane: tuple[int, int]
) -> list[Window | None]:
    """Return a window for each of several objects; the same for some of them.

    Parameters
    ----------
    objects
        Where each was on the plane before, and the window it was seen through.
    plane
        (Y, X) of the planes.

    Returns
    -------
    For each object the window it shares, None where it shares none. A window that
    shows a group already is kept, so that it can be embedded ahead.
    """
    groups: list[tuple[list[int], Window | None]] = []
    for index, (box, window) in enumerate(objects):
        if box is None or window is None:
            continue
        for place, (members, _) in enumerate(groups):
            grown = [*members, index]
            found = _common([objects[i] for i in grown], plane)
            if found is not None:
                groups[place] = grown, found
                break
        else:
            groups.append(([index], None))
    out: list[Window | None] = [None] * len(objects)
    for members, shared in groups:
        for index in members:
            out[index] = shared
    return out


def _common(
    members: Sequence[tuple[Box | None, Window | None]], plane: tuple[int, int]
) -> Window | None:
    boxes = [box for box, _ in members if box is not None]
    known = [window for _, window in members if window is not None]
    hull = boxes[0]
    for box in boxes[1:]:
        hull = union(hull, box)
    centre = (hull[0] + hull[2] - 1) / 2, (hull[1] + hull[3] - 1) / 2
    side = max(round(_COMMON * _extent(hull)), *(_extent(b) + 2 for b in boxes))
    laid = Window.centred(centre, side, known[0].grid, plane)
    for window in (*known, laid):
        if all(fits(window, box) for box in boxes):
            return window
    return None


def _extent(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])
