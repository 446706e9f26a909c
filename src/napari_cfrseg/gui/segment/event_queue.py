"""Events on their way to the annotator, step by step, and models.

The order in which steps are submitted is what makes a session in the window equal to
its replay. Only the newest step's intermediate results are shown: the newest click
decides what is painted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.annotation.state import ClickEntry, Entry, ObjectState
from napari_cfrseg.annotation.transaction import Progress
from napari_cfrseg.errors import JobCancelled
from napari_cfrseg.geometry.masks import LabelRuns, Plane
from napari_cfrseg.gui.segment.click_layer import ClickRow
from napari_cfrseg.gui.segment.worker import Failure, Job, Report, Runner
from napari_cfrseg.session.recording import RecordedAnnotator
from napari_cfrseg.session.session_writer import SessionWriter

#: what was done to an object on a plane, and the points of its clicks there
_Listed = tuple[tuple[Entry, ...], tuple[ClickRow, ...]]


@dataclass(frozen=True, slots=True)
class Step:
    """Events applied together, or, where the click lies apart, others instead."""

    events: tuple[ev.Event, ...] = ()
    if_apart: tuple[ev.Event, ...] = ()


@dataclass(slots=True, eq=False)
class Pending:
    """A step on its way: events applied together or not at all.

    ``rows`` are the points shown for it until it is done; ``later`` is the threshold
    the slider has moved to since, applied next. ``after`` is a click before it that may
    begin an object: what was meant for the object selected then goes to the new one,
    as ``goes_to`` says.
    """

    step: Step
    rows: tuple[ClickRow, ...] = ()
    later: ev.ThresholdChanged | None = None
    job: Job | None = None
    after: Pending | None = None
    goes_to: dict[int, int] = field(default_factory=dict)

    @property
    def events(self) -> tuple[ev.Event, ...]:
        """Its events."""
        return self.step.events

    @property
    def all_events(self) -> tuple[ev.Event, ...]:
        """Those, the ones that may be applied instead, and what follows."""
        later = () if self.later is None else (self.later,)
        return (*self.events, *self.step.if_apart, *later)

    @property
    def event(self) -> ev.Event:
        """The last of its events: an object's click rather than its creation."""
        return self.events[-1]

    def began(self, change: Change) -> int:
        """Return the object that a click apart began, 0 for none."""
        first = change.events[0]
        if self.step.if_apart and isinstance(first, ev.ObjectCreated):
            return first.object_id
        return 0


class EventQueue:
    """Applies events on a runner and passes on the results, in order.

    The annotator is used on the runner's thread only, from the first event on.
    ``stalled`` gets a job that has waited for pixels for long. Who shows what comes of
    the steps sets three functions: ``settled`` gets each step that was applied and what
    it changed, ``failed`` each that was refused or cancelled, and why; ``preview`` gets
    the newest click's labels so far, or how far a propagation is (a cancelled one keeps
    the planes that are done).
    """

    settled: Callable[[Pending, list[Change]], None]
    failed: Callable[[Pending, Failure], None]
    preview: Callable[[LabelRuns | Progress], None]

    def __init__(
        self,
        annotator: RecordedAnnotator,
        runner: Runner,
        stalled: Callable[[Job], None],
    ) -> None:
        self._annotator = annotator
        self._runner = runner
        self._stalled = stalled
        self.closed = False
        #: whether there is an act that a step which says so is one with
        self._has_begun = False
        #: whether a session is being restored: nothing is on the layers yet
        self.is_restoring = False
        #: whether acts wait for a session, or an import, and which do
        self._holding = False
        self._held: deque[Callable[[], None]] = deque()
        #: steps on their way, oldest first
        self.pending: list[Pending] = []

    def submit(self, step: Step, rows: tuple[ClickRow, ...] = ()) -> None:
        """Queue a step; a slider's positions in between are left out."""
        newest = self.pending[-1] if self.pending else None
        if newest is not None:
            before, now = newest.event, step.events[-1]
            if (
                isinstance(now, ev.ThresholdChanged)
                and isinstance(before, ev.ThresholdChanged)
                and before.object_id == now.object_id
            ):
                newest.later = now
                return
            self._submit_later(newest)
        undecided = (p for p in reversed(self.pending) if p.step.if_apart)
        self._enqueue(Pending(step, rows, after=next(undecided, None)))

    def load_model(
        self,
        load: Callable[[], SegmenterLike],
        model: str,
        plane: Plane,
        done: Callable[[SegmenterLike, float], None],
        failed: Callable[[Failure], None],
    ) -> Job:
        """Load a segmenter and make it ready for a plane; return the job.

        ``done`` gets it, and how long a first click takes (in s). Where the job is
        cancelled before it is loaded, the one before stays in use.
        """

        def work(report: Report) -> tuple[SegmenterLike, float]:
            segmenter = load()
            report(None)
            self._annotator.use(segmenter, model)
            try:
                return segmenter, self._annotator.first_click_s(plane)
            except JobCancelled:  # the store does not answer: clicks try again
                return segmenter, math.inf

        job = Job(work, lambda found: done(*found), failed, waits=self._stalled)
        self._runner.submit(job)
        return job

    def restoring(
        self,
        writer: SessionWriter,
        done: Callable[[Change | None], None],
        failed: Callable[[Failure], None],
        reported: Callable[[Progress], None],
    ) -> Job:
        """Return a job that applies a session's events.

        ``done`` gets what its last one changed; what is done from then on is recorded
        in it. Where it failed or was cancelled, nothing is done, and nothing recorded;
        where the queue was closed, nothing is called, either.
        Acts are held until it has ended, and follow, in order, also then.
        """
        self.hold()
        self.is_restoring = True

        def ended(call: Callable[[], None]) -> None:
            if self.closed:
                return
            self.is_restoring = False
            try:
                call()
            finally:
                self.go_on()

        def work(report: Report) -> Change | None:
            content = writer.content
            last, total = None, len(content.events)
            try:
                for number, change in enumerate(self._annotator.restore(content), 1):
                    last = change
                    report(Progress(number, total))
                    if self.closed:
                        raise JobCancelled("its image is worked on no more")
            except BaseException:
                self._annotator.begin_again()
                raise
            if not self.closed:
                self._annotator.writer = writer
            return last

        return Job(
            work,
            lambda last: ended(lambda: done(last)),
            lambda error: ended(lambda: failed(error)),
            reported,
            self._stalled,
        )

    def hold(self) -> None:
        """Let acts wait until :meth:`go_on`."""
        self._holding = True

    def go_on(self) -> None:
        """Do what waits, each act when those before it are done."""
        self._holding = False
        self._next_held()

    def holds(self, act: Callable[[], None]) -> int:
        """Keep an act while others wait; return how many do, 0 where none need."""
        if self._holding or self._held:
            self._held.append(act)
        return len(self._held)

    def _next_held(self) -> None:
        while self._held and not (self._holding or self.pending or self.closed):
            act = self._held.popleft()
            try:
                act()
            except Exception:
                self._next_held()
                raise

    def cancel_newest(self) -> bool:
        """Cancel the newest act that is not done; False if there is none."""
        if self._held:
            self._held.pop()
            return True
        for pending in reversed(self.pending):
            if pending.job is not None and not pending.job.is_cancelled:
                pending.later = None
                pending.job.cancel()
                return True
        return False

    def close(self) -> None:
        """Cancel everything and call back no more."""
        self.closed = True
        for pending in self.pending:
            if pending.job is not None:
                pending.job.cancel()

    def _enqueue(self, pending: Pending) -> None:
        pending.job = Job(
            lambda report: self._apply(pending, report),
            lambda changes: self._end(pending, lambda: self.settled(pending, changes)),
            lambda error: self._end(pending, lambda: self.failed(pending, error)),
            lambda patch: None if self.closed else self.preview(patch),
            self._stalled,
        )
        self.pending.append(pending)
        self._runner.submit(pending.job)

    def _apply(self, pending: Pending, report: Report) -> list[Change]:
        is_long = isinstance(pending.event, ev.Propagated)
        on_preview = _keeping(report) if is_long else report
        if pending.after is not None:
            pending.goes_to = dict(pending.after.goes_to)
            pending.after = None
            pending.step = _redirected(pending.step, pending.goes_to)
        step = pending.step
        joins = getattr(step.events[0], "together", False)
        if joins and not self._has_begun:  # what it was to join has failed
            joins, step = False, _alone(step)
        self._has_begun = joins
        change = self._annotator.apply(
            *step.events, on_preview=on_preview, if_apart=step.if_apart
        )
        self._has_begun = True
        changes, click = [change], pending.event
        made = pending.began(change)
        if made and isinstance(click, ev.ClickAdded):
            meant = {*pending.goes_to, click.object_id}
            pending.goes_to = dict.fromkeys(meant, made)
        cancelled = pending.job is not None and pending.job.is_cancelled
        if cancelled and not self.closed and not is_long and not joins:
            # cancelled after its last report: an act of its own takes it back
            changes.append(self._annotator.apply(ev.Undone()))
        return changes

    def _submit_later(self, pending: Pending) -> None:
        later, pending.later = pending.later, None
        if later is not None:
            self._enqueue(Pending(Step((later,)), after=pending))

    def _end(self, pending: Pending, tell: Callable[[], None]) -> None:
        self.pending.remove(pending)
        if not self.closed:
            self._submit_later(pending)
            tell()
            self._next_held()


def _alone(step: Step) -> Step:
    """Return a step as an act of its own, not one with the act before it."""
    first: Any = step.events[0]
    own: ev.Event = replace(first, together=False)
    return replace(step, events=(own, *step.events[1:]))


def _redirected(step: Step, goes_to: Mapping[int, int]) -> Step:
    """Return a step with what was meant for one object going to another."""

    def sent(event: ev.Event) -> ev.Event:
        if isinstance(event, ev.ClickAdded | ev.ThresholdChanged | ev.ObjectReset):
            to = goes_to.get(event.object_id, event.object_id)
            return replace(event, object_id=to)
        if isinstance(event, ev.Propagated) and len(event.object_ids) == 1:
            ids = tuple(goes_to.get(i, i) for i in event.object_ids)
            return replace(event, object_ids=ids)
        return event

    return replace(step, events=tuple(map(sent, step.events)))


def _keeping(report: Report) -> Callable[[object], bool]:
    """Turn a cancelled job's exception into True: end, and keep what is done."""

    def ends(value: object) -> bool:
        with suppress(JobCancelled):
            report(value)
            return False
        return True

    return ends


class RowsToShow:
    """Lists the points of clicks; those of clicks that stay are not made again."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, Plane], _Listed] = {}

    def __call__(
        self, objects: Mapping[int, ObjectState], pending: Iterable[Pending]
    ) -> tuple[ClickRow, ...]:
        """Return the points of clicks done, and of those on their way."""
        before, self._known = self._known, {}
        listed: list[ClickRow] = []
        for number, whole in objects.items():
            for plane, state in whole.planes.items():
                entries, rows = before.get((number, plane), ((), ()))
                if entries is not state.entries:
                    kept = len(entries) if _begins(state.entries, entries) else 0
                    new = (
                        row_of(number, plane, entry)
                        for entry in state.entries[kept:]
                        if isinstance(entry, ClickEntry)
                    )
                    rows = (*(rows if kept else ()), *new)
                self._known[number, plane] = state.entries, rows
                listed += rows
        return _with_pending(listed, pending)


def _begins(whole: tuple[Entry, ...], first: tuple[Entry, ...]) -> bool:
    return whole[: len(first)] == first


def _with_pending(
    listed: Sequence[ClickRow], pending: Iterable[Pending]
) -> tuple[ClickRow, ...]:
    """Return the points as they will be after the steps on their way."""
    pending = tuple(pending)
    if not pending:
        return tuple(listed)
    rows = {row.click_id: row for row in listed}
    for one in pending:
        rows.update({row.click_id: row for row in one.rows})
        if isinstance(one.event, ev.ClicksRemoved):
            for click_id in one.event.click_ids:
                rows.pop(click_id, None)
        elif isinstance(one.event, ev.ClicksMoved):
            for click_id, yx in one.event.moves:
                if click_id in rows:
                    rows[click_id] = replace(rows[click_id], yx=yx)
    return tuple(rows.values())


def row_of(object_id: int, plane: Plane, entry: ClickEntry | ev.ClickAdded) -> ClickRow:
    """Return the point that stands for a click."""
    click = entry.click
    return ClickRow(entry.click_id, object_id, plane, click.yx, click.is_positive)
