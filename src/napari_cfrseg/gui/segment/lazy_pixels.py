"""Lazy pixels whose reads end when the job that waits for them is cancelled.

A store on a network may leave a read without an answer for minutes, and Python cannot
end a thread that waits for it. So lazy pixels are read on a thread of their own: a job
that is cancelled leaves that thread to itself, and the next read gets another one.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent import futures
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: after so long without an answer the person is told
SLOW_S = 10.0
_POLL_S = 0.05
_Task = tuple[futures.Future[Any], Callable[[], Any]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A caller that waits for pixels.

    ``check`` raises what ends the wait, if it is to end; ``stalled`` is called once
    nothing came for SLOW_S.
    """

    check: Callable[[], None]
    stalled: Callable[[], None]


#: what waits for the pixels read in this context; None: it waits to the end
WAITING: ContextVar[Waiting | None] = ContextVar("WAITING", default=None)


class LazyPixels:
    """An array that is not in memory; in all else it is the array itself."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self._reader: _Reader | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._array, name)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        waiting = WAITING.get()
        if waiting is None:
            return np.asarray(self._array[key])
        reader, self._reader = self._reader or _Reader(), None
        done = reader.read(lambda: np.asarray(self._array[key]))
        _wait(done, waiting)
        self._reader = reader  # one that was left is not used again
        found: NDArray[Any] = done.result()
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[(slice(None),) * len(self._array.shape)], dtype=dtype)


def _wait(done: futures.Future[Any], waiting: Waiting) -> None:
    """Wait until a read is done, whether it worked or not, or the wait is to end."""
    start, was_told = time.monotonic(), False
    while True:
        try:
            done.exception(_POLL_S)
        except futures.TimeoutError:
            waiting.check()
        else:
            return
        if not was_told and time.monotonic() - start > SLOW_S:
            was_told = True
            waiting.stalled()


class _Reader:
    """A thread that reads one thing at a time; it ends with the last one to use it."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        # a daemon: one that never gets its answer must not keep the program open
        work = threading.Thread(
            target=_work, args=(self._tasks,), name="cfrseg-reader", daemon=True
        )
        work.start()

    def read(self, work: Callable[[], Any]) -> futures.Future[Any]:
        """Begin to read."""
        done: futures.Future[Any] = futures.Future()
        self._tasks.put((done, work))
        return done

    def __del__(self) -> None:
        self._tasks.put(None)


def _work(tasks: queue.SimpleQueue[_Task | None]) -> None:
    while (task := tasks.get()) is not None:
        done, work = task
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - passed to who waits
            done.set_exception(error)
        del task, done, work
