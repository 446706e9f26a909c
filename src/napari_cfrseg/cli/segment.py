"""``cfrseg segment``: segment one object from its clicks, or those of a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from napari_cfrseg.cli import options
from napari_cfrseg.clicks import Click, check_inside
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.errors import ImageError, counted
from napari_cfrseg.io.atomic import write_or_save_aside
from napari_cfrseg.io.axes import plane_of
from napari_cfrseg.io.images import read_small

if TYPE_CHECKING:
    from napari_cfrseg.engine.prediction import Prediction
    from napari_cfrseg.engine.segmenter import Segmenter
    from napari_cfrseg.io.named_axes import OpenImage
    from napari_cfrseg.io.tiled_labels import AnyLabels

EXAMPLES = """\b
Examples:
  cfrseg segment cells.tif --click 120,88,+ --click 140,95,- -o cell.tif
  cfrseg segment cells.tif --click 120,88,+ --candidate 2 -o whole_cell.tif
  cfrseg segment cells.tif --table clicks.csv -o cells.labels.tif
"""


def segment(
    image: Annotated[
        Path,
        typer.Argument(
            parser=options.parse_image,
            metavar="IMAGE",
            help="TIFF, OME-Zarr (also https://…, s3://…), NPY, PNG, JPEG, ….",
        ),
    ],
    clicks: Annotated[
        list[Click] | None,
        typer.Option(
            "--click",
            "-c",
            parser=options.parse_click,
            metavar="Y,X,+",
            help="Row, column and sign in pixels; again for every further click.",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="CSV of clicks instead: all objects in it, on all planes."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Labels: .tif, .zarr, .png [IMAGE's name.mask.tif; of a table "
            ".labels.tif].",
        ),
    ] = None,
    overwrite: options.OverwriteOption = False,
    plane: Annotated[
        int | None, typer.Option(min=0, help="Which plane of a stack, from 0.")
    ] = None,
    axes: options.AxesOption = None,
    rgb: options.RgbOption = None,
    channels: options.ChannelsOption = None,
    refinement: options.RefinementOption = "standard",
    candidate: Annotated[
        int,
        typer.Option(min=1, help="Which of the first click's masks; 1 is the best."),
    ] = 1,
    model: options.ModelOption = "default",
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Segment the object that the clicks mark, or those of a table, and write labels.

    The clicks are applied one after the other, as in the window: each corrects the
    mask that the ones before it made. The mask is 1 in the object, 0 outside; objects
    of a table have its numbers.
    """
    if (clicks is None) == (table is None):
        raise typer.BadParameter("give clicks, or a table", param_hint="--click")
    if table is not None and (candidate > 1 or plane is not None):
        msg = "the table says the planes, and each object gets its best mask"
        raise typer.BadParameter(msg, param_hint="--table")
    with options.usage("--refinement"):
        steps = Refinement.parse(refinement)
    opened = options.open_arranged(image, axes, rgb, channels)
    kind = "mask" if table is None else "labels"
    target = output or Path(f"{image.stem}.{kind}.tif")
    job = _Job(image, opened, target, overwrite, steps, model, device)
    if table is not None:
        _segment_table(job, table, as_json=as_json)
    else:
        _segment_one(job, clicks or [], plane, candidate, as_json=as_json)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """The image, the model and the files of one run of the command."""

    image: Path
    opened: OpenImage
    target: Path
    overwrite: bool
    refinement: Refinement
    model: str
    device: str

    def check_output(self, shape: Sequence[int]) -> None:
        """Refuse an output that cannot be written, before anything is computed."""
        from napari_cfrseg.io.label_exports import check_labels_output

        check_labels_output(self.target, shape, self.image, overwrite=self.overwrite)

    def segmenter(self) -> Segmenter:
        from napari_cfrseg.engine.segmenter import Segmenter

        return Segmenter.load(self.model, device=self.device)

    def write(self, labels: AnyLabels) -> None:
        """Write labels, (…, Y, X), with the image's axes."""
        from napari_cfrseg.io.label_exports import write_labels

        names = self.opened.axes[: len(self.opened.axes) - self.opened.has_channels]
        placed = self.opened.placement(names[-labels.ndim :])
        write_or_save_aside(
            self.target, lambda path: write_labels(path, labels, **placed)
        )


def _segment_one(
    job: _Job,
    clicks: Sequence[Click],
    plane: int | None,
    candidate: int,
    *,
    as_json: bool,
) -> None:
    from napari_cfrseg.io.tiled_labels import TiledLabels, is_large

    pixels = _plane_of(job.opened, plane, job.image)
    shape = (int(pixels.shape[0]), int(pixels.shape[1]))
    job.check_output(shape)
    with options.usage("--click"):
        for click in clicks:
            check_inside(click, shape)
    segmenter = job.segmenter()
    segmenter.set_image(pixels, rgb=job.opened.is_rgb)
    first = segmenter.predict(clicks[:1], refinement=job.refinement)
    candidates = max(len(first.choices), 1)
    if candidate > candidates:
        msg = f"{candidate}: the first click has {candidates} different masks"
        raise typer.BadParameter(msg, param_hint="--candidate")
    chosen = first.choose(candidate - 1)
    prediction = segmenter.predict(clicks, previous=chosen, refinement=job.refinement)
    labels = (TiledLabels if is_large(shape) else np.zeros)(shape, np.uint16)
    y, x, mask = prediction.mask_patch()
    labels[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    job.write(labels)
    typer.echo(_report(job.target, prediction, candidates, as_json=as_json))
    if far := len(prediction.aside):
        said = f"{counted(far, 'negative click')} too far from the object to change it"
        typer.echo(said, err=True)


def _segment_table(job: _Job, table: Path, *, as_json: bool) -> None:
    """Apply a table's clicks as the window's *Import* does."""
    from napari_cfrseg.annotation import events as ev
    from napari_cfrseg.annotation.annotator import Annotator
    from napari_cfrseg.session.imported_events import events_from_csv
    from napari_cfrseg.session.session import check_planes

    opened = job.opened
    shape = opened.shape[: len(opened.shape) - opened.has_channels]
    job.check_output(shape)
    size = None if opened.spacing is None else opened.spacing[len(shape) - 2 :][:2]
    pixel_size = None if size is None else (size[0], size[1])
    axes = opened.axes[: len(shape) - 2]
    events = events_from_csv(table, axes=axes, pixel_size=pixel_size)
    check_planes(events, shape[:-2])
    with options.usage("--table"):
        for event in events:
            if isinstance(event, ev.ClickAdded):
                check_inside(event.click, (shape[-2], shape[-1]))
    annotator = Annotator(
        lambda plane: plane_of(opened.array, plane),
        (shape[-2], shape[-1]),
        job.segmenter(),
        rgb=opened.is_rgb,
    )
    annotator.apply(ev.RefinementChanged(job.refinement))
    for event in options.track(events, "applying clicks"):
        annotator.apply(event)
    labels = annotator.labels_array(shape[:-2])
    job.write(labels)
    objects = [
        {"object": i, "name": found.name, "clicks": found.click_count}
        for i, found in sorted(annotator.objects.items())
    ]
    if as_json:
        typer.echo(json.dumps({"output": str(job.target), "objects": objects}))
    else:
        typer.echo(f"{job.target}: {counted(len(objects), 'object')}")


def _plane_of(opened: OpenImage, plane: int | None, path: Path) -> Any:
    """Return a plane's pixels; planes are counted over all axes before Y."""
    leading = opened.shape[: len(opened.axes) - 2 - opened.has_channels]
    count = math.prod(leading)
    if plane is None and count > 1:
        msg = f"{path} has {count} planes: choose one with --plane 0 … {count - 1}"
        raise ImageError(msg)
    index = plane or 0
    if index >= count:
        raise ImageError(f"{path} has no plane {index}: choose one of 0 … {count - 1}")
    where = np.unravel_index(index, leading) if leading else ()
    return read_small(plane_of(opened.array, [int(i) for i in where]), path)


def _report(
    target: Path, prediction: Prediction, candidates: int, *, as_json: bool
) -> str:
    box, area = prediction.mask_box, int(prediction.mask_patch()[2].sum())
    if as_json:
        return json.dumps(
            {
                "output": str(target),
                "area_px": area,
                "box": box,
                "steps": prediction.steps,
                "candidates": candidates,
                "seconds": round(prediction.seconds, 4),
            }
        )
    return (
        f"{target}: {area} px; last click {counted(prediction.steps, 'step')}, "
        f"{prediction.seconds * 1e3:.0f} ms"
    )
