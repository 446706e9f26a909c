"""The same runner over a Dask cluster.

Each task is a few objects of one plane. A worker builds the segmenter once per thread
and keeps it; tasks of a worker that dies go to the others. Workers need the package,
and the data and weights under the same paths. Start them with one thread each::

    dask scheduler
    dask worker tcp://HOST:8786 --nworkers 4 --nthreads 1
    cfrseg evaluate DATA --out RUN --scheduler tcp://HOST:8786
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.loop import (
    AnySegmenter,
    RunSettings,
    SegmenterFactory,
    evaluate_plane,
)
from napari_cfrseg.evaluation.objects import BenchmarkObject, group_by_plane
from napari_cfrseg.evaluation.rows import ObjectRow

OBJECTS_PER_TASK = 4
#: a task whose workers died so often is given up
TRIES = 5
CONNECT_S = 10.0


def evaluate_on_cluster(
    scheduler: str,
    segmenter_factory: SegmenterFactory,
    objects: Sequence[BenchmarkObject],
    *,
    settings: RunSettings,
) -> Iterator[ObjectRow]:
    """Click objects on the workers of a Dask scheduler.

    Parameters
    ----------
    scheduler
        Its address, for example ``tcp://host:8786``.
    segmenter_factory
        Hashable and picklable (a :class:`SegmenterSpec`).
    objects, settings
        As for :func:`~napari_cfrseg.evaluation.processes.evaluate_objects`.

    Raises
    ------
    DatasetError
        If dask is not installed, the scheduler does not answer, or a task's workers
        died too often.
    """
    distributed = _import_distributed()
    tasks = [
        group[start : start + OBJECTS_PER_TASK]
        for group in group_by_plane(objects)
        for start in range(0, len(group), OBJECTS_PER_TASK)
    ]
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except OSError as error:
        msg = f"no Dask scheduler answers at {scheduler}: {error}"
        raise DatasetError(msg) from error
    with client, client.as_current():
        futures = [
            client.submit(
                evaluate_task,
                segmenter_factory,
                task,
                settings,
                pure=False,
                retries=TRIES,
            )
            for task in tasks
        ]
        try:
            for future in distributed.as_completed(futures):
                yield from future.result()
                future.release()
        except distributed.KilledWorker as error:
            msg = f"the workers of {scheduler} keep dying: {error}"
            raise DatasetError(msg) from error


def evaluate_task(
    segmenter_factory: SegmenterFactory,
    objects: Sequence[BenchmarkObject],
    settings: RunSettings,
) -> list[ObjectRow]:
    """Click the objects of one plane on a worker."""
    segmenter = _keep_segmenter(segmenter_factory, threading.get_ident())
    return list(evaluate_plane(segmenter, objects, settings))


@lru_cache(maxsize=4)
def _keep_segmenter(factory: SegmenterFactory, thread: int) -> AnySegmenter:
    """Build a segmenter once per worker thread: it holds the image that is set."""
    del thread
    return factory()


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        msg = '--scheduler needs dask: pip install "napari-cfrseg[cluster]"'
        raise DatasetError(msg) from error
    return distributed
