"""One image being worked on: what all parts of a controller share.

A part changes what the dock shows, and sends events on their way. What comes of them is
shown by :mod:`napari_cfrseg.gui.segment.projection`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.errors import CfrSegError, JobCancelled, as_memory_error
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.segment.click_layer import ClickLayer
from napari_cfrseg.gui.segment.dock_view import DockView, Remedy
from napari_cfrseg.gui.segment.event_queue import (
    EventQueue,
    Pending,
    RowsToShow,
    Step,
    row_of,
)
from napari_cfrseg.gui.segment.label_layer import LabelLayer
from napari_cfrseg.gui.segment.layers import Listener, PlaneView
from napari_cfrseg.gui.segment.lazy_pixels import SLOW_S
from napari_cfrseg.gui.segment.worker import Failure, Job, Runner
from napari_cfrseg.session.recording import RecordedAnnotator

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Points

#: that a click may take before its point is shown. A frame drawn for the point alone
#: would delay the mask by some 20 ms where the processor draws; 40 ms nobody sees.
_MOMENT_MS = 40


class Workspace:
    """The layers of an image, its objects, and what the dock shows of them.

    Parameters
    ----------
    planes, labels, clicks
        The part of the image that the viewer shows, and the layers on it.
    runner
        Where jobs run; its owner closes it.
    notify
        Called with (level, message), level "info", "warning" or "error".

    Attributes
    ----------
    view
        The state that the dock shows.
    objects
        The objects by id, after the last event that was applied.
    begun
        An object, and the one that a click apart from it began; (0, 0): none yet.
    join_key
        The key that joins these two, as the status line names it.
    auto_next
        Whether a positive click apart from the selected object begins a new one.
    go_to
        Begins to work on another image layer; given by the dock.
    """

    #: emitted with the view whenever something that the dock shows changed
    changed = Signal(DockView)
    #: emitted with each event the annotator applied: replays to the same labels
    applied = Signal(object)
    #: emitted with each step that was sent on its way
    sent = Signal(object)
    #: emitted when clicks are to go to another object, or to a new one
    chosen = Signal()

    def __init__(
        self,
        planes: PlaneView,
        labels: LabelLayer,
        clicks: ClickLayer,
        runner: Runner,
        notify: Callable[[str, str], None],
    ) -> None:
        self.planes, self.labels, self.clicks = planes, labels, clicks
        self.viewer, self.image = planes.viewer, planes.image
        self.runner, self.notify = runner, notify
        self.annotator = RecordedAnnotator(
            self.image.plane, self.image.plane_shape, rgb=self.image.rgb
        )
        self.queue = EventQueue(self.annotator, runner, self.stalled)
        self.view = DockView(pixel_size=self.image.pixel_size, outlined=False)
        self.objects: Mapping[int, ObjectState] = {}
        self.next_click, self.auto_next = 1, False
        self.begun, self.join_key = (0, 0), "M"
        self.go_to: Callable[[Image], None] = lambda _: None
        self._long: Job | None = None
        self.doing = ""
        self._rows = RowsToShow()
        self._announced, self._gathering, self._later = self.view, False, False
        contour = labels.layer.events.contour
        self._looks = Listener((contour, lambda _: self._show_outlined()))
        self._soon = QTimer(singleShot=True, interval=_MOMENT_MS)
        self._soon.timeout.connect(self._show_sent)

    @property
    def own_layers(self) -> tuple[Labels, Points]:
        """The layers made for it: the objects' labels, and the clicks."""
        return self.labels.layer, self.clicks.layer

    @property
    def current_plane(self) -> Plane:
        """The plane the viewer shows, or the nearest one the image has."""
        return self.planes.current_plane

    @property
    def is_empty(self) -> bool:
        """Whether its layers hold nothing; a session may be about to fill them."""
        return self.view.is_untouched or self.queue.is_restoring

    @property
    def waiting(self) -> Pending | None:
        """The newest step on its way; None for none."""
        return self.queue.pending[-1] if self.queue.pending else None

    @property
    def waiting_events(self) -> list[ev.Event]:
        """The events on their way, those of a click that may lie apart among them."""
        return [event for one in self.queue.pending for event in one.all_events]

    def object_at(self, world: Sequence[float]) -> int:
        """Return the object at a world position, 0 for none."""
        place = self.planes.locate(world)
        return 0 if place is None else self.labels.object_at(*place)

    def close(self) -> None:
        """Stop listening and drop pending steps; the layers stay."""
        self._soon.stop()
        for part in (self.queue, self.clicks, self.labels, self._looks):
            part.close()
        for layer in self.own_layers:
            layer.locked = False
        if self.clicks.layer.mode == "add":
            self.clicks.layer.mode = "pan_zoom"

    # -- the view --------------------------------------------------------------------

    def show(self, **changes: Any) -> None:
        """Change fields of the view; announce it unless it stays the same.

        A new status takes the button of the one before away.
        """
        if "status" in changes:
            changes.setdefault("remedy", None)
        if "selected" in changes:
            self.clicks.show_object(changes["selected"])
        self.view = replace(self.view, **changes)
        self._announce()

    def _announce(self) -> None:
        if self.view != self._announced and not self._gathering:
            self._announced = self.view
            self.changed.emit(self.view)

    @contextmanager
    def one_view(self) -> Iterator[None]:
        """Announce all changes of the view meanwhile as one."""
        if self._gathering:
            yield
            return
        self._gathering = True
        try:
            yield
        finally:
            self._gathering = False
            self._announce()

    def _show_outlined(self) -> None:
        self.show(outlined=bool(self.labels.layer.contour))

    def say(self, status: str, **changes: Any) -> None:
        """Show a line for the person, and other changes of the view."""
        self.show(status=status, **changes)

    def refuse(self, text: str) -> None:
        """Say why something was not done."""
        self.say(text)
        self.notify("info", text)

    def warn(self, error: Failure) -> None:
        """Show an error that the person can mend, none they caused; raise others."""
        if isinstance(error, JobCancelled):
            return
        error = as_memory_error(error) or error
        if not isinstance(error, CfrSegError):
            self.say(f"That failed: {error}")
            raise error
        self.say(str(error))
        self.notify("warning", str(error))

    def stalled(self, job: Job) -> None:
        """Say that the image's store does not answer, and offer to give up."""
        self.begin_long(
            job,
            f"The image's store has not answered for {SLOW_S:.0f} s: check the "
            "connection. Give up (Esc) and click again, or wait.",
        )
        self.show_progress(self.view.progress)

    def begin_long(self, job: Job, status: str) -> None:
        """Say that a job may take long; Esc ends it."""
        self._long, self.doing = job, status
        self.say(status)

    def show_progress(self, progress: tuple[int, int]) -> None:
        """Show how far the job is that takes long, and a button that ends it."""
        self.show(progress=progress, remedy=Remedy("Give up", self.give_up))

    def give_up(self) -> bool:
        """Cancel the job that takes long; False: there is none."""
        job, self._long = self._long, None
        if job is None or job.is_cancelled or job.ended.is_set():
            return False
        job.cancel()
        self.say("Given up.")
        return True

    # -- the object that clicks go to ------------------------------------------------

    def ready_to_click(self) -> None:
        """Make the clicks' layer the active one, in add mode."""
        if self.clicks.layer in self.viewer.layers:
            self.viewer.layers.selection.active = self.clicks.layer
            self.clicks.layer.mode = "add"

    def choose(self, object_id: int) -> None:
        """Let clicks go to an object, and be ready for them."""
        self.select(object_id)
        self.ready_to_click()

    def select(self, object_id: int) -> None:
        """Let clicks go to an object."""
        if object_id == self.view.selected or object_id not in self.objects:
            return
        status = f"Clicks go to {self.objects[object_id].name}."
        self.show(selected=object_id, status=status)
        self.follow_threshold()
        self.labels.select(object_id)
        self.chosen.emit()

    def new_object(self) -> None:
        """Let the next click start a new object."""
        new = self.view.next_id
        status = f"Click on the next object (object {new})."
        self.show(selected=None, is_positive=True, status=status)
        self.labels.select(new)
        self.clicks.set_polarity(True)
        self.chosen.emit()
        self.ready_to_click()

    def follow_threshold(self) -> None:
        """Show the selected object's threshold, or what it will be."""
        selected = self.view.selected
        if selected is None or selected not in self.objects:
            return
        threshold = self.objects[selected].threshold
        for event in self.waiting_events:
            if isinstance(event, ev.ThresholdChanged) and event.object_id == selected:
                threshold = event.threshold
        self.show(threshold=threshold)

    # -- events ----------------------------------------------------------------------

    def submit(self, *events: ev.Event, if_apart: Sequence[ev.Event] = ()) -> None:
        """Send events on their way, as one step; the numbers they use are taken."""
        clicks = [event for event in events if isinstance(event, ev.ClickAdded)]
        used = [click for event in events for click in ev.click_ids(event)]
        made = [i for event in (*events, *if_apart) for i in ev.object_ids(event)]
        self.next_click = max([self.next_click, *(click + 1 for click in used)])
        next_id = max([self.view.next_id, *(number + 1 for number in made)])
        self.view = replace(self.view, next_id=next_id)
        rows = tuple(row_of(click.object_id, click.plane, click) for click in clicks)
        self.queue.submit(Step(events, tuple(if_apart)), rows)
        if self.waiting is not None:
            self.sent.emit(self.waiting)
        self.show_pending()

    def send(self, step: Step) -> None:
        """Submit the step that clicks are; show the points as they are without one.

        SPEED: the step is shown in a moment, unless it is done by then: one computed
        ahead is, and is painted once, with its mask.
        """
        if not step.events:
            self.show_pending()
            return
        first = step.events[0]
        if isinstance(first, ev.ObjectCreated | ev.ClickAdded | ev.SuggestionsAccepted):
            self.view = replace(self.view, selected=first.object_id)
        self._later = True
        try:
            self.submit(*step.events, if_apart=step.if_apart)
        finally:
            self._later = False

    def _show_sent(self) -> None:
        with self.one_view():
            self.show(selected=self.view.selected)
            if self.view.selected is not None:
                self.labels.select(self.view.selected)
            self.show_pending()

    def show_pending(self) -> None:
        """Show the points of steps on their way, and how many there are."""
        pending = self.queue.pending
        if self._later and pending:
            self.view = replace(self.view, pending=len(pending))
            self._soon.start()
            return
        self._soon.stop()
        self.clicks.show(self._rows(self.objects, pending))
        self.show(pending=len(pending))
