"""Suggestions in the window: outlines in a layer of their own, accepted or rejected.

They are computed on the worker in short jobs, so that clicks come in between. Once
asked for, they follow the view: what is seen now is searched before all else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.state import Judged
from napari_cfrseg.engine.suggestions import Batch, ObjectSuggestion
from napari_cfrseg.errors import CfrSegError, JobCancelled, counted
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.geometry.windows import Box, overlap, shape_of
from napari_cfrseg.gui.segment.dock_view import SuggestionsView
from napari_cfrseg.gui.segment.layers import Listener, camera_of
from napari_cfrseg.gui.segment.outline_layer import OutlineLayer
from napari_cfrseg.gui.segment.propagator import Propagator
from napari_cfrseg.gui.segment.worker import Failure, Job
from napari_cfrseg.gui.segment.workspace import Workspace
from napari_cfrseg.overlay import YELLOW, hex_of

#: sure enough for the slider, and less sure (the same, dimmed)
SURE, UNSURE = hex_of(YELLOW), "#8c8530"
#: longest side of the part of a plane that is looked at in one go
_LONGEST_PX = 4096
#: outlines are drawn on a grid of about so many cells: a finer one holds up the window
_DRAWN_PX = 1024
#: the view is searched when it has not moved for so long
_REST_MS = 300


@dataclass(slots=True, eq=False)
class _Searched:
    """The suggestions of a plane, and where it was searched.

    ``tiles`` are those completed, ``regions`` the views; ``recorded`` counts the
    suggestions that are in the session.
    """

    found: list[ObjectSuggestion] = field(default_factory=list)
    tiles: list[Box] = field(default_factory=list)
    regions: list[Box] = field(default_factory=list)
    recorded: int = 0


class Suggesting:
    """Suggestions on the plane shown."""

    def __init__(self, work: Workspace, stack: Propagator) -> None:
        self._work, self._stack, self._planes = work, stack, work.planes
        self._annotator, viewer = work.annotator, work.viewer
        self.view = SuggestionsView()
        self.outlines = OutlineLayer(work.planes, "suggestions", (SURE, UNSURE))
        self._plane: Plane = ()
        self._region: Box = (0, 0, 0, 0)
        self._planes_searched: dict[Plane, _Searched] = {}
        self.found: list[ObjectSuggestion] = []
        self._job: Job | None = None
        camera = camera_of(viewer)
        self._listener = Listener(
            (viewer.dims.events.current_step, self._turned),
            (camera.events.center, self._moved),
            (camera.events.zoom, self._moved),
        )
        self._rest = QTimer(singleShot=True, interval=_REST_MS)
        self._rest.timeout.connect(self._look)

    def close(self) -> None:
        """Compute no more, and listen no more."""
        self._rest.stop()
        self._stop()
        self.outlines.close()
        self._listener.close()

    def _stop(self) -> None:
        if self._job is not None:
            self._job.cancel()

    # -- computing -------------------------------------------------------------------

    def start(self) -> None:
        """Suggest objects in the part of the plane that is seen."""
        self._planes_searched.pop(self._planes.current_plane, None)
        self._search()

    def follow(self, follows: bool) -> None:
        """Search what is seen, too, whenever the view has moved; or no longer."""
        self._say(follows=follows)
        if follows:
            self._moved()

    def _turned(self) -> None:
        self.refresh()
        self._moved()

    def _moved(self) -> None:
        if self.view.follows and self._planes_searched:
            self._rest.start()

    def _look(self) -> None:
        """Search what is seen, unless that was done."""
        self._region = seen = self._seen()
        self.refresh()
        here = self._planes_searched.get(self._planes.current_plane, _Searched())
        done = any(overlap(seen, region) == seen for region in here.regions)
        if self.view.follows and not done and 0 not in shape_of(seen):
            self._search()

    def _seen(self) -> Box:
        seen = self._planes.visible_box()
        middle = [(a + b) // 2 for a, b in zip(seen[:2], seen[2:], strict=True)]
        half = _LONGEST_PX // 2
        reach = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
        return overlap(seen, reach)

    def _search(self) -> None:
        self._stop()
        self._record()
        plane, self._region = self._planes.current_plane, self._seen()
        self._planes_searched.setdefault(plane, _Searched())
        self._say(running=True)
        self._work.show(status="Looking for objects like the finished ones …")
        self.refresh()
        if self._annotator.objects:
            self.outlines.prepare((*plane, *self._region[:2]))
        self._next(plane, self._region, None, ())

    def cancel(self) -> bool:
        """Stop; keep those found so far. Return False where nothing was running."""
        if not self.view.running:
            return False
        self._stop()
        self._end("Stopped: ")
        return True

    def _next(
        self,
        plane: Plane,
        region: Box,
        batches: Iterator[Batch] | None,
        judged: Judged,
    ) -> None:
        """Compute the next batch; begin again where more was judged meanwhile."""
        here = self._planes_searched[plane]
        along, spacing = self._stack.line()
        known = self.found if plane == self._plane else here.found
        earlier = [Batch(tuple(known), 0, 0)]
        earlier += [Batch((), 0, 0, tile) for tile in here.tiles]

        def work(_: Any) -> tuple[Iterator[Batch], Judged, Batch | None]:
            now, found = self._annotator.judged, batches
            if found is None or now is not judged:
                found = self._annotator.suggest(
                    plane, region=region, along=along, spacing=spacing, earlier=earlier
                )
            return found, now, next(found, None)

        def done(result: tuple[Iterator[Batch], Judged, Batch | None]) -> None:
            more, now, batch = result
            if job.is_cancelled or self._job is not job:
                return
            if batch is None:
                here.regions.append(region)
                self._end("")
                return
            here.found += batch.found
            if batch.searched is not None:
                here.tiles.append(batch.searched)
            self._work.show(progress=(batch.done, batch.total))
            if batch.found:
                self.refresh()
            self._next(plane, region, more, now)

        def failed(error: Failure) -> None:
            if self._job is job and self.view.running:
                self._fail(plane, error)

        self._job = job = Job(work, done, failed, waits=self._work.stalled)
        self._work.runner.submit(job)

    def _fail(self, plane: Plane, error: Failure) -> None:
        if isinstance(error, JobCancelled):  # given up while it waited for pixels
            self._end("Stopped: ")
            return
        if not self._planes_searched[plane].found:
            self._planes_searched.pop(plane)
        self._say(running=False)
        self._work.show(progress=(0, 0), status=str(error))
        self._record()
        if not isinstance(error, CfrSegError):
            raise error

    def _end(self, before: str) -> None:
        self._say(running=False)
        none = "Nothing else like the finished objects is in view."
        text = "nothing so far." if before else none
        if self.found:
            text = (
                f"{counted(len(self.found), 'suggestion')}, {self.view.sure} sure "
                "(bright). Click accepts, right-click rejects, Ctrl+drag does several."
            )
        self._work.show(progress=(0, 0), status=before + text)
        self._record()

    def _record(self) -> None:
        """Record in the session what was suggested since the last time."""
        for plane, here in self._planes_searched.items():
            new = here.found[here.recorded :]
            here.recorded = len(here.found)
            if new:
                places = ((float(s.seed[0]), float(s.seed[1]), s.score) for s in new)
                self._work.submit(ev.ObjectsSuggested(plane, tuple(places)))

    # -- what a person does ----------------------------------------------------------

    def event_at(
        self, plane: Plane, path: NDArray[np.float64], is_positive: bool
    ) -> ev.Event | None:
        """Return what a click or a stroke does to the suggestions there.

        ``path`` holds its (row, column) places. A positive one accepts those it
        touches, a negative one rejects them. None where it touches none; and where it
        begins in none and touches the selected object: it is that one's.
        """
        pixels = np.round(path).astype(int)
        here = self.found if plane == self._plane else []
        touched, begins = {}, False
        for suggestion in here:
            inside = np.flatnonzero(suggestion.mask.holds(pixels))
            if inside.size:
                touched[suggestion] = path[inside[inside.size // 2]]
                begins |= bool(inside[0] == 0)
        own = self._work.objects.get(self._work.view.selected or 0)
        is_own = own is not None and own.on(plane).mask.holds(pixels).any()
        if not touched or (is_own and not begins):
            return None
        # a second click is another one
        self.found = [s for s in self.found if s not in touched]
        if not is_positive:
            return self._rejected([*touched])
        return self._accepted([*touched], [*touched.values()])

    def found_at(
        self, plane: Plane, yx: tuple[float, float]
    ) -> ObjectSuggestion | None:
        """Return the suggestion that is there, None where there is none."""
        pixel = np.round([yx]).astype(int)
        here = self.found if plane == self._plane else ()
        return next((s for s in here if s.mask.holds(pixel).any()), None)

    def accept_sure(self) -> None:
        """Accept all that are at least as sure as the slider says."""
        sure = [s for s in self.found if s.score >= self.view.threshold]
        # a second press is another one
        self.found = [s for s in self.found if s not in sure]
        if sure:
            self._work.submit(self._accepted(sure))

    def reject_all(self) -> None:
        """Stop searching, and reject all that are open on the plane shown."""
        self.cancel()
        found, self.found = self.found, []  # a second press is another one
        if found:
            self._work.submit(self._rejected(found))

    def set_threshold(self, threshold: float) -> None:
        """Move the slider."""
        self._say(threshold=threshold)
        self._draw()

    def _accepted(
        self,
        chosen: Sequence[ObjectSuggestion],
        places: Sequence[NDArray[np.float64]] = (),
    ) -> ev.SuggestionsAccepted:
        """Accept suggestions with clicks at some places, by default at their seeds."""
        shape = self._planes.image.plane_shape
        proposals = tuple(
            ev.Proposal.of(s, shape, None if yx is None else (yx[0], yx[1]))
            for s, yx in zip_longest(chosen, places)
        )
        object_id, click_id = self._work.view.next_id, self._work.next_click
        return ev.SuggestionsAccepted(object_id, self._plane, click_id, proposals)

    def _rejected(self, chosen: Sequence[ObjectSuggestion]) -> ev.SuggestionsRejected:
        shape = self._planes.image.plane_shape
        proposals = tuple(ev.Proposal.of(s, shape) for s in chosen)
        return ev.SuggestionsRejected(self._plane, proposals)

    # -- what is shown ---------------------------------------------------------------

    def refresh(self) -> None:
        """Leave out what became an object or was rejected; score the others again."""
        plane = self._planes.current_plane
        if not self._planes_searched:
            return
        self.found = []
        if plane in self._planes_searched:
            self._plane = plane
            found = self._planes_searched[plane].found
            self.found = self._annotator.still_open(plane, found)
        self._say(scores=tuple(s.score for s in self.found))
        self._draw()

    def _say(self, **changes: Any) -> None:
        self.view = replace(self.view, **changes)
        self._work.show(suggestions=self.view)

    def _draw(self) -> None:
        """Draw the outlines: odd labels are sure, even ones are not."""
        if self.outlines.layer is None and not self.found:
            return
        region = self._region
        step = max(1, max(shape_of(region)) // _DRAWN_PX)
        height, width = (-(-side // step) for side in shape_of(region))
        # SPEED: napari makes a layer of wider numbers twice
        kind = np.min_scalar_type(2 * len(self.found))
        labels = np.zeros((height, width), kind)
        for number, suggestion in enumerate(self.found):
            is_sure = suggestion.score >= self.view.threshold
            y0, x0, y1, x1 = overlap(suggestion.mask.box, region)
            rows, columns = (
                slice(-(-(low - first) // step), -(-(high - first) // step))
                for low, high, first in ((y0, y1, region[0]), (x0, x1, region[1]))
            )
            start = (rows.start * step + region[0], columns.start * step + region[1])
            if start[0] < y1 and start[1] < x1:
                inside = suggestion.mask.window((*start, y1, x1))[::step, ::step]
                labels[rows, columns][inside] = 2 * number + (1 if is_sure else 2)
        self.outlines.paint((*self._plane, *region[:2]), labels, step)
