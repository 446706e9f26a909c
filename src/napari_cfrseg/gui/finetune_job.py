"""From layers to a fine-tuning in a process of its own; no Qt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import CfrSegError, DatasetError
from napari_cfrseg.gui.segment.working_image import WorkingImage
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.model.weights_file import SUFFIX, models_folder
from napari_cfrseg.training_job import JobStatus, TrainingJob, list_jobs

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer


#: the training program, which leaves the processor to clicks
PROGRAM = (sys.executable, "-m", "cfrseg_training.command", "--background")
#: labelled planes of a stack that are handed over
MOST_PLANES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """The arrays of two layers, taken on the window's thread and read on another.

    ``image`` is (…, Y, X), or (…, Y, X, C) for ``rgb`` and for channels; ``labels`` are
    (…, Y, X).
    """

    name: str
    image: Any
    labels: Any
    rgb: bool


def labelled_images(layers: Iterable[Layer]) -> list[tuple[Image, Labels]]:
    """Return images with the labels that were drawn on them, in the layers' order.

    Labels belong to an image of their shape: to the one whose name theirs begins with
    ("cells", "cells objects"), else to the nearest below them. Of several on one image
    the topmost that are visible count.
    """
    from napari.layers import Image, Labels

    listed, found = list(layers), dict[Image, Labels]()
    drawn = [layer for layer in reversed(listed) if isinstance(layer, Labels)]
    for labels in sorted(drawn, key=lambda layer: not layer.visible):
        below = listed[: listed.index(labels)]
        fits = [x for x in listed if type(x) is Image and _fits(x, labels)]
        named = [x for x in fits if labels.name.startswith(x.name)]
        named.sort(key=lambda image: len(image.name))
        nearest = (named, [x for x in fits if x in below], fits)
        image = next((some[-1] for some in nearest if some), None)
        if image is not None:
            found.setdefault(image, labels)
    return sorted(found.items(), key=lambda pair: listed.index(pair[0]))


def _fits(image: Image, labels: Labels) -> bool:
    """Whether labels have an image's shape; no pixel is read."""
    counts_channels = _leave_channels_out(WorkingImage.of(image), labels)
    return counts_channels or _level_of(image, labels) is not None


def _leave_channels_out(found: WorkingImage, labels: Labels) -> bool:
    """Whether labels have an image's shape but for the axis that counts channels."""
    counted = found.channel_axis is not None or len(found.layers) > 1
    return counted and _shape_of(labels) == found.to_own(found.shape, 1)


def _level_of(image: Image, labels: Labels) -> Any:
    """Return the level of an image that labels were drawn on, None if there is none."""
    for level in _levels(image):
        size = tuple(int(n) for n in level.shape)
        if (size[:-1] if image.rgb else size) == _shape_of(labels):
            return level
    return None


def _levels(image: Image) -> list[Any]:
    return list(image.data) if image.multiscale else [image.data]


def _shape_of(labels: Labels) -> tuple[int, ...]:
    return tuple(int(n) for n in labels.data.shape)


def pixels_of(
    image: Image, labels: Labels, viewer: ViewerModel | None = None
) -> Pixels:
    """Take the arrays of two layers; of a pyramid the level that fits the labels.

    Channels, along an axis or as layers of ``viewer``, are those that the click dock
    uses. Raises DatasetError if no level of the image has the labels' shape.
    """
    found = WorkingImage.of(image, viewer)
    if _leave_channels_out(found, labels):
        own = found.of_own_array(np.asarray(labels.data))
        return Pixels(image.name, found.data, own, False)
    level = _level_of(image, labels)
    if level is not None:
        return Pixels(image.name, level, labels.data, bool(image.rgb))
    shapes = ", ".join(str(tuple(level.shape)) for level in _levels(image))
    raise DatasetError(
        f"{labels.name} has shape {_shape_of(labels)}, {image.name} {shapes}: choose "
        "the labels that were drawn on this image"
    )


def write_pixels(images: Sequence[Pixels], folder: Path) -> None:
    """Write the labelled planes as ``images/NAME.tif`` and ``labels/NAME.tif``.

    Raises DatasetError if nothing is labelled.
    """
    written = [_write_one(pixels, folder) for pixels in images]
    if not any(written):
        msg = "the labels are empty: paint or click at least two objects first"
        raise DatasetError(msg)


def _write_one(pixels: Pixels, folder: Path) -> bool:
    """Write one image's labelled planes; False if there are none."""
    import tifffile

    planes = list(_labelled_planes(pixels))
    if not planes:
        return False
    step = max(1, len(planes) // MOST_PLANES)
    chosen = planes[::step][:MOST_PLANES]
    images = np.stack([image for image, _ in chosen])
    labels = np.stack([own for _, own in chosen]).astype(np.int32)
    if len(chosen) == 1:
        images, labels = images[0], labels[0]
    said: dict[str, Any] = {"photometric": "rgb" if pixels.rgb else "minisblack"}
    if images.ndim > labels.ndim and not pixels.rgb:
        images = np.moveaxis(images, -1, -3)
        said["metadata"] = {"axes": "QCYX"[-images.ndim :]}
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in pixels.name)
    name = name or "image"
    while (folder / "images" / f"{name}.tif").exists():
        name += "_"
    grey = {"photometric": "minisblack"}
    for part, array, kind in (("images", images, said), ("labels", labels, grey)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        path = folder / part / f"{name}.tif"
        tifffile.imwrite(path, array, compression="zlib", **kind)
    return True


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
    folder, number, free = models_folder(), 1, safe
    while (folder / f"{free}{SUFFIX}").exists():
        number += 1
        free = f"{safe}-{number}"
    return free


def request_of(
    name: str, base: str, minutes: float, *, sparse: bool, folder: Path | None
) -> dict[str, Any]:
    """Return the settings that ``cfrseg-train`` reads of a job.

    ``folder`` has one's own labelled images; None: they are in the job's folder.
    ``sparse`` says whether unlabelled pixels may hold further objects.
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
    """Start the job's program, new or interrupted; it outlives this process."""
    (job.folder / "beat").touch()
    job.set_control("run")
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
        apart = {"creationflags": detached}
    # threads that spin while they wait would slow the window down
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    with (job.folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [*PROGRAM, "--job", str(job.folder)],
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
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "it printed nothing"


def advice(report: Mapping[str, Any]) -> str:
    """Return the change in clicks and the program's suggestions, a line each."""
    lines = [str(line) for line in report.get("suggestions", ())]
    if report:
        lines.insert(
            0,
            f"Change {report['difference']:+.2f} clicks (95 % interval "
            f"{report['low']:+.2f} to {report['high']:+.2f}), tested on "
            f"{report['how']}.",
        )
    return "\n".join(f"• {line}" for line in lines)


def title_of(job: TrainingJob) -> str:
    """Return a job's line in the list: its model, when it began, and its verdict."""
    stamp, _, rest = job.folder.name.partition("-")
    clock, _, rest = rest.partition("-")
    name = rest.partition("-")[2] or job.folder.name
    day = f"{stamp[4:6]}-{stamp[6:]} {clock[:2]}:{clock[2:4]}"
    status = job.status
    return f"{name} · {status.verdict or status.phase} · {day}"


_PHASES = {
    "waiting": "Starting the program that trains …",
    "reading": "Reading images and labels …",
    "judging before": "Counting the clicks that the base model needs …",
    "training": "Training",
    "judging after": "Counting the clicks that the new model needs …",
}


def progress_text(status: JobStatus) -> str:
    """Return a job's phase, the time left and its message in two lines."""
    left, seconds = "", status.eta_s
    if seconds is not None and status.phase not in ("done", "failed"):
        time = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        left = f" · {time} left"
    phase = _PHASES.get(status.phase, status.phase.capitalize())
    return f"{phase}{left}\n{status.message}"


class FineTuneRun:
    """The jobs; ``job`` is the one that is shown, None before there is one."""

    def __init__(self) -> None:
        self.job: TrainingJob | None = None
        self._processes: dict[Path, subprocess.Popen[bytes]] = {}
        #: the job that pixels are written for, and the thread that does it
        self._writing: tuple[TrainingJob, threading.Thread] | None = None
        self._write_error = ""

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The shown job's program, if this process started it."""
        return None if self.job is None else self._processes.get(self.job.folder)

    @property
    def is_active(self) -> bool:
        """Whether the shown job's pixels are being written or its program runs."""
        return self.job is not None and self._runs(self.job)

    @property
    def is_busy(self) -> bool:
        """Whether any job is active."""
        return any(self._runs(job) for job in list_jobs())

    def _runs(self, job: TrainingJob) -> bool:
        if self._writing is not None and self._writing[0].folder == job.folder:
            return True
        if job.is_finished:
            return False
        process = self._processes.get(job.folder)
        return job.is_running if process is None else process.poll() is None

    @property
    def is_interrupted(self) -> bool:
        """Whether the shown job neither ended nor runs."""
        known = self.job is not None and not self.job.is_finished
        return known and not self.is_active

    @property
    def has_more(self) -> bool:
        """Whether deleting the shown job loses something: it can go on, or be kept."""
        job = self.job
        if job is None or self.is_interrupted:
            return job is not None
        kept = Path(str(job.request.get("output", "")))
        return job.status.verdict == "not proven" and not kept.is_file()

    def find(self) -> None:
        """Show the newest job that has not ended, else the newest."""
        jobs = list_jobs()
        unfinished = [job for job in jobs if not job.is_finished]
        self.job = next(iter((*unfinished, *jobs)), None)

    def begin(
        self, name: str, request: Mapping[str, Any], pixels: Sequence[Pixels]
    ) -> None:
        """Make a job and start its program, once pixels are written if there are any.

        Without pixels the request (see :func:`request_of`) names a folder.
        """
        self.job = TrainingJob.create(name, request)
        self._write_error = ""
        if not pixels:
            self.go_on()
            return
        job = self.job

        def work() -> None:
            try:
                write_pixels(pixels, job.folder)
                if job.control != "cancel":
                    self._processes[job.folder] = start_program(job)
            except (CfrSegError, OSError, ValueError) as error:
                self._write_error = f"the labels cannot be handed over: {error}"
                job.write_status(JobStatus("failed", 0.0, None, self._write_error))

        self._writing = job, threading.Thread(target=work, name="cfrseg-hand-over")
        self._writing[1].start()

    def go_on(self) -> None:
        """Start the program of the shown job, which may have been interrupted."""
        if self.job is not None:
            self._processes[self.job.folder] = start_program(self.job)

    def cancel(self) -> None:
        """End the shown job's program now; it can go on later."""
        if self.job is None:
            return
        self.job.set_control("cancel")
        if self.process is not None:  # it need not be so far as to read that
            self.process.kill()

    def delete(self) -> None:
        """Remove the shown job, which must have ended, and show another."""
        if self.job is not None and not self.is_active:
            self.job.delete()
            self.find()

    def hand_over_error(self) -> str:
        """Return why pixels could not be written, once; their job is then dropped."""
        if self._writing is None or self._writing[1].is_alive():
            return ""
        job, _ = self._writing
        self._writing = None
        if self._write_error:
            job.delete()
            if self.job is not None and self.job.folder == job.folder:
                self.job = None
        return self._write_error

    def keep_candidate(self) -> Path:
        """Return the shown job's model; copy one whose gain is not proven first.

        Raises OSError if it could not be written.
        """
        if self.job is None:
            raise OSError("there is no job")
        target = Path(str(self.job.request.get("output", "")))
        if not target.exists():
            source = Path(str(self.job.report.get("candidate", "")))
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
        return target

    def wait(self) -> None:
        """Wait until pixels are written."""
        if self._writing is not None:
            self._writing[1].join()
