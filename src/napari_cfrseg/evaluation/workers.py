"""Let a robot click objects with any segmenter, in one process or many.

Needs NumPy, SciPy and scikit-image only (and what the segmenter needs), so it runs
inside training and on machines without the package's other dependencies.

>>> rows = list(evaluate_objects(make_segmenter, objects))     # doctest: +SKIP
>>> mean_clicks_to([row.ious for row in rows], 0.90)           # doctest: +SKIP
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NoReturn

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets import BenchmarkObject, group_by_plane
from napari_cfrseg.evaluation.evaluate_objects import (
    AnySegmenter,
    RunSettings,
    SegmenterFactory,
    evaluate_plane,
)
from napari_cfrseg.evaluation.scores import ObjectRow
from napari_cfrseg.processes import in_processes, on_cluster

Objects = Sequence[BenchmarkObject]


def evaluate_objects(
    segmenter_factory: SegmenterFactory,
    objects: Iterable[BenchmarkObject],
    *,
    settings: RunSettings | None = None,
    workers: int = 1,
) -> Iterator[ObjectRow]:
    """Click every object and yield its row as soon as it is done, plane by plane.

    The factory is called once per process: 1 worker runs in this one; more are spawned,
    each with one OpenMP thread unless OMP_NUM_THREADS is set, and the factory must be
    picklable. By default the robot is the papers' (20 clicks, target 0.90). Raises
    CfrSegError if data, weights or packages are missing, RuntimeError with its
    traceback if a worker process fails or is killed.
    """
    settings = settings or RunSettings()
    groups = group_by_plane(objects)
    if workers > 1 and groups:
        groups.sort(key=len, reverse=True)
        make = partial(_clicker, segmenter_factory, settings)
        yield from in_processes(make, groups, workers, _give_up)
        return
    segmenter = segmenter_factory() if groups else None
    for group in groups:
        yield from evaluate_plane(segmenter, group, settings)  # type: ignore[arg-type] # a group implies a segmenter


def _clicker(
    segmenter_factory: SegmenterFactory, settings: RunSettings, _number: int
) -> Callable[[Objects], Iterator[ObjectRow]]:
    """Return what clicks the objects of one plane, in a process of its own."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    segmenter = segmenter_factory()
    return lambda group: evaluate_plane(segmenter, group, settings)


def _give_up(_task: Objects, error: Exception) -> NoReturn:
    if type(error).__name__ == "KilledWorker":  # Dask's
        raise DatasetError(f"the cluster's workers keep dying: {error}") from error
    raise error


OBJECTS_PER_TASK = 4
#: a task whose workers died this often is given up
TRIES = 5


def evaluate_on_cluster(
    scheduler: str,
    segmenter_factory: SegmenterFactory,
    objects: Objects,
    *,
    settings: RunSettings,
) -> Iterator[ObjectRow]:
    """Click objects on the workers of a Dask scheduler, ``tcp://host:8786``.

    The factory must be hashable and picklable (a :class:`SegmenterSpec`). Raises
    DeviceError if dask is not installed or the scheduler does not answer.
    """
    tasks = [
        group[start : start + OBJECTS_PER_TASK]
        for group in group_by_plane(objects)
        for start in range(0, len(group), OBJECTS_PER_TASK)
    ]
    work = partial(_evaluate_task, segmenter_factory, settings)
    for rows in on_cluster(scheduler, work, tasks, _give_up, TRIES):
        yield from rows


def _evaluate_task(
    segmenter_factory: SegmenterFactory, settings: RunSettings, objects: Objects
) -> list[ObjectRow]:
    """Click the objects of one plane on a worker."""
    segmenter = _keep_segmenter(segmenter_factory, threading.get_ident())
    return list(evaluate_plane(segmenter, objects, settings))


@lru_cache(maxsize=4)
def _keep_segmenter(factory: SegmenterFactory, thread: int) -> AnySegmenter:
    """Build a segmenter once per worker thread: it holds the image that is set."""
    del thread
    return factory()
