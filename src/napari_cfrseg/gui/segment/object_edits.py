"""Edit whole objects: merge, split, class and colour; go to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.geometry.masks import Plane

if TYPE_CHECKING:
    from napari_cfrseg.gui.segment.controller import Controller

    TableEdit = (
        ev.ObjectClassified | ev.ObjectRecoloured | ev.ObjectLocked | ev.ObjectDeleted
    )


class ObjectEdits:
    """Turns what a person does with objects in the table or with keys into events."""

    def __init__(self, controller: Controller) -> None:
        self._owner = controller

    def go_to(self, object_id: int) -> None:
        """Show an object's middle, on the nearest of its planes."""
        here, planes = self._owner.current_plane, self._owner.objects[object_id].planes
        seen = [p for p, state in planes.items() if state.mask.mask.size]
        if not seen:
            self._owner.say("There is nothing to see of it.")
            return

        def far(plane: Plane) -> int:
            return sum(abs(a - b) for a, b in zip(plane, here, strict=True))

        plane = min(seen, key=far)
        y0, x0, y1, x1 = planes[plane].mask.box
        self._owner.planes.show(plane, ((y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2))

    def merge(self, object_ids: Sequence[int]) -> None:
        """Make objects one: the first of them."""
        if len(object_ids) < 2:
            self._owner.say("Choose two objects or more in the table (Ctrl+click).")
            return
        self._owner.select(object_ids[0])
        self._owner.submit(ev.ObjectsMerged(tuple(object_ids)))

    def merge_pointed(self) -> None:
        """Make the object under the pointer part of the selected one."""
        selected = self._owner.view.selected
        found = self._owner.object_at(self._owner.viewer.cursor.position)
        if not found or selected in (None, found):
            self._owner.say("Point at another object than the selected one.")
        else:
            self.merge([int(selected or 0), found])

    def split_pointed(self) -> None:
        """Make the part under the pointer an object of its own."""
        world = self._owner.viewer.cursor.position
        place, found = self._owner.planes.locate(world), self._owner.object_at(world)
        if place is None or not found:
            self._owner.say("Point at the part to split off.")
            return
        new = self._owner.view.next_id
        self._owner.say("Splitting …", next_id=new + 1)
        self._owner.submit(ev.ObjectSplit(found, place[0], place[1], new))

    def classify(self, object_ids: Sequence[int], object_class: str) -> None:
        """Give objects a class, and the colour that objects of this class have."""
        objects = self._owner.objects
        same = [o.colour for o in objects.values() if o.object_class == object_class]
        events: list[TableEdit] = []
        for object_id in object_ids:
            if objects[object_id].object_class != object_class:
                events.append(ev.ObjectClassified(object_id, object_class))
            if object_class and same and objects[object_id].colour != same[0]:
                events.append(ev.ObjectRecoloured(object_id, same[0]))
        self._as_one(events)

    def recolour(self, object_id: int, colour: str) -> None:
        """Give an object a colour, and all objects of its class."""
        objects = self._owner.objects
        kind = objects[object_id].object_class
        self._as_one(
            ev.ObjectRecoloured(number, colour)
            for number, other in objects.items()
            if number == object_id or (kind and other.object_class == kind)
            if other.colour != colour
        )

    def lock(self, object_ids: Sequence[int], locked: bool) -> None:
        """Lock objects, or unlock them."""
        objects = self._owner.objects
        self._as_one(
            ev.ObjectLocked(i, locked)
            for i in object_ids
            if objects[i].locked != locked
        )

    def delete(self, object_ids: Sequence[int]) -> None:
        """Delete objects, except those that are locked."""
        objects = self._owner.objects
        free = [i for i in object_ids if not objects[i].locked]
        if len(free) < len(object_ids):
            kept = len(object_ids) - len(free)
            self._owner.say(f"{kept} locked: unlock them in the table to delete them.")
        self._as_one(map(ev.ObjectDeleted, free))

    def _as_one(self, edits: Iterable[TableEdit]) -> None:
        """Submit edits of the table as one undo step."""
        events = [*edits]
        more = [replace(event, together=True) for event in events[1:]]
        if events:
            self._owner.submit(events[0], *more)
