"""Events on their way to the annotator: in order, each as one job on the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator, Change
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.annotation.transaction import Progress
from napari_cfrseg.geometry.masks import LabelPatch
from napari_cfrseg.gui.qt.worker import Job, JobCancelled, Report, Runner
from napari_cfrseg.gui.segment.click_layer import ClickRow


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """An event on its way.

    Attributes
    ----------
    event
        The event.
    job
        What computes it.
    rows
        Points that stand for it until it is done.
    first
        The creation of its object, if it is the object's first click.
    """

    event: ev.Event
    job: Job
    rows: tuple[ClickRow, ...] = ()
    first: ev.ObjectCreated | None = None


class EventQueue:
    """Applies events on a runner and tells what came of them, in order.

    Parameters
    ----------
    annotator
        Touched by the runner's thread only, from the first event on.
    runner
        Runs the jobs.
    settled
        Told each event that was applied and what it changed.
    failed
        Told each event that was refused or cancelled, and why.
    preview
        Told what the newest click's labels look like so far, or how far a propagation
        is; a cancelled propagation keeps the planes that are done.
    """

    def __init__(
        self,
        annotator: Annotator,
        runner: Runner,
        settled: Callable[[Pending, list[Change]], None],
        failed: Callable[[Pending, Exception], None],
        preview: Callable[[LabelPatch | Progress], None],
    ) -> None:
        self._annotator = annotator
        self._runner = runner
        self._settled = settled
        self._failed = failed
        self._preview = preview
        self._closed = False
        self.pending: list[Pending] = []

    def submit(
        self,
        event: ev.Event,
        rows: tuple[ClickRow, ...] = (),
        first: ev.ObjectCreated | None = None,
    ) -> None:
        """Queue an event; ``first`` is applied with it as one step."""
        is_long = isinstance(event, ev.Propagated)

        def work(report: Report) -> list[Change]:
            told = _keeping(report) if is_long else report
            events = (event,) if first is None else (first, event)
            changes = [self._annotator.apply(*events, on_preview=told)]
            if job.cancelled.is_set() and not self._closed and not is_long:
                # too late to stop it, so it is taken back like any other act
                changes.append(self._annotator.apply(ev.Undone()))
            return changes

        job = Job(
            work,
            lambda changes: self._end(pending, lambda: self._settled(pending, changes)),
            lambda error: self._end(pending, lambda: self._failed(pending, error)),
            lambda patch: None if self._closed else self._preview(patch),
        )
        pending = Pending(event, job, rows, first)
        self.pending.append(pending)
        self._runner.submit(job)

    def cancel_newest(self) -> bool:
        """Take the newest event that is not done back; False if there is none."""
        for pending in reversed(self.pending):
            if not pending.job.cancelled.is_set():
                self._runner.cancel(pending.job)
                return True
        return False

    def close(self) -> None:
        """Cancel everything and tell nothing any more."""
        self._closed = True
        for pending in self.pending:
            self._runner.cancel(pending.job)

    def _end(self, pending: Pending, tell: Callable[[], None]) -> None:
        self.pending.remove(pending)
        if not self._closed:
            tell()


def _keeping(report: Report) -> Callable[[object], bool]:
    """Turn a cancelled job's exception into True: end, and keep what is done."""

    def told(value: object) -> bool:
        try:
            report(value)
        except JobCancelled:
            return True
        return False

    return told


def rows_to_show(
    objects: Mapping[int, ObjectState], pending: Iterable[Pending]
) -> tuple[ClickRow, ...]:
    """Return the points there should be: clicks done, and those on their way."""
    rows = {
        entry.click_id: ClickRow(
            entry.click_id,
            state.object_id,
            plane,
            entry.click.yx,
            entry.click.is_positive,
        )
        for state in objects.values()
        for plane, entry in state.clicks()
    }
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
