"""Let a robot click objects with any segmenter, in one process or many.

Needs NumPy, SciPy and scikit-image only (and what the segmenter needs), so it runs
inside training and on machines without the package's other dependencies.

>>> rows = list(evaluate_objects(make_segmenter, objects))     # doctest: +SKIP
>>> mean_clicks_to([row.ious for row in rows], 0.90)           # doctest: +SKIP
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from napari_cfrseg.errors import CfrSegError, DatasetError
from napari_cfrseg.evaluation.datasets import BenchmarkObject, group_by_plane
from napari_cfrseg.evaluation.evaluate_objects import (
    AnySegmenter,
    RunSettings,
    SegmenterFactory,
    evaluate_plane,
)
from napari_cfrseg.evaluation.scores import ObjectRow

#: how often an idle worker looks whether its parent still lives
PARENT_CHECK_S = 2.0


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
        yield from _evaluate_in_processes(segmenter_factory, groups, settings, workers)
        return
    segmenter = segmenter_factory() if groups else None
    for group in groups:
        yield from evaluate_plane(segmenter, group, settings)  # type: ignore[arg-type] # a group implies a segmenter


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a worker process cannot go on.

    ``is_message``: the text is a message to the user, not a traceback.
    """

    text: str
    is_message: bool = False


def _serve(
    segmenter_factory: SegmenterFactory, settings: RunSettings, tasks: Any, results: Any
) -> None:
    """Work through planes until None comes; the body of a worker process."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        segmenter = segmenter_factory()
        for group in _take_tasks(tasks):
            for row in evaluate_plane(segmenter, group, settings):
                results.put(row)
    except CfrSegError as error:
        results.put(_Failure(str(error), is_message=True))
        return
    except Exception:  # noqa: BLE001 - the parent must see every error
        results.put(_Failure(traceback.format_exc()))
        return
    results.put(None)


def _take_tasks(tasks: Any) -> Iterator[list[BenchmarkObject]]:
    """Yield planes until None comes or the parent process has ended."""
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        try:
            group = tasks.get(timeout=PARENT_CHECK_S)
        except queue.Empty:
            continue
        if group is None:
            return
        yield group
    # a killed parent reads no results: do not wait for them to be written
    os._exit(1)


def _evaluate_in_processes(
    segmenter_factory: SegmenterFactory,
    groups: Sequence[Sequence[BenchmarkObject]],
    settings: RunSettings,
    workers: int,
) -> Iterator[ObjectRow]:
    context = multiprocessing.get_context("spawn")
    tasks, results = context.Queue(), context.Queue()
    count = min(workers, len(groups))
    for group in [*sorted(groups, key=len, reverse=True), *[None] * count]:
        tasks.put(group)
    served = (segmenter_factory, settings, tasks, results)
    processes = [
        context.Process(target=_serve, args=served, daemon=True) for _ in range(count)
    ]
    for process in processes:
        process.start()
    try:
        yield from _collect(processes, results)
    finally:
        for process in processes:
            process.terminate()
            process.join()
        tasks.cancel_join_thread()


def _collect(processes: Sequence[Any], results: Any) -> Iterator[ObjectRow]:
    busy = len(processes)
    while busy:
        try:
            result = results.get(timeout=1.0)
        except queue.Empty:
            dead = [p.exitcode for p in processes if p.exitcode not in (None, 0)]
            if dead:
                msg = f"a worker process ended with exit code {dead[0]}"
                raise RuntimeError(msg) from None
            continue
        if isinstance(result, _Failure) and result.is_message:
            raise CfrSegError(result.text)
        if isinstance(result, _Failure):
            msg = f"a worker process failed:\n{result.text}"
            raise RuntimeError(msg)
        if result is None:
            busy -= 1
        else:
            yield result


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

    The scheduler is named by its address (``tcp://host:8786``); the factory must be
    hashable and picklable (a :class:`SegmenterSpec`). Raises DatasetError if dask is
    not installed, the scheduler does not answer, or a task's workers died too often.
    """
    try:
        import distributed
    except ImportError as error:
        msg = '--scheduler needs dask: pip install "napari-cfrseg[cluster]"'
        raise DatasetError(msg) from error
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
        work = partial(evaluate_task, segmenter_factory, settings)
        again = {"pure": False, "retries": TRIES}
        futures = [client.submit(work, task, **again) for task in tasks]
        try:
            for future in distributed.as_completed(futures):
                yield from future.result()
                future.release()
        except distributed.KilledWorker as error:
            msg = f"the workers of {scheduler} keep dying: {error}"
            raise DatasetError(msg) from error


def evaluate_task(
    segmenter_factory: SegmenterFactory,
    settings: RunSettings,
    objects: Sequence[BenchmarkObject],
) -> list[ObjectRow]:
    """Click the objects of one plane on a worker."""
    segmenter = _keep_segmenter(segmenter_factory, threading.get_ident())
    return list(evaluate_plane(segmenter, objects, settings))


@lru_cache(maxsize=4)
def _keep_segmenter(factory: SegmenterFactory, thread: int) -> AnySegmenter:
    """Build a segmenter once per worker thread: it holds the image that is set."""
    del thread
    return factory()
