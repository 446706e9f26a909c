"""The effect of each event on objects and labels: one function per kind of event.

Every function works on a :class:`~napari_cfrseg.annotation.transaction.Draft`, which
can be rolled back whole, so an event that fails or is cancelled has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import singledispatch

import numpy as np
from scipy import ndimage

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.propagated_planes import perform_propagation
from napari_cfrseg.annotation.state import (
    ClickEntry,
    JudgedProposal,
    ObjectState,
    PaintEntry,
    PlaneState,
    default_colour,
)
from napari_cfrseg.annotation.transaction import Draft
from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import MaskPatch, Plane, box_of
from napari_cfrseg.geometry.windows import slices

_NO_PIXELS = MaskPatch.empty()


def new_object(
    object_id: int, name: str = "", colour: str | None = None, threshold: float = 0.5
) -> ObjectState:
    """Return an empty object, with a name and colour where none was given."""
    if object_id < 1:
        raise SessionError(f"object id {object_id}: labels of objects start at 1")
    return ObjectState(
        object_id,
        name or f"Object {object_id}",
        colour or default_colour(object_id),
        threshold=threshold,
    )


def _on_planes(
    draft: Draft, click_ids: Iterable[int]
) -> list[tuple[int, Plane, PlaneState, dict[int, ClickEntry]]]:
    """Find clicks: (object id, plane, its state, the entries by their index)."""
    wanted = set(click_ids)
    clicks = []
    for whole in tuple(draft.objects.values()):
        for plane, state in whole.planes.items():
            here = {
                index: entry
                for index, entry in enumerate(state.entries)
                if isinstance(entry, ClickEntry) and entry.click_id in wanted
            }
            if here:
                draft.unlocked(whole.object_id)
                clicks.append((whole.object_id, plane, state, here))
                wanted -= {entry.click_id for entry in here.values()}
    if wanted:
        raise SessionError(f"there is no click {min(wanted)}")
    return clicks


@singledispatch
def perform(event: object, draft: Draft) -> None:
    """Apply an event to the objects and labels of ``draft``."""
    raise TypeError(f"{type(event).__name__} is not an event that changes objects")


@perform.register
def _(event: ev.ObjectCreated, draft: Draft) -> None:
    if event.object_id in draft.objects:
        raise SessionError(f"object {event.object_id} exists already")
    draft.put(
        event.object_id,
        new_object(event.object_id, event.name, event.colour, event.threshold),
    )


@perform.register
def _(event: ev.ObjectDeleted, draft: Draft) -> None:
    whole = draft.unlocked(event.object_id)
    for plane in whole.planes:
        draft.remove_labels(event.object_id, plane)
    draft.put(event.object_id, None)


@perform.register
def _(event: ev.ObjectsMerged, draft: Draft) -> None:
    kept, *others = dict.fromkeys(event.object_ids)
    for object_id in (kept, *others):
        draft.unlocked(object_id)
    for other in others:
        for plane, state in draft.objects[other].planes.items():
            owned = _owned(draft, other, plane)
            _relabel(draft, plane, owned, kept)
            mine = draft.objects[kept].on(plane)
            if mine.entries:
                _edit(draft, kept, plane, added=owned)
                continue
            start = (mine.start or _NO_PIXELS).edited(owned, _NO_PIXELS)
            is_anchor = mine.is_anchor or state.is_anchor
            carried = None if is_anchor else mine.carried or state.carried
            draft.restart(kept, plane, replace(mine, start=start, carried=carried))
        draft.put(other, None)


@perform.register
def _(event: ev.ObjectSplit, draft: Draft) -> None:
    whole = draft.unlocked(event.object_id)
    if event.new_id in draft.objects:
        raise SessionError(f"object {event.new_id} exists already")
    made = replace(new_object(event.new_id), object_class=whole.object_class)
    draft.put(event.new_id, made)
    owned, part = _owned(draft, event.object_id, event.plane), _NO_PIXELS
    if draft.computer.sees_pixels:
        part = _part_at(owned, event.yx)
        if part.area in (0, owned.area):
            msg = f"{whole.name} has no part of its own there to split off"
            raise SessionError(msg)
    _relabel(draft, event.plane, part, event.new_id)
    draft.restart(event.new_id, event.plane, PlaneState(start=part))
    _edit(draft, event.object_id, event.plane, removed=part)


def _owned(draft: Draft, object_id: int, plane: Plane) -> MaskPatch:
    """Return the pixels that have an object's label."""
    mask = draft.objects[object_id].on(plane).mask
    labels = draft.labels_of(plane)[slices(mask.box)]
    return MaskPatch.from_mask(labels == object_id, mask.offset)


def _part_at(mask: MaskPatch, yx: tuple[float, float]) -> MaskPatch:
    """Return the connected part of a mask that holds a pixel, empty if none does."""
    (y, x), (y0, x0) = Click(yx).pixel, mask.offset
    if (y, x) not in mask:
        return _NO_PIXELS
    parts, _ = ndimage.label(mask.mask, structure=np.ones((3, 3)))
    return MaskPatch.from_mask(parts == parts[y - y0, x - x0], mask.offset)


def _relabel(draft: Draft, plane: Plane, mask: MaskPatch, label: int) -> None:
    """Give pixels to an object, whatever the overlap rule says."""
    if mask.mask.size:
        labels = draft.labels_of(plane)[slices(mask.box)].copy()
        labels[mask.mask] = label
        draft.edits.write(plane, mask.box, labels)


@perform.register
def _(
    event: ev.ObjectRenamed | ev.ObjectRecoloured | ev.ObjectClassified, draft: Draft
) -> None:
    names = ("name", "colour", "object_class")
    told = {name: getattr(event, name) for name in names if hasattr(event, name)}
    draft.put(event.object_id, replace(draft.known(event.object_id), **told))


@perform.register
def _(event: ev.ObjectLocked, draft: Draft) -> None:
    whole = draft.known(event.object_id)
    if whole.locked != event.locked:
        draft.put(event.object_id, replace(whole, locked=event.locked))


@perform.register
def _(event: ev.ObjectReset, draft: Draft) -> None:
    state = draft.unlocked(event.object_id).on(event.plane)
    if state.entries:
        state = replace(state, entries=(), rounds=())
        draft.restart(event.object_id, event.plane, state)


@perform.register
def _(event: ev.ThresholdChanged, draft: Draft) -> None:
    whole = draft.unlocked(event.object_id)
    draft.put(event.object_id, replace(whole, threshold=event.threshold))
    for plane, state in whole.planes.items():
        draft.show(event.object_id, plane, state)


@perform.register
def _(event: ev.ClickAdded, draft: Draft) -> None:
    whole = draft.unlocked(event.object_id)
    click = event.click
    draft.check_click(event.object_id, event.plane, click)
    entries = list(whole.on(event.plane).entries)
    position = len(entries) if event.position is None else event.position
    if not 0 <= position <= len(entries):
        msg = f"click {event.click_id}: position {position} of {len(entries)} entries"
        raise SessionError(msg)
    entry = ClickEntry.of(event, draft.settings.refinement, whole.threshold)
    entries.insert(position, entry)
    is_first = draft.use_scaling(event.plane, event.scaling)
    draft.replay(event.object_id, event.plane, entries, position)
    if is_first and event.scaling is None:
        seen = draft.computer.scalings.get(event.plane)
        draft.recorded = replace(event, scaling=seen)
    owner = int(draft.labels_of(event.plane)[click.pixel])
    if click.is_positive and owner not in (0, event.object_id):
        name = draft.objects[owner].name
        draft.notes.append(f"{name} keeps its pixels (overlap rule: keep)")


@perform.register
def _(event: ev.ClicksMoved, draft: Draft) -> None:
    moves = dict(event.moves)
    for object_id, plane, state, clicks in _on_planes(draft, moves):
        entries = list(state.entries)
        for index, entry in clicks.items():
            click = replace(entry.click, yx=moves[entry.click_id])
            draft.check_click(object_id, plane, click)
            entries[index] = replace(entry, click=click, given=False)
        draft.replay(object_id, plane, entries, min(clicks))


@perform.register
def _(event: ev.ClickRefocused | ev.CandidateChosen, draft: Draft) -> None:
    ((object_id, plane, state, clicks),) = _on_planes(draft, (event.click_id,))
    ((index, entry),) = clicks.items()
    entries = list(state.entries)
    if isinstance(event, ev.CandidateChosen):
        entries[index] = replace(entry, candidate=event.candidate)
    else:
        entries[index] = replace(entry, focus_shift=event.focus_shift, given=False)
    draft.replay(object_id, plane, entries, index)


@perform.register
def _(event: ev.ClicksRemoved, draft: Draft) -> None:
    for object_id, plane, state, clicks in _on_planes(draft, event.click_ids):
        entries = [e for i, e in enumerate(state.entries) if i not in clicks]
        draft.replay(object_id, plane, entries, min(clicks))


@perform.register
def _(event: ev.MaskImported, draft: Draft) -> None:
    draft.check_plane(event.mask.shape)
    state = draft.unlocked(event.object_id).on(event.plane)
    start = draft.masks_of(event.mask).get(1, MaskPatch.empty())
    state = replace(state, start=start, carried=None)
    draft.restart(event.object_id, event.plane, state)


@perform.register
def _(event: ev.LabelsImported, draft: Draft) -> None:
    draft.check_plane(event.labels.shape)
    masks = {i: mask for i, mask in draft.masks_of(event.labels).items() if i > 0}
    box = box_of(*masks.values())
    if box is not None:
        draft.edits.reserve(event.plane, box)
    for object_id, mask in masks.items():
        whole = draft.objects.get(object_id) or new_object(object_id)
        if whole.locked:
            draft.notes.append(f"{whole.name} is locked: left as it is")
            continue
        draft.put(object_id, whole)
        state = whole.on(event.plane)
        draft.restart(object_id, event.plane, replace(state, start=mask, carried=None))


@perform.register
def _(event: ev.ObjectsSuggested, draft: Draft) -> None:
    """Do nothing: what was suggested is no object yet."""


@perform.register
def _(event: ev.SuggestionsAccepted, draft: Draft) -> None:
    for number, proposal in enumerate(event.accepted):
        object_id = proposal.continues or event.object_id + number
        if proposal.continues is not None:
            whole = draft.unlocked(object_id)
        elif object_id in draft.objects:
            raise SessionError(f"object {object_id} exists already")
        else:
            whole = new_object(object_id)
        if not whole.on(event.plane).is_empty:
            raise SessionError(f"{whole.name} is on plane {event.plane} already")
        draft.check_plane(proposal.mask.shape)
        click = Click(proposal.yx)
        draft.check_click(object_id, event.plane, click)
        start = draft.masks_of(proposal.mask).get(1, _NO_PIXELS)
        click_id = event.click_id + number
        entry = ClickEntry(click_id, click, draft.settings.refinement, given=True)
        draft.put(object_id, whole)
        draft.restart(object_id, event.plane, PlaneState(start, (entry,)))
        draft.judged += (JudgedProposal(event.plane, object_id, proposal),)


@perform.register
def _(event: ev.SuggestionsRejected, draft: Draft) -> None:
    for proposal in event.rejected:
        draft.check_plane(proposal.mask.shape)
        draft.judged += (JudgedProposal(event.plane, 0, proposal),)


perform.register(perform_propagation)


@perform.register
def _(event: ev.PlaneConfirmed, draft: Draft) -> None:
    whole = draft.unlocked(event.object_id)
    state = whole.on(event.plane)
    if state.carried is None or state.start is None:
        msg = f"{whole.name} has no propagated mask on plane {event.plane}"
        raise SessionError(msg)
    draft.show(event.object_id, event.plane, replace(state, carried=None))


@perform.register
def _(event: ev.Painted, draft: Draft) -> None:
    draft.check_plane(event.labels.shape)
    for label, mask in draft.masks_of(event.labels).items():
        _paint(draft, event, label, mask)


def _paint(draft: Draft, event: ev.Painted, label: int, painted: MaskPatch) -> None:
    """Give painted pixels to one object (0: to none), except locked objects' pixels."""
    if label:
        if label not in draft.objects:
            draft.put(label, new_object(label))
        draft.unlocked(label)
    if not draft.computer.sees_pixels:
        return
    plane = event.plane
    labels = draft.labels_of(plane)[slices(painted.box)]
    mask = painted.mask.copy()
    for owner in {int(i) for i in labels[mask].tolist()} - {0, label}:
        if draft.is_locked(owner):
            mask &= labels != owner
            draft.notes.append(f"{draft.objects[owner].name} is locked: left as it is")
    painted = MaskPatch.from_mask(mask, painted.offset)
    if not painted.mask.size:
        return
    for state in tuple(draft.objects.values()):
        loses = state.on(plane).mask.window(painted.box) & painted.mask
        if state.object_id != label and not state.locked and loses.any():
            removed = MaskPatch.from_mask(loses, painted.offset)
            _edit(draft, state.object_id, plane, removed=removed, holds=event.holds)
    if label:
        # the brush is explicit: it wins over the rule "keep"
        _relabel(draft, plane, painted, label)
        _edit(draft, label, plane, added=painted, holds=event.holds)


def _edit(
    draft: Draft,
    object_id: int,
    plane: Plane,
    *,
    added: MaskPatch = _NO_PIXELS,
    removed: MaskPatch = _NO_PIXELS,
    holds: bool = True,
) -> None:
    whole = draft.objects[object_id]
    state = whole.on(plane)
    entry = PaintEntry(added, removed, whole.threshold, holds)
    draft.replay(object_id, plane, (*state.entries, entry), len(state.entries))


@perform.register
def _(event: ev.RefinementChanged, draft: Draft) -> None:
    draft.settings = replace(draft.settings, refinement=event.refinement)


@perform.register
def _(event: ev.OverlapChanged, draft: Draft) -> None:
    draft.settings = replace(draft.settings, rule=event.rule)


@perform.register
def _(event: ev.ModelChanged, draft: Draft) -> None:
    """Forget what the model before was taught; the next one is given from outside."""
    draft.settings = replace(draft.settings, adapted=ev.ModelAdapted())


@perform.register
def _(event: ev.ModelAdapted, draft: Draft) -> None:
    draft.settings = replace(draft.settings, adapted=event)
