"""Many sessions: in this process, in several, or on a Dask cluster.

A session that fails, or takes its process down, never stops the others. Results are
yielded as they come.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cfrseg.errors import said_of
from napari_cfrseg.io.atomic import clear_leftovers
from napari_cfrseg.latest import Latest
from napari_cfrseg.processes import spread, use_threads
from napari_cfrseg.session.format import SessionContent
from napari_cfrseg.session.references import backend_of, load_segmenter
from napari_cfrseg.session.replay_session import (
    Replayed,
    ReplayTask,
    begun,
    replay_session,
)

if TYPE_CHECKING:
    from napari_cfrseg.engine.segmenter import Segmenter

#: a session whose process died this often is given up
TRIES = 2
#: models that are kept for the next session
_MOST_MODELS = 2


class KeptSegmenters:
    """Loads each model once per device and precision; sets the session's threads.

    The ``worker``-th of several processes takes a GPU of its own unless one is named.
    """

    def __init__(self, worker: int | None = None) -> None:
        self._worker = worker
        self._kept = Latest(_MOST_MODELS, lambda _: 1)
        self._own_threads = 0

    def __call__(
        self, content: SessionContent, weights: Path, device: str
    ) -> Segmenter:
        """Return a segmenter for a session."""
        import torch

        settings, placed = content.settings, self._placed(content, device)
        # one that names no number has torch's, not that of the session before it
        now = torch.get_num_threads()
        self._own_threads = self._own_threads or now
        wanted = settings.threads or self._own_threads
        if wanted != now:
            use_threads(wanted)
        key = weights, placed, settings.precision, backend_of(settings, placed)
        return self._kept.get(key, lambda: load_segmenter(content, weights, placed))

    def _placed(self, content: SessionContent, device: str) -> str:
        recorded = device == content.settings.device and device.startswith("cuda")
        if self._worker is None or not (recorded or device in ("auto", "cuda")):
            return device
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"cuda:{self._worker % count}" if count else device


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
    stems: dict[Path, set[str]] = {}
    for task in tasks:
        written = (task.labels_path, task.record_path, task.compare_path)
        names = stems.setdefault(task.output, set())
        names.update(path.stem for path in (*written, *task.export_paths))
    for folder, names in stems.items():
        clear_leftovers(folder, names)
