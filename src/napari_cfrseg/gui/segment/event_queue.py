"""Events on their way to the annotator: in order, each step one job on the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.annotation.state import ClickEntry, ObjectState
from napari_cfrseg.annotation.transaction import Progress
from napari_cfrseg.geometry.masks import LabelRuns, Plane
from napari_cfrseg.gui.segment.click_layer import ClickRow
from napari_cfrseg.gui.segment.worker import Job, JobCancelled, Report, Runner
from napari_cfrseg.session.recording import RecordedAnnotator

if TYPE_CHECKING:
    from napari_cfrseg.session.format import SessionContent


@dataclass(slots=True, eq=False)
class Pending:
    """A step on its way.

    Attributes
    ----------
    events
        Its events; they are applied together or not at all.
    rows
        Points shown for it until it is done.
    later
        The threshold the slider has moved to since; applied next.
    job
        Computes it.
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

    Parameters
    ----------
    annotator
        Used on the runner's thread only, from the first event on.
    runner
        Runs the jobs.
    settled
        Called with each step that was applied and what it changed.
    failed
        Called with each step that was refused or cancelled, and why.
    preview
        Called with the newest click's labels so far, or with how far a propagation is;
        a cancelled propagation keeps the planes that are done.
    """

    def __init__(
        self,
        annotator: RecordedAnnotator,
        runner: Runner,
        settled: Callable[[Pending, list[Change]], None],
        failed: Callable[[Pending, Exception], None],
        preview: Callable[[LabelRuns | Progress], None],
    ) -> None:
        self._annotator = annotator
        self._runner = runner
        self._settled = settled
        self._failed = failed
        self._preview = preview
        self._closed = False
        self.pending: list[Pending] = []

    def submit(self, *events: ev.Event, rows: tuple[ClickRow, ...] = ()) -> None:
        """Queue events as one step; a slider's positions in between are left out."""
        newest = self.pending[-1] if self.pending else None
        (event, *more) = events
        if newest is not None and _same_slider(newest.event, event):
            newest.later = event  # type: ignore[assignment]  # checked
            return
        if newest is not None:
            self._submit_later(newest)
        self._enqueue(Pending((event, *more), rows))

    def load_model(
        self,
        load: Callable[[], SegmenterLike],
        model: str,
        plane: Plane,
        done: Callable[[str], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Load a segmenter, make it ready for a plane, and pass its device to done."""

        def work(_: Report) -> str:
            segmenter = load()
            self._annotator.use(segmenter, model)
            self._annotator.prepare(plane)
            return str(getattr(segmenter, "device", ""))

        self._runner.submit(Job(work, done, failed))

    def restore(
        self,
        content: SessionContent,
        done: Callable[[Change | None], None],
        failed: Callable[[Exception], None],
        reported: Callable[[Progress], None],
    ) -> None:
        """Apply a session's events, and pass what its last one changed to done."""

        def work(report: Report) -> Change | None:
            last, total = None, len(content.events)
            for number, change in enumerate(self._annotator.restore(content), 1):
                last = change
                report(Progress(number, total))
            return last

        self._runner.submit(Job(work, done, failed, reported))

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


def _same_slider(first: ev.Event, second: ev.Event) -> bool:
    return (
        isinstance(first, ev.ThresholdChanged)
        and isinstance(second, ev.ThresholdChanged)
        and first.object_id == second.object_id
    )


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
    """Return the points to show: clicks done, and those on their way."""
    rows = {
        entry.click_id: row_of(state.object_id, plane, entry)
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


def row_of(object_id: int, plane: Plane, entry: ClickEntry | ev.ClickAdded) -> ClickRow:
    """Return the point that stands for a click."""
    click = entry.click
    return ClickRow(entry.click_id, object_id, plane, click.yx, click.is_positive)
