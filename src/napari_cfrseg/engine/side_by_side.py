"""Run the network on several windows at once, each on one thread of the CPU.

A window's maps are small: two threads that share each of its hundred operations spend a
good part of the time waiting for each other, most of all on a busy machine. Windows are
independent, so a thread each wastes nothing. Their results are the same bit by bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import TypeVar

import torch

ValueT = TypeVar("ValueT")


def run_side_by_side(jobs: Sequence[Callable[[], ValueT]]) -> list[ValueT]:
    """Return the jobs' results, in order; what a job raises is raised at the end.

    As many run at once as torch may use threads.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(jobs) < 2:
        return [job() for job in jobs]
    futures = [_pool(threads).submit(job) for job in jobs]
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
