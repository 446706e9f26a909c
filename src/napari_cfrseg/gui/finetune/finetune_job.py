"""From layers to a fine-tuning in a process of its own; no Qt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import CfrSegError, DatasetError
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.model.weights_file import SUFFIX, models_folder
from napari_cfrseg.training_job import JobStatus, TrainingJob, list_jobs

if TYPE_CHECKING:
    from napari.layers import Image, Labels


#: labelled planes of a stack that are handed over
MOST_PLANES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """What layers hold, taken on the window's thread and read on another.

    Attributes
    ----------
    name
        Of the image.
    image
        (…, Y, X) or (…, Y, X, C) array, lazy or not.
    labels
        (…, Y, X) integer array.
    rgb
        Whether the image's last axis counts colours.
    """

    name: str
    image: Any
    labels: Any
    rgb: bool


def pixels_of(image: Image, labels: Labels) -> Pixels:
    """Take the arrays of two layers; of a pyramid the level that fits the labels.

    Raises
    ------
    DatasetError
        No level of the image has the labels' shape.
    """
    shape = tuple(int(n) for n in labels.data.shape)
    levels = list(image.data) if image.multiscale else [image.data]
    for level in levels:
        found = tuple(int(n) for n in level.shape)
        if (found[:-1] if image.rgb else found) == shape:
            return Pixels(image.name, level, labels.data, bool(image.rgb))
    shapes = ", ".join(str(tuple(level.shape)) for level in levels)
    msg = (
        f"{labels.name} has shape {shape}, {image.name} {shapes}: choose the labels "
        "that were drawn on this image"
    )
    raise DatasetError(msg)


def write_pixels(pixels: Pixels, folder: Path) -> None:
    """Write the labelled planes as ``images/NAME.tif`` and ``labels/NAME.tif``.

    Raises
    ------
    DatasetError
        Nothing is labelled.
    """
    import tifffile

    planes = list(_labelled_planes(pixels))
    if not planes:
        msg = "the labels are empty: paint or click at least two objects first"
        raise DatasetError(msg)
    step = max(1, len(planes) // MOST_PLANES)
    chosen = planes[::step][:MOST_PLANES]
    images = np.stack([image for image, _ in chosen])
    labels = np.stack([own for _, own in chosen]).astype(np.int32)
    if len(chosen) == 1:
        images, labels = images[0], labels[0]
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in pixels.name)
    for part, array in (("images", images), ("labels", labels)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        path = folder / part / f"{name or 'image'}.tif"
        tifffile.imwrite(path, array, compression="zlib", photometric="minisblack")


def _labelled_planes(
    pixels: Pixels,
) -> Iterator[tuple[NDArray[Any], NDArray[np.integer[Any]]]]:
    leading = pixels.labels.shape[:-2]
    for plane in np.ndindex(*leading):
        own = np.asarray(pixels.labels[plane])
        if own.any():
            yield np.asarray(pixels.image[plane]), own


def free_name(name: str) -> str:
    """Return a model's name that is not taken, safe as a file's name."""
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-")
    safe = safe or "my-model"
    folder, number, found = models_folder(), 1, safe
    while (folder / f"{found}{SUFFIX}").exists():
        number += 1
        found = f"{safe}-{number}"
    return found


def request_of(
    name: str, base: str, minutes: float, *, sparse: bool, folder: Path | None
) -> dict[str, Any]:
    """Return what ``cfrseg-train`` reads of a job.

    Parameters
    ----------
    folder
        One's own labelled images; None: those in the job's folder.
    sparse
        Whether unlabelled pixels may hold further objects.
    """
    return {
        "base": base,
        "minutes": float(minutes),
        "output": str((models_folder() / f"{name}{SUFFIX}").absolute()),
        "data": {
            "folders": ["." if folder is None else str(folder.absolute())],
            "ignore": "sparse" if sparse else "background",
        },
    }


def start_program(job: TrainingJob) -> subprocess.Popen[bytes]:
    """Start the job's program, or let a killed one go on; it outlives this process."""
    (job.folder / "beat").touch()
    job.set_control("run")
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
        apart = {"creationflags": detached}
    # workers that spin would take the window's share of the processor
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    with (job.folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cfrseg_training.command", "--job", str(job.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=job.folder,
            env=environment,
            **apart,
        )


def last_words(job: TrainingJob) -> str:
    """Return the last line its program printed."""
    try:
        text = (job.folder / "log.txt").read_text("utf-8", errors="replace")
    except OSError:
        return "it printed nothing"
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"


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
                job.write_status(JobStatus("failed", 0.0, None, self._write_error))

        self._writing = threading.Thread(target=work, name="cfrseg-hand-over")
        self._writing.start()
