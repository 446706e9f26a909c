"""Clicks, boxes and strokes on the canvas, and edits of objects, become events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.geometry.windows import Box
from napari_cfrseg.gui.segment.dock_view import Remedy
from napari_cfrseg.gui.segment.event_queue import Step
from napari_cfrseg.gui.segment.layers import MOST_OBJECTS
from napari_cfrseg.gui.segment.suggesting import Suggesting
from napari_cfrseg.gui.segment.workspace import Workspace

TableEdit = (
    ev.ObjectClassified | ev.ObjectRecoloured | ev.ObjectLocked | ev.ObjectDeleted
)

#: a plane, and (row, column) on it
Place = tuple[Plane, tuple[float, float]]
#: sides of a box that are taken for one
_LEAST_PX = 3
#: clicks that a stroke counts as, and pixels of the image between two of them
MOST_CLICKS = 5
_STROKE_STEP_PX = 6


class ClickSteps:
    """Makes the events of clicks, boxes and strokes; each is one step.

    ``focus_shift`` is how much closer or wider the next click looks.
    """

    def __init__(self, work: Workspace, suggestions: Suggesting) -> None:
        self._work, self._suggestions = work, suggestions
        self.focus_shift = 0

    def click(
        self,
        world: Sequence[float],
        is_positive: bool,
        box: Box | None = None,
        along: NDArray[np.float64] | None = None,
    ) -> Step:
        """Return the step that a click is; without events (and say why) if it is none.

        A click with a box around it begins an object, or an object's first mask here;
        one apart from the selected object may begin another, and a negative one on
        another object's pixel corrects that object. One that would begin an object on a
        pixel that another keeps selects that one. ``along`` are the places on the plane
        of the stroke that the click begins, one a pixel: begun in a suggestion it
        judges all that it touches, else it is the selected object's.
        """
        work = self._work
        place = work.planes.locate(world)
        if place is not None and box is None and not work.planes.why_not(world):
            path = np.array([place[1]]) if along is None else along
            judged = self._suggestions.event_at(place[0], path, is_positive)
            if judged is not None:
                return Step((judged,))
            if owner := self._keeper_of(place, is_positive):
                work.choose(owner)
                work.say(
                    f"{work.objects[owner].name} is there: clicks go to it now. "
                    "For an object on top of it choose Overlap: this object takes them."
                )
                return Step()
        step, refused = self._step(world, is_positive, box, may_begin=along is None)
        if refused:
            work.refuse(refused)
        else:
            self.focus_shift = 0
        return step

    def expected(self, world: Sequence[float], is_positive: bool) -> Step:
        """Return the step that a click would be; without events if it would be none."""
        work = self._work
        place = work.planes.locate(world)
        covered = work.planes.covering(world) is not None
        if place is None or covered or not work.image.is_shown:
            return Step()
        if self._suggestions.found_at(*place) is not None:
            return Step()
        if self._keeper_of(place, is_positive):
            return Step()
        return self._step(world, is_positive)[0]

    def _keeper_of(self, place: Place, is_positive: bool) -> int:
        """Return the object that keeps a pixel from one begun there; 0 for none."""
        view = self._work.view
        begins = is_positive and view.selected is None
        if not begins or view.rule is ev.OverlapRule.OVERWRITE:
            return 0
        owner = self._work.labels.object_at(*place)
        return owner if owner in self._work.objects else 0

    def shift_focus(self, step: int) -> None:
        """Look closer (−1) or wider (+1) at the newest click here, or at the next."""
        work, plane = self._work, self._work.current_plane
        found = work.objects.get(work.view.selected or 0)
        clicks = () if found is None else found.on(plane).clicks
        shifts = {click.click_id: click.focus_shift for click in clicks}
        here = work.view.selected, plane
        for event in work.waiting_events:
            if isinstance(event, ev.ClickAdded):
                if (event.object_id, event.plane) == here:
                    shifts[event.click_id] = event.focus_shift
            elif isinstance(event, ev.ClickRefocused) and event.click_id in shifts:
                shifts[event.click_id] = event.focus_shift
        if not shifts:
            self.focus_shift += step
            work.say(f"Focus of the next click: {self.focus_shift:+d}")
            return
        newest, shift = list(shifts.items())[-1]
        work.say(f"Focus of the newest click: {shift + step:+d}")
        work.submit(ev.ClickRefocused(newest, shift + step))

    def _step(
        self,
        world: Sequence[float],
        is_positive: bool,
        box: Box | None = None,
        *,
        may_begin: bool = True,
    ) -> tuple[Step, str]:
        """Return the step that a click is, or an empty one and why it is none."""
        work, view = self._work, self._work.view
        place = work.planes.locate(world)
        selected = view.selected
        if not is_positive and place is not None:
            # nothing else can be wrong on a pixel that another object has
            selected = work.labels.object_at(*place) or selected
        known = work.objects.get(selected or 0)
        is_first = known is None or place is None or known.on(place[0]).is_empty
        may_begin &= box is None and self._may_begin(place, is_positive)
        if box is not None and (known is None or not is_first):
            selected = None
        refused = work.planes.why_not(world)
        if selected is None and not is_positive:
            refused = refused or "The first click of an object must be positive."
        elif selected is None and view.next_id > MOST_OBJECTS:
            refused = refused or f"No more than {MOST_OBJECTS} objects fit."
        if refused or place is None:
            return Step(), refused
        new = (
            ev.ObjectCreated(view.next_id, threshold=view.threshold),
            self._click(view.next_id, place, is_positive, box, is_first=True),
        )
        if selected is None:
            return Step(new), ""
        click = self._click(selected, place, is_positive, box, is_first=is_first)
        return Step((click,), new if may_begin else ()), ""

    def _may_begin(self, place: Place | None, is_positive: bool) -> bool:
        """Whether a click begins an object if it lies apart from the selected one."""
        work = self._work
        return (
            work.auto_next
            and is_positive
            and place is not None
            and work.view.next_id <= MOST_OBJECTS
            and not work.labels.object_at(*place)
        )

    def _click(
        self,
        object_id: int,
        place: Place,
        is_positive: bool,
        box: Box | None,
        *,
        is_first: bool,
    ) -> ev.ClickAdded:
        """Return a click; an object's first on a plane gets its likely size."""
        work, hint = self._work, None
        if is_first:
            hint = work.planes.size_hint(work.objects, box)
        return ev.ClickAdded(
            object_id,
            *place,
            is_positive,
            work.next_click,
            self.focus_shift,
            hint,
            box=box,
        )

    def is_seen(self, world: Sequence[float]) -> bool:
        """Whether the image is seen at a place; else say so and offer a button."""
        work, layer = self._work, self._work.image.layer
        if not work.image.is_shown:
            text = f"“{layer.name}” is not shown."
            remedy = Remedy("Show it", self._uncover)
        elif (other := work.planes.covering(world)) is not None:
            text = f"“{other.name}” covers “{layer.name}” here, which is segmented."
            remedy = Remedy(f"Segment “{other.name}”", lambda: work.go_to(other))
        else:
            return True
        work.say(text, remedy=remedy)
        return False

    def _uncover(self) -> None:
        self._work.image.layer.visible = True
        self._work.say("Click on an object.")

    def drawn(
        self, path: Sequence[Sequence[float]], is_box: bool, is_other: bool
    ) -> None:
        """Take a path of world positions; ``is_other``: of the other sign."""
        if self.is_seen(path[0]):
            step = self._box(path) if is_box else self._stroke(path, is_other)
            self._work.send(step)

    def _box(self, path: Sequence[Sequence[float]]) -> Step:
        """Return the click in the middle of a box."""
        work, image = self._work, self._work.image
        (plane, first), (_, last) = (
            work.planes.place(world) for world in (path[0], path[-1])
        )
        corners = np.floor(np.sort([first, last], axis=0) + 0.5).astype(int)
        low, high = np.clip(corners + np.array([[0], [1]]), 0, image.plane_shape)
        if min(high - low) < _LEAST_PX:
            work.say("Drag a box around an object of the image.")
            return Step()
        middle = image.to_own((*plane, *((low + high - 1) / 2)))
        world = work.labels.layer.data_to_world(middle)
        box = (*low.tolist(), *high.tolist())
        return self.click(world, True, box)

    def _stroke(self, path: Sequence[Sequence[float]], is_other: bool) -> Step:
        """Return clicks evenly along a stroke, all of the selected object."""
        work = self._work
        is_positive = work.view.is_positive != is_other
        places = np.array([work.planes.place(world)[1] for world in path])
        steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        count = int(np.clip(along[-1] / _STROKE_STEP_PX + 1, 2, MOST_CLICKS))
        at = np.linspace(0, along[-1], count)
        ys, xs = (np.interp(at, along, places[:, axis]) for axis in (0, 1))
        every = np.linspace(0, along[-1], math.ceil(along[-1]) + 1)
        pixels = np.stack([np.interp(every, along, axis) for axis in places.T], axis=1)
        events = self.click(path[0], is_positive, along=pixels).events
        if not events or not isinstance(events[-1], ev.ClickAdded):
            return Step(events)
        first = events[-1]
        more = [
            ev.ClickAdded(
                first.object_id,
                first.plane,
                (float(y), float(x)),
                is_positive,
                first.click_id + number,
                stroke=True,
            )
            for number, (y, x) in enumerate(zip(ys[1:], xs[1:], strict=True), 1)
            if work.planes.contains((y, x))
        ]
        return Step((*events, *more))


class ObjectEdits:
    """Turns what a person does with objects in the table or with keys into events."""

    def __init__(self, work: Workspace, suggestions: Suggesting) -> None:
        self._work, self._suggestions = work, suggestions

    def pick(self, world: Sequence[float] | None = None) -> None:
        """Select the object at a world position, or under the pointer."""
        at = self._work.viewer.cursor.position if world is None else world
        found = self._work.object_at(at)
        if found:
            self._work.choose(found)
        else:
            self._work.say("There is no object here.")

    def reject(self) -> None:
        """Reject the suggestion pointed at; without one, delete the chosen clicks."""
        place = self._work.planes.locate(self._work.viewer.cursor.position)
        event = place and self._suggestions.event_at(
            place[0], np.array([place[1]]), is_positive=False
        )
        if event:
            self._work.submit(event)
        elif self._work.clicks.layer.selected_data:
            self._work.clicks.layer.remove_selected()
        else:
            self._work.say("No suggestion is here, and no click is chosen.")

    def go_to(self, object_id: int) -> None:
        """Show an object's middle, on the nearest of its planes."""
        here = self._work.current_plane
        planes = [o.planes for o in self._there([object_id])]
        seen = {p: s.mask for on in planes for p, s in on.items() if s.mask.mask.size}
        if not seen:
            self._work.say("There is nothing to see of it.")
            return

        def far(plane: Plane) -> int:
            return sum(abs(a - b) for a, b in zip(plane, here, strict=True))

        plane = min(seen, key=far)
        y0, x0, y1, x1 = seen[plane].box
        self._work.planes.show(plane, ((y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2))

    def merge(self, object_ids: Sequence[int]) -> None:
        """Make objects one: the first of them."""
        if len(object_ids) < 2:
            self._work.say("Choose two objects or more in the table (Ctrl+click).")
            return
        self._work.select(object_ids[0])
        self._work.submit(ev.ObjectsMerged(tuple(object_ids)))

    def merge_pointed(self) -> None:
        """Make the object under the pointer part of the selected one.

        One that a click apart began becomes part of the object before it.
        """
        selected = self._work.view.selected
        found = self._work.object_at(self._work.viewer.cursor.position)
        before, made = self._work.begun
        if made == selected and found in (0, made) and before in self._work.objects:
            self.merge([before, made])
        elif not found or selected in (None, found):
            self._work.say("Point at another object than the selected one.")
        else:
            self.merge([int(selected or 0), found])

    def split_pointed(self) -> None:
        """Make the part under the pointer an object of its own."""
        world = self._work.viewer.cursor.position
        place, found = self._work.planes.locate(world), self._work.object_at(world)
        if place is None or not found:
            self._work.say("Point at the part to split off.")
            return
        self._work.say("Splitting …")
        self._work.submit(ev.ObjectSplit(found, *place, self._work.view.next_id))

    def classify(self, object_ids: Sequence[int], object_class: str) -> None:
        """Give objects a class, and the colour that objects of this class have."""
        objects = self._work.objects
        same = [o.colour for o in objects.values() if o.object_class == object_class]
        events: list[TableEdit] = []
        for one in self._there(object_ids):
            if one.object_class != object_class:
                events.append(ev.ObjectClassified(one.object_id, object_class))
            if object_class and same and one.colour != same[0]:
                events.append(ev.ObjectRecoloured(one.object_id, same[0]))
        self._as_one(events)

    def recolour(self, object_id: int, colour: str) -> None:
        """Give an object a colour, and all objects of its class."""
        kinds = {one.object_class for one in self._there([object_id])} - {""}
        self._as_one(
            ev.ObjectRecoloured(number, colour)
            for number, other in self._work.objects.items()
            if number == object_id or other.object_class in kinds
            if other.colour != colour
        )

    def lock(self, object_ids: Sequence[int], locked: bool) -> None:
        """Lock objects, or unlock them."""
        self._as_one(
            ev.ObjectLocked(one.object_id, locked)
            for one in self._there(object_ids)
            if one.locked != locked
        )

    def delete(self, object_ids: Sequence[int]) -> None:
        """Delete objects, except those that are locked."""
        found = self._there(object_ids)
        free = [one.object_id for one in found if not one.locked]
        if kept := len(found) - len(free):
            self._work.say(f"{kept} locked: unlock them in the table to delete them.")
        self._as_one(map(ev.ObjectDeleted, free))

    def _there(self, object_ids: Iterable[int]) -> list[ObjectState]:
        """Return those that are still there: one chooses in menus and dialogs."""
        return [self._work.objects[i] for i in object_ids if i in self._work.objects]

    def _as_one(self, edits: Iterable[TableEdit]) -> None:
        """Submit edits of the table as one undo step."""
        events = [*edits]
        more = [replace(event, together=True) for event in events[1:]]
        if events:
            self._work.submit(events[0], *more)
