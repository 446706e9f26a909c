"""A step being performed: check, compute, write, or be rolled back whole.

Masks of objects may overlap; a label is one object's. An object whose mask changes

* takes, of its new mask, the background, and under the rule ``overwrite`` also what
  other objects have, except locked ones;
* gives back what its mask no longer holds: to the unlocked object worked on last among
  those whose mask holds the pixel, else to the background. So a leak over a neighbour
  leaves no hole in it when it is corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.apart import is_part
from napari_cfrseg.annotation.rounds import RoundComputer, shown_mask
from napari_cfrseg.annotation.state import (
    Entry,
    Judged,
    ObjectChange,
    ObjectState,
    PlaneState,
    Settings,
    Transaction,
)
from napari_cfrseg.clicks import Click, check_inside
from napari_cfrseg.errors import LockedObjectError, SessionError
from napari_cfrseg.geometry.masks import LabelArray, LabelRuns, MaskPatch, Plane, box_of
from napari_cfrseg.geometry.windows import Box, slices, union
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.io.tiled_labels import AnyLabels


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """How many planes a step has computed, of how many at most."""

    done: int
    total: int
    patches: tuple[LabelRuns, ...] = ()  #: changes of labels since the last report


#: gets the labels so far, or progress; returns True to end and keep the planes done
PatchCallback = Callable[[LabelRuns | Progress], object]


class LabelDraft:
    """Edits of label planes during one step: kept as patches, or rolled back.

    ``labels_of`` returns the (Y, X) int32 labels of a plane, which are edited in place.
    """

    def __init__(self, labels_of: Callable[[Plane], AnyLabels]) -> None:
        self._labels_of = labels_of
        self._before: dict[Plane, tuple[Box, LabelArray]] = {}

    def reserve(self, plane: Plane, box: Box) -> None:
        """Keep what a box holds before it is edited (grows an earlier box)."""
        known = self._before.get(plane)
        whole = box if known is None else union(known[0], box)
        if known is not None and whole == known[0]:
            return
        before = self._labels_of(plane)[slices(whole)].copy()
        if known is not None:
            before[slices(known[0], whole)] = known[1]
        self._before[plane] = (whole, before)

    def write(self, plane: Plane, box: Box, labels: NDArray[np.int32]) -> None:
        """Write the labels of a box."""
        self.reserve(plane, box)
        self._labels_of(plane)[slices(box)] = labels

    def patches(self, only: Collection[Plane] | None = None) -> tuple[LabelRuns, ...]:
        """Return what changed since the draft began, one patch for each plane."""
        patches = []
        for plane, (box, before) in self._before.items():
            if only is not None and plane not in only:
                continue
            labels = self._labels_of(plane)
            after = labels[slices(box)]
            patch = LabelRuns.between(plane, labels.shape, box, before, after)
            if patch.size:
                patches.append(patch)
        return tuple(patches)

    def roll_back(self) -> None:
        """Put everything back as it was."""
        for plane, (box, before) in self._before.items():
            self._labels_of(plane)[slices(box)] = before
        self._before.clear()


@dataclass(slots=True, eq=False)
class Draft:
    """The objects and labels that a step reads and changes, in place."""

    objects: dict[int, ObjectState]
    labels_of: Callable[[Plane], AnyLabels]
    computer: RoundComputer
    plane_shape: tuple[int, int]
    settings: Settings
    stamp: int  #: number of the event being performed
    #: gets what the labels will be while a round is still being refined
    on_preview: PatchCallback | None = None
    judged: Judged = ()
    notes: list[str] = field(default_factory=list)
    #: the event as the session gets it, with what was measured or how far it came
    recorded: ev.Event = field(init=False)
    edits: LabelDraft = field(init=False)
    _before: dict[int, ObjectState | None] = field(default_factory=dict)
    _measured: list[Plane] = field(default_factory=list)
    _judged_before: Judged = field(init=False)

    def __post_init__(self) -> None:
        self.edits = LabelDraft(self.labels_of)
        self._judged_before = self.judged

    def is_locked(self, object_id: int) -> bool:
        """Return whether an object exists and is locked."""
        state = self.objects.get(object_id)
        return state is not None and state.locked

    def known(self, object_id: int) -> ObjectState:
        """Return an object; an unknown one raises SessionError."""
        state = self.objects.get(object_id)
        if state is None:
            raise SessionError(f"there is no object {object_id}")
        return state

    def unlocked(self, object_id: int) -> ObjectState:
        """Return an object that may change; a locked one raises LockedObjectError."""
        state = self.known(object_id)
        if state.locked:
            msg = f"{state.name} is locked: unlock it in the object table to change it"
            raise LockedObjectError(msg)
        return state

    def check_plane(self, shape: tuple[int, int]) -> None:
        """Raise SessionError where a mask was made for a plane of another shape."""
        if tuple(shape) != tuple(self.plane_shape):
            raise SessionError(
                f"the mask is for a plane of shape {tuple(shape)}, the image's planes "
                f"have {self.plane_shape}"
            )

    def masks_of(self, runs: LabelRuns) -> dict[int, MaskPatch]:
        """Return each label's mask; empty ones where there are no pixels to hold it.

        Without an image nothing bounds the runs of a file, so they are not expanded.
        """
        if self.computer.sees_pixels:
            return runs.masks()
        return {int(label): MaskPatch.empty() for label in np.unique(runs.after)}

    def check_click(self, object_id: int, plane: Plane, click: Click) -> None:
        """Refuse clicks off the plane and positive ones on a locked object."""
        try:
            check_inside(click, self.plane_shape)
        except ValueError as error:
            raise SessionError(str(error)) from error
        owner = int(self.labels_of(plane)[click.pixel])
        if click.is_positive and owner != object_id and self.is_locked(owner):
            raise LockedObjectError(
                f"{self.objects[owner].name} is locked and holds the pixel "
                f"{click.pixel}: unlock it, or click elsewhere"
            )

    def is_apart(self, event: ev.Event) -> bool:
        """Return whether the part of a click that was performed lies apart."""
        if not isinstance(event, ev.ClickAdded):
            return False
        before, plane = self._before.get(event.object_id), event.plane
        after, pixel = self.objects[event.object_id].on(plane).mask, event.click.pixel
        return before is not None and is_part(before.on(plane), after, pixel)

    def use_scaling(self, plane: Plane, scaling: Scaling | None) -> bool:
        """Read a plane as an event says; return whether nothing was known of it."""
        known = self.computer.scalings
        if plane in known:
            return False
        self._measured.append(plane)
        if scaling is not None:
            known[plane] = scaling
        return True

    def put(self, object_id: int, state: ObjectState | None) -> None:
        """Replace, add or (None) remove an object, remembering what it was."""
        self._before.setdefault(object_id, self.objects.get(object_id))
        put_object(self.objects, object_id, state)

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
        """Store a plane's state with its mask, and write the labels."""
        whole = self.objects[object_id]
        old = mask = whole.on(plane).mask
        if self.computer.sees_pixels:
            mask = shown_mask(state.start, state.entries, state.rounds, whole.threshold)
        state = replace(state, mask=mask, stamp=self.stamp)
        self.put(object_id, whole.with_plane(plane, state))
        self._relabel(object_id, plane, old, mask)

    def remove_labels(self, object_id: int, plane: Plane) -> None:
        """Give all of an object's pixels on a plane back."""
        mask = self.objects[object_id].on(plane).mask
        self._relabel(object_id, plane, mask, MaskPatch.empty())

    def _relabel(
        self, object_id: int, plane: Plane, old: MaskPatch, new: MaskPatch
    ) -> None:
        box = box_of(old, new)
        if box is not None:
            self.edits.write(plane, box, self._claimed(object_id, plane, box, new))

    def _claimed(
        self, object_id: int, plane: Plane, box: Box, new: MaskPatch
    ) -> LabelArray:
        """Return the labels of a box after an object's mask changed."""
        labels, mask = self.labels_of(plane)[slices(box)], new.window(box)
        owned = labels == object_id
        takes = mask & (labels == 0)
        if self.settings.rule is ev.OverlapRule.OVERWRITE:
            others = mask & ~owned & (labels != 0)
            if others.any():
                owners = np.unique(labels[others]).tolist()
                protected = [i for i in owners if self.is_locked(i)]
                takes |= others & ~np.isin(labels, protected)
        after = np.where(takes, np.int32(object_id), labels)
        released = owned & ~mask
        if released.any():
            after[released] = 0
            for heir, heir_mask in self._heirs(object_id, plane):
                inherits = released & heir_mask.window(box)
                after[inherits] = heir
                released &= ~inherits
                if not released.any():
                    break
        return after

    def _heirs(self, object_id: int, plane: Plane) -> list[tuple[int, MaskPatch]]:
        """Return the other unlocked objects' masks, worked on last first."""
        here = [o for o in self.objects.values() if plane in o.planes and not o.locked]
        here.sort(key=lambda o: (o.on(plane).stamp, o.object_id), reverse=True)
        masks = ((other.object_id, other.on(plane).mask) for other in here)
        return [heir for heir in masks if heir[0] != object_id]

    def _preview_of(
        self, object_id: int, plane: Plane, on_preview: PatchCallback
    ) -> Callable[[MaskPatch], None]:
        old = self.objects[object_id].on(plane).mask

        def preview(mask: MaskPatch) -> None:
            box = box_of(old, mask)
            if box is None:
                return
            before = self.labels_of(plane)[slices(box)]
            after = self._claimed(object_id, plane, box, mask)
            on_preview(LabelRuns.between(plane, self.plane_shape, box, before, after))

        return preview

    def transaction(self, event: ev.Event) -> Transaction | None:
        """Return what was changed, or None if nothing was."""
        changes = {
            object_id: ObjectChange(before, self.objects.get(object_id))
            for object_id, before in self._before.items()
            if before is not self.objects.get(object_id)
        }
        patches = self.edits.patches()
        # without pixels a painted edit changes nothing that is seen here
        is_step = not (self.computer.sees_pixels or event.is_setting)
        is_step |= self.judged is not self._judged_before
        if not (changes or patches or is_step):
            return None
        judged = self._judged_before, self.judged
        return Transaction(event, changes, patches, judged)

    def roll_back(self) -> None:
        """Put every object and label back as it was."""
        self.edits.roll_back()
        for plane in self._measured:
            self.computer.scalings.pop(plane, None)
        for object_id, before in self._before.items():
            put_object(self.objects, object_id, before)


def put_object(
    objects: dict[int, ObjectState], object_id: int, state: ObjectState | None
) -> None:
    """Replace, add or (None) remove an object."""
    if state is None:
        objects.pop(object_id, None)
    else:
        objects[object_id] = state
