"""Changes of the annotation become layers and one frozen DockView."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator, Change
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.annotation.transaction import Progress
from napari_cfrseg.errors import CfrSegError, JobCancelled, as_memory_error, counted
from napari_cfrseg.geometry.masks import LabelRuns, Plane
from napari_cfrseg.gui.segment import status_lines
from napari_cfrseg.gui.segment.click_layer import ClickLayer
from napari_cfrseg.gui.segment.dock_view import DockView, ObjectRow, Remedy
from napari_cfrseg.gui.segment.event_queue import Pending, RowsToShow
from napari_cfrseg.gui.segment.label_layer import LabelLayer
from napari_cfrseg.gui.segment.lazy_pixels import SLOW_S
from napari_cfrseg.gui.segment.learning import Learning
from napari_cfrseg.gui.segment.propagator import Propagator
from napari_cfrseg.gui.segment.status_lines import hidden, masks_found
from napari_cfrseg.gui.segment.suggesting import Suggesting
from napari_cfrseg.gui.segment.worker import Failure, Job
from napari_cfrseg.io.tiled_labels import filled_pixels

#: that a click may take before its point is shown. A frame drawn for the point alone
#: would delay the mask by some 20 ms where the processor draws; 40 ms nobody sees.
_MOMENT_MS = 40

#: acts after which the status says what is left of the objects they changed
_OF_OBJECTS = (
    ev.Painted,
    ev.ClicksMoved,
    ev.ClicksRemoved,
    ev.ObjectDeleted,
    ev.ObjectsMerged,
)


class Projection:
    """Shows the annotation in the layers and in the dock.

    ``changed`` is called with each new view, ``applied`` with each event the annotator
    has applied, ``notify`` as the controller's.
    """

    stack: Propagator
    suggesting: Suggesting
    learning: Learning

    def __init__(
        self,
        annotator: Annotator,
        labels: LabelLayer,
        clicks: ClickLayer,
        changed: Callable[[DockView], None],
        applied: Callable[[ev.Event], None],
        notify: Callable[[str, str], None],
    ) -> None:
        self._annotator = annotator
        self._labels = labels
        self._clicks = clicks
        self._changed = changed
        self._applied = applied
        self.notify = notify
        self.view = DockView()
        #: by id, after the last event that was applied
        self.objects: Mapping[int, ObjectState] = {}
        #: steps on their way, oldest first; the queue's own list
        self.pending: Sequence[Pending] = ()
        #: what computes, for ``show_placement``
        self.segmenter: object = None
        #: an object, and the one that a click apart from it began; (0, 0): none yet
        self.begun = (0, 0)
        #: the key that joins them
        self.join_key = "M"
        self._noted = 0
        self._long: Job | None = None
        self._areas: Counter[int] = Counter()
        self._rows = RowsToShow()
        self._announced, self._gathering, self._later = self.view, False, False
        self._soon = QTimer(singleShot=True, interval=_MOMENT_MS)
        self._soon.timeout.connect(self._show_sent)

    # -- the view --------------------------------------------------------------------

    def show(self, **changes: Any) -> None:
        """Change fields of the view; announce it unless it stays the same.

        A new status takes the button of the one before away.
        """
        if "status" in changes:
            changes.setdefault("remedy", None)
        if "selected" in changes:
            self._clicks.show_object(changes["selected"])
        self.view = replace(self.view, **changes)
        self._announce()

    def _announce(self) -> None:
        if self.view != self._announced and not self._gathering:
            self._announced = self.view
            self._changed(self.view)

    @contextmanager
    def _one_view(self) -> Iterator[None]:
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

    def warn(self, error: Failure) -> None:
        """Show an error that the person can mend, none they caused; raise others."""
        if isinstance(error, JobCancelled):
            return
        error = as_memory_error(error) or error
        if not isinstance(error, CfrSegError):
            self.show(status=f"That failed: {error}")
            raise error
        self.show(status=str(error))
        self.notify("warning", str(error))

    def show_placement(self) -> None:
        """Show where the segmenter computes, and each of its notices once."""
        placement = getattr(self.segmenter, "placement", None)
        if placement is None:
            self.show(device=str(getattr(self.segmenter, "device", "")))
            return
        self.show(
            device=placement.device,
            backend=placement.backend,
            placement=placement.reason,
            precision=placement.precision,
        )
        notices = tuple(self.segmenter.notices.texts)  # type: ignore[attr-defined]  # it has a placement
        for text in notices[self._noted :]:
            self.show(status=text)
        self._noted = len(notices)

    @contextmanager
    def in_a_moment(self, **changes: Any) -> Iterator[None]:
        """Show the step sent meanwhile, and what it changes, unless it is done by then.

        SPEED: one computed ahead is, and is painted once, with its mask.
        """
        self.view, self._later = replace(self.view, **changes), True
        try:
            yield
        finally:
            self._later = False

    def _show_sent(self) -> None:
        with self._one_view():
            self.show(selected=self.view.selected)
            if self.view.selected is not None:
                self._labels.select(self.view.selected)
            self.show_pending()

    def close(self) -> None:
        """Show nothing later."""
        self._soon.stop()

    def show_pending(self) -> None:
        """Show the points of steps on their way, and how many there are."""
        if self._later and self.pending:
            self.view = replace(self.view, pending=len(self.pending))
            self._soon.start()
            return
        self._soon.stop()
        self._clicks.show(self._rows(self.objects, self.pending))
        self.show(pending=len(self.pending))

    def show_stack(self) -> None:
        """Show the planes of the object that is selected now."""
        self.stack.refresh(self.objects, self.view.selected)

    def show_all(self, last: Change | None) -> None:
        """Show all that the annotator holds after a session was restored.

        ``last`` is what the session's last event changed, None where it has none.
        """
        annotator = self._annotator
        self._labels.restore({p: annotator.labels(p) for p in annotator.planes})
        for plane in annotator.planes:
            self._count(filled_pixels(annotator.labels(plane))[0], 1)
        self._show_objects(annotator.objects)
        self.show(
            refinement=annotator.refinement,
            rule=annotator.rule,
            next_id=max(self.objects, default=0) + 1,
            undo_depth=0 if last is None else last.undo_depth,
            redo_depth=0 if last is None else last.redo_depth,
            progress=(0, 0),
            status=f"Session reopened: {counted(len(self.objects), 'object')}.",
        )
        self._labels.select(self.view.next_id)
        self.show_stack()

    def other_mask(self, plane: Plane, step: int) -> ev.CandidateChosen | None:
        """Return the choice of the next mask of the selected object's first click.

        None, and the status says so, where only one was found.
        """
        found = self.objects.get(self.view.selected or 0)
        first, chosen, count = masks_found(found, plane)
        if found is None or first is None or count < 2:
            self.show(status="There is no other mask here.")
            return None
        chosen = (chosen + step) % count
        self.show(status=f"{found.name}: mask {chosen + 1} of {count}.")
        return ev.CandidateChosen(first.click_id, chosen)

    # -- called by the queue ---------------------------------------------------------

    def settled(self, pending: Pending, changes: Sequence[Change]) -> None:
        """Show what a step changed; an event of its own may have taken it back."""
        with self._one_view():
            for event in (event for change in changes for event in change.events):
                self._applied(event)
                self.learning.follow(event)
            patches = [patch for change in changes for patch in change.patches]
            self._labels.paste(patches)
            for patch in patches:
                self._count(patch.values(), 1)
                self._count(patch.inverted().values(), -1)
            change, before = changes[-1], self.objects
            self._show_objects(change.objects)
            both = before.keys() | self.objects.keys()
            touched = {i for i in both if before.get(i) is not self.objects.get(i)}
            made = self.objects.keys() - before.keys()
            if isinstance(pending.event, ev.Painted) and len(made) == 1:
                self.show(selected=made.pop())
            self._select_begun(pending, changes[0])
            self._follow(pending.event, touched)
            self.show(undo_depth=change.undo_depth, redo_depth=change.redo_depth)
            for one in changes:
                if one.runs:
                    self.show(seconds=one.seconds, steps=one.steps)
            self.suggesting.refresh()
            if isinstance(pending.event, _OF_OBJECTS):
                left = [self.objects[i] for i in touched if i in self.objects]
                px = sum(self._areas[i] for i in touched)
                gone = (before[i] for i in touched if i in before)
                self.show(status=status_lines.of_left(left, gone, px))
            self._say_what_happened(pending.event, pending.began(changes[0]))
            self.show_placement()
            self.learning.consider(self.objects, self.view.selected, len(self.pending))
            for note in change.notes:
                self.show(status=note)
            if change.notes:
                self._restore(pending)

    def failed(self, pending: Pending, error: Failure) -> None:
        """Show the annotation without a step that was refused or cancelled."""
        self._labels.paste(())
        self._restore(pending)
        self._follow(pending.event, set())
        self.show(progress=(0, 0))
        self.show_pending()
        self.warn(error)

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
        self._long = job
        self.show(status=status)

    def show_progress(self, progress: tuple[int, int]) -> None:
        """Show how far the job is that takes long, and a button that ends it."""
        self.show(progress=progress, remedy=Remedy("Give up", self.give_up))

    def give_up(self) -> bool:
        """Cancel the job that takes long; False: there is none."""
        job, self._long = self._long, None
        if job is None or job.is_cancelled or job.ended.is_set():
            return False
        job.cancel()
        self.show(status="Given up.")
        return True

    def preview(self, value: LabelRuns | Progress) -> None:
        """Show a first mask, or how far a propagation is."""
        if isinstance(value, Progress):
            self._labels.preview_more(value.patches)
            self.show(progress=(value.done, value.total))
        else:
            self._labels.preview(value)

    # -- one thing each --------------------------------------------------------------

    def _count(self, labels: NDArray[np.integer[Any]], sign: int) -> None:
        """Count labelled pixels, or (−1) pixels that lost their label."""
        numbers, counts = np.unique(labels, return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self._areas[number] += sign * count

    def _show_objects(self, objects: Mapping[int, ObjectState]) -> None:
        self.objects, px = dict(objects), self._areas
        self._labels.show_objects(self.objects)
        self.show_pending()
        self.show(
            objects=tuple(
                ObjectRow(
                    *(i, s.name, s.colour, s.click_count, s.locked, s.object_class),
                    px[i],
                    sum(one.mask.mask.size > 0 for one in s.planes.values()),
                )
                for i, s in sorted(self.objects.items())
            )
        )

    def _select_begun(self, pending: Pending, change: Change) -> None:
        """Select the object that a click apart began, unless another was chosen."""
        made, click = pending.began(change), pending.event
        if made in self.objects and isinstance(click, ev.ClickAdded):
            self.begun = (click.object_id, made)
            if self.view.selected == click.object_id:
                self.show(selected=made)

    def _say_what_happened(self, event: ev.Event, made: int) -> None:
        self.show_stack()
        begins = made in self.objects and self.begun[0] in self.objects
        if begins and isinstance(event, ev.ClickAdded):
            before, new = self.objects[self.begun[0]], self.objects[made]
            under = hidden(new.on(event.plane), self._clicks.marker_px)
            joins = f"{self.join_key} joins it to {before.name}."
            self.show(status=f"{new.name} started{under}. {joins}")
        elif isinstance(event, ev.Propagated):
            self.show(status=self.stack.summary(), progress=(0, 0))
        elif isinstance(event, ev.Undone | ev.Redone):
            found = self.objects.get(self.view.selected or 0)
            act = "Undone" if isinstance(event, ev.Undone) else "Redone"
            goes = "a new object" if found is None else found.name
            self.show(status=f"{act}. The next click goes to {goes}.")
        elif isinstance(event, ev.CandidateChosen):
            px = self._clicks.marker_px
            said = status_lines.of_mask_chosen(self.objects, event.click_id, px)
            self.show(status=said or self.view.status)
        elif isinstance(event, ev.ObjectSplit) and event.new_id in self.objects:
            part = self.objects[event.new_id].name
            self.show(status=f"{part}: split off, {self._areas[event.new_id]} px.")
        elif isinstance(event, ev.SuggestionsAccepted):
            self._say_judged("Accepted", len(event.accepted))
        elif isinstance(event, ev.SuggestionsRejected):
            self._say_judged("Rejected", len(event.rejected))
        elif isinstance(event, ev.ClickAdded) and event.object_id in self.objects:
            found, px = self.objects[event.object_id], self._areas[event.object_id]
            said = status_lines.of_click(found, event, px, self._clicks.marker_px)
            self.show(status=said)

    def _say_judged(self, act: str, count: int) -> None:
        left = len(self.suggesting.found) or "none"
        self.show(status=f"{act} {counted(count, 'suggestion')}; {left} left.")

    def _follow(self, event: ev.Event, touched: set[int]) -> None:
        """Keep the selection on an object that exists, and its number free.

        Undo and redo select the object they changed: the next click goes there.
        """
        steps = [pending.step for pending in self.pending]
        waiting = [e for step in steps for e in (*step.events, *step.if_apart)]
        known = set(self.objects)
        known |= {e.object_id for e in waiting if isinstance(e, ev.ObjectCreated)}
        known |= {e.new_id for e in waiting if isinstance(e, ev.ObjectSplit)}
        for one in waiting:
            if isinstance(one, ev.SuggestionsAccepted):
                known.update(range(one.object_id, one.object_id + len(one.accepted)))
        selected = self.view.selected
        if isinstance(event, ev.Undone | ev.Redone) and selected not in touched:
            selected = max(touched, default=selected)
        if selected is not None and selected not in known:
            before, made = self.begun
            selected = before if selected == made and before in known else None
        free = max(known, default=0) + 1
        self._labels.select(selected or free)
        self.show(selected=selected, next_id=free)
        self.follow_threshold()

    def follow_threshold(self) -> None:
        """Show the selected object's threshold, or what it will be."""
        selected = self.view.selected
        if selected is None or selected not in self.objects:
            return
        threshold = self.objects[selected].threshold
        for pending in self.pending:
            for e in (*pending.events, pending.later):
                if isinstance(e, ev.ThresholdChanged) and e.object_id == selected:
                    threshold = e.threshold
        self.show(threshold=threshold)

    def _restore(self, pending: Pending) -> None:
        """Take back what a stroke did to pixels it may not change."""
        painted = [e.plane for e in pending.events if isinstance(e, ev.Painted)]
        if painted:
            self._labels.restore({p: self._annotator.labels(p) for p in painted})
