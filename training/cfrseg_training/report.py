"""Who hears how a fine-tuning goes: a log, or the folder of a job."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Protocol

from napari_cfrseg.training_job import JobStatus, TrainingJob

_log = logging.getLogger(__name__)


class Reporter(Protocol):
    """Hears of progress and says what the person wants."""

    def phase(
        self, name: str, share: float, eta_s: float | None = None, message: str = ""
    ) -> None:
        """Hear which phase it is, and how much of the whole is done."""

    def row(self, row: Mapping[str, float]) -> None:
        """Hear of an entry of the curve."""

    def goes_on(self) -> bool:
        """Wait through a pause; False: stop and keep the best so far."""


class LogReporter:
    """Writes phases into the log."""

    def phase(
        self, name: str, share: float, eta_s: float | None = None, message: str = ""
    ) -> None:
        """Log a phase once, when it begins."""
        if message:
            _log.info("%s: %s", name, message)

    def row(self, row: Mapping[str, float]) -> None:
        """Say nothing: the training logs its own entries."""

    def goes_on(self) -> bool:
        """Never stop."""
        return True


class JobReporter:
    """Writes into a job's folder and obeys its control.

    Parameters
    ----------
    job
        Whose folder.
    every_s
        Seconds between two looks at the control, and between two status files.
    """

    def __init__(self, job: TrainingJob, every_s: float = 0.5) -> None:
        self.job = job
        self.every_s = every_s
        self._told_at = self._asked_at = 0.0
        self._last = JobStatus()

    def phase(
        self, name: str, share: float, eta_s: float | None = None, message: str = ""
    ) -> None:
        """Write the status; within a phase not more often than ``every_s``."""
        now = time.monotonic()
        if name == self._last.phase and now - self._told_at < self.every_s:
            return
        self._told_at = now
        self._last = JobStatus(name, min(1.0, share), eta_s, message)
        self.job.tell(self._last)

    def row(self, row: Mapping[str, float]) -> None:
        """Add an entry to the job's curve."""
        self.job.add(row)

    def goes_on(self) -> bool:
        """Wait while the control says "pause"; False at "stop"."""
        now = time.monotonic()
        if now - self._asked_at < self.every_s:
            return True
        self._asked_at = now
        wanted = self.job.control
        if wanted == "pause":
            before = self._last
            self.job.tell(
                JobStatus("paused", before.share, before.eta_s, before.message)
            )
            while wanted == "pause":
                time.sleep(self.every_s)
                wanted = self.job.control
            self.job.tell(before)
        return wanted != "stop"
