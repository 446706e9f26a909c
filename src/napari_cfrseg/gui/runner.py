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
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal

from napari_cfrseg.gui.jobs import Job, JobCancelled, Runner, SyncRunner, reporter_of

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
