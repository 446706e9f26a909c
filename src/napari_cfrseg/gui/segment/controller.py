"""Turn a person's actions into events; runs on napari's models without Qt.

Every step becomes a job of one queue, so the window shows the same as a replay of the
same events. The result of a step is shown by
:mod:`napari_cfrseg.gui.segment.projection`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.segment.click_layer import (
    CanvasClicks,
    ClickLayer,
    ClickRow,
    Gesture,
    make_points,
)
from napari_cfrseg.gui.segment.click_steps import ClickSteps, ObjectEdits
from napari_cfrseg.gui.segment.dock_view import DockView
from napari_cfrseg.gui.segment.event_queue import EventQueue, Pending, Step, row_of
from napari_cfrseg.gui.segment.label_layer import LabelLayer, make_labels
from napari_cfrseg.gui.segment.large_labels import LargeLabelLayer
from napari_cfrseg.gui.segment.layers import PlaneView, add_unselected, kept_in_place
from napari_cfrseg.gui.segment.learning import Learning
from napari_cfrseg.gui.segment.projection import Projection
from napari_cfrseg.gui.segment.propagator import Propagator
from napari_cfrseg.gui.segment.suggesting import Suggesting
from napari_cfrseg.gui.segment.worker import Failure, Runner
from napari_cfrseg.gui.segment.working_image import WorkingImage
from napari_cfrseg.io.tiled_labels import TiledLabels, is_large
from napari_cfrseg.session.recording import RecordedAnnotator
from napari_cfrseg.session.session_writer import SessionWriter

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Points


#: (column, row) on the canvas, or ()
Place = tuple[float, ...]
_REOPENING = "Reopening the session …"


class Controller:
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
    auto_next
        Whether a positive click apart from the selected object begins a new one.
    first_click_s
        How long a first click takes, measured when the model was loaded.
    go_to, show_keys, show_band
        Begins to work on another image layer, shows the keys, and a box between two
        places of the canvas, (column, row) or () for none; given by the dock.
    """

    #: emitted with the view whenever something that the dock shows changed
    changed = Signal(DockView)
    #: emitted with each event the annotator applied: replays to the same labels
    applied = Signal(object)
    #: emitted with each step that was sent on its way
    sent = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        image_layer: Image,
        runner: Runner,
        load: Callable[[], SegmenterLike],
        notify: Callable[[str, str], None],
        model: str = "",
    ) -> None:
        self.viewer, self.runner = viewer, runner
        self.image = WorkingImage.of(image_layer, viewer)
        self.annotator = RecordedAnnotator(
            self.image.plane, self.image.plane_shape, rgb=self.image.rgb
        )
        self.next_click, self.auto_next, self.first_click_s = 1, False, 0.0
        self.go_to: Callable[[Image], None] = lambda _: None
        self.show_keys: Callable[[], None] = lambda: None
        self.show_band: Callable[[Place, Place], None] = lambda *_: None
        tiles = None
        if is_large(self.image.plane_shape):
            tiles = TiledLabels(self.image.shape, np.uint16, pyramid=True)
        labels = make_labels(self.image, f"{image_layer.name} objects", tiles)
        points = make_points(self.image, f"{image_layer.name} clicks")
        for layer in (labels, points):
            add_unselected(viewer, layer)
        self.planes = PlaneView(viewer, self.image, labels)
        parts = (labels, self.planes, self._painted, self._chosen, self.say)
        self.labels: LabelLayer = (
            LabelLayer(*parts) if tiles is None else LargeLabelLayer(*parts, tiles)
        )
        self.clicks = ClickLayer(points, self, viewer, self.image)
        self._canvas = CanvasClicks(viewer, points, self)
        self._placed = kept_in_place(self.image, labels, points)
        told = (self.changed.emit, self.applied.emit, notify)
        shown = Projection(self.annotator, self.labels, self.clicks, *told)
        self._shown, self.show, self.stalled = shown, shown.show, shown.stalled
        self.begin_long, self.show_progress = shown.begin_long, shown.show_progress
        ends = (shown.settled, shown.failed, shown.preview, shown.stalled)
        self._queue = EventQueue(self.annotator, runner, *ends)
        self._shown.pending = self._queue.pending
        self.hold, self.go_on = self._queue.hold, self._queue.go_on
        self.edits, self.steps = ObjectEdits(self), ClickSteps(self)
        self.stack = shown.stack = Propagator(self)
        self.suggestions = shown.suggesting = Suggesting(self)
        self.learning = shown.learning = Learning(self)
        self.clicks.set_polarity(True)
        self.ready_to_click()
        shown.show(pixel_size=self.image.pixel_size)
        self.load_model(load, model)

    @property
    def view(self) -> DockView:
        """The state that the dock shows."""
        return self._shown.view

    @property
    def objects(self) -> Mapping[int, ObjectState]:
        """The objects by id, after the last event that was applied."""
        return self._shown.objects

    @property
    def own_layers(self) -> tuple[Labels, Points]:
        """The layers it made: the objects' labels, and the clicks."""
        return self.labels.layer, self.clicks.layer

    @property
    def begun(self) -> tuple[int, int]:
        """An object, and the one that a click apart from it began; (0, 0): none."""
        return self._shown.begun

    def name_join_key(self, key: str) -> None:
        """Name the key that joins these two, as the status line is to say."""
        self._shown.join_key = key

    @property
    def waiting(self) -> Pending | None:
        """The newest step on its way; None for none."""
        return self._queue.pending[-1] if self._queue.pending else None

    def say(self, status: str, **changes: Any) -> None:
        """Show a line for the person, and other changes of the view."""
        self._shown.show(status=status, **changes)

    @property
    def current_plane(self) -> Plane:
        """The plane the viewer shows, or the nearest one the image has."""
        return self.planes.current_plane

    def ready_to_click(self) -> None:
        """Make the clicks' layer the active one, in add mode."""
        if self.clicks.layer in self.viewer.layers:
            self.viewer.layers.selection.active = self.clicks.layer
            self.clicks.layer.mode = "add"

    def close(self) -> None:
        """Stop listening and drop pending steps; the layers stay."""
        for part in (self._queue, self._shown, self.stack, self.suggestions):
            part.close()
        for one in (self.learning, self.clicks, self._canvas, self._placed):
            one.close()
        self.labels.close()
        for layer in self.own_layers:
            layer.locked = False
        if self.clicks.layer.mode == "add":
            self.clicks.layer.mode = "pan_zoom"

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

        held = self._queue.holds(later)
        if not held:
            act(self)
            return
        self._shown.show_pending()
        self.say(f"{_REOPENING} What you do is kept until then.", pending=held)

    def _painted(self, *strokes: ev.Event) -> None:
        self.do(lambda c: c.submit(*strokes))

    def _chosen(self, object_id: int) -> None:
        self.do(lambda c: c.select(object_id))

    def submit(self, *events: ev.Event, if_apart: Sequence[ev.Event] = ()) -> None:
        """Send events on their way, as one step."""
        clicks = [event for event in events if isinstance(event, ev.ClickAdded)]
        used = [click for event in events for click in ev.click_ids(event)]
        self.next_click = max([self.next_click, *(click + 1 for click in used)])
        rows = tuple(row_of(click.object_id, click.plane, click) for click in clicks)
        self._queue.submit(Step(events, tuple(if_apart)), rows)
        if self.waiting is not None:
            self.sent.emit(self.waiting)
        self._shown.show_pending()

    def undo(self) -> None:
        """Take the last act back."""
        self.submit(ev.Undone())

    def redo(self) -> None:
        """Do the last act taken back again."""
        self.submit(ev.Redone())

    def cancel_pending(self) -> None:
        """Take the newest click that is still being computed back."""
        taken = self._queue.cancel_newest()
        if not taken and (self.suggestions.cancel() or self._shown.give_up()):
            return
        self._shown.show(status="Click cancelled." if taken else "Nothing to cancel.")

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

    def send(self, step: Step) -> None:
        """Submit the step that clicks are; show the points as they are without one."""
        if not step.events:
            self._shown.show_pending()
            return
        changes: dict[str, int] = {}
        first = step.events[0]
        if isinstance(first, ev.ObjectCreated):
            changes = {"selected": first.object_id, "next_id": first.object_id + 1}
        elif isinstance(first, ev.SuggestionsAccepted):
            next_id = first.object_id + len(first.accepted)
            changes = {"selected": first.object_id, "next_id": next_id}
        elif step.if_apart:
            changes = {"next_id": self.view.next_id + 1}
        elif isinstance(first, ev.ClickAdded):
            changes = {"selected": first.object_id}
        with self._shown.in_a_moment(**changes):
            self.submit(*step.events, if_apart=step.if_apart)

    def object_at(self, world: Sequence[float]) -> int:
        """Return the object at a world position, 0 for none."""
        place = self.planes.locate(world)
        return 0 if place is None else self.labels.object_at(*place)

    def refuse(self, text: str) -> None:
        """Say why something was not done."""
        self.say(text)
        self._shown.notify("info", text)

    def points_moved(self, rows: Sequence[ClickRow]) -> None:
        """Recompute from clicks that were dragged."""
        if not all(self.planes.contains(row.yx) for row in rows):
            self.refuse("Clicks stay on the image.")
            self._shown.show_pending()
            return
        self.submit(ev.ClicksMoved(tuple((r.click_id, r.yx) for r in rows)))

    def points_removed(self, rows: Sequence[ClickRow]) -> None:
        """Recompute without clicks that were deleted."""
        self.submit(ev.ClicksRemoved(tuple(r.click_id for r in rows)))

    def other_mask(self, step: int = 1) -> None:
        """Take another of the masks found at the selected object's first click here."""
        event = self._shown.other_mask(self.current_plane, step)
        if event is not None:
            self.submit(event)

    # -- objects ---------------------------------------------------------------------

    def new_object(self) -> None:
        """Let the next click start a new object."""
        said = f"Click on the next object (object {self.view.next_id})."
        self._shown.show(selected=None, is_positive=True, status=said)
        self._shown.show_stack()
        self.labels.select(self.view.next_id)
        self.clicks.set_polarity(True)
        self.ready_to_click()

    def choose(self, object_id: int) -> None:
        """Let clicks go to an object, and be ready for them."""
        self.select(object_id)
        self.ready_to_click()

    def select(self, object_id: int) -> None:
        """Let clicks go to an object."""
        if object_id == self.view.selected or object_id not in self._shown.objects:
            return
        found = self._shown.objects[object_id]
        self._shown.show(selected=object_id, status=f"Clicks go to {found.name}.")
        self._shown.follow_threshold()
        self._shown.show_stack()
        self.labels.select(object_id)

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
        self._shown.show(is_positive=is_positive)

    def toggle_polarity(self) -> None:
        """Swap what left and right clicks mean."""
        self.set_polarity(not self.view.is_positive)

    def set_refinement(self, refinement: Refinement) -> None:
        """Choose the refinement of the clicks to come."""
        if refinement != self.view.refinement:
            self._shown.show(refinement=refinement)
            self.submit(ev.RefinementChanged(refinement))

    def set_rule(self, rule: ev.OverlapRule) -> None:
        """Choose the overlap rule."""
        if rule != self.view.rule:
            self._shown.show(rule=rule)
            self.submit(ev.OverlapChanged(rule))

    def set_threshold(self, threshold: float) -> None:
        """Move the selected object's outline; without one, that of the next."""
        if abs(threshold - self.view.threshold) < 1e-6:
            return
        self._shown.show(threshold=threshold)
        if self.view.selected is not None:
            self.submit(ev.ThresholdChanged(self.view.selected, threshold))

    def tighten(self, step: float) -> None:
        """Move that outline by a step: tighter (positive) or wider."""
        self.set_threshold(min(max(self.view.threshold + step, 0.05), 0.95))
        self._shown.show(status=f"Outline at {self.view.threshold:.2f}.")

    # -- models and sessions ---------------------------------------------------------

    def load_model(self, load: Callable[[], SegmenterLike], model: str = "") -> None:
        """Load a segmenter on the runner; clicks from now on wait for it."""

        def done(segmenter: SegmenterLike, first_click_s: float) -> None:
            self.first_click_s = first_click_s
            text = "Ready: click on an object."
            if self.view.progress[1]:
                text = _REOPENING
            elif self.view.pending:
                text = "Computing …"
            self._shown.show(loading=False, seconds=None, status=text)
            self._shown.segmenter = segmenter
            self._shown.show_placement()

        def failed(error: Failure) -> None:
            text = "No model is loaded."
            self._shown.show(loading=False, model=self.annotator.model, status=text)
            self._shown.warn(error)

        self._shown.show(loading=True, model=model, status="Loading the model …")
        self._queue.load_model(load, model, self.current_plane, done, failed)

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
            self._shown.show(model=self.annotator.model or self.view.model)
            self.ready_to_click()
            restored()

        def refused(error: Failure) -> None:
            self.labels.let_paint(True)
            model = self.annotator.model or self.view.model
            self._shown.show(progress=(0, 0), model=model)
            failed(error)

        self.labels.let_paint(False)  # a label there is another object's soon
        self._shown.show(progress=(0, len(content.events)))
        shown, begun = self._shown.preview, partial(self.begin_long, status=_REOPENING)
        self._queue.restore(writer, done, refused, shown, begun)
