"""Turn a person's actions into events; runs on napari's models without Qt.

Every step becomes a job of one queue, so the window shows the same as a replay of the
same events. The result of a step is shown by
:mod:`napari_cfrseg.gui.segment.projection`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.gui.segment.click_layer import (
    CanvasClicks,
    CanvasPlace,
    ClickLayer,
    ClickRow,
    Gesture,
    make_points,
)
from napari_cfrseg.gui.segment.click_steps import ClickSteps, ObjectEdits
from napari_cfrseg.gui.segment.dock_view import Remedy
from napari_cfrseg.gui.segment.event_queue import Step
from napari_cfrseg.gui.segment.label_layer import LabelLayer, make_labels
from napari_cfrseg.gui.segment.large_labels import LargeLabelLayer
from napari_cfrseg.gui.segment.layers import PlaneView, add_unselected, kept_in_place
from napari_cfrseg.gui.segment.learning import Learning
from napari_cfrseg.gui.segment.projection import Projection
from napari_cfrseg.gui.segment.propagator import Propagator
from napari_cfrseg.gui.segment.status_lines import masks_found
from napari_cfrseg.gui.segment.suggesting import Suggesting
from napari_cfrseg.gui.segment.worker import Failure, Runner
from napari_cfrseg.gui.segment.working_image import WorkingImage
from napari_cfrseg.gui.segment.workspace import Workspace
from napari_cfrseg.io.tiled_labels import TiledLabels, is_large
from napari_cfrseg.session.session_writer import SessionWriter

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image


_KEPT = " What you do is kept until then."


class Controller(Workspace):
    """One image being annotated in a viewer.

    Parameters
    ----------
    viewer
        The viewer model.
    image_layer
        The layer to segment; never changed.
    runner
        Where jobs run; its owner closes it.
    load
        Loads the segmenter; called on the runner.
    notify
        Called with (level, message), level "info", "warning" or "error".
    model
        Name or path of what ``load`` loads.

    Attributes
    ----------
    edits, steps, stack, suggestions, learning
        What a person does with objects, and with clicks; propagation, suggestions and
        lessons.
    first_click_s
        How long a first click takes, measured when the model was loaded.
    show_keys, show_band
        Shows the keys, and a box between two places of the canvas, (column, row) or ()
        for none; given by the dock.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        image_layer: Image,
        runner: Runner,
        load: Callable[[], SegmenterLike],
        notify: Callable[[str, str], None],
        model: str = "",
    ) -> None:
        image, tiles = WorkingImage.of(image_layer, viewer), None
        if is_large(image.plane_shape):
            tiles = TiledLabels(image.shape, np.uint16, pyramid=True)
        labels = make_labels(image, f"{image_layer.name} objects", tiles)
        points = make_points(image, f"{image_layer.name} clicks")
        for layer in (labels, points):
            add_unselected(viewer, layer)
        planes, does = PlaneView(viewer, image, labels), self._does
        parts = (planes, does(self.submit), does(self.select), self.say)
        heard = does(self.clicked), does(self.points_moved), does(self.points_removed)
        super().__init__(
            planes,
            LabelLayer(*parts) if tiles is None else LargeLabelLayer(*parts, tiles),
            ClickLayer(points, viewer, image, *heard),
            runner,
            notify,
        )
        self.first_click_s = 0.0
        self._load_again: Callable[[], None] | None = None
        self.show_keys: Callable[[], None] = lambda: None
        self.show_band: Callable[[CanvasPlace, CanvasPlace], None] = lambda *_: None
        self.hold, self.go_on = self.queue.hold, self.queue.go_on
        self.stack, self.learning = Propagator(self), Learning(self)
        self.suggestions = Suggesting(self, self.stack)
        self.edits = ObjectEdits(self, self.suggestions)
        self.steps = ClickSteps(self, self.suggestions)
        self._shown = Projection(self, self.stack, self.suggestions, self.learning)
        acts = does(self.clicked), does(self.steps.drawn), does(self.tighten)
        self._canvas = CanvasClicks(
            viewer, points, *acts, lambda *places: self.show_band(*places)
        )
        self._placed = kept_in_place(image, labels, points)
        self.clicks.set_polarity(True)
        self.ready_to_click()
        self.load_model(load, model)

    def close(self) -> None:
        """Stop listening and drop pending steps; the layers stay."""
        super().close()
        for part in (self.stack, self.suggestions, self.learning, self._canvas):
            part.close()
        self._placed.close()

    # -- events ----------------------------------------------------------------------

    def do(self, act: Callable[[Controller], object]) -> None:
        """Do what a person asks for; while a session is reopened, keep it for later.

        It is then done as if the pointer, and the plane shown, were still where they
        were. All that clicks, keys and buttons do comes through here.
        """
        cursor, dims = self.viewer.cursor, self.viewer.dims
        then = cursor.position, dims.current_step

        def later() -> None:
            now = cursor.position, dims.current_step
            cursor.position, dims.current_step = then
            act(self)
            if dims.current_step == then[1]:
                cursor.position, dims.current_step = now

        held = self.queue.holds(later)
        if not held:
            act(self)
            return
        self.show_pending()
        self.say(f"{self.doing}{_KEPT}", pending=held)

    def _does(self, act: Callable[..., object]) -> Callable[..., None]:
        """Return an act as layers and the canvas call it: through :meth:`do`."""
        return lambda *values: self.do(lambda _: act(*values))

    def undo(self) -> None:
        """Take the last act back."""
        self.submit(ev.Undone())

    def redo(self) -> None:
        """Do the last act taken back again."""
        self.submit(ev.Redone())

    def cancel_pending(self) -> None:
        """Take the newest click that is still being computed back."""
        taken = self.queue.cancel_newest()
        if not taken and (self.suggestions.cancel() or self.give_up()):
            return
        self.say("Click cancelled." if taken else "Nothing to cancel.")

    # -- clicks ----------------------------------------------------------------------

    def clicked(self, world: Sequence[float], gesture: Gesture = Gesture.CLICK) -> None:
        """Take a click at a world position, or select the object that is there."""
        self.labels.notice()
        is_positive = self.view.is_positive != (gesture is Gesture.OTHER)
        step = Step()
        if gesture is Gesture.PICK:
            self.edits.pick(world)
        elif gesture is Gesture.NONE:
            self.say("Click without Ctrl and Shift: they are for dragging.")
        elif self.steps.is_seen(world):
            step = self.steps.click(world, is_positive)
        self.send(step)

    def points_moved(self, rows: Sequence[ClickRow]) -> None:
        """Recompute from clicks that were dragged."""
        if not all(self.planes.contains(row.yx) for row in rows):
            self.refuse("Clicks stay on the image.")
            self.show_pending()
            return
        self.submit(ev.ClicksMoved(tuple((r.click_id, r.yx) for r in rows)))

    def points_removed(self, rows: Sequence[ClickRow]) -> None:
        """Recompute without clicks that were deleted."""
        self.submit(ev.ClicksRemoved(tuple(r.click_id for r in rows)))

    def other_mask(self, step: int = 1) -> None:
        """Take another of the masks found at the selected object's first click here."""
        found = self.objects.get(self.view.selected or 0)
        first, chosen, count = masks_found(found, self.current_plane)
        if found is None or first is None or count < 2:
            self.say("There is no other mask here.")
            return
        asked = [
            e.candidate
            for e in self.waiting_events
            if isinstance(e, ev.CandidateChosen) and e.click_id == first.click_id
        ]
        chosen = ([chosen, *asked][-1] + step) % count
        self.say(f"{found.name}: mask {chosen + 1} of {count}.")
        self.submit(ev.CandidateChosen(first.click_id, chosen))

    # -- objects ---------------------------------------------------------------------

    def delete_selected(self) -> None:
        """Delete the selected object with its clicks and labels."""
        if self.view.selected is not None:
            self.submit(ev.ObjectDeleted(self.view.selected))

    def reset_object(self) -> None:
        """Take the selected object's clicks and strokes on this plane away."""
        if self.view.selected is None:
            self.say(
                "No object is selected: point at one and press G, or click its row."
            )
        else:
            self.submit(ev.ObjectReset(self.view.selected, self.current_plane))

    # -- settings --------------------------------------------------------------------

    def set_polarity(self, is_positive: bool) -> None:
        """Choose what a left click means."""
        self.clicks.set_polarity(is_positive)
        self.show(is_positive=is_positive)

    def toggle_polarity(self) -> None:
        """Swap what left and right clicks mean."""
        self.set_polarity(not self.view.is_positive)

    def set_refinement(self, refinement: Refinement) -> None:
        """Choose the refinement of the clicks to come."""
        if refinement != self.view.refinement:
            self.show(refinement=refinement)
            self.submit(ev.RefinementChanged(refinement))

    def set_rule(self, rule: ev.OverlapRule) -> None:
        """Choose the overlap rule."""
        if rule != self.view.rule:
            self.show(rule=rule)
            self.submit(ev.OverlapChanged(rule))

    def set_threshold(self, threshold: float) -> None:
        """Move the selected object's outline; without one, that of the next."""
        if abs(threshold - self.view.threshold) < 1e-6:
            return
        self.show(threshold=threshold)
        if self.view.selected is not None:
            self.submit(ev.ThresholdChanged(self.view.selected, threshold))

    def tighten(self, step: float) -> None:
        """Move that outline by a step: tighter (positive) or wider."""
        self.set_threshold(min(max(self.view.threshold + step, 0.05), 0.95))
        self.say(f"Outline at {self.view.threshold:.2f}.")

    # -- models and sessions ---------------------------------------------------------

    def load_model(self, load: Callable[[], SegmenterLike], model: str = "") -> None:
        """Load a segmenter on the runner; clicks from now on wait for it."""

        def done(segmenter: SegmenterLike, first_click_s: float) -> None:
            self.first_click_s = first_click_s
            text = "Ready: click on an object."
            if self.view.progress[1] and self.view.status != doing:
                text = self.view.status
            elif self.view.pending:
                text = "Computing …"
            self.show(loading=False, seconds=None, status=text)
            self._shown.segmenter = segmenter
            self._shown.show_placement()

        def failed(error: Failure) -> None:
            before = self.annotator.model
            text = f"{before} stays in use." if before else "No model is loaded."
            self.show(loading=False, model=before, status=text)
            self._load_again = lambda: self.load_model(load, model)
            self.warn(error)

        doing = "Loading the model …"
        self._load_again = None
        self.show(loading=True, model=model, status=doing)
        job = self.queue.load_model(load, model, self.current_plane, done, failed)
        self.begin_long(job, doing)

    def warn(self, error: Failure) -> None:
        """Say why something failed; where no model is loaded, offer to load it."""
        try:
            super().warn(error)
        finally:
            if self._load_again is not None and not self.annotator.model:
                self.show(remedy=Remedy("Load the model", self._load_again))

    def restore(
        self,
        writer: SessionWriter,
        restored: Callable[[], None],
        failed: Callable[[Failure], None],
    ) -> None:
        """Apply a session's events on the runner, and go on from there.

        Nothing was done here before, and nothing is shown if it fails. What is done
        meanwhile follows (:meth:`do`); nothing can be painted.
        """
        content = writer.content

        def done(last: Change | None) -> None:
            self.labels.let_paint(True)
            self.learning.follow(*content.events)
            used = [i for event in content.events for i in ev.click_ids(event)]
            self.next_click = max(used, default=0) + 1
            self._shown.show_all(last)
            self.show(model=self.annotator.model or self.view.model)
            self.ready_to_click()
            restored()

        def refused(error: Failure) -> None:
            self.labels.let_paint(True)
            model = self.annotator.model or self.view.model
            self.show(progress=(0, 0), model=model)
            failed(error)

        self.labels.let_paint(False)  # a label there is another object's soon
        self.show(progress=(0, len(content.events)))
        job = self.queue.restoring(writer, done, refused, self._shown.preview)
        self.begin_long(job, "Reopening the session …")
        self.runner.submit(job)
