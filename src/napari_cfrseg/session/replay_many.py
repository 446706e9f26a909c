"""Many sessions: in this process, in several, or on a Dask cluster.

A session that fails, or takes its process down, never stops the others. Results are
yielded as they come.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfrseg.errors import DeviceError
from napari_cfrseg.io.atomic import clear_leftovers
from napari_cfrseg.session.format import SessionContent
from napari_cfrseg.session.references import backend_of
from napari_cfrseg.session.replay_session import Replayed, ReplayTask, replay_session

if TYPE_CHECKING:
    from napari_cfrseg.engine.backends import Backend
    from napari_cfrseg.engine.segmenter import Segmenter

#: a session whose process died so often is given up
TRIES = 2
CONNECT_S = 10.0


class KeptSegmenters:
    """Loads each model once per device and precision; sets the session's threads.

    The ``worker``-th of several processes takes a GPU of its own unless one is named.
    """

    def __init__(self, worker: int | None = None) -> None:
        self._worker = worker
        self._load = lru_cache(maxsize=2)(_load)

    def __call__(
        self, content: SessionContent, weights: Path, device: str
    ) -> Segmenter:
        """Return a segmenter for a session."""
        settings = content.settings
        if settings.threads is not None:
            import torch

            torch.set_num_threads(settings.threads)
        placed = self._placed(content, device)
        backend = backend_of(settings, placed)
        return self._load(weights, placed, settings.precision, backend)

    def _placed(self, content: SessionContent, device: str) -> str:
        recorded = device == content.settings.device and device.startswith("cuda")
        if self._worker is None or not (recorded or device in ("auto", "cuda")):
            return device
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"cuda:{self._worker % count}" if count else device


def _load(weights: Path, device: str, precision: str, backend: Backend) -> Segmenter:
    from napari_cfrseg.engine.segmenter import Segmenter

    return Segmenter.load(
        weights,
        device=device,
        precision=precision,  # type: ignore[arg-type]  # checked when the session was read
        backend=backend,
    )


def replay_all(tasks: Sequence[ReplayTask], workers: int = 1) -> Iterator[Replayed]:
    """Replay sessions and yield each one's result as soon as it is there.

    Each of the processes takes one GPU in turn, where there are any.
    """
    try:
        if workers <= 1 or len(tasks) <= 1:
            segmenter_for = KeptSegmenters()
            for task in tasks:
                yield replay_session(task, segmenter_for)
            return
        with _Pool(min(workers, len(tasks))) as pool:
            yield from pool.run(tasks)
    finally:
        _tidy(tasks)


def _tidy(tasks: Sequence[ReplayTask]) -> None:
    """Remove what workers that were killed had begun to write."""
    endings = ("labels", "replay", "compare")
    stems: dict[Path, set[str]] = {}
    for task in tasks:
        names = stems.setdefault(task.output, set())
        names.update(f"{task.name}.{ending}" for ending in endings)
    for folder, names in stems.items():
        clear_leftovers(folder, names)


@dataclass(slots=True)
class _Worker:
    number: int
    process: Any
    pipe: Connection
    task: ReplayTask | None = None


@dataclass(slots=True)
class _Pool:
    """Worker processes, each with one task at a time; a dead one is replaced."""

    count: int
    workers: list[_Worker] = field(default_factory=list)
    context: Any = field(default_factory=lambda: multiprocessing.get_context("spawn"))

    def __enter__(self) -> _Pool:
        self.workers = [self._start(number) for number in range(self.count)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()

    def _start(self, number: int) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_serve, args=(theirs, number), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(number, process, ours)

    def run(self, tasks: Sequence[ReplayTask]) -> Iterator[Replayed]:
        waiting = deque(tasks)
        tries: dict[tuple[Path, str], int] = {}
        while waiting or any(w.task is not None for w in self.workers):
            for worker in self.workers:
                if worker.task is None and waiting:
                    self._give(worker, waiting.popleft())
            busy = {w.pipe: w for w in self.workers if w.task is not None}
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]  # only Connections are waited for
                task = worker.task
                if task is None:
                    continue
                try:
                    yield worker.pipe.recv()
                    worker.task = None
                except (EOFError, OSError):
                    key = (task.session, task.name)
                    tries[key] = tries.get(key, 0) + 1
                    reason = self._replace(worker)
                    if tries[key] < TRIES:
                        waiting.append(task)
                    else:
                        yield Replayed(str(task.session), "failed", reason)

    def _give(self, worker: _Worker, task: ReplayTask) -> None:
        worker.task = task
        try:
            worker.pipe.send(task)
        except OSError:
            return  # it died: its pipe says so when it is read

    def _replace(self, worker: _Worker) -> str:
        worker.process.join()
        code = worker.process.exitcode
        worker.pipe.close()
        new = self._start(worker.number)
        worker.process, worker.pipe, worker.task = new.process, new.pipe, None
        return f"its process ended with exit code {code} (out of memory?)"


def _serve(pipe: Connection, number: int) -> None:
    """Replay what comes through the pipe; the body of a worker process."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    segmenter_for = KeptSegmenters(number)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        result = replay_session(task, segmenter_for)
        try:
            pipe.send(result)
        except OSError:
            return


# -- Dask ----------------------------------------------------------------------------

_here = threading.local()


def replay_on_worker(task: ReplayTask) -> Replayed:
    """Replay one session on a Dask worker; its models stay with its thread."""
    if not hasattr(_here, "segmenters"):
        _here.segmenters = KeptSegmenters()
    return replay_session(task, _here.segmenters)


def replay_on_cluster(
    tasks: Sequence[ReplayTask], scheduler: str
) -> Iterator[Replayed]:
    """Replay sessions on the workers of a Dask scheduler, ``tcp://host:8786``.

    Its workers see the same files under the same paths; start them with one thread
    each. A DeviceError says that dask is not installed or nothing answers.
    """
    try:
        import distributed
    except ImportError as error:
        msg = "--scheduler needs dask: python -m pip install 'napari-cfrseg[cluster]'"
        raise DeviceError(msg) from error
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        msg = f"the scheduler at {scheduler} does not answer ({error})"
        raise DeviceError(msg) from error
    with client:
        try:
            yield from _from_cluster(client, tasks)
        finally:
            _tidy(tasks)


def _from_cluster(client: Any, tasks: Sequence[ReplayTask]) -> Iterator[Replayed]:
    import distributed

    futures = client.map(replay_on_worker, list(tasks), pure=False, retries=TRIES)
    by_key = {f.key: task for f, task in zip(futures, tasks, strict=True)}
    for future in distributed.as_completed(futures, loop=client.loop):
        if future.status == "finished":
            yield future.result()
        else:
            said = " ".join(str(future.exception()).split())[:300]
            task = by_key[future.key]
            yield Replayed(str(task.session), "failed", f"on the cluster: {said}")
        future.release()
