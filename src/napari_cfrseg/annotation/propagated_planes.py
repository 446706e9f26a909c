"""A propagation as an act: from objects' anchors to masks on other planes.

A replay computes the event again; only its few numbers are stored. Planes get a start
mask with a mark (:class:`~napari_cfrseg.annotation.state.Carried`); the first click or
stroke on one, or its confirmation, makes it an anchor, and then only its gap is
computed again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.rounds import NoRounds, RoundComputer
from napari_cfrseg.annotation.state import Carried, ObjectState, PlaneState
from napari_cfrseg.annotation.transaction import Act, Progress
from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import LabelArray, MaskPatch, Plane
from napari_cfrseg.geometry.windows import Box
from napari_cfrseg.propagation import (
    PlaneResult,
    Track,
    gaps_of,
    planes_of,
    propagate,
)
from napari_cfrseg.propagation.priors import Gap

Source = tuple[object, ...]


def plane_at(event: ev.Propagated, index: int) -> Plane:
    """Return the plane at an index of the event's line."""
    return (*event.plane[: event.axis], index, *event.plane[event.axis + 1 :])


def perform_propagation(event: ev.Propagated, act: Act) -> None:
    """Compute the planes that are stale and show them.

    Raises
    ------
    LockedObjectError
        An object is locked.
    SessionError
        An object has no annotated plane, or there is no such object.
    """
    tracks = [track for i in event.object_ids for track in _track(event, act, i)]
    if isinstance(act.computer, NoRounds):
        _mark(event, act, tracks)
        return
    walk = _Walk(event, act, act.computer, tracks)
    try:
        walk.go()
    finally:
        walk.rest()


def _mark(event: ev.Propagated, act: Act, tracks: list[Track]) -> None:
    """Mark planes as carried where there are no pixels to compute them from."""
    unknown = PlaneState(start=MaskPatch.empty(), carried=Carried(0.0))
    for track in tracks:
        for gap in track.gaps or ():
            for index in planes_of(gap, event.first, event.last):
                act.show(track.object_id, plane_at(event, index), unknown)


def anchors_of(state: ObjectState, event: ev.Propagated) -> dict[int, MaskPatch]:
    """Return an object's annotated planes along the event's line."""
    found = {}
    for plane, on_plane in state.planes.items():
        if len(plane) != len(event.plane):
            continue
        index = plane[event.axis]
        if on_plane.is_anchor and plane_at(event, index) == plane:
            found[index] = on_plane.mask
    return found


def _track(event: ev.Propagated, act: Act, object_id: int) -> list[Track]:
    state = act.unlocked(object_id)
    anchors = anchors_of(state, event)
    if not anchors:
        msg = f"{state.name} is annotated on no plane here: click it on one first"
        raise SessionError(msg)
    gaps = gaps_of(anchors, event.first, event.last)
    if event.only_stale:
        gaps = tuple(g for g in gaps if not _is_fresh(event, state, g))
    if not gaps:
        return []
    return [Track(object_id, anchors, event.first, event.last, event.spans, gaps)]


def _source(event: ev.Propagated, state: ObjectState, gap: Gap) -> Source:
    stamps = tuple(
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
    """The planes of an annotator's image, as the propagation walks them."""

    def __init__(
        self,
        event: ev.Propagated,
        act: Act,
        computer: RoundComputer,
        tracks: list[Track],
    ) -> None:
        self.computer = computer
        self.event = event
        self.act = act
        self.tracks = tracks
        self.count = event.count
        self.shape = act.plane_shape
        self.sampling = event.spacing
        self.ahead = computer.ahead(lambda index: plane_at(event, index))
        self.total = sum(
            len(planes_of(gap, t.first, t.last)) * (1 if None in gap else 2)
            for t in tracks
            for gap in t.gaps or ()
        )
        self.moving = {t.object_id for t in tracks}
        self.settled: set[tuple[int, int]] = set()
        self.cleared: set[tuple[int, Gap]] = set()
        self.steps = 0
        self.ended = False

    def go(self) -> None:
        limit, kept = self.event.results, 0
        if limit == 0:
            return
        for result in propagate(self, self.tracks, cancelled=self._cancelled):
            self._write(result)
            kept += 1
            self._report(result.index)
            if self.ended or kept == limit:
                break
        if self.ended:
            self.act.recorded = replace(self.event, results=kept)

    # -- what the propagation asks ---------------------------------------------------

    def expect(self, index: int, following: int | None) -> None:
        """Read these planes ahead."""
        self.ahead.expect(index, following)

    def rest(self) -> None:
        """End the thread that reads ahead."""
        self.ahead.close()
        self.computer.forget_plane()

    def read(self, index: int, box: Box) -> NDArray[Any]:
        """Return the pixels of a plane's box."""
        return self.ahead.read(index, box)

    def carry(
        self,
        index: int,
        clicks: list[Click],
        previous: Prediction,
        refinement: Refinement,
    ) -> Prediction:
        """Run the network."""
        return self.computer.carry(self.ahead, index, clicks, previous, refinement)

    def taken(self, index: int, object_id: int, box: Box) -> LabelArray:
        """Return other objects' labels, less those still on their way."""
        plane = plane_at(self.event, index)
        objects = self.act.objects.values()
        if not any(plane in o.planes for o in objects if o.object_id != object_id):
            return np.zeros((box[2] - box[0], box[3] - box[1]), np.int32)
        labels = self.act.labels_of(plane)[box[0] : box[2], box[1] : box[3]].copy()
        labels[labels == object_id] = 0
        for other in self.moving - {object_id}:
            is_anchor = self.act.objects[other].on(plane).is_anchor
            if not is_anchor and (other, index) not in self.settled:
                labels[labels == other] = 0
        return labels

    # -- results ---------------------------------------------------------------------

    def _cancelled(self) -> bool:
        self.steps += 1
        if not self.ended and self.act.on_preview is not None:
            progress = Progress(min(self.steps, self.total), self.total)
            self.ended = self.act.on_preview(progress) is True
        return self.ended

    def _report(self, index: int) -> None:
        if self.act.on_preview is None or self.ended:
            return
        plane = plane_at(self.event, index)
        patches = tuple(p for p in self.act.draft.patches((plane,)))
        progress = Progress(min(self.steps, self.total), self.total, patches)
        self.ended = self.act.on_preview(progress) is True

    def _write(self, result: PlaneResult) -> None:
        act, plane = self.act, plane_at(self.event, result.index)
        gap: Gap = (result.below, result.above)
        state = act.objects[result.object_id]
        if (result.object_id, gap) not in self.cleared:
            self.cleared.add((result.object_id, gap))
            self._clear(result.object_id, gap)
        stop = None if result.stop is None else result.stop.value
        carried = Carried(
            round(result.confidence, 6), stop, _source(self.event, state, gap)
        )
        start = result.mask if result.mask.mask.size else None
        act.show(result.object_id, plane, PlaneState(start=start, carried=carried))
        self.settled.add((result.object_id, result.index))

    def _clear(self, object_id: int, gap: Gap) -> None:
        """Take away what an earlier propagation left in a gap."""
        state = self.act.objects[object_id]
        for index in planes_of(gap, self.event.first, self.event.last):
            plane = plane_at(self.event, index)
            if state.on(plane).carried is not None:
                self.act.show(object_id, plane, PlaneState())
