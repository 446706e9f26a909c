"""Spread tasks over processes of this machine or over workers of a Dask cluster."""

from __future__ import annotations

import multiprocessing
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from multiprocessing.connection import Connection, wait
from numbers import Integral
from typing import Any, Generic, TypeVar

from napari_cfrseg.errors import CfrSegError, DeviceError

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
#: is called once in each process, with its number (None: it is not one of several on
#: this machine); returns what yields a task's results
Make = Callable[[int | None], Callable[[TaskT], Iterable[ResultT]]]
#: gets a task that was lost, and why; returns a result in its place, or raises
GivenUp = Callable[[TaskT, Exception], ResultT]

#: seconds within which a scheduler has to answer
CONNECT_S = 10.0
#: CPU threads that a process may ask for
MOST_THREADS = 4096


def use_threads(count: int | None) -> None:
    """Let torch use so many CPU threads in this process; None leaves torch's choice.

    ValueError unless it is a whole number from 1 to 4096.
    """
    if count is None:
        return
    check_threads(count)
    import torch

    torch.set_num_threads(int(count))


def check_threads(count: Any) -> None:
    """Raise ValueError unless a number of threads, or None, can be used."""
    is_whole = isinstance(count, Integral) and not isinstance(count, bool)
    if count is not None and not (is_whole and 1 <= count <= MOST_THREADS):
        wanted = f"a whole number from 1 to {MOST_THREADS}, or none"
        raise ValueError(f"threads {count!r}: give {wanted} for torch's own choice")


def spread(
    make: Make[TaskT, ResultT],
    tasks: Sequence[TaskT],
    given_up: GivenUp[TaskT, ResultT],
    tries: int,
    *,
    workers: int,
    scheduler: str | None,
) -> Iterator[ResultT]:
    """Work on tasks on a cluster if there is a scheduler, else in so many processes.

    One worker is this process. See :func:`on_cluster` and :func:`in_processes`.
    """
    if scheduler is not None:
        yield from on_cluster(scheduler, make, tasks, given_up, tries)
    elif workers > 1:
        yield from in_processes(make, tasks, workers, given_up, tries)
    elif tasks:
        work = make(None)
        for task in tasks:
            yield from work(task)


def in_processes(
    make: Make[TaskT, ResultT],
    tasks: Sequence[TaskT],
    count: int,
    given_up: GivenUp[TaskT, ResultT],
    tries: int = 1,
) -> Iterator[ResultT]:
    """Work on tasks in several processes; yield results as they come.

    A process that dies is replaced; ``given_up`` gets a task whose process died
    ``tries`` times. What raises in a process is raised here: a CfrSegError as it is,
    anything else as a RuntimeError with the traceback.
    """
    workers = [_Worker(make, number) for number in range(min(count, len(tasks)))]
    waiting = deque((task, 1) for task in tasks)
    try:
        while waiting or any(worker.is_busy for worker in workers):
            for worker in workers:
                if waiting and not worker.is_busy:
                    worker.give(*waiting.popleft())
            busy = {worker.pipe: worker for worker in workers if worker.is_busy}
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]  # only Connections are waited for
                try:
                    yield from worker.results(as_they_come=tries == 1)
                except _DiedError as error:
                    task, tried = worker.given
                    worker.restart()
                    if tried < tries:
                        waiting.append((task, tried + 1))
                    else:
                        yield given_up(task, error)
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.process.join()


class _DiedError(RuntimeError):
    """A process ended in the middle of a task."""


class _Worker(Generic[TaskT, ResultT]):
    """A process, the task it was given and which try of it this is."""

    process: Any
    pipe: Connection
    given: tuple[TaskT, int]

    def __init__(self, make: Make[TaskT, ResultT], number: int) -> None:
        self._served = make, number
        self.restart()

    def restart(self) -> None:
        """Start the process, in place of one that died."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, *self._served)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.is_busy = False

    def give(self, task: TaskT, number: int) -> None:
        """Let it work on a task."""
        self.given, self.is_busy = (task, number), True
        self._found: list[ResultT] = []
        with suppress(OSError):  # it died, which reading its pipe reports
            self.pipe.send(task)

    def results(self, *, as_they_come: bool) -> list[ResultT]:
        """Wait for a result of its task and return it; or all of them at the end."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            self.pipe.close()
            code = self.process.exitcode
            msg = f"its process ended with exit code {code} (out of memory?)"
            raise _DiedError(msg) from None
        if isinstance(message, Exception):
            raise message
        self.is_busy = message is not None
        if self.is_busy:
            self._found.append(message)
        if self.is_busy and not as_they_come:
            return []
        found, self._found = self._found, []
        return found

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.pipe.close()
        self.process.terminate()


def _serve(pipe: Connection, make: Make[Any, Any], number: int) -> None:
    """Work on what comes through the pipe; the body of a process."""
    failure: Exception
    try:
        work = make(number)
        while True:
            try:
                task = pipe.recv()
            except (EOFError, OSError):  # the parent is done or was killed
                return
            for result in work(task):
                pipe.send(result)
            pipe.send(None)
    except CfrSegError as error:
        failure = error
    except Exception:  # noqa: BLE001 - the parent must see every error
        failure = RuntimeError(f"a worker process failed:\n{traceback.format_exc()}")
    with suppress(OSError):
        pipe.send(failure)


def on_cluster(
    scheduler: str,
    make: Make[TaskT, ResultT],
    tasks: Sequence[TaskT],
    given_up: GivenUp[TaskT, ResultT],
    tries: int,
) -> Iterator[ResultT]:
    """Work on tasks on a Dask scheduler's workers; yield results as they come.

    ``make``, which is hashable, is called once in each worker's thread. ``given_up``
    gets tasks that failed or whose workers died ``tries`` times. The workers must see
    the same files under the same paths. Raises DeviceError if dask is not installed or
    the scheduler, ``tcp://host:8786``, does not answer.
    """
    try:
        import distributed
    except ImportError as error:
        msg = '--scheduler needs dask: python -m pip install "napari-cfrseg[cluster]"'
        raise DeviceError(msg) from error
    try:
        # a Client of an address that cannot be parsed prints a traceback when it goes
        distributed.comm.addressing.get_address_host_port(scheduler)
        client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        msg = f"no Dask scheduler answers at {scheduler}: {error}"
        raise DeviceError(msg) from error
    with client:
        futures = client.map(
            partial(_on_worker, make), list(tasks), pure=False, retries=tries
        )
        by_key = {f.key: task for f, task in zip(futures, tasks, strict=True)}
        for future in distributed.as_completed(futures, loop=client.loop):
            if future.status == "finished":
                yield from future.result()
            else:
                yield given_up(by_key[future.key], future.exception())
            future.release()


def _on_worker(make: Make[TaskT, ResultT], task: TaskT) -> list[ResultT]:
    return list(_made(make, threading.get_ident())(task))


@lru_cache(maxsize=4)
def _made(
    make: Make[TaskT, ResultT], _thread: int
) -> Callable[[TaskT], Iterable[ResultT]]:
    return make(None)
