"""Runners without a thread: at once, or when the test says so."""

from __future__ import annotations

from napari_cfrseg.errors import JobCancelled
from napari_cfrseg.gui.segment.worker import Job
from napari_cfrseg.gui.session.layer_imports import Here


class SyncRunner:
    """Runs each job at once, on the caller's thread."""

    def __init__(self) -> None:
        self._closed = False

    def submit(self, job: Job) -> None:
        if not self._closed:
            run(job)

    def close(self) -> None:
        self._closed = True


class HeldRunner(SyncRunner):
    """Keeps jobs until :meth:`release`, as a busy worker would."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Job] | None = None

    def hold(self) -> None:
        self.waiting = []

    def submit(self, job: Job) -> None:
        if self.waiting is None:
            super().submit(job)
        else:
            self.waiting.append(job)

    def release(self) -> None:
        while self.waiting:
            run(self.waiting.pop(0))
        self.waiting = None


def run(job: Job) -> None:
    def report(value: object) -> None:
        job.check()
        job.reported(value)

    try:
        job.check()
        result = job.work(report)
    except (Exception, JobCancelled) as error:  # noqa: BLE001 - the owner's matter
        job.failed(error)
    else:
        job.done(result)


def imported(read, controller, source) -> tuple[list[type], str]:
    """Import a layer or file at once: the steps' last events, and what is left out."""
    found = read(controller, source, Here.of(controller))
    found.send(controller)
    return [type(step[-1]) for step in found.steps], found.left
