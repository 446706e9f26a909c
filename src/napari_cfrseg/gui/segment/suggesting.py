"""Suggestions in the window: outlines in a layer of their own, accepted or rejected.

They are computed on the worker in short jobs, so that clicks come in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.suggestions import ACCEPT_FROM, Batch, ObjectSuggestion
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.geometry.windows import Box, overlap, slices
from napari_cfrseg.gui.segment.event_queue import Job, Runner
from napari_cfrseg.gui.segment.label_layer import OUTLINE_PX
from napari_cfrseg.gui.segment.layers import Listener, PlaneView, to_rgba
from napari_cfrseg.io.axes import back, turned

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_cfrseg.annotation.annotator import Annotator

#: sure enough for the slider, and less sure (Okabe and Ito's yellow, dimmed)
SURE, UNSURE = "#f0e442", "#8c8530"
#: longest side of the part of a plane that is looked at in one go
_LONGEST_PX = 4096


@dataclass(frozen=True, slots=True)
class SuggestionsView:
    """Suggestions as the dock shows them: scores, slider, whether more come."""

    scores: tuple[float, ...] = ()
    threshold: float = ACCEPT_FROM
    running: bool = False

    @property
    def sure(self) -> int:
        """How many the slider accepts."""
        return sum(score >= self.threshold for score in self.scores)


class Suggesting:
    """Suggestions on the plane shown.

    Parameters
    ----------
    viewer, labels, planes, annotator, runner
        Where they are shown and computed.
    submit
        Sends an event on its way.
    show
        Changes fields of the dock's view.
    free
        Returns (next object, next click): the numbers an accepted one gets.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        labels: Labels,
        planes: PlaneView,
        annotator: Annotator,
        runner: Runner,
        submit: Callable[[ev.Event], None],
        show: Callable[..., None],
        free: Callable[[], tuple[int, int]],
    ) -> None:
        self._viewer = viewer
        self._labels = labels
        self._planes = planes
        self._annotator = annotator
        self._runner = runner
        self._submit = submit
        self._show = show
        self._free = free
        self.view = SuggestionsView()
        self.layer: Labels | None = None
        self._plane: Plane = ()
        self._region: Box = (0, 0, 0, 0)
        self._all: list[ObjectSuggestion] = []
        self.found: list[ObjectSuggestion] = []
        self._job: Job | None = None
        self._listener = Listener((viewer.dims.events.current_step, self.refresh))

    def close(self) -> None:
        """Compute no more, and listen no more."""
        self._stop()
        self._listener.close()

    def _stop(self) -> None:
        if self._job is not None:
            self._job.cancel()

    # -- computing -------------------------------------------------------------------

    def start(self) -> None:
        """Suggest objects in the part of the plane that is seen."""
        self._stop()
        plane, seen = self._planes.current_plane, self._planes.visible_box()
        middle = [(a + b) // 2 for a, b in zip(seen[:2], seen[2:], strict=True)]
        half = _LONGEST_PX // 2
        reach = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
        self._plane, self._region, self._all = plane, overlap(seen, reach), []
        self._say(running=True)
        self._show(status="Looking for objects like the finished ones …")
        region = self._region
        self._next(lambda: self._annotator.suggest(plane, region=region))

    def cancel(self) -> bool:
        """Stop; keep those found so far. Return False where nothing was running."""
        if not self.view.running:
            return False
        self._stop()
        self._end("Stopped: ")
        return True

    def _next(self, batches: Callable[[], Iterator[Batch]] | Iterator[Batch]) -> None:
        def work(_: Any) -> tuple[Iterator[Batch], Batch | None]:
            found = batches if isinstance(batches, Iterator) else batches()
            return found, next(found, None)

        def done(result: tuple[Iterator[Batch], Batch | None]) -> None:
            more, batch = result
            if job.is_cancelled or self._job is not job:
                return
            if batch is None:
                self._end("")
                return
            self._all += batch.found
            self._show(progress=(batch.done, batch.total))
            self.refresh()
            self._next(more)

        def failed(error: Exception) -> None:
            if self._job is not job or job.is_cancelled:
                return
            self._say(running=False)
            self._show(progress=(0, 0), status=str(error))
            if not isinstance(error, CfrSegError):
                raise error

        self._job = job = Job(work, done, failed)
        self._runner.submit(job)

    def _end(self, before: str) -> None:
        self._say(running=False)
        count = len(self.found)
        text = f"{before}{count} suggestions: click in one to accept it."
        self._show(progress=(0, 0), status=text if count else f"{before}none found.")
        if self._all:
            seeds = tuple(
                (float(s.seed[0]), float(s.seed[1]), s.score) for s in self._all
            )
            self._submit(ev.ObjectsSuggested(self._plane, seeds))

    # -- what a person does ----------------------------------------------------------

    def event_at(
        self, plane: Plane, yx: tuple[float, float], is_positive: bool
    ) -> ev.Event | None:
        """Return what a click does to the suggestion there; None where there is none.

        A positive click accepts it, a negative one rejects it.
        """
        y, x = (round(v) for v in yx)
        box = (y, x, y + 1, x + 1)
        for suggestion in self.found if plane == self._plane else ():
            if suggestion.mask.window(box).any():
                self.found.remove(suggestion)  # a second click is another one
                if is_positive:
                    return self._accepted([suggestion], yx)
                return self._rejected(suggestion)
        return None

    def accept_sure(self) -> None:
        """Accept all that are at least as sure as the slider says."""
        sure = [s for s in self.found if s.score >= self.view.threshold]
        if sure:
            self._submit(self._accepted(sure))

    def set_threshold(self, threshold: float) -> None:
        """Move the slider."""
        self._say(threshold=threshold)
        self._draw()

    def _accepted(
        self,
        chosen: Sequence[ObjectSuggestion],
        yx: tuple[float, float] | None = None,
    ) -> ev.SuggestionsAccepted:
        shape = self._planes.image.plane_shape
        proposals = tuple(ev.Proposal.of(s, shape, yx) for s in chosen)
        object_id, click_id = self._free()
        return ev.SuggestionsAccepted(object_id, self._plane, click_id, proposals)

    def _rejected(self, suggestion: ObjectSuggestion) -> ev.SuggestionsRejected:
        proposal = ev.Proposal.of(suggestion, self._planes.image.plane_shape)
        return ev.SuggestionsRejected(self._plane, (proposal,))

    # -- what is shown ---------------------------------------------------------------

    def refresh(self) -> None:
        """Leave out what became an object or was rejected; score the others again."""
        if not self._all:
            return
        self.found = []
        if self._plane == self._planes.current_plane:
            self.found = self._annotator.still_open(self._plane, self._all)
        self._say(scores=tuple(s.score for s in self.found))
        self._draw()

    def _say(self, **changes: Any) -> None:
        self.view = replace(self.view, **changes)
        self._show(suggestions=self.view)

    def _draw(self) -> None:
        """Draw the outlines: odd labels are sure, even ones are not."""
        if self.layer is None and not self.found:
            return
        y0, x0, y1, x1 = self._region
        labels = np.zeros((y1 - y0, x1 - x0), np.uint16)
        colours: dict[Any, Any] = {None: to_rgba(UNSURE), 0: (0, 0, 0, 0)}
        for number, suggestion in enumerate(self.found):
            sure = suggestion.score >= self.view.threshold
            label = 2 * number + (1 if sure else 2)
            if sure:
                colours[label] = to_rgba(SURE)
            part = overlap(suggestion.mask.box, self._region)
            labels[slices(part, self._region)][suggestion.mask.window(part)] = label
        self._paint(labels, colours)

    def _paint(
        self, labels: NDArray[np.uint16], colours: dict[int | None, Any]
    ) -> None:
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        image = self._planes.image
        whole = labels.reshape((*(1 for _ in self._plane), *labels.shape))
        data = turned(whole, back(image.order))
        place = image.placement()
        origin = image.to_layer((*self._plane, *self._region[:2]))
        place["translate"] = self._planes.translate_to(origin)
        colormap = DirectLabelColormap(color_dict=colours)
        if self.layer is None or self.layer not in self._viewer.layers:
            name = f"{image.layer.name} suggestions"
            layer = Labels(data, name=name, colormap=colormap, opacity=1.0, **place)
            layer.contour = OUTLINE_PX
            active = self._viewer.layers.selection.active
            layers = self._viewer.layers
            layers.insert(layers.index(self._labels) + 1, layer)
            self._viewer.layers.selection.active = active
            self.layer = layer
            return
        self.layer.data = data
        self.layer.translate = place["translate"]
        self.layer.colormap = colormap
