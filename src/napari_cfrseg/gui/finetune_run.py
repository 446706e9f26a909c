"""The fine-tuning a dock looks after: begun, found again, gone on with, kept. No Qt.

The program lives by itself; what is held here is its folder and, where this process
started it, the process.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_cfrseg.atomic import atomic_path
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.gui.finetune_job import Pixels, start_program, write_pixels
from napari_cfrseg.training_job import JobStatus, TrainingJob, list_jobs


class FineTuneRun:
    """One job at a time, None before there is one.

    Attributes
    ----------
    job
        The job's folder.
    process
        Its program, if this process started it.
    """

    def __init__(self) -> None:
        self.job: TrainingJob | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._writing: threading.Thread | None = None
        self._write_error = ""

    @property
    def is_active(self) -> bool:
        """Whether pixels are handed over or the program lives."""
        if self._writing is not None:
            return True
        if self.job is None or self.job.is_finished:
            return False
        if self.process is not None:
            return self.process.poll() is None
        return self.job.is_running

    @property
    def is_interrupted(self) -> bool:
        """Whether there is a job that has not come to an end and does not run."""
        known = self.job is not None and not self.job.is_finished
        return known and not self.is_active

    def find(self) -> None:
        """Take up the newest job that has not come to an end."""
        for job in list_jobs():
            if not job.is_finished:
                self.job = job
                return

    def begin(
        self, name: str, request: Mapping[str, Any], pixels: Pixels | None
    ) -> None:
        """Make a job and start its program, after pixels are written if there are any.

        Parameters
        ----------
        name
            Of the new model.
        request
            What ``cfrseg-train`` reads of the job.
        pixels
            What is written beside the caller's thread; None: the request names a
            folder.
        """
        self.job = TrainingJob.create(name, request)
        self.process, self._write_error = None, ""
        if pixels is None:
            self.process = start_program(self.job)
        else:
            self._write_and_start(pixels, self.job)

    def go_on(self) -> None:
        """Start the program of an interrupted job again."""
        if self.job is not None:
            self.process = start_program(self.job)

    def hand_over_error(self) -> str:
        """Return why pixels could not be handed over, once; the job is then dropped."""
        if self._writing is None or self._writing.is_alive():
            return ""
        self._writing = None
        if self._write_error:
            self.job = None
        return self._write_error

    def keep_candidate(self) -> Path:
        """Copy a model whose gain is not proven to where the new one was to be.

        Returns
        -------
        Where that is.

        Raises
        ------
        OSError
            It could not be written.
        """
        report = {} if self.job is None else self.job.report
        request = {} if self.job is None else self.job.request
        source = Path(str(report.get("candidate", "")))
        target = Path(str(request.get("output", "")))
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
        return target

    def wait(self) -> None:
        """Wait until pixels that are being handed over are written."""
        if self._writing is not None:
            self._writing.join()

    def _write_and_start(self, pixels: Pixels, job: TrainingJob) -> None:
        def work() -> None:
            try:
                write_pixels(pixels, job.folder)
                self.process = start_program(job)
            except (CfrSegError, OSError, ValueError) as error:
                self._write_error = f"the labels cannot be handed over: {error}"
                job.tell(JobStatus("failed", 0.0, None, self._write_error))

        self._writing = threading.Thread(target=work, name="cfrseg-hand-over")
        self._writing.start()
