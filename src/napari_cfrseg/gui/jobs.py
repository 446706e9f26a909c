"""Jobs, and the simplest place to run them: here and now. Knows no Qt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

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
