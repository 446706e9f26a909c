"""A fine-tuning that runs in a process of its own, seen through its folder.

The window writes what is wanted and the program ``cfrseg-train --job FOLDER`` writes
how far it is; neither needs the other to live. In the folder::

    job.json        what was asked for (the command's arguments)
    control         "run", "pause" or "stop": what the person wants now
    status.json     phase, progress, seconds left, a message
    beat            touched every two seconds while the program lives
    progress.jsonl  a line per entry of the curve: loss, clicks to 90 %
    report.json     before, after, verdict
    log.txt         what the program printed
    *.pt            states from which a killed program goes on
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.io.user_folders import data_folder

#: Environment variable that names the folder of the jobs.
VARIABLE = "CFRSEG_JOBS"
#: a program whose beat is older is not running
DEAD_AFTER_S = 60.0
BEAT_S = 2.0
FINISHED = ("done", "failed", "stopped")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job is.

    Attributes
    ----------
    phase
        "waiting", "reading", "judging before", "training", "paused", "judging after",
        "done", "stopped" (nothing was kept of it) or "failed".
    share
        Of the whole, 0 to 1.
    eta_s
        Seconds left, None where nothing is known yet.
    message
        What to show.
    verdict
        Once done: "kept", "not proven" or "refused".
    model
        Path of the new weights, where they were written.
    """

    phase: str = "waiting"
    share: float = 0.0
    eta_s: float | None = None
    message: str = ""
    verdict: str = ""
    model: str = ""


def jobs_folder() -> Path:
    """Where jobs live; the variable ``CFRSEG_JOBS`` overrides it."""
    return data_folder("fine-tuning", VARIABLE)


def list_jobs(root: Path | None = None) -> list[TrainingJob]:
    """Return all jobs, newest first."""
    folder = jobs_folder() if root is None else root
    if not folder.is_dir():
        return []
    found = [TrainingJob(path.parent) for path in folder.glob("*/job.json")]
    return sorted(found, key=lambda job: job.folder.name, reverse=True)


class TrainingJob:
    """One job's folder.

    Parameters
    ----------
    folder
        Holds ``job.json``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(
        cls, name: str, request: Mapping[str, Any], root: Path | None = None
    ) -> TrainingJob:
        """Make a folder for a new job; its name begins with the time."""
        parent = jobs_folder() if root is None else root
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for number in range(1000):
            folder = parent / f"{stamp}-{number:03d}-{name}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            break
        job = cls(folder)
        job._write("job.json", json.dumps(dict(request), indent=1))
        job.want("run")
        job.tell(JobStatus())
        return job

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for."""
        found = self._read("job.json")
        return found if isinstance(found, dict) else {}

    @property
    def status(self) -> JobStatus:
        """How far it is."""
        found = self._read("status.json")
        known = {f.name for f in fields(JobStatus)}
        status = JobStatus()
        if isinstance(found, dict) and set(found) == known:
            status = JobStatus(**found)
        return status

    @property
    def is_finished(self) -> bool:
        """Whether it came to an end, whichever."""
        return self.status.phase in FINISHED

    @property
    def is_running(self) -> bool:
        """Whether its program lives."""
        try:
            beat = (self.folder / "beat").stat().st_mtime
        except OSError:
            return False
        return not self.is_finished and time.time() - beat < DEAD_AFTER_S

    @property
    def control(self) -> str:
        """What the person wants: "run", "pause" or "stop"."""
        with suppress(OSError):
            return (self.folder / "control").read_text("utf-8").strip()
        return "run"

    @property
    def report(self) -> dict[str, Any]:
        """Before, after, verdict; empty until there is one."""
        found = self._read("report.json")
        return found if isinstance(found, dict) else {}

    def curve(self) -> list[dict[str, float]]:
        """Return the entries of the curve so far."""
        rows = []
        with suppress(OSError):
            text = (self.folder / "progress.jsonl").read_text("utf-8")
            for line in text.splitlines():
                with suppress(ValueError):  # the last line may be half written
                    rows.append(json.loads(line))
        return rows

    def want(self, what: str) -> None:
        """Ask the program to "run", "pause" or "stop"."""
        if what not in ("run", "pause", "stop"):
            msg = f"{what!r}: expected run, pause or stop"
            raise ValueError(msg)
        self._write("control", what)

    def tell(self, status: JobStatus) -> None:
        """Say how far it is (the program does)."""
        self._write("status.json", json.dumps(asdict(status)))

    def add(self, row: Mapping[str, float]) -> None:
        """Add an entry to the curve (the program does)."""
        with (self.folder / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")

    def start_beating(self) -> None:
        """Touch ``beat`` until the process ends (the program does)."""
        beat = self.folder / "beat"
        beat.touch()

        def go_on() -> None:
            while self.folder.is_dir():
                with suppress(OSError):
                    beat.touch()
                time.sleep(BEAT_S)

        threading.Thread(target=go_on, name="cfrseg-beat", daemon=True).start()

    def _write(self, name: str, text: str) -> None:
        with atomic_path(self.folder / name) as path:
            path.write_text(text, encoding="utf-8")

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError):
            return None
