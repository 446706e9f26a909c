"""The effect of each event on objects and labels: one function per kind of event.

Every function works on an :class:`~napari_cfrseg.annotation.transaction.Act`, which can
be rolled back whole, so an event that fails or is cancelled has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import singledispatch

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.propagated_planes import perform_propagation
from napari_cfrseg.annotation.state import (
    ClickEntry,
    ObjectState,
    PaintEntry,
    PlaneState,
    Round,
    default_colour,
)
from napari_cfrseg.annotation.transaction import Act
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import MaskPatch, Plane, box_of
from napari_cfrseg.geometry.windows import slices


def new_object(
    object_id: int, name: str = "", colour: str | None = None, threshold: float = 0.5
) -> ObjectState:
    """Return an empty object, with a name and colour where none was given."""
    if object_id < 1:
        msg = f"object id {object_id}: labels of objects start at 1"
        raise SessionError(msg)
    return ObjectState(
        object_id,
        name or f"Object {object_id}",
        colour or default_colour(object_id),
        threshold=threshold,
    )


def _on_planes(
    act: Act, click_ids: Mapping[int, object]
) -> list[tuple[int, Plane, PlaneState, list[int]]]:
    """Find clicks: (object id, plane, its state, indices of the entries)."""
    wanted = set(click_ids)
    found = []
    for state in tuple(act.objects.values()):
        for plane, on_plane in state.planes.items():
            indices = [
                index
                for index, entry in enumerate(on_plane.entries)
                if isinstance(entry, ClickEntry) and entry.click_id in wanted
            ]
            if indices:
                act.unlocked(state.object_id)
                found.append((state.object_id, plane, on_plane, indices))
                wanted -= {
                    e.click_id for e in on_plane.entries if isinstance(e, ClickEntry)
                }
    if wanted:
        msg = f"there is no click {min(wanted)}"
        raise SessionError(msg)
    return found


@singledispatch
def perform(event: object, act: Act) -> None:
    """Apply an event to the objects and labels of ``act``."""
    msg = f"{type(event).__name__} is not an event that changes objects"
    raise TypeError(msg)


@perform.register
def _(event: ev.ObjectCreated, act: Act) -> None:
    if event.object_id in act.objects:
        msg = f"object {event.object_id} exists already"
        raise SessionError(msg)
    act.put(
        event.object_id,
        new_object(event.object_id, event.name, event.colour, event.threshold),
    )


@perform.register
def _(event: ev.ObjectDeleted, act: Act) -> None:
    found = act.unlocked(event.object_id)
    for plane in found.planes:
        act.remove_labels(event.object_id, plane)
    act.put(event.object_id, None)


@perform.register
def _(event: ev.ObjectRenamed, act: Act) -> None:
    act.put(event.object_id, replace(act.known(event.object_id), name=event.name))


@perform.register
def _(event: ev.ObjectRecoloured, act: Act) -> None:
    act.put(event.object_id, replace(act.known(event.object_id), colour=event.colour))


@perform.register
def _(event: ev.ObjectClassified, act: Act) -> None:
    found = replace(act.known(event.object_id), object_class=event.object_class)
    act.put(event.object_id, found)


@perform.register
def _(event: ev.ObjectLocked, act: Act) -> None:
    found = act.known(event.object_id)
    if found.locked != event.locked:
        act.put(event.object_id, replace(found, locked=event.locked))


@perform.register
def _(event: ev.ObjectReset, act: Act) -> None:
    state = act.unlocked(event.object_id).on(event.plane)
    if state.entries:
        act.restart(event.object_id, event.plane, replace(state, entries=(), rounds=()))


@perform.register
def _(event: ev.ThresholdChanged, act: Act) -> None:
    found = act.unlocked(event.object_id)
    act.put(event.object_id, replace(found, threshold=event.threshold))
    for plane, state in found.planes.items():
        act.show(event.object_id, plane, state)


@perform.register
def _(event: ev.ClickAdded, act: Act) -> None:
    found = act.unlocked(event.object_id)
    click = event.click
    act.check_click(event.object_id, event.plane, click)
    entries = list(found.on(event.plane).entries)
    position = len(entries) if event.position is None else event.position
    if not 0 <= position <= len(entries):
        msg = f"click {event.click_id}: position {position} of {len(entries)} entries"
        raise SessionError(msg)
    entry = ClickEntry(
        event.click_id,
        click,
        act.settings.refinement,
        event.focus_shift,
        event.hint,
        found.threshold if event.threshold is None else event.threshold,
    )
    entries.insert(position, entry)
    is_first = act.use_scaling(event.plane, event.scaling)
    act.replay(event.object_id, event.plane, entries, position)
    if is_first and event.scaling is None:
        seen = act.computer.scalings.get(event.plane)
        act.recorded = replace(event, scaling=seen)
    owner = int(act.labels_of(event.plane)[click.pixel])
    if click.is_positive and owner not in (0, event.object_id):
        act.notes.append(
            f"{act.objects[owner].name} keeps its pixels (overlap rule: keep)"
        )


@perform.register
def _(event: ev.ClicksMoved, act: Act) -> None:
    moves = dict(event.moves)
    for object_id, plane, state, indices in _on_planes(act, moves):
        entries = list(state.entries)
        for index in indices:
            entry = entries[index]
            if isinstance(entry, ClickEntry):
                click = replace(entry.click, yx=moves[entry.click_id])
                act.check_click(object_id, plane, click)
                entries[index] = replace(entry, click=click)
        act.replay(object_id, plane, entries, indices[0])


@perform.register
def _(event: ev.ClickRefocused, act: Act) -> None:
    for object_id, plane, state, (index,) in _on_planes(act, {event.click_id: None}):
        entries = list(state.entries)
        entry = entries[index]
        if isinstance(entry, ClickEntry):
            entries[index] = replace(entry, focus_shift=event.focus_shift)
        act.replay(object_id, plane, entries, index)


@perform.register
def _(event: ev.CandidateChosen, act: Act) -> None:
    for object_id, plane, state, (index,) in _on_planes(act, {event.click_id: None}):
        entries, rounds = list(state.entries), list(state.rounds)
        entry = entries[index]
        if isinstance(entry, ClickEntry):
            entries[index] = replace(entry, candidate=event.candidate)
        prediction = rounds[index].prediction
        if prediction is not None:  # none without an image
            rounds[index] = Round(prediction=prediction.choose(event.candidate))
        changed = replace(state, entries=tuple(entries), rounds=tuple(rounds))
        act.restart(object_id, plane, changed, index + 1)


@perform.register
def _(event: ev.ClicksRemoved, act: Act) -> None:
    for object_id, plane, state, indices in _on_planes(
        act, dict.fromkeys(event.click_ids)
    ):
        entries = [e for i, e in enumerate(state.entries) if i not in set(indices)]
        act.replay(object_id, plane, entries, indices[0])


@perform.register
def _(event: ev.MaskImported, act: Act) -> None:
    act.check_plane(event.mask.shape)
    state = act.unlocked(event.object_id).on(event.plane)
    start = act.masks_of(event.mask).get(1, MaskPatch.empty())
    act.restart(event.object_id, event.plane, replace(state, start=start, carried=None))


@perform.register
def _(event: ev.LabelsImported, act: Act) -> None:
    act.check_plane(event.labels.shape)
    masks = {i: mask for i, mask in act.masks_of(event.labels).items() if i > 0}
    box = box_of(*masks.values())
    if box is not None:
        act.draft.reserve(event.plane, box)
    for object_id, mask in masks.items():
        if act.is_locked(object_id):
            act.notes.append(f"{act.objects[object_id].name} is locked: left as it is")
            continue
        found = act.objects.get(object_id) or new_object(object_id)
        act.put(object_id, found)
        state = found.on(event.plane)
        act.restart(object_id, event.plane, replace(state, start=mask, carried=None))


@perform.register
def _(event: ev.Propagated, act: Act) -> None:
    perform_propagation(event, act)


@perform.register
def _(event: ev.PlaneConfirmed, act: Act) -> None:
    found = act.unlocked(event.object_id)
    state = found.on(event.plane)
    if state.carried is None or state.start is None:
        msg = f"{found.name} has no propagated mask on plane {event.plane}"
        raise SessionError(msg)
    act.show(event.object_id, event.plane, replace(state, carried=None))


@perform.register
def _(event: ev.Painted, act: Act) -> None:
    act.check_plane(event.labels.shape)
    for label, mask in act.masks_of(event.labels).items():
        _paint(act, event, label, mask)


def _paint(act: Act, event: ev.Painted, label: int, painted: MaskPatch) -> None:
    """Give painted pixels to one object (0: to none), except locked objects' pixels."""
    if label:
        if label not in act.objects:
            act.put(label, new_object(label))
        act.unlocked(label)
    if not act.computer.sees_pixels:
        return
    plane = event.plane
    labels = act.labels_of(plane)[slices(painted.box)]
    mask = painted.mask.copy()
    for owner in {int(i) for i in labels[mask].tolist()} - {0, label}:
        if act.is_locked(owner):
            mask &= labels != owner
            act.notes.append(f"{act.objects[owner].name} is locked: left as it is")
    painted = MaskPatch.from_mask(mask, painted.offset)
    if not painted.mask.size:
        return
    for state in tuple(act.objects.values()):
        loses = state.on(plane).mask.window(painted.box) & painted.mask
        if state.object_id != label and not state.locked and loses.any():
            removed = MaskPatch.from_mask(loses, painted.offset)
            _edit(act, event, state.object_id, MaskPatch.empty(), removed)
    if label:
        # the brush is explicit: it wins over the rule "keep"
        labels = act.labels_of(plane)[slices(painted.box)].copy()
        labels[painted.mask] = label
        act.draft.write(plane, painted.box, labels)
        _edit(act, event, label, painted, MaskPatch.empty())


def _edit(
    act: Act, event: ev.Painted, object_id: int, added: MaskPatch, removed: MaskPatch
) -> None:
    found = act.objects[object_id]
    state = found.on(event.plane)
    entry = PaintEntry(added, removed, found.threshold, event.holds)
    act.replay(object_id, event.plane, (*state.entries, entry), len(state.entries))


@perform.register
def _(event: ev.RefinementChanged, act: Act) -> None:
    act.settings = replace(act.settings, refinement=event.refinement)


@perform.register
def _(event: ev.OverlapChanged, act: Act) -> None:
    act.settings = replace(act.settings, rule=event.rule)


@perform.register
def _(event: ev.ModelChanged, act: Act) -> None:
    act.follow_model(event)
