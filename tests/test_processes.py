"""Tasks in processes: results as they come, lost tasks, errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.processes import in_processes

Task = tuple[Path, str]


def maker(_number: int | None) -> Callable[[Task], Iterator[str]]:
    return work


def work(task: Task) -> Iterator[str]:
    folder, name = task
    yield f"{name} begun"
    if name == "dies" or (name == "dies once" and not (folder / "died").exists()):
        (folder / "died").touch()
        os._exit(9)
    if name == "lacks data":
        raise DatasetError("no such folder")
    if name == "is wrong":
        raise KeyError("this name")
    yield f"{name} done"


def lost(task: Task, error: Exception) -> str:
    return f"{task[1]} lost: {error}"


def results(folder: Path, *names: str, tries: int = 1) -> list[str]:
    tasks = [(folder, name) for name in names]
    return sorted(in_processes(maker, tasks, 2, lost, tries))


def test_a_task_that_takes_its_process_down_takes_no_other(tmp_path: Path) -> None:
    assert results(tmp_path, "one", "dies", "two") == [
        "dies begun",
        "dies lost: its process ended with exit code 9 (out of memory?)",
        "one begun",
        "one done",
        "two begun",
        "two done",
    ]


def test_a_task_that_is_tried_again_counts_once(tmp_path: Path) -> None:
    found = results(tmp_path, "dies once", "one", tries=2)
    assert found == ["dies once begun", "dies once done", "one begun", "one done"]


def test_errors_are_raised_where_the_results_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        results(tmp_path, "lacks data")
    with pytest.raises(RuntimeError, match="KeyError: 'this name'"):
        results(tmp_path, "is wrong")
