"""Many sessions: in this process, in several, or on a Dask cluster.

A session that fails, or takes its process down, never stops the others. Results are
yielded as they come.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cfrseg.errors import said_of
from napari_cfrseg.io.atomic import clear_leftovers
from napari_cfrseg.processes import spread, use_threads
from napari_cfrseg.session.format import SessionContent
from napari_cfrseg.session.references import backend_of
from napari_cfrseg.session.replay_session import (
    Replayed,
    ReplayTask,
    begun,
    replay_session,
)

if TYPE_CHECKING:
    from napari_cfrseg.engine.backends import Backend
    from napari_cfrseg.engine.segmenter import Segmenter

#: a session whose process died this often is given up
TRIES = 2


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
        use_threads(settings.threads)
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


def replay_all(
    tasks: Sequence[ReplayTask], workers: int = 1, scheduler: str | None = None
) -> Iterator[Replayed]:
    """Replay sessions and yield each one's result as soon as it is there.

    Each of the processes takes one GPU in turn, where there are any. ``scheduler`` is
    the address of a Dask scheduler, ``tcp://host:8786``, whose workers do the work
    instead: they see the same files under the same paths; start them with one thread
    each. A DeviceError says that dask is not installed or nothing answers.
    """
    count = workers if len(tasks) > 1 else 1
    try:
        yield from spread(
            _replayer, tasks, _failed, TRIES, workers=count, scheduler=scheduler
        )
    finally:
        _tidy(tasks)


def _replayer(number: int | None) -> Callable[[ReplayTask], list[Replayed]]:
    """Return what replays a session and keeps its model for the next one."""
    if number is not None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    segmenter_for = KeptSegmenters(number)
    return lambda task: [replay_session(task, segmenter_for)]


def _failed(task: ReplayTask, error: Exception) -> Replayed:
    return replace(begun(task), reason=said_of(error)[:300])


def _tidy(tasks: Sequence[ReplayTask]) -> None:
    """Remove what workers that were killed had begun to write."""
    endings = ("labels", "replay", "compare")
    stems: dict[Path, set[str]] = {}
    for task in tasks:
        names = stems.setdefault(task.output, set())
        names.update(f"{task.name}.{ending}" for ending in endings)
    for folder, names in stems.items():
        clear_leftovers(folder, names)
