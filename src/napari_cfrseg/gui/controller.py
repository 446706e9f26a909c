"""Layer events → annotator → layer edits. Knows napari's models, but no Qt.

Every act becomes an event, every event a job; jobs run in order on one runner, so what
the window shows is what a replay of the same events gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine import events as ev
from napari_cfrseg.engine.act import Progress
from napari_cfrseg.engine.annotator import Change
from napari_cfrseg.engine.cascade import Refinement
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.masks import LabelPatch, Plane
from napari_cfrseg.engine.objects import ClickEntry, ObjectState
from napari_cfrseg.engine.rounds import SegmenterLike
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.gui.click_layer import ClickLayer, ClickRow
from napari_cfrseg.gui.event_queue import EventQueue, Pending, rows_to_show
from napari_cfrseg.gui.jobs import Job, JobCancelled, Report, Runner
from napari_cfrseg.gui.label_layer import LabelLayer
from napari_cfrseg.gui.layers import (
    MOST_OBJECTS,
    WorkingImage,
    make_labels,
    make_points,
)
from napari_cfrseg.gui.places import Places
from napari_cfrseg.gui.propagation import Propagator
from napari_cfrseg.gui.view import DockView, ObjectRow
from napari_cfrseg.session.annotate import RecordedAnnotator

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_cfrseg.session.values import SessionContent


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
        self.image = WorkingImage.of(image_layer)
        self.annotator = RecordedAnnotator(
            self.image.plane, self.image.plane_shape, rgb=self.image.rgb
        )
        self._runner = runner
        self._notify = notify
        self._objects: dict[int, ObjectState] = {}
        self._next_click = 1
        self._focus_shift = 0
        self._failures = 0
        self._device = ""
        self.view = DockView()
        labels = make_labels(self.image, f"{image_layer.name} objects")
        points = make_points(self.image, f"{image_layer.name} clicks")
        viewer.add_layer(labels)
        viewer.add_layer(points)
        self._places = Places(viewer, self.image, points, labels)
        self.labels = LabelLayer(
            labels, lambda: self._places.current_plane, self._submit
        )
        self._queue = EventQueue(
            self.annotator, runner, self._settled, self._failed, self._preview
        )
        self.stack = Propagator(
            viewer,
            self.image,
            self._places,
            self._submit,
            lambda view: self._show(stack=view),
            lambda text: self._show(status=text),
        )
        self.clicks = ClickLayer(points, self)
        self.clicks.set_polarity(True)
        labels.events.selected_label.connect(self._label_selected)
        self.ready_to_click()
        self.load_model(load, model)

    # -- the viewer ------------------------------------------------------------------

    def ready_to_click(self) -> None:
        """Make the clicks' layer the active one, in add mode."""
        if self.clicks.layer in self.viewer.layers:
            self.viewer.layers.selection.active = self.clicks.layer
            self.clicks.layer.mode = "add"

    def close(self) -> None:
        """Stop listening; what is on its way is dropped, the layers stay."""
        self._queue.close()
        self.stack.close()
        self.labels.layer.events.selected_label.disconnect(self._label_selected)
        self.clicks.close()
        self.labels.close()
        for layer in (self.labels.layer, self.clicks.layer):
            layer.locked = False
        if self.clicks.layer.mode == "add":
            self.clicks.layer.mode = "pan_zoom"

    # -- what a person does ----------------------------------------------------------

    def point_added(
        self, index: Sequence[float], other_polarity: bool
    ) -> ClickRow | None:
        """Make a click of a point just added to the clicks' layer."""
        if not self._places.shows_planes:
            self._notify("info", "Clicks count in the 2-D view of the last two axes.")
            return None
        place = self._places.of_point(index)
        if place is None:
            self._notify("info", "That click is not on the image.")
            return None
        plane, yx = place
        is_positive = self.view.is_positive != other_polarity
        object_id, first = self.view.selected, None
        if object_id is None:
            if not is_positive:
                self._notify("info", "The first click of an object must be positive.")
                return None
            object_id = self.view.next_id
            if object_id > MOST_OBJECTS:
                self._notify("warning", f"No more than {MOST_OBJECTS} objects fit.")
                return None
            first = ev.ObjectCreated(object_id, threshold=self.view.threshold)
            self._show(selected=object_id, next_id=object_id + 1)
            self._select_label(object_id)
        row = ClickRow(self._next_click, object_id, plane, yx, is_positive)
        self._next_click += 1
        event = ev.ClickAdded(
            object_id,
            plane,
            Click(yx, is_positive),
            row.click_id,
            self._take_focus_shift(),
            self._hint(object_id, plane),
        )
        failed_before = self._failures
        self._submit(event, (row,), first)
        return row if self._failures == failed_before else None

    def points_moved(self, rows: Sequence[ClickRow]) -> None:
        """Recompute from clicks that were dragged."""
        inside = all(self._places.is_inside(row.yx) for row in rows)
        if not inside:
            self._notify("info", "Clicks stay on the image.")
            self._sync_points()
            return
        self._submit(ev.ClicksMoved(tuple((r.click_id, r.yx) for r in rows)))

    def points_removed(self, rows: Sequence[ClickRow]) -> None:
        """Recompute without clicks that were deleted."""
        self._submit(ev.ClicksRemoved(tuple(r.click_id for r in rows)))

    @property
    def current_plane(self) -> Plane:
        """The plane the viewer shows, or the nearest one the image has."""
        return self._places.current_plane

    @property
    def next_click(self) -> int:
        """The number of the next click."""
        return self._next_click

    def do(self, events: Iterable[ev.Event]) -> None:
        """Do acts made elsewhere (clicks and labels that are imported), in order.

        An object's creation is one act with the click that follows it.
        """
        created: ev.ObjectCreated | None = None
        for event in events:
            first, created = created, None
            if isinstance(event, ev.ObjectCreated):
                if first is not None:
                    self._submit(first)
                created = event
            elif isinstance(event, ev.ClickAdded):
                yx, sign = event.click.yx, event.click.is_positive
                number = event.click_id
                row = ClickRow(number, event.object_id, event.plane, yx, sign)
                self._next_click = max(self._next_click, number + 1)
                self._submit(event, (row,), first)
            else:
                self._submit(event, (), first)
        if created is not None:
            self._submit(created)

    def new_object(self) -> None:
        """Let the next click start a new object."""
        self._show(
            selected=None,
            is_positive=True,
            status=f"Click on the next object (object {self.view.next_id}).",
        )
        self.refresh_stack()
        self.clicks.set_polarity(True)
        self.ready_to_click()

    def select(self, object_id: int) -> None:
        """Let clicks go to an object."""
        if object_id == self.view.selected or object_id not in self._objects:
            return
        found = self._objects[object_id]
        self._show(
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
        if name.strip() and name != self._objects[object_id].name:
            self._submit(ev.ObjectRenamed(object_id, name.strip()))

    def classify(self, object_id: int, object_class: str) -> None:
        """Say what an object is; empty: nothing is said."""
        if object_class.strip() != self._objects[object_id].object_class:
            self._submit(ev.ObjectClassified(object_id, object_class.strip()))

    def recolour(self, object_id: int, colour: str) -> None:
        """Give an object another colour (``#rrggbb``)."""
        self._submit(ev.ObjectRecoloured(object_id, colour))

    def set_polarity(self, is_positive: bool) -> None:
        """Choose what a left click means."""
        self.clicks.set_polarity(is_positive)
        self._show(is_positive=is_positive)

    def toggle_polarity(self) -> None:
        """Swap what left and right clicks mean."""
        self.set_polarity(not self.view.is_positive)

    def set_refinement(self, refinement: Refinement) -> None:
        """Choose the refinement of the clicks to come."""
        if refinement != self.view.refinement:
            self._show(refinement=refinement)
            self._submit(ev.RefinementChanged(refinement))

    def set_rule(self, rule: ev.OverlapRule) -> None:
        """Choose the overlap rule."""
        if rule != self.view.rule:
            self._show(rule=rule)
            self._submit(ev.OverlapChanged(rule))

    def set_threshold(self, threshold: float) -> None:
        """Move the selected object's outline; without one, that of the next."""
        if abs(threshold - self.view.threshold) < 1e-6:
            return
        self._show(threshold=threshold)
        selected = self.view.selected
        if selected is None:
            return
        waiting = self._queue.pending[-1:]
        if waiting and isinstance(waiting[0].event, ev.ThresholdChanged):
            # a slider's way: only where it stands counts, see _settled
            return
        self._submit(ev.ThresholdChanged(selected, threshold))

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

    def shift_focus(self, step: int) -> None:
        """Look closer (−1) or wider (+1) at the newest click, or at the next one."""
        selected = self.view.selected
        clicks: tuple[ClickEntry, ...] = ()
        if selected in self._objects:
            clicks = self._objects[selected].on(self._places.current_plane).clicks
        if not clicks:
            self._focus_shift += step
            self._show(status=f"Focus of the next click: {self._focus_shift:+d}")
            return
        newest = clicks[-1]
        shift = newest.focus_shift + step
        self._show(status=f"Focus of the newest click: {shift:+d}")
        self._submit(ev.ClickRefocused(newest.click_id, shift))

    def cancel_pending(self) -> None:
        """Take the newest click that is still being computed back."""
        taken = self._queue.cancel_newest()
        self._show(status="Click taken back." if taken else "Nothing to take back.")

    # -- the model -------------------------------------------------------------------

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

        def done(segmenter: SegmenterLike) -> None:
            self._device = str(getattr(segmenter, "device", ""))
            self._show(
                loading=False,
                timing=self._device,
                status="Ready: click on an object.",
            )

        def failed(error: Exception) -> None:
            used = self.annotator.model
            self._show(loading=False, model=used, status="No model is loaded.")
            self._tell(error)

        def work(_: Report) -> SegmenterLike:
            segmenter = load()
            self.annotator.use(segmenter, model)
            self.annotator.prepare(plane)
            return segmenter

        self._show(loading=True, model=model, status="Loading the model …")
        self._runner.submit(Job(work, done, failed))

    # -- sessions --------------------------------------------------------------------

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

        def work(report: Report) -> Change | None:
            last = None
            for change in self.annotator.restore(content):
                last = change
                report(None)
            return last

        def done(last: Change | None) -> None:
            planes = self.annotator.planes
            self.labels.restore({p: self.annotator.labels(p) for p in planes})
            self._objects = dict(self.annotator.objects)
            used = [e.click_id for e in content.events if isinstance(e, ev.ClickAdded)]
            self._next_click = max(used, default=0) + 1
            self.labels.show_objects(self._objects)
            self._sync_points()
            self._show(
                objects=_table(self._objects),
                refinement=self.annotator.refinement,
                rule=self.annotator.rule,
                next_id=max(self._objects, default=0) + 1,
                undo_depth=0 if last is None else last.undo_depth,
                redo_depth=0 if last is None else last.redo_depth,
                model=self.annotator.model or self.view.model,
                status=f"Session reopened: {len(self._objects)} objects.",
            )
            self.refresh_stack()
            restored()

        self._show(status="Reopening the session …")
        self._runner.submit(Job(work, done, failed))

    # -- events ----------------------------------------------------------------------

    def _submit(
        self,
        event: ev.Event,
        rows: tuple[ClickRow, ...] = (),
        first: ev.ObjectCreated | None = None,
    ) -> None:
        self._queue.submit(event, rows, first)
        self._show(pending=len(self._queue.pending))

    def _settled(self, pending: Pending, changes: list[Change]) -> None:
        for change in changes:
            self.applied.emit(change.event)
        self.labels.paste([patch for change in changes for patch in change.patches])
        change = changes[-1]
        self._objects = dict(change.objects)
        self.labels.show_objects(change.objects)
        self._sync_points()
        self._follow(pending.event)
        self._show(
            objects=_table(change.objects),
            undo_depth=change.undo_depth,
            redo_depth=change.redo_depth,
            pending=len(self._queue.pending),
        )
        for change in changes:
            if change.runs:
                self._show_timing(change)
        self._say_what_happened(pending.event)
        for note in change.notes:
            self._show(status=note)
        if isinstance(pending.event, ev.Painted) and change.notes:
            self._restore(pending.event.plane)
        self._chase_threshold(pending.event)

    def _preview(self, value: LabelPatch | Progress) -> None:
        if isinstance(value, Progress):
            self.labels.preview_more(value.patches)
            self.stack.progressed(value)
        else:
            self.labels.preview(value)

    def refresh_stack(self) -> None:
        """Show the planes of the object that is selected now."""
        self.stack.refresh(self._objects, self.view.selected)

    def _say_what_happened(self, event: ev.Event) -> None:
        self.refresh_stack()
        if isinstance(event, ev.Propagated):
            self.stack.progressed(None)
            self._show(status=self.stack.summary())
            return
        if not isinstance(event, ev.ClickAdded) or event.object_id not in self._objects:
            return
        found = self._objects[event.object_id]
        count = len(found.on(event.plane).clicks)
        self._show(
            status=f"{found.name}: {count} click{'s' if count != 1 else ''}, "
            f"{found.on(event.plane).mask.area} px"
        )

    def _failed(self, pending: Pending, error: Exception) -> None:
        self._failures += 1
        self.labels.paste(())
        if isinstance(pending.event, ev.Painted):
            self._restore(pending.event.plane)
        self._sync_points()
        self._follow(pending.event)
        self.stack.progressed(None)
        self._show(pending=len(self._queue.pending))
        if not isinstance(error, JobCancelled):
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not isinstance(error, CfrSegError):
            raise error
        self._show(status=str(error))
        self._notify("warning", str(error))

    def _sync_points(self) -> None:
        """Show the annotator's clicks, and those on their way."""
        self.clicks.show(rows_to_show(self._objects, self._queue.pending))

    def _follow(self, event: ev.Event) -> None:
        """Keep the selection on an object there is, and its number free."""
        coming = {p.first.object_id for p in self._queue.pending if p.first is not None}
        known = set(self._objects) | coming
        selected = self.view.selected
        if isinstance(event, ev.Redone) and selected is None and self._objects:
            selected = max(self._objects)
        if selected is not None and selected not in known:
            selected = None
        threshold = self.view.threshold
        if selected in self._objects and not isinstance(event, ev.ThresholdChanged):
            threshold = self._objects[selected].threshold
        self._show(
            selected=selected, threshold=threshold, next_id=max(known, default=0) + 1
        )

    def _chase_threshold(self, event: ev.Event) -> None:
        """Send where the slider went while its last place was being applied."""
        selected = self.view.selected
        if (
            isinstance(event, ev.ThresholdChanged)
            and event.object_id == selected
            and event.threshold != self.view.threshold
        ):
            self._submit(ev.ThresholdChanged(event.object_id, self.view.threshold))

    def _show_timing(self, change: Change) -> None:
        steps = f"{change.steps} step" + ("s" if change.steps != 1 else "")
        timing = f"{self._device} · {1000 * change.seconds:.0f} ms · {steps}"
        self._show(timing=timing.removeprefix(" · "))

    def _show(self, **changes: Any) -> None:
        view = replace(self.view, **changes)
        if view != self.view:
            self.view = view
            self.changed.emit(view)

    # -- clicks ----------------------------------------------------------------------

    def _take_focus_shift(self) -> int:
        shift, self._focus_shift = self._focus_shift, 0
        return shift

    def _hint(self, object_id: int, plane: Plane) -> FocusHint | None:
        found = self._objects.get(object_id)
        if found is not None and not found.on(plane).is_empty:
            return None
        return self._places.hint(self._objects)

    # -- the labels' layer -----------------------------------------------------------

    def _restore(self, plane: Plane) -> None:
        """Take back what a stroke did to pixels it may not change."""
        self.labels.restore({plane: self.annotator.labels(plane)})

    def _label_selected(self) -> None:
        self.select(int(self.labels.layer.selected_label))

    def _select_label(self, object_id: int) -> None:
        with self.labels.layer.events.selected_label.blocker(self._label_selected):
            self.labels.layer.selected_label = object_id


def _table(objects: Any) -> tuple[ObjectRow, ...]:
    return tuple(
        ObjectRow(
            s.object_id, s.name, s.colour, s.click_count, s.locked, s.object_class
        )
        for s in sorted(objects.values(), key=lambda s: s.object_id)
    )
