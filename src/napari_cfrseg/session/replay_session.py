"""One session replayed into a folder: labels, how they were made, what changed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg import __version__
from napari_cfrseg.annotation.event_fields import event_line
from napari_cfrseg.annotation.events import ClickAdded
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.errors import CfrSegError, SessionError, said_of
from napari_cfrseg.io.addresses import address_of
from napari_cfrseg.io.atomic import check_spares, encode, write_text, writing
from napari_cfrseg.io.images import fingerprint
from napari_cfrseg.io.label_exports import write_picture
from napari_cfrseg.io.named_axes import OpenImage
from napari_cfrseg.io.tiled_labels import (
    AnyLabels,
    TiledLabels,
    filled_pixels,
    pixel_counts,
)
from napari_cfrseg.model.weights_file import weights_sha256
from napari_cfrseg.overlay import draw_overlay
from napari_cfrseg.session import references
from napari_cfrseg.session.format import ModelReference, SessionContent
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_exports import export
from napari_cfrseg.session.session_file import stem_of

if TYPE_CHECKING:
    from napari_cfrseg.engine.segmenter import Segmenter


Format = Literal["tiff", "zarr"]
Status = Literal["done", "kept", "failed", "would replay"]
#: (session, weights, device) → a segmenter, kept by the caller for many sessions
SegmenterSource = Callable[[SessionContent, Path, str], "Segmenter"]


@dataclass(frozen=True, slots=True)
class ReplayTask:
    """One session to replay."""

    session: Path  #: its file
    output: Path  #: folder for the results
    #: what the results are called: the session's stem, with the image's if there are
    #: several images
    name: str
    #: another image of the same kind, another model's weights, another device; None:
    #: the session's own
    image: Path | None = None
    weights: Path | None = None
    device: str | None = None
    format: Format = "tiff"  #: of the labels
    exports: tuple[str, ...] = ()  #: endings of what else is exported (``FORMATS``)
    #: keep results that are still true; compute nothing
    only_changed: bool = False
    dry_run: bool = False

    @property
    def labels_path(self) -> Path:
        """Where the labels go."""
        suffix = "labels.tif" if self.format == "tiff" else "labels.zarr"
        return self.output / f"{self.name}.{suffix}"

    @property
    def export_paths(self) -> list[Path]:
        """Where what else is exported goes."""
        return [self.output / f"{self.name}{ending}" for ending in self.exports]

    @property
    def record_path(self) -> Path:
        """Where the record goes."""
        return self.output / f"{self.name}.replay.json"

    @property
    def compare_path(self) -> Path:
        """Where the picture of what another model changed goes."""
        return self.output / f"{self.name}.compare.png"


@dataclass(slots=True)
class Replayed:
    """The result of one session; printed as its result line."""

    session: str
    name: str  #: what the results are called
    status: Status
    reason: str = ""
    labels: str = ""
    exports: list[str] = field(default_factory=list)
    objects: int = 0
    clicks: int = 0
    events: int = 0
    seconds: float = 0.0
    network_s: float = 0.0
    image: str = ""
    model: str = ""
    as_saved: bool | None = None
    changed: list[dict[str, Any]] = field(default_factory=list)


def name_of(session: Path) -> str:
    """Return what a session's results are called; SessionError for an unusable name."""
    stem = stem_of(session)
    if not stem or stem.startswith(".") or any(c in stem for c in "/\\:\0"):
        msg = f"{session}: results cannot be named after this file: rename it"
        raise SessionError(msg)
    return stem


def begun(task: ReplayTask) -> Replayed:
    """Return a task's result before anything of it is done."""
    image = str(task.image or "")
    return Replayed(str(task.session), task.name, "failed", image=image)


def replay_session(
    task: ReplayTask, segmenter_for: SegmenterSource = references.load_segmenter
) -> Replayed:
    """Replay one session; what is wrong with it is in the result, not raised.

    A source of segmenters that remembers them saves time.
    """
    start = time.perf_counter()
    result = begun(task)
    try:
        _replay(task, segmenter_for, result)
    except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
        result.status = "failed"
        result.reason = said_of(error).removeprefix(f"{task.session}: ")[:500]
    result.seconds = round(time.perf_counter() - start, 4)
    return result


def _replay(task: ReplayTask, segmenter_for: SegmenterSource, result: Replayed) -> None:
    session = Session.open(task.session)
    content = session.content
    summary = session.objects()
    result.events, result.objects = len(content.events), len(summary)
    result.clicks = sum(o.click_count for o in summary)
    image_path = task.image or references.find_image(session.image, task.session.parent)
    weights = task.weights or references.find_weights(content.model)
    result.image = address_of(image_path) or str(image_path)
    result.model = weights.stem
    check_spares(task.labels_path, image_path)
    _check_exports(task)
    opened = references.open_reference(session.image, image_path)
    if task.image is None:
        references.check_same(session.image, opened.array, str(image_path))
    device = task.device or content.settings.device
    record = record_of(task, session, opened, weights, device)
    if task.only_changed and is_current(task, record):
        result.status = "kept"
        result.labels = str(task.labels_path)
        return
    if task.dry_run:
        result.status = "would replay"
        return
    job = _Job(task, session, opened, device, segmenter_for)
    own_models = task.weights is None
    labels, network_s = _labels(job, weights, follow_models=own_models)
    result.network_s = round(network_s, 4)
    _compare(job, labels, weights, result)
    # a process killed in between must not leave new labels with an old record
    task.record_path.unlink(missing_ok=True)
    if task.exports:  # but which files may be replaced then
        _write_record(task, {"exports": list(task.exports)})
    if task.image is not None:  # which has a size of its own
        image = replace(
            session.image,
            path=encode(str(image_path)).decode(),
            spacing=opened.spacing,
            units=opened.units,
        )
        content = replace(content, image=image)
    for path in (task.labels_path, *task.export_paths):
        own = opened.array, image_path, opened.origin
        export(path, content, summary, labels, *own)
    record["areas"] = areas_of(labels)
    record["labels_sha256"] = labels_sha256(labels)
    record["result"] = {"seconds": round(network_s, 4), "changed": result.changed}
    _write_record(task, record)
    result.labels, result.status = str(task.labels_path), "done"
    result.exports = [str(path) for path in task.export_paths]


def _check_exports(task: ReplayTask) -> None:
    """Refuse to replace files that no replay has written: tables people imported."""
    theirs = _record_there(task).get("exports")
    for ending, path in zip(task.exports, task.export_paths, strict=True):
        if path.exists() and not (isinstance(theirs, list) and ending in theirs):
            raise SessionError(
                f"{path} is there and no replay wrote it: choose another --output, or "
                "move it away"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A task with everything it names opened."""

    task: ReplayTask
    session: Session
    opened: OpenImage
    device: str
    segmenter_for: SegmenterSource


def _labels(
    job: _Job, weights: Path, *, follow_models: bool
) -> tuple[AnyLabels, float]:
    content = job.session.content
    segmenter = job.segmenter_for(content, weights, job.device)
    if job.task.image is not None:
        content = _elsewhere(content)
    annotator = job.session.annotator(job.opened.array, segmenter)
    if follow_models:

        def source(model: ModelReference) -> tuple[SegmenterLike, str]:
            found = references.find_weights(model)
            return job.segmenter_for(content, found, job.device), model.name

        annotator.begin_with(content.model, source)
    for _ in annotator.restore(content):
        pass
    return annotator.labels_array(annotator.leading), annotator.network_s


def _elsewhere(content: SessionContent) -> SessionContent:
    """Return a session for another image, whose black and white are its own."""
    events = tuple(
        replace(e, scaling=None) if isinstance(e, ClickAdded) else e
        for e in content.events
    )
    return replace(content, events=events)


def _compare(job: _Job, labels: AnyLabels, weights: Path, result: Replayed) -> None:
    """Compare with the labels that were saved; with another model, object by object."""
    task = job.task
    if task.image is not None:
        return
    before = job.session.saved_labels()
    own = job.session.content.model
    other_model = own is not None and weights_sha256(weights) != own.sha256
    if before is None and other_model:
        with suppress(CfrSegError):  # it is not installed
            installed = references.find_weights(own)
            before, _ = _labels(job, installed, follow_models=True)
    if before is None:
        return
    old, new = filled_pixels(before, labels)
    result.as_saved = bool(np.array_equal(old, new))
    if other_model:
        result.changed = compare_labels(old, new)
        if result.changed and not isinstance(labels, TiledLabels):
            picture = task.compare_path
            write_comparison(picture, job.opened.array, np.asarray(before), labels)


def record_of(
    task: ReplayTask, session: Session, opened: OpenImage, weights: Path, device: str
) -> dict[str, Any]:
    """Return all that the labels depend on, and where they came from."""
    settings = session.content.settings
    pixels = session.image.fingerprint
    if task.image is not None:
        pixels = fingerprint(opened.array, session.image.has_channels)
    return {
        "session": session.path.name,
        "events_sha256": events_sha256(session.content),
        "image": {
            "fingerprint": pixels,
            "is_the_session_s": pixels == session.image.fingerprint,
            "name": (task.image or Path(session.image.path or "")).name,
        },
        "model": {"name": weights.stem, "sha256": weights_sha256(weights)},
        "device": device,
        "precision": settings.precision,
        "threads": settings.threads,
        "format": task.format,
        **({"exports": list(task.exports)} if task.exports else {}),
        "version": __version__,
    }


def events_sha256(content: SessionContent) -> str:
    """Return a digest of all that was done, and how."""
    digest = hashlib.sha256(repr(content.settings).encode())
    for event in content.events:
        digest.update(event_line(event).encode() + b"\n")
    return digest.hexdigest()


def labels_sha256(labels: AnyLabels) -> str:
    """Return a digest of labels' shape and values; of tiled ones, of their runs."""
    digest = hashlib.sha256(repr(labels.shape).encode())
    if isinstance(labels, TiledLabels):
        for plane in labels.planes():
            runs = labels.runs(plane)
            for numbers in (np.array(plane), runs.starts, runs.lengths, runs.after):
                digest.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
    else:
        digest.update(np.ascontiguousarray(labels, dtype="<i4").tobytes())
    return digest.hexdigest()


def is_current(task: ReplayTask, record: dict[str, Any]) -> bool:
    """Return whether the results there are were made from exactly this."""
    if not all(path.exists() for path in (task.labels_path, *task.export_paths)):
        return False
    there = _record_there(task)
    return bool(there) and all(there.get(k) == v for k, v in record.items())


def _write_record(task: ReplayTask, record: dict[str, Any]) -> None:
    with writing(task.record_path):
        write_text(task.record_path, json.dumps(record, indent=1) + "\n")


def _record_there(task: ReplayTask) -> dict[str, Any]:
    """Return the record of an earlier replay to the same place; empty: none."""
    try:
        there = json.loads(task.record_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return there if isinstance(there, dict) else {}


def areas_of(labels: AnyLabels) -> dict[str, int]:
    """Return each label's number of pixels; the background's is left out."""
    return {str(i): n for i, n in pixel_counts(filled_pixels(labels)[0]).items()}


# -- two models compared -------------------------------------------------------------

#: a picture of a plane is shown at most so large
TILE_PX = 320
#: sessions on one contact sheet
MOST_TILES = 24
_COLUMNS = 2


def compare_labels(
    before: NDArray[np.integer], after: NDArray[np.integer]
) -> list[dict[str, Any]]:
    """Return the objects that changed: id, pixels before and after, IoU.

    Both labels have one shape. Sorted by ascending IoU; an object that is the same is
    left out.
    """
    first, second = pixel_counts(before), pixel_counts(after)
    same = pixel_counts(np.where(before == after, before, 0))
    changed = []
    for label in first.keys() | second.keys():
        old, new, both = (areas.get(label, 0) for areas in (first, second, same))
        joint = old + new - both
        if both != joint:
            changed.append(
                {
                    "object": label,
                    "before_px": old,
                    "after_px": new,
                    "iou": round(both / joint, 4),
                }
            )
    return sorted(changed, key=lambda c: (c["iou"], c["object"]))


def write_comparison(
    path: Path, image: Any, before: NDArray[np.integer], after: NDArray[np.integer]
) -> None:
    """Write before and after side by side, on the plane that changed most."""
    from PIL import Image

    differing = (before != after).reshape(-1, *before.shape[-2:]).sum(axis=(1, 2))
    plane = np.unravel_index(int(differing.argmax()), before.shape[:-2] or (1,))
    index = tuple(int(i) for i in plane) if before.ndim > 2 else ()
    pixels = np.asarray(image[index] if index else image[:])
    pixels = pixels[..., :3] if pixels.ndim == 3 else pixels
    sides = [draw_overlay(pixels, labels[index]) for labels in (before, after)]
    gap = np.full((sides[0].shape[0], 8, 3), 255, np.uint8)
    picture = Image.fromarray(np.concatenate([sides[0], gap, sides[1]], axis=1))
    picture.thumbnail((2 * TILE_PX, TILE_PX))
    write_picture(path, np.asarray(picture))


def write_contact_sheet(path: Path, pictures: Sequence[Path]) -> None:
    """Write comparisons below each other, each with its session's name."""
    from PIL import Image, ImageDraw

    tiles = [p for p in pictures if p.is_file()][:MOST_TILES]
    if not tiles:
        return
    rows = -(-len(tiles) // _COLUMNS)
    width, height = 2 * TILE_PX + 16, TILE_PX + 24
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        x, y = number % _COLUMNS * width, number // _COLUMNS * height
        name = tile.name.removesuffix(".compare.png")
        draw.text(
            (x + 4, y + 4), name.encode("ascii", "replace").decode(), fill="black"
        )
        with Image.open(tile) as picture:
            sheet.paste(picture, (x, y + 20))
    write_picture(path, np.asarray(sheet))
