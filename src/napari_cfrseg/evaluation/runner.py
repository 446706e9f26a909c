"""Run a benchmark that can be killed and then continues where it stopped.

A run is a folder::

    RUN/run.json      what is measured: segmenter, robot, objects, versions, command
    RUN/rows.jsonl    one line per finished object, flushed to disk as it comes

Started again on the same folder, a run skips the objects that have a line (a line cut
short by a kill is dropped) and refuses to go on when anything that decides the result
has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets import BenchmarkObject
from napari_cfrseg.evaluation.evaluate_objects import RunSettings, evaluate_objects
from napari_cfrseg.evaluation.scores import ResultRow
from napari_cfrseg.evaluation.segmenters import SegmenterSpec

RUN_FORMAT = 1
_PACKAGES = ("napari-cfrseg", "numpy", "scipy", "scikit-image", "torch", "timm")

#: called after each object with its row, the number done and the number of all
Progress = Callable[[ResultRow, int, int], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished or unfinished run, as read from its folder."""

    folder: Path  #: where it is
    label: str  #: what tables call the segmenter
    settings: RunSettings  #: the robot's
    order: tuple[str, ...]  #: keys of all objects, in the order drawn
    rows: tuple[ResultRow, ...]  #: finished objects, in the order drawn
    info: Mapping[str, Any]  #: everything else in ``run.json``

    @property
    def is_finished(self) -> bool:
        """Whether every object has its row."""
        return len(self.rows) == len(self.order)


def run_benchmark(
    folder: Path,
    spec: SegmenterSpec,
    objects: Sequence[BenchmarkObject],
    *,
    settings: RunSettings | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> Run:
    """Measure a segmenter on objects, going on where the folder's run stopped.

    ``objects`` stand in the order drawn; ``progress`` is called after each.
    ``workers`` and ``scheduler`` are as for ``evaluate_objects``; a cluster's workers
    must see the data under the same paths. The command line is kept with the results.
    Raises DatasetError if the folder holds another run, or there is no object.
    """
    settings = settings or RunSettings()
    if not objects:
        raise DatasetError(
            "there is no object to click: all too small or too large, or none labelled"
        )
    identity = _identity(spec, objects, settings)
    folder.mkdir(parents=True, exist_ok=True)
    _start_or_resume(folder, identity, objects, command, spec.label)
    rows_path = folder / "rows.jsonl"
    done = {row.key for row in _read_rows(rows_path, repair=True)}
    left = [item for item in objects if item.key not in done]
    with rows_path.open("a", encoding="utf-8") as file:
        for row in evaluate_objects(
            spec, left, settings=settings, workers=workers, scheduler=scheduler
        ):
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
            os.fsync(file.fileno())
            done.add(row.key)
            if progress is not None:
                progress(row, len(done), len(objects))
    return read_run(folder)


def read_run(folder: Path) -> Run:
    """Read a run's folder; DatasetError if it holds no run."""
    path = folder / "run.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        settings = RunSettings(**info["identity"]["settings"])
        order = tuple(str(key) for key in info["objects"])
        label = str(info["label"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{folder} holds no run of cfrseg evaluate ({path}: {error!r})"
        raise DatasetError(msg) from error
    by_key = {row.key: row for row in _read_rows(folder / "rows.jsonl")}
    rows = tuple(by_key[key] for key in order if key in by_key)
    return Run(folder, label, settings, order, rows, info)


def find_run(folder: Path) -> Run:
    """Read a run from its folder, or from the report that holds just this one.

    Raises DatasetError if there is none, or more than one.
    """
    if (folder / "run.json").exists():
        return read_run(folder)
    paths = sorted((folder / "runs").glob("*/run.json"))
    if len(paths) == 1:
        return read_run(paths[0].parent)
    names = ", ".join(path.parent.name for path in paths) or "none"
    msg = f"{folder} must be a run, or a report of one run; its runs: {names}"
    raise DatasetError(msg)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _identity(
    spec: SegmenterSpec, objects: Sequence[BenchmarkObject], settings: RunSettings
) -> dict[str, Any]:
    """Everything that decides the results."""
    keys = "\n".join(item.key for item in objects)
    identity = {
        "format": RUN_FORMAT,
        "segmenter": asdict(spec),
        "weights_sha256": spec.fingerprint(),
        "settings": asdict(settings),
        "objects_sha256": hashlib.sha256(keys.encode()).hexdigest(),
    }
    as_read_back: dict[str, Any] = json.loads(json.dumps(identity))
    return as_read_back


def _start_or_resume(
    folder: Path,
    identity: Mapping[str, Any],
    objects: Sequence[BenchmarkObject],
    command: str,
    label: str,
) -> None:
    path = folder / "run.json"
    if path.exists():
        known = read_run(folder).info["identity"]
        changed = sorted(key for key in identity if identity[key] != known.get(key))
        if changed:
            raise DatasetError(
                f"{folder} holds another run ({', '.join(changed)} differ): name "
                "another folder, or delete this one"
            )
        return
    info = {
        "label": label,
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "cpu_count": os.cpu_count(),
        "identity": identity,
        "objects": [item.key for item in objects],
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _read_rows(path: Path, *, repair: bool = False) -> list[ResultRow]:
    """Read the finished rows; cut off what a kill left of an unfinished one."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if repair and len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    rows = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            rows.append(ResultRow.from_dict(json.loads(line)))
        except (ValueError, TypeError, AttributeError, DatasetError) as error:
            msg = f"{path}, line {number} is not a result row: {error}"
            raise DatasetError(msg) from error
    return rows
