"""What the objects are after a list of events, without image and network.

The same undo and redo as :mod:`napari_cfrseg.annotation.transaction`, on what can be
known without pixels. It rests on the recorder leaving out acts that changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import singledispatchmethod
from typing import Any

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.state import default_colour
from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import Plane


@dataclass(frozen=True, slots=True)
class ClickSummary:
    """One click, where it ended up."""

    click_id: int
    plane: Plane
    click: Click
    focus_shift: int = 0


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """One object.

    Attributes
    ----------
    object_id, name, colour, locked, threshold, object_class
        As the object table shows them.
    clicks
        In the order of their rounds on each plane.
    """

    object_id: int
    name: str
    colour: str
    locked: bool = False
    threshold: float = 0.5
    clicks: tuple[ClickSummary, ...] = ()
    object_class: str = ""


_States = dict[int, tuple[ObjectSummary | None, ObjectSummary | None]]


def summarise(events: Iterable[ev.Event]) -> tuple[ObjectSummary, ...]:
    """Return the objects after the events, by id.

    Raises
    ------
    SessionError
        Naming the first event that does not fit those before it.
    """
    ledger = Ledger()
    for number, event in enumerate(events):
        try:
            ledger.apply(event)
        except SessionError as error:
            msg = f"event {number}: {error}"
            raise SessionError(msg) from error
    return ledger.summary()


class Ledger:
    """The objects so far, and the acts that can be taken back."""

    def __init__(self) -> None:
        self._objects: dict[int, ObjectSummary] = {}
        self._clicks: dict[int, int] = {}
        self._used: set[int] = set()
        self._done: list[tuple[ev.Event, _States]] = []
        self._undone: list[tuple[ev.Event, _States]] = []
        self._act: _States = {}

    def summary(self) -> tuple[ObjectSummary, ...]:
        """Return the objects by id."""
        return tuple(self._objects[i] for i in sorted(self._objects))

    @property
    def objects(self) -> Mapping[int, ObjectSummary]:
        """The objects now."""
        return self._objects

    def apply(self, event: ev.Event) -> None:
        """Take note of an event."""
        match event:
            case ev.RefinementChanged() | ev.OverlapChanged() | ev.ModelChanged():
                return
            case ev.Undone():
                self._step(self._done, self._undone, back=True)
                return
            case ev.Redone():
                self._step(self._undone, self._done, back=False)
                return
        self._act = {}
        self._note(event)
        self._push(event)

    def _push(self, event: ev.Event) -> None:
        self._undone.clear()
        if self._done and _continues(self._done[-1][0], event):
            _, before = self._done.pop()
            for key, (_, after) in self._act.items():
                first = before.get(key, self._act[key])
                before[key] = (first[0], after)
            self._act = before
        self._done.append((event, self._act))

    def _step(self, source: list[Any], target: list[Any], *, back: bool) -> None:
        if not source:
            return
        entry = source.pop()
        target.append(entry)
        for object_id, (before, after) in entry[1].items():
            self._store(object_id, before if back else after)

    def _store(self, object_id: int, state: ObjectSummary | None) -> None:
        old = self._objects.pop(object_id, None)
        for click in old.clicks if old else ():
            self._clicks.pop(click.click_id, None)
        if state is not None:
            self._objects[object_id] = state
            self._clicks |= dict.fromkeys((c.click_id for c in state.clicks), object_id)

    def _put(self, object_id: int, state: ObjectSummary | None) -> None:
        before = self._objects.get(object_id)
        self._act[object_id] = (self._act.get(object_id, (before, None))[0], state)
        self._objects.pop(object_id, None)
        if state is not None:
            self._objects[object_id] = state

    def _known(self, object_id: int) -> ObjectSummary:
        if object_id not in self._objects:
            msg = f"there is no object {object_id}"
            raise SessionError(msg)
        return self._objects[object_id]

    def _owner(self, click_id: int) -> ObjectSummary:
        if click_id not in self._clicks:
            msg = f"there is no click {click_id}"
            raise SessionError(msg)
        return self._objects[self._clicks[click_id]]

    def _ensure(self, object_id: int) -> None:
        if object_id > 0 and object_id not in self._objects:
            self._put(object_id, _new(object_id))

    @singledispatchmethod
    def _note(self, event: object) -> None:
        """Change the objects as the event says."""

    @_note.register
    def _(self, event: ev.ObjectCreated) -> None:
        if event.object_id in self._objects:
            msg = f"object {event.object_id} exists already"
            raise SessionError(msg)
        made = _new(event.object_id, event.name, event.colour, event.threshold)
        self._put(event.object_id, made)

    @_note.register
    def _(self, event: ev.ObjectDeleted) -> None:
        for click in self._known(event.object_id).clicks:
            self._clicks.pop(click.click_id, None)
        self._put(event.object_id, None)

    @_note.register
    def _(self, event: ev.ObjectRenamed) -> None:
        found = self._known(event.object_id)
        self._put(event.object_id, replace(found, name=event.name))

    @_note.register
    def _(self, event: ev.ObjectRecoloured) -> None:
        found = self._known(event.object_id)
        self._put(event.object_id, replace(found, colour=event.colour))

    @_note.register
    def _(self, event: ev.ObjectClassified) -> None:
        found = self._known(event.object_id)
        self._put(event.object_id, replace(found, object_class=event.object_class))

    @_note.register
    def _(self, event: ev.ObjectLocked) -> None:
        found = self._known(event.object_id)
        self._put(event.object_id, replace(found, locked=event.locked))

    @_note.register
    def _(self, event: ev.ThresholdChanged) -> None:
        found = self._known(event.object_id)
        self._put(event.object_id, replace(found, threshold=event.threshold))

    @_note.register
    def _(self, event: ev.ObjectReset) -> None:
        found = self._known(event.object_id)
        gone = {c.click_id for c in found.clicks if c.plane == event.plane}
        self._drop(gone)

    @_note.register
    def _(self, event: ev.ClickAdded) -> None:
        found = self._known(event.object_id)
        if event.click_id in self._used:
            msg = f"click id {event.click_id} is used twice"
            raise SessionError(msg)
        self._used.add(event.click_id)
        self._clicks[event.click_id] = event.object_id
        added = ClickSummary(
            event.click_id, event.plane, event.click, event.focus_shift
        )
        clicks = (*found.clicks, added)
        self._put(event.object_id, replace(found, clicks=clicks))

    @_note.register
    def _(self, event: ev.ClicksMoved) -> None:
        for click_id, yx in event.moves:
            self._edit(
                click_id, lambda c, yx=yx: replace(c, click=replace(c.click, yx=yx))
            )

    @_note.register
    def _(self, event: ev.ClickRefocused) -> None:
        shift = event.focus_shift
        self._edit(event.click_id, lambda c: replace(c, focus_shift=shift))

    @_note.register
    def _(self, event: ev.ClicksRemoved) -> None:
        self._drop(set(event.click_ids))

    @_note.register
    def _(self, event: ev.Painted) -> None:
        for label in set(event.labels.after.tolist()):
            self._ensure(label)

    @_note.register
    def _(self, event: ev.LabelsImported) -> None:
        for label in set(event.labels.after.tolist()):
            self._ensure(label)

    @_note.register
    def _(self, event: ev.MaskImported) -> None:
        self._put(event.object_id, self._known(event.object_id))

    def _edit(self, click_id: int, change: Any) -> None:
        found = self._owner(click_id)
        clicks = tuple(change(c) if c.click_id == click_id else c for c in found.clicks)
        self._put(found.object_id, replace(found, clicks=clicks))

    def _drop(self, click_ids: set[int]) -> None:
        for click_id in sorted(click_ids):
            found = self._owner(click_id)
            clicks = tuple(c for c in found.clicks if c.click_id != click_id)
            self._put(found.object_id, replace(found, clicks=clicks))
            self._clicks.pop(click_id)


def _moved(click: ClickSummary, yx: tuple[float, float]) -> ClickSummary:
    return replace(click, click=replace(click.click, yx=yx))


def _new(
    object_id: int, name: str = "", colour: str | None = None, threshold: float = 0.5
) -> ObjectSummary:
    return ObjectSummary(
        object_id,
        name or f"Object {object_id}",
        colour or default_colour(object_id),
        threshold=threshold,
    )


def _continues(first: ev.Event, second: ev.Event) -> bool:
    """Whether both acts are one step of the undo history (engine.history)."""
    if isinstance(first, ev.ObjectCreated):
        return (
            isinstance(second, ev.ClickAdded | ev.MaskImported)
            and second.object_id == first.object_id
        )
    return (
        isinstance(first, ev.ThresholdChanged)
        and isinstance(second, ev.ThresholdChanged)
        and second.object_id == first.object_id
    )
