"""Run stages on several windows at once, each on one thread, and time them.

A window's maps are small: threads that share each of its hundred operations would often
wait for each other. A thread each wastes nothing, and the results are the same bits.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import lru_cache
from typing import TypeVar

import torch

from napari_cfrseg.engine.prediction import StageSeconds

ValueT = TypeVar("ValueT")


def run_side_by_side(jobs: Sequence[Callable[[], ValueT]]) -> list[ValueT]:
    """Return the jobs' results, in order; what a job raises is raised at the end.

    As many run at once as torch may use threads, each in the caller's context.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(jobs) < 2:
        return [job() for job in jobs]
    futures = [_pool(threads).submit(copy_context().run, job) for job in jobs]
    wait(futures)
    return [future.result() for future in futures]


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Start workers whose torch operations use one thread."""
    started = threading.Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first question sets its own count
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="cfrseg-window")
    for _ in range(threads):
        pool.submit(begin)
    started.wait()
    torch.set_num_threads(threads)  # for threads to come
    return pool


class Stopwatch:
    """Adds up wall time by stage; waits for the device so that it is true."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to this stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            elif self._device.type == "mps":
                torch.mps.synchronize()
            self.seconds[stage] += time.perf_counter() - start

    @contextmanager
    def share(self, stages: Sequence[Stopwatch]) -> Iterator[None]:
        """Add the time spent inside, divided as the stages took it side by side."""
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start
        parts = [part for watch in stages for part in watch.seconds.items()]
        total = sum(seconds for _, seconds in parts) or 1.0
        for stage, seconds in parts:
            self.seconds[stage] += spent * seconds / total

    def read(self) -> StageSeconds:
        """Return the seconds so far."""
        return StageSeconds(**self.seconds)
