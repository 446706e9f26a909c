"""The working set of one event: check, compute, write, or be rolled back whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.ownership import LabelDraft, claim
from napari_cfrseg.annotation.rounds import NoRounds, RoundComputer, shown_mask
from napari_cfrseg.annotation.state import Entry, ObjectState, PlaneState
from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.refinement import DEFAULT_REFINEMENT, Refinement
from napari_cfrseg.errors import LockedObjectError, SessionError
from napari_cfrseg.geometry.masks import (
    LabelArray,
    LabelRuns,
    MaskPatch,
    Plane,
    box_of,
)
from napari_cfrseg.geometry.windows import Box, slices
from napari_cfrseg.io.plane_image import Scaling


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """How far an act of many planes is.

    Attributes
    ----------
    done, total
        Planes computed, and to be computed at most.
    patches
        What the labels changed by since the last report.
    """

    done: int
    total: int
    patches: tuple[LabelRuns, ...] = ()


#: gets the labels so far, or progress; returns True to end and keep the planes done
PatchCallback = Callable[[LabelRuns | Progress], object]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings in force for later clicks and masks."""

    refinement: Refinement = DEFAULT_REFINEMENT
    rule: ev.OverlapRule = ev.OverlapRule.KEEP


class Act:
    """The objects and labels one event reads and changes.

    Parameters
    ----------
    objects
        All objects by id; changed in place.
    labels_of
        Returns a plane's (Y, X) int32 labels, changed in place.
    computer
        Computes rounds.
    plane_shape
        (Y, X).
    settings
        In force; replaced by events that change them.
    follow_model
        Uses the weights an event names.
    stamp
        Number of the last event performed; counts on with each.
    on_preview
        Gets what the labels will be while a round is still being refined.
    """

    def __init__(
        self,
        objects: dict[int, ObjectState],
        labels_of: Callable[[Plane], LabelArray],
        computer: RoundComputer | NoRounds,
        plane_shape: tuple[int, int],
        settings: Settings,
        follow_model: Callable[[ev.ModelChanged], None],
        stamp: int,
        on_preview: PatchCallback | None = None,
    ) -> None:
        self.objects = objects
        self.labels_of = labels_of
        self.plane_shape = plane_shape
        self.settings = settings
        self.follow_model = follow_model
        self.notes: list[str] = []
        self.draft = LabelDraft(labels_of)
        #: the event as it is to be recorded, where that differs from the one performed
        self.recorded: ev.Event | None = None
        self.computer = computer
        self.stamp = stamp
        self.on_preview = on_preview
        self._before: dict[int, ObjectState | None] = {}
        self._measured: list[Plane] = []

    # -- reading ---------------------------------------------------------------------

    def is_locked(self, object_id: int) -> bool:
        """Return whether an object exists and is locked."""
        found = self.objects.get(object_id)
        return found is not None and found.locked

    def known(self, object_id: int) -> ObjectState:
        """Return an object; an unknown one raises SessionError."""
        found = self.objects.get(object_id)
        if found is None:
            msg = f"there is no object {object_id}"
            raise SessionError(msg)
        return found

    def unlocked(self, object_id: int) -> ObjectState:
        """Return an object that may change; a locked one raises LockedObjectError."""
        found = self.known(object_id)
        if found.locked:
            msg = f"{found.name} is locked: unlock it in the object table to change it"
            raise LockedObjectError(msg)
        return found

    def check_plane(self, shape: tuple[int, int]) -> None:
        """Raise SessionError where a mask was made for a plane of another shape."""
        if tuple(shape) != tuple(self.plane_shape):
            msg = (
                f"the mask is for a plane of shape {tuple(shape)}, the image's planes "
                f"have {self.plane_shape}"
            )
            raise SessionError(msg)

    def masks_of(self, runs: LabelRuns) -> dict[int, MaskPatch]:
        """Return each label's mask; empty ones where there are no pixels to hold it.

        Without an image nothing bounds the runs of a file, so they are not expanded.
        """
        if self.computer.sees_pixels:
            return runs.masks()
        return {int(label): MaskPatch.empty() for label in np.unique(runs.after)}

    def check_click(self, object_id: int, plane: Plane, click: Click) -> None:
        """Refuse clicks off the plane and positive ones on a locked object."""
        y, x = click.pixel
        if not (0 <= y < self.plane_shape[0] and 0 <= x < self.plane_shape[1]):
            msg = f"click at {click.yx} lies outside the plane of {self.plane_shape}"
            raise SessionError(msg)
        owner = int(self.labels_of(plane)[y, x])
        if click.is_positive and owner != object_id and self.is_locked(owner):
            msg = (
                f"{self.objects[owner].name} is locked and holds the pixel "
                f"({y}, {x}): unlock it, or click elsewhere"
            )
            raise LockedObjectError(msg)

    def use_scaling(self, plane: Plane, scaling: Scaling | None) -> bool:
        """Read a plane as an event says; return whether nothing was known of it."""
        known = self.computer.scalings
        if plane in known:
            return False
        self._measured.append(plane)
        if scaling is not None:
            known[plane] = scaling
        return True

    # -- writing ---------------------------------------------------------------------

    def put(self, object_id: int, state: ObjectState | None) -> None:
        """Replace, add or (None) remove an object, remembering what it was."""
        self._before.setdefault(object_id, self.objects.get(object_id))
        if state is None:
            self.objects.pop(object_id, None)
        else:
            self.objects[object_id] = state

    def replay(
        self, object_id: int, plane: Plane, entries: Iterable[Entry], first: int
    ) -> None:
        """Give an object other entries on a plane; compute from ``first`` on."""
        state = self.objects[object_id].on(plane)
        self.restart(object_id, plane, replace(state, entries=tuple(entries)), first)

    def restart(
        self, object_id: int, plane: Plane, state: PlaneState, first: int = 0
    ) -> None:
        """Compute a plane's rounds from entry ``first`` on and show the result."""
        threshold = self.objects[object_id].threshold
        preview = None
        if self.on_preview is not None:
            preview = self._preview_of(object_id, plane, self.on_preview)
        rounds = self.computer.compute(plane, state, first, threshold, preview)
        self.show(object_id, plane, replace(state, rounds=rounds))

    def show(self, object_id: int, plane: Plane, state: PlaneState) -> None:
        """Store a plane's state with its mask, and give the labels their due."""
        found = self.objects[object_id]
        if not self.computer.sees_pixels:
            state = replace(state, stamp=self.stamp)
            self.put(object_id, found.with_plane(plane, state))
            return
        mask = shown_mask(state.start, state.entries, state.rounds, found.threshold)
        old = found.on(plane).mask
        state = replace(state, mask=mask, stamp=self.stamp)
        self.put(object_id, found.with_plane(plane, state))
        self._relabel(object_id, plane, old, mask)

    def remove_labels(self, object_id: int, plane: Plane) -> None:
        """Give all of an object's pixels on a plane back."""
        self._relabel(
            object_id, plane, self.objects[object_id].on(plane).mask, MaskPatch.empty()
        )

    def _relabel(
        self, object_id: int, plane: Plane, old: MaskPatch, new: MaskPatch
    ) -> None:
        box = box_of(old, new)
        if box is not None:
            self.draft.write(plane, box, self._claimed(object_id, plane, box, new))

    def _claimed(
        self, object_id: int, plane: Plane, box: Box, new: MaskPatch
    ) -> LabelArray:
        return claim(
            self.labels_of(plane)[slices(box)],
            box,
            object_id,
            new,
            self.settings.rule,
            self.is_locked,
            lambda: self._heirs(object_id, plane),
        )

    def _heirs(self, object_id: int, plane: Plane) -> list[tuple[int, MaskPatch]]:
        heirs = [
            (other.on(plane).stamp, other.object_id, other.on(plane).mask)
            for other in self.objects.values()
            if other.object_id != object_id
            and not other.locked
            and plane in other.planes
        ]
        heirs.sort(key=lambda heir: heir[:2], reverse=True)
        return [(object_id, mask) for _, object_id, mask in heirs]

    def _preview_of(
        self, object_id: int, plane: Plane, on_preview: PatchCallback
    ) -> Callable[[MaskPatch], None]:
        old = self.objects[object_id].on(plane).mask

        def preview(mask: MaskPatch) -> None:
            box = box_of(old, mask)
            if box is None:
                return
            labels = self.labels_of(plane)
            after = self._claimed(object_id, plane, box, mask)
            on_preview(
                LabelRuns.between(
                    plane, self.plane_shape, box, labels[slices(box)], after
                )
            )

        return preview

    # -- ending ----------------------------------------------------------------------

    def transaction(self, event: ev.Event) -> Transaction | None:
        """Return what was changed, or None if nothing was."""
        changes = {
            object_id: ObjectChange(before, self.objects.get(object_id))
            for object_id, before in self._before.items()
            if before is not self.objects.get(object_id)
        }
        patches = self.draft.patches()
        # without pixels a painted edit changes nothing that is seen here
        is_step = not (self.computer.sees_pixels or event.is_setting)
        if not (changes or patches or is_step):
            return None
        return Transaction(event, changes, patches)

    def roll_back(self) -> None:
        """Put every object and label back as it was."""
        self.draft.roll_back()
        for plane in self._measured:
            self.computer.scalings.pop(plane, None)
        for object_id, before in self._before.items():
            if before is None:
                self.objects.pop(object_id, None)
            else:
                self.objects[object_id] = before


@dataclass(frozen=True, slots=True, eq=False)
class ObjectChange:
    """An object before and after an act; None: it did not exist."""

    before: ObjectState | None
    after: ObjectState | None


@dataclass(frozen=True, slots=True, eq=False)
class Transaction:
    """One act that can be taken back."""

    event: ev.Event
    changes: Mapping[int, ObjectChange]
    patches: tuple[LabelRuns, ...]

    def inverted(self) -> Transaction:
        """Return the act that takes this one back."""
        return Transaction(
            self.event,
            {i: ObjectChange(c.after, c.before) for i, c in self.changes.items()},
            tuple(patch.inverted() for patch in reversed(self.patches)),
        )

    def followed_by(self, later: Transaction) -> Transaction:
        """Return both acts as one, under the later one's event."""
        changes = dict(self.changes)
        for object_id, change in later.changes.items():
            first = changes.get(object_id, change)
            changes[object_id] = ObjectChange(first.before, change.after)
        return Transaction(later.event, changes, self.patches + later.patches)


class History:
    """The acts done and the acts taken back."""

    def __init__(self) -> None:
        self._done: list[Transaction] = []
        self._undone: list[Transaction] = []

    @property
    def undo_depth(self) -> int:
        """How many acts can be taken back."""
        return len(self._done)

    @property
    def redo_depth(self) -> int:
        """How many acts can be done again."""
        return len(self._undone)

    def push(self, transaction: Transaction) -> None:
        """Remember an act; what had been taken back is forgotten.

        An object's creation and the first thing done to it are one step, and so is a
        slider's way from one threshold to another.
        """
        self._undone.clear()
        if self._done and continues(self._done[-1].event, transaction.event):
            transaction = self._done.pop().followed_by(transaction)
        self._done.append(transaction)

    def undo(self) -> Transaction | None:
        """Return what takes the last act back, or None if there is none."""
        if not self._done:
            return None
        self._undone.append(self._done.pop())
        return self._undone[-1].inverted()

    def redo(self) -> Transaction | None:
        """Return the act to do again, or None if there is none."""
        if not self._undone:
            return None
        self._done.append(self._undone.pop())
        return self._done[-1]


def continues(first: ev.Event, second: ev.Event) -> bool:
    """Return whether two events are one undo step."""
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
