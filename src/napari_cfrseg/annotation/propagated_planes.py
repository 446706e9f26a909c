"""A propagation as a draft: from objects' anchors to masks on other planes.

A replay computes the event again. Planes get a start mask with a mark
(:class:`~napari_cfrseg.annotation.state.Carried`); the first click or stroke on one, or
its confirmation, makes it an anchor, and then only its gap is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.rounds import RoundComputer
from napari_cfrseg.annotation.state import Carried, ObjectState, PlaneState
from napari_cfrseg.annotation.transaction import Draft, Progress
from napari_cfrseg.engine.suggestions import Batch, ObjectSuggestion
from napari_cfrseg.errors import CfrSegError, JobCancelled, SessionError
from napari_cfrseg.geometry.distances import innermost
from napari_cfrseg.geometry.masks import LabelArray, LabelRuns, MaskPatch, Plane
from napari_cfrseg.geometry.windows import Box, overlap, shape_of, slices
from napari_cfrseg.io.tiled_labels import AnyLabels
from napari_cfrseg.propagation import (
    PlaneResult,
    Track,
    gaps_of,
    planes_of,
    propagate,
    way_to,
)
from napari_cfrseg.propagation.tracks import Gap


def plane_at(event: ev.Propagated, index: int) -> Plane:
    """Return the plane at an index of the event's line."""
    return (*event.plane[: event.axis], index, *event.plane[event.axis + 1 :])


def perform_propagation(event: ev.Propagated, draft: Draft) -> None:
    """Compute the planes that are stale and show them."""
    tracks = [track for i in event.object_ids for track in _track(event, draft, i)]
    if not draft.computer.sees_pixels:
        _mark(event, draft, tracks)
    elif tracks and event.results != 0:
        _Walk(event, draft, tracks).go()


def _mark(event: ev.Propagated, draft: Draft, tracks: list[Track]) -> None:
    """Mark planes as carried where there are no pixels to compute them from."""
    unknown = PlaneState(start=MaskPatch.empty(), carried=Carried(0.0))
    for track in tracks:
        for gap in track.gaps or ():
            for index in planes_of(gap, event.first, event.last):
                draft.show(track.object_id, plane_at(event, index), unknown)


def anchors_of(state: ObjectState, event: ev.Propagated) -> dict[int, MaskPatch]:
    """Return an object's annotated planes along the event's line."""
    return {
        plane[event.axis]: on_plane.mask
        for plane, on_plane in state.planes.items()
        if on_plane.is_anchor
        and len(plane) == len(event.plane)
        and plane_at(event, plane[event.axis]) == plane
    }


def _track(event: ev.Propagated, draft: Draft, object_id: int) -> list[Track]:
    state, ends = draft.unlocked(object_id), (event.first, event.last)
    anchors = anchors_of(state, event)
    if not anchors:
        msg = f"{state.name} is annotated on no plane here: click it on one first"
        raise SessionError(msg)
    gaps = gaps_of(anchors, *ends)
    if event.only_stale:
        gaps = tuple(g for g in gaps if not _is_fresh(event, state, g))
    return [Track(object_id, anchors, *ends, event.spans, gaps)] if gaps else []


def _source(event: ev.Propagated, state: ObjectState, gap: Gap) -> tuple[object, ...]:
    stamps = (
        None if index is None else (index, state.on(plane_at(event, index)).stamp)
        for index in gap
    )
    return (*stamps, event.spans)


def _is_fresh(event: ev.Propagated, state: ObjectState, gap: Gap) -> bool:
    """Whether every plane of a gap is as these anchors make it."""
    source = _source(event, state, gap)
    indices = list(planes_of(gap, event.first, event.last))
    if gap[0] is None:
        indices.reverse()
    for index in indices:
        carried = state.on(plane_at(event, index)).carried
        if carried is None or carried.source != source:
            return False
        if carried.stop is not None and None in gap:
            return True
    return True


class _Walk:
    """One propagation, as its results are written."""

    def __init__(self, event: ev.Propagated, draft: Draft, tracks: list[Track]) -> None:
        self.event = event
        self.draft = draft
        self.tracks = tracks
        self.planes = draft.computer.planes(
            partial(plane_at, event), event.count, event.spacing, self._taken
        )
        self.total = sum(
            len(way_to(gap, t.first, t.last)) * (1 if None in gap else 2)
            for t in tracks
            for gap in t.gaps or ()
        )
        self.moving = {t.object_id for t in tracks}
        self.settled: set[tuple[int, int]] = set()
        self.cleared: set[tuple[int, Gap]] = set()
        self.steps = 0
        self.ended = False

    def go(self) -> None:
        try:
            self._go()
        except JobCancelled:  # while it waited for pixels
            self.ended = True
        except CfrSegError as error:
            if not self.settled or self.draft.on_preview is None:
                raise
            said = str(error).rstrip(".")
            self.draft.notes.append(f"{said}. The planes done before are kept.")
            self.ended = True
        if self.ended:
            self.draft.recorded = replace(self.event, results=len(self.settled))

    def _go(self) -> None:
        results = propagate(self.planes, self.tracks, cancelled=self._cancelled)
        with closing(results):
            for kept, result in enumerate(results, 1):
                self._write(result)
                if not self.ended:
                    written = (plane_at(self.event, result.index),)
                    self._report(self.draft.edits.patches(written))
                if self.ended or kept == self.event.results:
                    break

    def _taken(self, index: int, object_id: int, box: Box) -> LabelArray:
        """Return other objects' labels, less those still on their way."""
        plane = plane_at(self.event, index)
        objects = self.draft.objects.values()
        if not any(plane in o.planes for o in objects if o.object_id != object_id):
            return np.zeros(shape_of(box), np.int32)
        labels = self.draft.labels_of(plane)[slices(box)].copy()
        labels[labels == object_id] = 0
        for other in self.moving - {object_id}:
            is_anchor = self.draft.objects[other].on(plane).is_anchor
            if not is_anchor and (other, index) not in self.settled:
                labels[labels == other] = 0
        return labels

    def _cancelled(self) -> bool:
        self.steps += 1
        if not self.ended:
            self._report()
        return self.ended

    def _report(self, patches: tuple[LabelRuns, ...] = ()) -> None:
        if self.draft.on_preview is not None:
            progress = Progress(min(self.steps, self.total), self.total, patches)
            self.ended = self.draft.on_preview(progress) is True

    def _write(self, result: PlaneResult) -> None:
        gap: Gap = (result.below, result.above)
        if (result.object_id, gap) not in self.cleared:
            self.cleared.add((result.object_id, gap))
            self._clear(result.object_id, gap)
        stop = None if result.stop is None else result.stop.value
        source = _source(self.event, self.draft.objects[result.object_id], gap)
        carried = Carried(round(result.confidence, 6), stop, source)
        start = result.mask if result.mask.mask.size else None
        shown = PlaneState(start=start, carried=carried)
        self.draft.show(result.object_id, plane_at(self.event, result.index), shown)
        self.settled.add((result.object_id, result.index))

    def _clear(self, object_id: int, gap: Gap) -> None:
        """Remove what an earlier propagation left in a gap."""
        state = self.draft.objects[object_id]
        for index in planes_of(gap, self.event.first, self.event.last):
            plane = plane_at(self.event, index)
            if state.on(plane).carried is not None:
                self.draft.show(object_id, plane, PlaneState())


#: objects carried at once: clicks come in between
_AT_ONCE = 2


def carried_to(
    computer: RoundComputer,
    labels_of: Callable[[Plane], AnyLabels],
    objects: Sequence[ObjectState],
    plane: Plane,
    axis: int,
    spacing: tuple[float, float, float],
    region: Box | None = None,
) -> Iterator[Batch]:
    """Suggest the objects of a neighbouring plane that are missing on this one.

    Of the planes before and after along the axis, the one with more such objects (in
    ``region``) counts.
    """
    missing: dict[Plane, list[ObjectState]] = {}
    for whole in objects:
        if whole.locked or not whole.on(plane).is_empty:
            continue
        for step in (-1, 1):
            before = (*plane[:axis], plane[axis] + step, *plane[axis + 1 :])
            box = whole.on(before).mask.box
            if 0 not in shape_of(box if region is None else overlap(box, region)):
                missing.setdefault(before, []).append(whole)
    if not missing:
        return
    before = max(missing, key=lambda index: len(missing[index]))
    ends = (before, plane)

    def taken(index: int, object_id: int, box: Box) -> LabelArray:
        labels: LabelArray = np.array(labels_of(ends[index])[slices(box)])
        labels[labels == object_id] = 0
        return labels

    for first in range(0, len(missing[before]), _AT_ONCE):
        tracks = [
            Track(whole.object_id, {0: whole.on(before).mask}, 0, 1)
            for whole in missing[before][first : first + _AT_ONCE]
        ]
        planes = computer.planes(ends.__getitem__, 2, spacing, taken)
        found = [
            ObjectSuggestion(r.mask, innermost(r.mask), r.confidence, (), r.object_id)
            for r in list(propagate(planes, tracks))
            if r.mask.mask.size
        ]
        yield Batch(tuple(found), 0, 1)
