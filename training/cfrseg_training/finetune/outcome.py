"""What became of a fine-tuning, for programs and for people."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cfrseg_training.finetune.gate import Figures, Verdict
from napari_cfrseg.training_job import JobStatus, TrainingJob


@dataclass(frozen=True, slots=True)
class Outcome:
    """A fine-tuning and its judgement.

    Attributes
    ----------
    verdict
        "kept", "not proven" or "refused".
    before, after
        Figures of the base model and of the fine-tuned one on held-out objects.
    difference, low, high
        Mean change in clicks to 90 %, after − before, and its 95 % interval.
    how
        How images were held out.
    held_out
        Names of the images that were judged on.
    steps, seconds
        Of the last training, and of everything.
    bundled_before, bundled_after
        Figures on the bundled micrographs: what was forgotten; None if not measured.
    chance
        p-value of the labels following their images
        (:mod:`cfrseg_training.finetune.fit`).
    suggestions
        What to try where the model was not kept.
    left_out
        Files that could not be used, with the reason.
    model
        Path of the new weights, or "".
    candidate
        Path of the weights in the job's folder, whatever the verdict, or "".
    """

    verdict: Verdict
    before: Figures
    after: Figures
    difference: float
    low: float
    high: float
    how: str
    held_out: tuple[str, ...]
    steps: int
    seconds: float
    bundled_before: Figures | None
    bundled_after: Figures | None
    chance: float
    suggestions: tuple[str, ...]
    left_out: Mapping[str, str]
    model: str = ""
    candidate: str = ""


def report_text(outcome: Outcome) -> str:
    """Lay an outcome out for people."""
    lines = [
        "                  objects  NoC@85  NoC@90  IoU@1  @2    @3    @4    @5",
    ]
    for name, before, after in (
        ("held out", outcome.before, outcome.after),
        ("bundled", outcome.bundled_before, outcome.bundled_after),
    ):
        for when, f in (("before", before), ("after", after)):
            if f is not None:
                ious = " ".join(
                    f"{v:.3f}" for v in (f.iou1, f.iou2, f.iou3, f.iou4, f.iou5)
                )
                lines.append(
                    f"{name:9s}{when:8s} {f.objects:7d}  {f.noc85:6.2f}  "
                    f"{f.noc90:6.2f}  {ious}"
                )
    lines.append(
        f"change in clicks to 90 %: {outcome.difference:+.2f} (95 % interval "
        f"{outcome.low:+.2f} to {outcome.high:+.2f}); judged by {outcome.how}: "
        f"{', '.join(outcome.held_out[:8])}"
    )
    lines.append(verdict_text(outcome))
    lines += [f"  - {text}" for text in outcome.suggestions]
    return "\n".join(lines)


def verdict_text(outcome: Outcome) -> str:
    """Say in one line what became of the model."""
    if outcome.verdict == "kept":
        return f"kept: {outcome.model}"
    if outcome.verdict == "not proven":
        if outcome.model:
            return f"not proven: kept as you asked: {outcome.model}"
        return "not proven, so not written (--keep-unproven writes it)"
    if outcome.difference > 0:
        return "refused: it needs more clicks than before; the old model stays"
    return "refused: the labels do not follow the images; the old model stays"


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
