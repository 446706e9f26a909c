"""A fine-tuning in a process of its own, controlled and followed through its folder.

The window writes the control and the program ``cfrseg-train --job FOLDER`` writes its
progress; either runs without the other. In the folder::

    job.json        the request (the command's settings)
    control         "run", "pause", "stop" or "cancel": what the user wants now
    status.json     phase, progress, seconds left, a message
    beat            touched every two seconds while the program runs
    progress.jsonl  a line per entry of the curve: loss, clicks to 90 %
    report.json     before, after, verdict
    log.txt         what the program printed
    *.pt            states from which a killed program continues
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from napari_cfrseg.io.atomic import data_folder, write_text

#: Environment variable that names the folder of the jobs.
VARIABLE = "CFRSEG_JOBS"
#: a program whose heartbeat is older is not running
DEAD_AFTER_S = 60.0
BEAT_S = 2.0
#: between two readings of the control, or two status files
EVERY_S = 0.5
#: exit code of a program that was cancelled
_CANCELLED = 130
FINISHED = ("done", "failed", "stopped")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The progress of a job."""

    #: "waiting", "reading", "judging before", "training", "paused", "judging after",
    #: "done", "stopped" (nothing of it was kept) or "failed"
    phase: str = "waiting"
    share: float = 0.0  #: share of the whole, 0 to 1
    eta_s: float | None = None  #: seconds left, None while unknown
    message: str = ""  #: what to show
    verdict: str = ""  #: once done: "kept", "not proven" or "refused"
    model: str = ""  #: path of the new weights, where they were written


def jobs_folder() -> Path:
    """Return the folder of all jobs; the variable ``CFRSEG_JOBS`` overrides it."""
    return data_folder("fine-tuning", VARIABLE)


def list_jobs() -> list[TrainingJob]:
    """Return all jobs, newest first."""
    jobs = [TrainingJob(path.parent) for path in jobs_folder().glob("*/job.json")]
    return sorted(jobs, key=lambda job: job.folder.name, reverse=True)


class TrainingJob:
    """One job's folder, which holds ``job.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, name: str, request: Mapping[str, Any]) -> TrainingJob:
        """Make a folder for a new job; its name begins with the time."""
        parent, stamp = jobs_folder(), time.strftime("%Y%m%d-%H%M%S")
        for number in range(1000):
            if any(parent.glob(f"{stamp}-{number:03d}-*")):
                continue  # of the same second, but earlier
            folder = parent / f"{stamp}-{number:03d}-{name}"
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                break
        job = cls(folder)
        job._write("job.json", json.dumps(dict(request), indent=1))
        job.set_control("run")
        job.write_status(JobStatus())
        return job

    @property
    def request(self) -> dict[str, Any]:
        """The settings it was started with."""
        return self._read("job.json")

    @property
    def status(self) -> JobStatus:
        """Its progress."""
        values = self._read("status.json")
        known = {f.name for f in fields(JobStatus)}
        return JobStatus(**values) if values.keys() == known else JobStatus()

    @property
    def is_finished(self) -> bool:
        """Whether it ended, in any way."""
        return self.status.phase in FINISHED

    @property
    def is_running(self) -> bool:
        """Whether its program runs."""
        try:
            beat = (self.folder / "beat").stat().st_mtime
        except OSError:
            return False
        return not self.is_finished and time.time() - beat < DEAD_AFTER_S

    @property
    def control(self) -> str:
        """The user's wish: "run", "pause", "stop" or "cancel"."""
        with suppress(OSError):
            return (self.folder / "control").read_text("utf-8").strip()
        return "run"

    @property
    def report(self) -> dict[str, Any]:
        """Before, after, verdict; empty until there is one."""
        return self._read("report.json")

    def delete(self) -> None:
        """Remove the folder; a model that was kept is not in it and stays."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def curve(self) -> list[dict[str, float]]:
        """Return the entries of the curve so far."""
        rows = []
        with suppress(OSError):
            text = (self.folder / "progress.jsonl").read_text("utf-8")
            for line in text.splitlines():
                with suppress(ValueError):  # the last line may be half written
                    rows.append(json.loads(line))
        return rows

    def set_control(self, what: str) -> None:
        """Ask the program to "run", "pause", "stop", or "cancel" (end as if killed)."""
        if what not in ("run", "pause", "stop", "cancel"):
            raise ValueError(f"{what!r}: expected run, pause, stop or cancel")
        self._write("control", what)

    def write_status(self, status: JobStatus) -> None:
        """Write the status (the program does)."""
        self._write("status.json", json.dumps(asdict(status)))

    def start_heartbeat(self) -> None:
        """Touch ``beat`` until the process ends, or end it (the program does).

        A cancelled program can be anywhere: its states are whole at any time, and it
        can be continued.
        """
        beat = self.folder / "beat"
        beat.touch()

        def go_on() -> None:
            while self.folder.is_dir():
                with suppress(OSError):
                    if self.control == "cancel":
                        beat.unlink()
                        os._exit(_CANCELLED)
                    beat.touch()
                time.sleep(BEAT_S)

        threading.Thread(target=go_on, name="cfrseg-beat", daemon=True).start()

    def _write(self, name: str, text: str) -> None:
        write_text(self.folder / name, text)

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write figures and verdict (the program does)."""
        self._write("report.json", json.dumps(dict(report)))

    def _read(self, name: str) -> dict[str, Any]:
        try:
            values = json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}


def yield_to_others() -> None:
    """Give this process the lowest priority, so that clicks are computed first.

    Linux shares the processor between sessions before it looks at a process's
    priority, so the session's is lowered, too. Call it before threads are started.
    """
    if sys.platform == "win32":
        import ctypes

        kernel, idle = ctypes.windll.kernel32, 0x40
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), idle)
        return
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")


def verdict_sentence(report: Mapping[str, Any]) -> str:
    """Return a report's verdict as one sentence; "" without a report.

    Examples
    --------
    >>> verdict_sentence({"verdict": "refused", "difference": 1.74})
    'Needs 1.7 clicks more per object than before on your images: not kept.'
    >>> verdict_sentence({"verdict": "refused", "difference": 0.02})
    'Needs as many clicks per object as before on your images: not kept.'
    """
    if not report:
        return ""
    verdict, change = report["verdict"], float(report["difference"])
    count, chance = "as many clicks per object as", ""
    if f"{abs(change):.1f}" != "0.0":
        direction = "more" if change > 0 else "fewer"
        count = f"{abs(change):.1f} clicks {direction} per object than"
        chance = ", which may be chance"
    clicks = f"Needs {count} before on your images"
    if verdict == "kept":
        return f"{clicks}: kept."
    if verdict == "refused":
        if change > 0:
            return f"{clicks}: not kept."
        return "The labels do not follow the images: not kept."
    if report.get("model"):
        return f"{clicks}{chance}: kept as you asked."
    return f"{clicks}{chance}: not kept unless you decide so."


class JobReporter:
    """Writes a training's progress into a job's folder and obeys its control."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self._written_at = self._read_at = 0.0
        self._last = JobStatus()

    def phase(
        self, name: str, share: float, eta_s: float | None = None, message: str = ""
    ) -> None:
        """Write the status; within a phase not more often than ``EVERY_S``."""
        now = time.monotonic()
        if name == self._last.phase and now - self._written_at < EVERY_S:
            return
        self._written_at = now
        self._last = JobStatus(name, min(1.0, share), eta_s, message)
        self.job.write_status(self._last)

    def row(self, row: Mapping[str, float]) -> None:
        """Add an entry to the job's curve."""
        with (self.job.folder / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")

    def may_continue(self) -> bool:
        """Wait while the control is "pause"; return False at "stop"."""
        now = time.monotonic()
        if now - self._read_at < EVERY_S:
            return True
        self._read_at = now
        control = self.job.control
        if control == "pause":
            self.job.write_status(replace(self._last, phase="paused"))
            while control == "pause":
                time.sleep(EVERY_S)
                control = self.job.control
            self.job.write_status(self._last)
        return control != "stop"
