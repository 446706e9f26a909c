"""From layers to a fine-tuning in a process of its own; no Qt."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.checkpoint import SUFFIX, models_folder
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.training_job import TrainingJob

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
    job.want("run")
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
        apart = {"creationflags": detached}
    # workers that spin would take the window's share of the processor
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    with (job.folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cfrseg_training.cli", "--job", str(job.folder)],
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
