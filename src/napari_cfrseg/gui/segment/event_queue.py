"""Jobs on the one worker thread: events on their way to the annotator, and models.

Jobs run in the order they were submitted; that order is what makes a session in the
window equal to its replay. A job may report intermediate results (first masks).
Reports of any but the newest job are dropped: the newest click decides what is painted.
Torch is imported when a model is loaded, not before.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from superqt.utils import ensure_main_thread

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.annotation.state import ClickEntry, Entry, ObjectState
from napari_cfrseg.annotation.transaction import Progress
from napari_cfrseg.errors import CfrSegError, JobCancelled
from napari_cfrseg.geometry.masks import LabelRuns, Plane
from napari_cfrseg.gui.segment.click_layer import ClickRow
from napari_cfrseg.gui.segment.lazy_pixels import WAITING
from napari_cfrseg.session.recording import RecordedAnnotator

if TYPE_CHECKING:
    from napari_cfrseg.session.format import SessionContent

Report = Callable[[Any], None]
#: what was done to an object on a plane, and the points of its clicks there
_Listed = tuple[tuple[Entry, ...], tuple[ClickRow, ...]]


#: why a job has no result
Failure: TypeAlias = Exception | JobCancelled


@dataclass(eq=False, slots=True)
class Job:
    """Something to compute, and callbacks for what comes of it.

    ``work`` gets a function to report with. ``done``, ``failed`` and ``reported`` are
    called on the Qt thread with the result, the exception (JobCancelled if the job was
    cancelled), and each report; ``waits`` with the job when it has waited for pixels
    for long.
    """

    work: Callable[[Report], Any]
    done: Callable[[Any], None]
    failed: Callable[[Failure], None]
    reported: Callable[[Any], None] = lambda _: None
    waits: Callable[[Job], None] = lambda _: None
    #: computes the same ahead of this one: cancelled with it
    ahead: Job | None = None
    #: set once ``work`` has come to its end
    ended: threading.Event = field(default_factory=threading.Event)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def is_cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Let the job fail with JobCancelled before it starts or at its next report.

        Where it waits for lazy pixels it fails at once.
        """
        self._cancelled.set()
        if self.ahead is not None:
            self.ahead.cancel()

    def check(self) -> None:
        """Raise JobCancelled once the job is cancelled."""
        if self.is_cancelled:
            raise JobCancelled("it was cancelled")


class Runner(Protocol):
    """Runs jobs in order."""

    def submit(self, job: Job) -> None:
        """Run a job after those submitted before."""

    def close(self) -> None:
        """Drop waiting jobs; call no callback any more."""


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="cfrseg-worker")


class Worker:
    """Runs jobs on one long-lived thread and answers on the Qt thread.

    One thread, because it keeps torch's thread pool and the GPU's context warm. If it
    dies, the next job gets another one.
    """

    def __init__(self) -> None:
        self._executor = _one_thread()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._running: Job | None = None
        self._newest: Job | None = None
        self._last: Future[None] | None = None

    def submit(self, job: Job) -> None:
        """Queue the job."""
        if not self._closed.is_set():
            if self._thread is not None and not self._thread.is_alive():
                self._executor, self._thread = _one_thread(), None
            self._newest = job
            self._last = self._executor.submit(self._run, job)

    def close(self, timeout_s: float = 2.0) -> None:
        """End the worker; a job being computed ends at its next report."""
        if self._closed.is_set():
            return
        self._closed.set()
        running = self._running
        if running is not None:
            running.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._last is not None:
            wait([self._last], timeout_s)

    def _run(self, job: Job) -> None:
        def report(value: Any) -> None:
            job.check()
            if job is self._newest:
                self._answer(job.reported, value)

        self._running, self._thread = job, threading.current_thread()
        waiting = WAITING.set(_Waiting(job, partial(self._answer, job.waits, job)))
        try:
            job.check()
            result = job.work(report)
        except (Exception, JobCancelled) as error:  # noqa: BLE001 - the owner's matter
            self._answer(job.failed, error)
        except BaseException as error:  # noqa: BLE001 - something ends the thread
            self._answer(job.failed, _ended(error))
        else:
            self._answer(job.done, result)
        finally:
            self._running = None
            WAITING.reset(waiting)
            job.ended.set()

    def _answer(self, callback: Callable[[Any], None], value: Any) -> None:
        if not self._closed.is_set():
            self._deliver(callback, value)

    @ensure_main_thread  # type: ignore[untyped-decorator]  # superqt is untyped
    def _deliver(self, callback: Callable[[Any], None], value: Any) -> None:
        if not self._closed.is_set():
            callback(value)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A job that waits for lazy pixels."""

    job: Job
    stalled: Callable[[], None]

    def check(self) -> None:
        self.job.check()


def _ended(error: BaseException) -> CfrSegError:
    said = str(error) or type(error).__name__
    return CfrSegError(f"The computation was ended from outside ({said}): try again.")


@dataclass(slots=True, eq=False)
class Pending:
    """A step on its way: events applied together or not at all.

    ``rows`` are the points shown for it until it is done; ``later`` is the threshold
    the slider has moved to since, applied next.
    """

    events: tuple[ev.Event, ...]
    rows: tuple[ClickRow, ...] = ()
    later: ev.ThresholdChanged | None = None
    job: Job | None = None

    @property
    def event(self) -> ev.Event:
        """The last of its events: an object's click rather than its creation."""
        return self.events[-1]


class EventQueue:
    """Applies events on a runner and passes on the results, in order.

    The annotator is used on the runner's thread only, from the first event on.
    ``settled`` gets each step that was applied and what it changed, ``failed`` each
    that was refused or cancelled, and why. ``preview`` gets the newest click's labels
    so far, or how far a propagation is (a cancelled one keeps the planes that are
    done), ``stalled`` a job that has waited for pixels for long.
    """

    def __init__(
        self,
        annotator: RecordedAnnotator,
        runner: Runner,
        settled: Callable[[Pending, list[Change]], None],
        failed: Callable[[Pending, Failure], None],
        preview: Callable[[LabelRuns | Progress], None],
        stalled: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self._annotator = annotator
        self._runner = runner
        self._settled = settled
        self._failed = failed
        self._preview = preview
        self._stalled = stalled
        self._closed = False
        self.pending: list[Pending] = []

    def submit(self, *events: ev.Event, rows: tuple[ClickRow, ...] = ()) -> None:
        """Queue events as one step; a slider's positions in between are left out."""
        newest = self.pending[-1] if self.pending else None
        if newest is not None:
            before, now = newest.event, events[-1]
            if (
                isinstance(now, ev.ThresholdChanged)
                and isinstance(before, ev.ThresholdChanged)
                and before.object_id == now.object_id
            ):
                newest.later = now
                return
            self._submit_later(newest)
        self._enqueue(Pending(events, rows))

    def load_model(
        self,
        load: Callable[[], SegmenterLike],
        model: str,
        plane: Plane,
        done: Callable[[SegmenterLike, float], None],
        failed: Callable[[Failure], None],
    ) -> None:
        """Load a segmenter and make it ready for a plane.

        ``done`` gets it, and how long a first click takes (in s).
        """

        def work(_: Report) -> tuple[SegmenterLike, float]:
            segmenter = load()
            self._annotator.use(segmenter, model)
            try:
                return segmenter, self._annotator.first_click_s(plane)
            except JobCancelled:  # the store does not answer: clicks try again
                return segmenter, math.inf

        self._runner.submit(
            Job(work, lambda found: done(*found), failed, waits=self._stalled)
        )

    def restore(
        self,
        content: SessionContent,
        done: Callable[[Change | None], None],
        failed: Callable[[Failure], None],
        reported: Callable[[Progress], None],
    ) -> None:
        """Apply a session's events, and pass what its last one changed to done."""

        def work(report: Report) -> Change | None:
            last, total = None, len(content.events)
            for number, change in enumerate(self._annotator.restore(content), 1):
                last = change
                report(Progress(number, total))
            return last

        self._runner.submit(Job(work, done, failed, reported, self._stalled))

    def cancel_newest(self) -> bool:
        """Cancel the newest step that is not done; False if there is none."""
        for pending in reversed(self.pending):
            if pending.job is not None and not pending.job.is_cancelled:
                pending.later = None
                pending.job.cancel()
                return True
        return False

    def close(self) -> None:
        """Cancel everything and call back no more."""
        self._closed = True
        for pending in self.pending:
            if pending.job is not None:
                pending.job.cancel()

    def _enqueue(self, pending: Pending) -> None:
        pending.job = Job(
            lambda report: self._apply(pending, report),
            lambda changes: self._end(pending, lambda: self._settled(pending, changes)),
            lambda error: self._end(pending, lambda: self._failed(pending, error)),
            lambda patch: None if self._closed else self._preview(patch),
            self._stalled,
        )
        self.pending.append(pending)
        self._runner.submit(pending.job)

    def _apply(self, pending: Pending, report: Report) -> list[Change]:
        is_long = isinstance(pending.event, ev.Propagated)
        on_preview = _keeping(report) if is_long else report
        changes = [self._annotator.apply(*pending.events, on_preview=on_preview)]
        cancelled = pending.job is not None and pending.job.is_cancelled
        if cancelled and not self._closed and not is_long:
            # cancelled after its last report: an act of its own takes it back
            changes.append(self._annotator.apply(ev.Undone()))
        return changes

    def _submit_later(self, pending: Pending) -> None:
        later, pending.later = pending.later, None
        if later is not None:
            self._enqueue(Pending((later,)))

    def _end(self, pending: Pending, tell: Callable[[], None]) -> None:
        self.pending.remove(pending)
        if not self._closed:
            self._submit_later(pending)
            tell()


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
