"""The worker: jobs run one after the other on a thread, answers come back to Qt's.

All threading of the project is in this module. Jobs run in the order they were given;
the order is what makes a session in the window equal to its replay. A job reports
(first masks) while it runs; reports of any but the newest job are dropped, so the
newest click wins what is painted.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from qtpy.QtCore import QObject, Qt, Signal

__all__ = ["Job", "JobCancelled", "QtRunner", "Runner", "SyncRunner"]


class QtRunner(QObject):  # type: ignore[misc]  # qtpy is untyped
    """Runs jobs on one long-lived thread and answers on the Qt thread.

    One thread, because it keeps torch's thread pool and the GPU's context warm.
    """

    _delivered = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._generation = 0
        self._closed = threading.Event()
        self._delivered.connect(self._deliver, Qt.ConnectionType.QueuedConnection)
        self._running: Job | None = None
        self._thread = threading.Thread(
            target=self._loop, name="cfrseg-worker", daemon=True
        )
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue the job."""
        self._generation += 1
        job.generation = self._generation
        self._jobs.put(job)

    def cancel(self, job: Job) -> None:
        """Let the job fail before it starts or at its next report."""
        job.cancelled.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """End the worker; a round being computed ends at its next step."""
        if self._closed.is_set():
            return
        self._closed.set()
        running = self._running
        if running is not None:
            running.cancelled.set()
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None or self._closed.is_set():
                return
            self._running = job
            self._run(job)
            self._running = None

    def _run(self, job: Job) -> None:
        def reported(value: Any) -> None:
            if job.generation == self._generation:
                self._emit(lambda: job.reported(value))

        try:
            if job.cancelled.is_set():
                raise JobCancelled
            result = job.work(reporter_of(job, reported))
        except Exception as error:  # noqa: BLE001 - handed to the job's owner
            failure = error
            self._emit(lambda: job.failed(failure))
        else:
            self._emit(lambda: job.done(result))

    def _emit(self, call: Callable[[], None]) -> None:
        if not self._closed.is_set():
            self._delivered.emit(call)

    def _deliver(self, call: Callable[[], None]) -> None:
        if not self._closed.is_set():
            call()


Report = Callable[[Any], None]


class JobCancelled(Exception):
    """Raised inside a job that reports after it was cancelled."""


@dataclass(eq=False, slots=True)
class Job:
    """Something to compute, and whom to tell, on the caller's thread.

    Attributes
    ----------
    work
        Computes the result; gets a function to report with.
    done, failed, reported
        Told the result, the exception (JobCancelled if it was cancelled), and each
        report.
    cancelled
        Set by ``Runner.cancel``.
    """

    work: Callable[[Report], Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]
    reported: Callable[[Any], None] = lambda _: None
    cancelled: threading.Event = field(default_factory=threading.Event)
    generation: int = 0


class Runner(Protocol):
    """Runs jobs in order."""

    def submit(self, job: Job) -> None:
        """Run a job after those submitted before."""

    def cancel(self, job: Job) -> None:
        """Make a job fail with JobCancelled before it starts or at its next report."""

    def close(self) -> None:
        """Drop what waits and tell nobody any more."""


class SyncRunner:
    """Runs each job at once, on the caller's thread: for tests and scripts."""

    def __init__(self) -> None:
        self._closed = False

    def submit(self, job: Job) -> None:
        """Run the job and tell its result before returning."""
        if self._closed:
            return
        try:
            result = job.work(reporter_of(job, job.reported))
        except Exception as error:  # noqa: BLE001 - handed to the job's owner
            job.failed(error)
        else:
            job.done(result)

    def cancel(self, job: Job) -> None:
        """Let the job fail at its next report."""
        job.cancelled.set()

    def close(self) -> None:
        """Run nothing any more."""
        self._closed = True


def reporter_of(job: Job, reported: Report) -> Report:
    """Return what a job reports with: it ends the job once it is cancelled."""

    def report(value: Any) -> None:
        if job.cancelled.is_set():
            raise JobCancelled
        reported(value)

    return report
