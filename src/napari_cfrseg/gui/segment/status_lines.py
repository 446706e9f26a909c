"""The status line: one sentence about the objects that an act changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.state import ClickEntry, ObjectState, PlaneState
from napari_cfrseg.errors import counted
from napari_cfrseg.geometry.masks import Plane


def of_click(found: ObjectState, click: ev.ClickAdded, px: int, marker: float) -> str:
    """Return what a click made of its object, of whose mask ``px`` pixels are shown.

    ``marker`` is the width of a click's marker in pixels of the image.
    """
    state = found.on(click.plane)
    clicks = counted(state.click_count, "click")
    if _took_nothing(state, click):
        return (
            f"{found.name}: {clicks}, still {px} px. That was too far from it to take "
            "anything away: click nearer to its outline."
        )
    kept = sum(one.mask.area for one in found.planes.values()) - px
    others = f"; {kept} px more stay with neighbours" if kept > 0 else ""
    return f"{found.name}: {clicks}, {px} px{others}{hidden(state, marker)}."


def _took_nothing(state: PlaneState, click: ev.ClickAdded) -> bool:
    """Whether a click was too far from its object's mask to change it."""
    numbers = [getattr(entry, "click_id", None) for entry in state.entries]
    if click.click_id not in numbers:
        return False
    made = state.rounds[numbers.index(click.click_id)].prediction
    return made is not None and made.clicks[-1] in made.aside


def of_mask_chosen(
    objects: Mapping[int, ObjectState], click_id: int, marker: float
) -> str:
    """Return which of the masks found at a first click it has; "" if it is gone."""
    for found in objects.values():
        for plane, state in found.planes.items():
            first, chosen, count = masks_found(found, plane)
            if first is not None and first.click_id == click_id:
                text = f"{found.name}: mask {chosen + 1} of {count}"
                return f"{text}, {state.mask.area} px{hidden(state, marker)}."
    return ""


def of_left(left: Iterable[ObjectState], gone: Iterable[ObjectState], px: int) -> str:
    """Return what an act left of the objects it changed, or that they are gone."""
    left = list(left)
    found = left or list(gone)
    said = found[0].name if len(found) == 1 else counted(len(found), "object")
    if not left:
        return f"{said} deleted."
    clicks = counted(sum(state.click_count for state in left), "click")
    return f"{said}: {clicks}, {px} px."


def hidden(state: PlaneState, marker: float) -> str:
    """Return what to say of a mask that a click's marker hides, "" if none does."""
    is_hidden = 0 < max(state.mask.mask.shape) <= marker
    return ", under its marker: zoom in to see it" if is_hidden else ""


def masks_found(
    found: ObjectState | None, plane: Plane
) -> tuple[ClickEntry | None, int, int]:
    """Return an object's first click on a plane, its mask taken, and of how many."""
    state = PlaneState() if found is None else found.on(plane)
    first = next(iter(state.clicks), None)
    if first is None:
        return None, 0, 0
    count = state.rounds[state.entries.index(first)].masks
    return first, min(first.candidate, max(count, 1) - 1), count
