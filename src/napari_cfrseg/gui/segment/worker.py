"""The one worker thread, and what it loads. Imports torch only when a model is loaded.

Jobs run in the order they were submitted; that order is what makes a session in the
window equal to its replay. A job may report intermediate results (first masks).
Reports of any but the newest job are dropped: the newest click decides what is painted.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from superqt.utils import ensure_main_thread

from napari_cfrseg.annotation.rounds import SegmenterLike

DEFAULT_MODEL = "default"

Report = Callable[[Any], None]
SegmenterLoader = Callable[[str], SegmenterLike]


class JobCancelled(Exception):
    """Raised inside a job that reports after it was cancelled."""


@dataclass(eq=False, slots=True)
class Job:
    """Something to compute, and callbacks for what comes of it.

    Attributes
    ----------
    work
        Computes the result; gets a function to report with.
    done, failed, reported
        Called on the Qt thread with the result, the exception (JobCancelled if the job
        was cancelled), and each report.
    """

    work: Callable[[Report], Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]
    reported: Callable[[Any], None] = lambda _: None
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def is_cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Let the job fail with JobCancelled before it starts or at its next report."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise JobCancelled once the job is cancelled."""
        if self.is_cancelled:
            raise JobCancelled


class Runner(Protocol):
    """Runs jobs in order."""

    def submit(self, job: Job) -> None:
        """Run a job after those submitted before."""

    def close(self) -> None:
        """Drop waiting jobs; call no callback any more."""


class Worker:
    """Runs jobs on one long-lived thread and answers on the Qt thread.

    One thread, because it keeps torch's thread pool and the GPU's context warm.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="cfrseg-worker")
        self._closed = threading.Event()
        self._running: Job | None = None
        self._newest: Job | None = None
        self._last: Future[None] | None = None

    def submit(self, job: Job) -> None:
        """Queue the job."""
        if not self._closed.is_set():
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

        self._running = job
        try:
            job.check()
            result = job.work(report)
        except Exception as error:  # noqa: BLE001 - passed to the job's owner
            self._answer(job.failed, error)
        else:
            self._answer(job.done, result)
        finally:
            self._running = None

    def _answer(self, callback: Callable[[Any], None], value: Any) -> None:
        if not self._closed.is_set():
            self._deliver(callback, value)

    @ensure_main_thread  # type: ignore[untyped-decorator]  # superqt is untyped
    def _deliver(self, callback: Callable[[Any], None], value: Any) -> None:
        if not self._closed.is_set():
            callback(value)


def load_segmenter(name: str) -> SegmenterLike:
    """Load a model by name or path on the best device there is (imports torch)."""
    wait_passively()
    import_triton_apart()
    from napari_cfrseg.engine.segmenter import Segmenter

    return Segmenter.load(name, device="auto")


def wait_passively() -> None:
    """Let torch's threads sleep while they wait, unless the environment says otherwise.

    Spinning threads cost far more than they save on a busy machine. OpenMP reads the
    variable once, when torch is loaded; after that it is left alone.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def import_triton_apart() -> None:
    """Import triton, which torch brings on Linux, so that it sees only its own LLVM.

    libtriton exports its LLVM's symbols. In a window whose OpenGL is Mesa's, another
    LLVM (libLLVM) is loaded globally; bound to that one, libtriton crashes the process
    while it is imported (tensorflow/tensorflow#124205 describes the clash).
    """
    deep = getattr(os, "RTLD_DEEPBIND", None)
    if deep is None or "triton" in sys.modules or find_spec("triton") is None:
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | deep)
    try:
        import_module("triton")
    except ImportError:
        return  # torch works without it
    finally:
        sys.setdlopenflags(flags)


def installed_models() -> tuple[str, ...]:
    """Return the names of the installed models (imports torch)."""
    from napari_cfrseg.model.weights_file import list_models

    return tuple(list_models())
