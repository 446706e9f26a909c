"""A person's acts become events; runs on napari's models without Qt.

Every step becomes a job of one queue, so what the window shows is what a replay of the
same events gives. What comes of a step is shown by
:mod:`napari_cfrseg.gui.segment.projection`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.segment.click_layer import ClickLayer, ClickRow, make_points
from napari_cfrseg.gui.segment.event_queue import EventQueue, row_of
from napari_cfrseg.gui.segment.label_layer import LabelLayer, make_labels
from napari_cfrseg.gui.segment.layers import (
    MOST_OBJECTS,
    PlaneView,
    WorkingImage,
    working_order,
)
from napari_cfrseg.gui.segment.projection import DockView, Projection
from napari_cfrseg.gui.segment.propagator import Propagator
from napari_cfrseg.gui.segment.worker import Job, Report, Runner
from napari_cfrseg.session.recording import RecordedAnnotator

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_cfrseg.session.format import SessionContent


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
    changed
        Emitted with a DockView whenever something that the dock shows changed.
    applied
        Emitted with each event the annotator has applied, in order: a journal of
        these replays to the same labels.
    next_click
        The number of the next click.
    """

    changed = Signal(DockView)
    applied = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        image_layer: Image,
        runner: Runner,
        load: Callable[[], SegmenterLike],
        notify: Callable[[str, str], None],
        model: str = "",
    ) -> None:
        self.viewer = viewer
        self.image = WorkingImage.of(image_layer, working_order(viewer, image_layer))
        self.annotator = RecordedAnnotator(
            self.image.plane, self.image.plane_shape, rgb=self.image.rgb
        )
        self._runner = runner
        self.next_click = 1
        self._focus_shift = 0
        labels = make_labels(self.image, f"{image_layer.name} objects")
        points = make_points(self.image, f"{image_layer.name} clicks")
        viewer.add_layer(labels)
        viewer.add_layer(points)
        self.planes = PlaneView(viewer, self.image, labels)
        self.labels = LabelLayer(
            labels, lambda: self.current_plane, self.submit, self.image.order
        )
        self.clicks = ClickLayer(points, self, self.image.order)
        self._shown = Projection(
            self.annotator,
            self.labels,
            self.clicks,
            self.changed.emit,
            self.applied.emit,
            notify,
        )
        self._queue = EventQueue(
            self.annotator,
            runner,
            self._shown.settled,
            self._shown.failed,
            self._shown.preview,
        )
        self._shown.pending = self._queue.pending
        self.stack = self._shown.stack = Propagator(
            viewer,
            self.image,
            self.planes,
            self.submit,
            lambda view: self._shown.show(stack=view),
            lambda text: self._shown.show(status=text),
        )
        self.clicks.set_polarity(True)
        labels.events.selected_label.connect(self._label_selected)
        self.ready_to_click()
        self.load_model(load, model)

    @property
    def view(self) -> DockView:
        """What the dock shows."""
        return self._shown.view

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
        self._queue.close()
        self.stack.close()
        self.labels.layer.events.selected_label.disconnect(self._label_selected)
        self.clicks.close()
        self.labels.close()
        for layer in (self.labels.layer, self.clicks.layer):
            layer.locked = False
        if self.clicks.layer.mode == "add":
            self.clicks.layer.mode = "pan_zoom"

    # -- events ----------------------------------------------------------------------

    def submit(self, *events: ev.Event) -> None:
        """Send events on their way, as one step."""
        rows = []
        for event in events:
            if isinstance(event, ev.ClickAdded):
                rows.append(row_of(event.object_id, event.plane, event))
                self.next_click = max(self.next_click, event.click_id + 1)
        self._queue.submit(*events, rows=tuple(rows))
        self._shown.show_pending()

    def submit_all(self, events: Iterable[ev.Event]) -> None:
        """Send imported events on their way; a creation is one step with what follows.

        Parameters
        ----------
        events
            In order; an object's first click or mask directly after its creation.
        """
        created: ev.ObjectCreated | None = None
        for event in events:
            first, created = created, None
            if first is not None and getattr(event, "object_id", 0) == first.object_id:
                self.submit(first, event)
                continue
            if first is not None:
                self.submit(first)
            if isinstance(event, ev.ObjectCreated):
                created = event
            else:
                self.submit(event)
        if created is not None:
            self.submit(created)

    def undo(self) -> None:
        """Take the last act back."""
        self.submit(ev.Undone())

    def redo(self) -> None:
        """Do the last act taken back again."""
        self.submit(ev.Redone())

    def cancel_pending(self) -> None:
        """Take the newest click that is still being computed back."""
        taken = self._queue.cancel_newest()
        self._shown.show(
            status="Click taken back." if taken else "Nothing to take back."
        )

    # -- clicks ----------------------------------------------------------------------

    def point_added(self, index: Sequence[float], other_polarity: bool) -> None:
        """Make a click of a point just added to the clicks' layer.

        Parameters
        ----------
        index
            The point's coordinates in its layer.
        other_polarity
            Whether it means the opposite of what a left click means now.
        """
        self.click_at(self.clicks.layer.data_to_world(index), other_polarity)

    def click_at(self, world: Sequence[float], other_polarity: bool = False) -> None:
        """Make a click of the selected object, or of a new one, at a world position."""
        events = self._click_events(world, self.view.is_positive != other_polarity)
        if not events:
            self._shown.show_pending()
            return
        if isinstance(events[0], ev.ObjectCreated):
            object_id = events[0].object_id
            self._shown.show(selected=object_id, next_id=object_id + 1)
            self._select_label(object_id)
        self.submit(*events)

    def points_moved(self, rows: Sequence[ClickRow]) -> None:
        """Recompute from clicks that were dragged."""
        if not all(self.planes.contains(row.yx) for row in rows):
            self._shown.notify("info", "Clicks stay on the image.")
            self._shown.show_pending()
            return
        self.submit(ev.ClicksMoved(tuple((r.click_id, r.yx) for r in rows)))

    def points_removed(self, rows: Sequence[ClickRow]) -> None:
        """Recompute without clicks that were deleted."""
        self.submit(ev.ClicksRemoved(tuple(r.click_id for r in rows)))

    def shift_focus(self, step: int) -> None:
        """Look closer (−1) or wider (+1) at the newest click here, or at the next."""
        found = self._shown.objects.get(self.view.selected or 0)
        clicks = () if found is None else found.on(self.current_plane).clicks
        if not clicks:
            self._focus_shift += step
            text = f"Focus of the next click: {self._focus_shift:+d}"
            self._shown.show(status=text)
            return
        shift = clicks[-1].focus_shift + step
        self._shown.show(status=f"Focus of the newest click: {shift:+d}")
        self.submit(ev.ClickRefocused(clicks[-1].click_id, shift))

    def _click_events(
        self, world: Sequence[float], is_positive: bool
    ) -> tuple[ev.Event, ...]:
        """Return the step that a click is; () (and say why) if it is none."""
        view = self.view
        place = self.planes.locate(world)
        refused = self.planes.why_not_here()
        if not refused and place is None:
            refused = "That click is not on the image."
        elif not refused and view.selected is None and not is_positive:
            refused = "The first click of an object must be positive."
        elif not refused and view.selected is None and view.next_id > MOST_OBJECTS:
            refused = f"No more than {MOST_OBJECTS} objects fit."
        if refused or place is None:
            self._shown.notify("info", refused)
            return ()
        plane, yx = place
        object_id = view.next_id if view.selected is None else view.selected
        shift, self._focus_shift = self._focus_shift, 0
        click = ev.ClickAdded(
            object_id,
            plane,
            yx,
            is_positive,
            self.next_click,
            shift,
            self._size_hint(object_id, plane),
        )
        if view.selected is not None:
            return (click,)
        return ev.ObjectCreated(object_id, threshold=view.threshold), click

    def _size_hint(self, object_id: int, plane: Plane) -> FocusHint | None:
        found = self._shown.objects.get(object_id)
        if found is not None and not found.on(plane).is_empty:
            return None
        return self.planes.size_hint(self._shown.objects)

    # -- objects ---------------------------------------------------------------------

    def new_object(self) -> None:
        """Let the next click start a new object."""
        self._shown.show(
            selected=None,
            is_positive=True,
            status=f"Click on the next object (object {self.view.next_id}).",
        )
        self._shown.show_stack()
        self.clicks.set_polarity(True)
        self.ready_to_click()

    def select(self, object_id: int) -> None:
        """Let clicks go to an object."""
        if object_id == self.view.selected or object_id not in self._shown.objects:
            return
        found = self._shown.objects[object_id]
        self._shown.show(selected=object_id, status=f"Clicks go to {found.name}.")
        self._shown.follow_threshold()
        self._shown.show_stack()
        self._select_label(object_id)

    def delete_selected(self) -> None:
        """Delete the selected object with its clicks and labels."""
        if self.view.selected is not None:
            self.submit(ev.ObjectDeleted(self.view.selected))

    def reset_object(self) -> None:
        """Take the selected object's clicks and strokes on this plane away."""
        if self.view.selected is not None:
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

    # -- models and sessions ---------------------------------------------------------

    def load_model(self, load: Callable[[], SegmenterLike], model: str = "") -> None:
        """Load a segmenter on the runner; clicks from now on wait for it.

        Parameters
        ----------
        load
            Loads it.
        model
            The name or path it is known by.
        """
        plane = self.current_plane

        def work(_: Report) -> str:
            segmenter = load()
            self.annotator.use(segmenter, model)
            self.annotator.prepare(plane)
            return str(getattr(segmenter, "device", ""))

        def done(device: str) -> None:
            text = "Ready: click on an object."
            self._shown.show(loading=False, device=device, seconds=None, status=text)

        def failed(error: Exception) -> None:
            text = "No model is loaded."
            self._shown.show(loading=False, model=self.annotator.model, status=text)
            self._shown.warn(error)

        self._shown.show(loading=True, model=model, status="Loading the model …")
        self._runner.submit(Job(work, done, failed))

    def restore(
        self,
        content: SessionContent,
        restored: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Apply a session's events on the runner, and go on from there.

        Parameters
        ----------
        content
            The session; nothing was done here yet.
        restored
            Called when everything is shown.
        failed
            Called with what went wrong; the layers then show nothing of the session.
        """

        def work(report: Report) -> Change | None:
            last = None
            for change in self.annotator.restore(content):
                last = change
                report(None)
            return last

        def done(last: Change | None) -> None:
            used = [e.click_id for e in content.events if isinstance(e, ev.ClickAdded)]
            self.next_click = max(used, default=0) + 1
            self._shown.show_all(last)
            self._shown.show(model=self.annotator.model or self.view.model)
            restored()

        self._shown.show(status="Reopening the session …")
        self._runner.submit(Job(work, done, failed))

    # -- the labels layer ------------------------------------------------------------

    def refresh_stack(self) -> None:
        """Show the planes of the object that is selected now."""
        self._shown.show_stack()

    def _label_selected(self) -> None:
        self.select(int(self.labels.layer.selected_label))

    def _select_label(self, object_id: int) -> None:
        with self.labels.layer.events.selected_label.blocker(self._label_selected):
            self.labels.layer.selected_label = object_id
