"""Layer events → annotator → layer edits. Knows napari's models, but no Qt.

Every act becomes an event, every event a job; jobs run in order on one runner, so what
the window shows is what a replay of the same events gives. The controller is what a
person does; what comes of it is shown by :mod:`napari_cfrseg.gui.segment.outcomes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.qt.worker import Runner
from napari_cfrseg.gui.segment.click_layer import ClickLayer, ClickRow
from napari_cfrseg.gui.segment.click_maker import ClickMaker
from napari_cfrseg.gui.segment.dock_state import DockState, DockView
from napari_cfrseg.gui.segment.label_layer import LabelLayer
from napari_cfrseg.gui.segment.layers import (
    WorkingImage,
    make_labels,
    make_points,
    working_order,
)
from napari_cfrseg.gui.segment.loading import model_job, session_job
from napari_cfrseg.gui.segment.outcomes import Outcomes
from napari_cfrseg.gui.segment.places import Places
from napari_cfrseg.gui.stack.propagator import Propagator
from napari_cfrseg.session.recording import RecordedAnnotator

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_cfrseg.session.content import SessionContent


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
        Told (level, message), level "info", "warning" or "error".
    model
        Name or path of what ``load`` loads.

    Attributes
    ----------
    changed
        Emitted with a DockView whenever something that the dock shows changed.
    applied
        Emitted with each event the annotator has applied, in order: a journal of
        these replays to the same labels.
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
        self._state = DockState(self.changed.emit, notify)
        labels = make_labels(self.image, f"{image_layer.name} objects")
        points = make_points(self.image, f"{image_layer.name} clicks")
        viewer.add_layer(labels)
        viewer.add_layer(points)
        self._places = Places(viewer, self.image, points, labels)
        self.labels = LabelLayer(
            labels,
            lambda: self._places.current_plane,
            self._submit,
            self.image.order,
        )
        self.stack = Propagator(
            viewer,
            self.image,
            self._places,
            self._submit,
            lambda view: self._state.show(stack=view),
            lambda text: self._state.show(status=text),
        )
        self._maker = ClickMaker(self._places, self._state)
        self.clicks = ClickLayer(points, self, self.image.order)
        self._outcomes = Outcomes(
            self.annotator,
            runner,
            self._state,
            self.labels,
            self.clicks,
            self.stack,
            self.applied.emit,
        )
        self.clicks.set_polarity(True)
        labels.events.selected_label.connect(self._label_selected)
        self.ready_to_click()
        self.load_model(load, model)

    @property
    def view(self) -> DockView:
        """What the dock shows."""
        return self._state.view

    # -- the viewer ------------------------------------------------------------------

    def ready_to_click(self) -> None:
        """Make the clicks' layer the active one, in add mode."""
        if self.clicks.layer in self.viewer.layers:
            self.viewer.layers.selection.active = self.clicks.layer
            self.clicks.layer.mode = "add"

    def close(self) -> None:
        """Stop listening; what is on its way is dropped, the layers stay."""
        self._outcomes.close()
        self.stack.close()
        self.labels.layer.events.selected_label.disconnect(self._label_selected)
        self.clicks.close()
        self.labels.close()
        for layer in (self.labels.layer, self.clicks.layer):
            layer.locked = False
        if self.clicks.layer.mode == "add":
            self.clicks.layer.mode = "pan_zoom"

    # -- clicks ----------------------------------------------------------------------

    def point_added(
        self, index: Sequence[float], other_polarity: bool
    ) -> ClickRow | None:
        """Make a click of a point just added to the clicks' layer."""
        made = self._maker.of_point(index, other_polarity)
        if made is None:
            return None
        event, rows, first = made
        if first is not None:
            object_id = first.object_id
            self._state.show(selected=object_id, next_id=object_id + 1)
            self._select_label(object_id)
        failed_before = self._outcomes.failures
        self._submit(event, rows, first)
        return rows[0] if self._outcomes.failures == failed_before else None

    def points_moved(self, rows: Sequence[ClickRow]) -> None:
        """Recompute from clicks that were dragged."""
        inside = all(self._places.is_inside(row.yx) for row in rows)
        if not inside:
            self._state.notify("info", "Clicks stay on the image.")
            self._outcomes.show_points()
            return
        self._submit(ev.ClicksMoved(tuple((r.click_id, r.yx) for r in rows)))

    def points_removed(self, rows: Sequence[ClickRow]) -> None:
        """Recompute without clicks that were deleted."""
        self._submit(ev.ClicksRemoved(tuple(r.click_id for r in rows)))

    def shift_focus(self, step: int) -> None:
        """Look closer (−1) or wider (+1) at the newest click, or at the next one."""
        event = self._maker.refocus(step)
        if event is not None:
            self._submit(event)

    @property
    def current_plane(self) -> Plane:
        """The plane the viewer shows, or the nearest one the image has."""
        return self._places.current_plane

    @property
    def next_click(self) -> int:
        """The number of the next click."""
        return self._maker.next_number

    # -- objects ---------------------------------------------------------------------

    def new_object(self) -> None:
        """Let the next click start a new object."""
        self._state.show(
            selected=None,
            is_positive=True,
            status=f"Click on the next object (object {self.view.next_id}).",
        )
        self.refresh_stack()
        self.clicks.set_polarity(True)
        self.ready_to_click()

    def select(self, object_id: int) -> None:
        """Let clicks go to an object."""
        if object_id == self.view.selected or object_id not in self._state.objects:
            return
        found = self._state.objects[object_id]
        self._state.show(
            selected=object_id,
            threshold=found.threshold,
            status=f"Clicks go to {found.name}.",
        )
        self.refresh_stack()
        self._select_label(object_id)

    def delete(self, object_id: int) -> None:
        """Delete an object with its clicks and labels."""
        self._submit(ev.ObjectDeleted(object_id))

    def delete_selected(self) -> None:
        """Delete the selected object."""
        if self.view.selected is not None:
            self.delete(self.view.selected)

    def set_locked(self, object_id: int, locked: bool) -> None:
        """Lock or unlock an object."""
        self._submit(ev.ObjectLocked(object_id, locked))

    def rename(self, object_id: int, name: str) -> None:
        """Give an object another name."""
        if name.strip() and name != self._state.objects[object_id].name:
            self._submit(ev.ObjectRenamed(object_id, name.strip()))

    def classify(self, object_id: int, object_class: str) -> None:
        """Say what an object is; empty: nothing is said."""
        if object_class.strip() != self._state.objects[object_id].object_class:
            self._submit(ev.ObjectClassified(object_id, object_class.strip()))

    def recolour(self, object_id: int, colour: str) -> None:
        """Give an object another colour (``#rrggbb``)."""
        self._submit(ev.ObjectRecoloured(object_id, colour))

    # -- settings --------------------------------------------------------------------

    def set_polarity(self, is_positive: bool) -> None:
        """Choose what a left click means."""
        self.clicks.set_polarity(is_positive)
        self._state.show(is_positive=is_positive)

    def toggle_polarity(self) -> None:
        """Swap what left and right clicks mean."""
        self.set_polarity(not self.view.is_positive)

    def set_refinement(self, refinement: Refinement) -> None:
        """Choose the refinement of the clicks to come."""
        if refinement != self.view.refinement:
            self._state.show(refinement=refinement)
            self._submit(ev.RefinementChanged(refinement))

    def set_rule(self, rule: ev.OverlapRule) -> None:
        """Choose the overlap rule."""
        if rule != self.view.rule:
            self._state.show(rule=rule)
            self._submit(ev.OverlapChanged(rule))

    def set_threshold(self, threshold: float) -> None:
        """Move the selected object's outline; without one, that of the next."""
        if abs(threshold - self.view.threshold) < 1e-6:
            return
        self._state.show(threshold=threshold)
        selected = self.view.selected
        if selected is None:
            return
        if isinstance(self._outcomes.newest, ev.ThresholdChanged):
            # a slider's way: only where it stands counts, and Outcomes sends that
            return
        self._submit(ev.ThresholdChanged(selected, threshold))

    # -- acts ------------------------------------------------------------------------

    def do(self, events: Iterable[ev.Event]) -> None:
        """Do acts made elsewhere (clicks and labels that are imported), in order.

        An object's creation is one act with the click that follows it.
        """
        for event, rows, first in self._maker.of_events(events):
            self._submit(event, rows, first)

    def undo(self) -> None:
        """Take the last act back."""
        self._submit(ev.Undone())

    def redo(self) -> None:
        """Do the last act taken back again."""
        self._submit(ev.Redone())

    def reset_object(self) -> None:
        """Take the selected object's clicks and strokes on this plane away."""
        if self.view.selected is not None:
            self._submit(ev.ObjectReset(self.view.selected, self._places.current_plane))

    def cancel_pending(self) -> None:
        """Take the newest click that is still being computed back."""
        taken = self._outcomes.cancel_newest()
        self._state.show(
            status="Click taken back." if taken else "Nothing to take back."
        )

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
        plane = self._places.current_plane
        job = model_job(self.annotator, self._state, load, model, plane)
        self._state.show(loading=True, model=model, status="Loading the model …")
        self._runner.submit(job)

    def restore(
        self,
        content: SessionContent,
        restored: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Do all that a session says, on the runner, and go on from there.

        Parameters
        ----------
        content
            The session; nothing was done here yet.
        restored
            Told when all is there.
        failed
            Told what went wrong; the layers then show nothing of the session.
        """

        def done(last: Change | None) -> None:
            self._maker.number_after(content.events)
            self._outcomes.show_restored(last)
            restored()

        self._state.show(status="Reopening the session …")
        self._runner.submit(session_job(self.annotator, content, done, failed))

    # -- events ----------------------------------------------------------------------

    def refresh_stack(self) -> None:
        """Show the planes of the object that is selected now."""
        self._outcomes.refresh_stack()

    def _submit(
        self,
        event: ev.Event,
        rows: tuple[ClickRow, ...] = (),
        first: ev.ObjectCreated | None = None,
    ) -> None:
        self._outcomes.submit(event, rows, first)

    def _label_selected(self) -> None:
        self.select(int(self.labels.layer.selected_label))

    def _select_label(self, object_id: int) -> None:
        with self.labels.layer.events.selected_label.blocker(self._label_selected):
            self.labels.layer.selected_label = object_id
