"""Jobs on the one worker thread, and their results on Qt's.

Jobs run in the order they were submitted. A job may report intermediate results (first
masks); reports of any but the newest job are dropped.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeAlias

from superqt.utils import ensure_main_thread

from napari_cfrseg.errors import CfrSegError, JobCancelled
from napari_cfrseg.gui.segment.lazy_pixels import WAITING, Waiting

Report = Callable[[Any], None]

#: jobs after which freed memory goes back to the system
_JOBS_TO_TRIM = 20
#: how long a worker that ends waits for its jobs before it cancels them
_GRACE_S = 1.0
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
        self._newest = 0  # its id: a job that ended holds a whole image
        self._last: Future[None] | None = None
        self._since_trim = 0

    def submit(self, job: Job) -> None:
        """Queue the job."""
        if not self._closed.is_set():
            if self._thread is not None and not self._thread.is_alive():
                self._executor, self._thread = _one_thread(), None
            self._newest = id(job)
            self._last = self._executor.submit(self._run, job)

    def close(self, timeout_s: float = 2.0) -> None:
        """End the worker: clicks on their way are computed, long jobs are cancelled.

        A job being computed ends at its next report then.
        """
        if self._closed.is_set():
            return
        self._closed.set()
        if self._last is not None:
            wait([self._last], _GRACE_S)
        running = self._running
        if running is not None:
            running.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._last is not None:
            wait([self._last], timeout_s)

    def _run(self, job: Job) -> None:
        def report(value: Any) -> None:
            job.check()
            if id(job) == self._newest:
                self._answer(job.reported, value)

        self._running, self._thread = job, threading.current_thread()
        stalled = partial(self._answer, job.waits, job)
        waiting = WAITING.set(Waiting(job.check, stalled))
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
            self._since_trim += 1
            if self._since_trim == _JOBS_TO_TRIM:
                self._since_trim = 0
                _trim_memory()

    def _answer(self, callback: Callable[[Any], None], value: Any) -> None:
        if not self._closed.is_set():
            self._deliver(callback, value)

    @ensure_main_thread  # type: ignore[untyped-decorator]  # superqt is untyped
    def _deliver(self, callback: Callable[[Any], None], value: Any) -> None:
        if not self._closed.is_set():
            callback(value)


def _trim_memory() -> None:
    """Give freed memory back: glibc keeps some 30 MB of it in 400 clicks.

    It takes a millisecond or three. Elsewhere there is no such function, or no need.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _ended(error: BaseException) -> CfrSegError:
    said = str(error) or type(error).__name__
    return CfrSegError(f"The computation was ended from outside ({said}): try again.")
