"""Events are sent on their way, and what comes of them is shown: layers and view."""

from __future__ import annotations

from collections.abc import Callable

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Change
from napari_cfrseg.annotation.transaction import Progress
from napari_cfrseg.geometry.masks import LabelPatch, Plane
from napari_cfrseg.gui.qt.worker import JobCancelled, Runner
from napari_cfrseg.gui.segment.click_layer import ClickLayer, ClickRow
from napari_cfrseg.gui.segment.dock_state import DockState, object_rows
from napari_cfrseg.gui.segment.event_queue import EventQueue, Pending, rows_to_show
from napari_cfrseg.gui.segment.label_layer import LabelLayer
from napari_cfrseg.gui.stack.propagator import Propagator
from napari_cfrseg.session.recording import RecordedAnnotator


class Outcomes:
    """Sends events to the annotator and shows what they changed.

    Parameters
    ----------
    annotator
        Applies the events, on the runner.
    runner
        Runs the jobs.
    state
        What the dock shows.
    labels, clicks, stack
        What else shows the annotation.
    applied
        Told each event the annotator has applied, in order.

    Attributes
    ----------
    failures
        How many events were refused or cancelled so far.
    """

    def __init__(
        self,
        annotator: RecordedAnnotator,
        runner: Runner,
        state: DockState,
        labels: LabelLayer,
        clicks: ClickLayer,
        stack: Propagator,
        applied: Callable[[ev.Event], None],
    ) -> None:
        self._annotator = annotator
        self._state = state
        self._labels = labels
        self._clicks = clicks
        self._stack = stack
        self._applied = applied
        self._queue = EventQueue(
            annotator, runner, self._settled, self._failed, self._preview
        )
        self.failures = 0

    @property
    def newest(self) -> ev.Event | None:
        """The newest event that is not done yet."""
        return self._queue.pending[-1].event if self._queue.pending else None

    def submit(
        self,
        event: ev.Event,
        rows: tuple[ClickRow, ...] = (),
        first: ev.ObjectCreated | None = None,
    ) -> None:
        """Send an event on its way (see :meth:`EventQueue.submit`)."""
        self._queue.submit(event, rows, first)
        self._state.show(pending=len(self._queue.pending))

    def cancel_newest(self) -> bool:
        """Take the newest event that is not done back; False if there is none."""
        return self._queue.cancel_newest()

    def close(self) -> None:
        """Drop what is on its way and show nothing any more."""
        self._queue.close()

    def show_points(self) -> None:
        """Show the annotator's clicks, and those on their way."""
        self._clicks.show(rows_to_show(self._state.objects, self._queue.pending))

    def show_restored(self, last: Change | None) -> None:
        """Show all that the annotator holds after a session was restored.

        Parameters
        ----------
        last
            What the session's last event changed; None: it has none.
        """
        annotator, state = self._annotator, self._state
        planes = annotator.planes
        self._labels.restore({p: annotator.labels(p) for p in planes})
        state.objects = dict(annotator.objects)
        self._labels.show_objects(state.objects)
        self.show_points()
        state.show(
            objects=object_rows(state.objects),
            refinement=annotator.refinement,
            rule=annotator.rule,
            next_id=max(state.objects, default=0) + 1,
            undo_depth=0 if last is None else last.undo_depth,
            redo_depth=0 if last is None else last.redo_depth,
            model=annotator.model or state.view.model,
            status=f"Session reopened: {len(state.objects)} objects.",
        )
        self.refresh_stack()

    def refresh_stack(self) -> None:
        """Show the planes of the object that is selected now."""
        self._stack.refresh(self._state.objects, self._state.view.selected)

    # -- what the queue tells --------------------------------------------------------

    def _settled(self, pending: Pending, changes: list[Change]) -> None:
        for change in changes:
            for event in change.events:
                self._applied(event)
        self._labels.paste([patch for change in changes for patch in change.patches])
        change = changes[-1]
        self._state.objects = dict(change.objects)
        self._labels.show_objects(change.objects)
        self.show_points()
        self._follow(pending.event)
        self._state.show(
            objects=object_rows(change.objects),
            undo_depth=change.undo_depth,
            redo_depth=change.redo_depth,
            pending=len(self._queue.pending),
        )
        for change in changes:
            if change.runs:
                self._show_timing(change)
        self._say_what_happened(pending.event)
        for note in change.notes:
            self._state.show(status=note)
        if isinstance(pending.event, ev.Painted) and change.notes:
            self._restore(pending.event.plane)
        self._chase_threshold(pending.event)

    def _failed(self, pending: Pending, error: Exception) -> None:
        self.failures += 1
        self._labels.paste(())
        if isinstance(pending.event, ev.Painted):
            self._restore(pending.event.plane)
        self.show_points()
        self._follow(pending.event)
        self._stack.progressed(None)
        self._state.show(pending=len(self._queue.pending))
        if not isinstance(error, JobCancelled):
            self._state.tell(error)

    def _preview(self, value: LabelPatch | Progress) -> None:
        if isinstance(value, Progress):
            self._labels.preview_more(value.patches)
            self._stack.progressed(value)
        else:
            self._labels.preview(value)

    # -- one thing each --------------------------------------------------------------

    def _say_what_happened(self, event: ev.Event) -> None:
        self.refresh_stack()
        if isinstance(event, ev.Propagated):
            self._stack.progressed(None)
            self._state.show(status=self._stack.summary())
            return
        objects = self._state.objects
        if not isinstance(event, ev.ClickAdded) or event.object_id not in objects:
            return
        found = objects[event.object_id]
        count = len(found.on(event.plane).clicks)
        self._state.show(
            status=f"{found.name}: {count} click{'s' if count != 1 else ''}, "
            f"{found.on(event.plane).mask.area} px"
        )

    def _follow(self, event: ev.Event) -> None:
        """Keep the selection on an object there is, and its number free."""
        coming = {p.first.object_id for p in self._queue.pending if p.first is not None}
        objects, view = self._state.objects, self._state.view
        known = set(objects) | coming
        selected = view.selected
        if isinstance(event, ev.Redone) and selected is None and objects:
            selected = max(objects)
        if selected is not None and selected not in known:
            selected = None
        threshold = view.threshold
        if selected in objects and not isinstance(event, ev.ThresholdChanged):
            threshold = objects[selected].threshold
        self._state.show(
            selected=selected, threshold=threshold, next_id=max(known, default=0) + 1
        )

    def _chase_threshold(self, event: ev.Event) -> None:
        """Send where the slider went while its last place was being applied."""
        view = self._state.view
        if (
            isinstance(event, ev.ThresholdChanged)
            and event.object_id == view.selected
            and event.threshold != view.threshold
        ):
            self.submit(ev.ThresholdChanged(event.object_id, view.threshold))

    def _show_timing(self, change: Change) -> None:
        steps = f"{change.steps} step" + ("s" if change.steps != 1 else "")
        timing = f"{self._state.device} · {1000 * change.seconds:.0f} ms · {steps}"
        self._state.show(timing=timing.removeprefix(" · "))

    def _restore(self, plane: Plane) -> None:
        """Take back what a stroke did to pixels it may not change."""
        self._labels.restore({plane: self._annotator.labels(plane)})
