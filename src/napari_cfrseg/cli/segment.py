"""``cfrseg segment``: segment one object from its clicks."""

from __future__ import annotations

import json
import math
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
    from napari_cfrseg.io.named_axes import OpenImage

EXAMPLES = """\b
Examples:
  cfrseg segment cells.tif --click 120,88,+ --click 140,95,- -o cell.tif
  cfrseg segment cells.tif --click 120,88,+ --candidate 2 -o whole_cell.tif
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
        list[Click],
        typer.Option(
            "--click",
            "-c",
            parser=options.parse_click,
            metavar="Y,X,+",
            help="Row, column and sign in pixels; again for every further click.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Mask: .tif, .zarr, .png [IMAGE's name.mask.tif]."
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
    """Segment the object that the clicks mark and write its mask.

    The clicks are applied one after the other, as in the window: each corrects the
    mask that the ones before it made. The mask is 1 in the object, 0 outside.
    """
    from napari_cfrseg.io.label_exports import check_labels_output, write_labels
    from napari_cfrseg.io.tiled_labels import TiledLabels, is_large

    target = output or Path(f"{image.stem}.mask.tif")
    opened = options.open_arranged(image, axes, rgb, channels)
    pixels = _plane_of(opened, plane, image)
    check_labels_output(target, pixels.shape[:2], image, overwrite=overwrite)
    with options.usage("--click"):
        for click in clicks:
            check_inside(click, (pixels.shape[0], pixels.shape[1]))

    from napari_cfrseg.engine.segmenter import Segmenter

    with options.usage("--refinement"):
        steps = Refinement.parse(refinement)
    segmenter = Segmenter.load(model, device=device)
    segmenter.set_image(pixels, rgb=opened.is_rgb)
    first = segmenter.predict(clicks[:1], refinement=steps)
    chosen = _choose(first, candidate)
    prediction = segmenter.predict(clicks, previous=chosen, refinement=steps)
    shape = pixels.shape[:2]
    labels = (TiledLabels if is_large(shape) else np.zeros)(shape, np.uint16)
    y, x, mask = prediction.mask_patch()
    labels[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    placed = opened.placement("yx")
    write_or_save_aside(target, lambda path: write_labels(path, labels, **placed))
    typer.echo(_report(target, prediction, max(len(first.choices), 1), as_json=as_json))
    if far := len(prediction.aside):
        said = f"{counted(far, 'negative click')} too far from the object to change it"
        typer.echo(said, err=True)


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


def _choose(first: Prediction, candidate: int) -> Prediction:
    """Return the first click's mask of that number; a number too high is refused."""
    count = max(len(first.choices), 1)
    if candidate > count:
        msg = f"{candidate}: the first click has {count} different masks"
        raise typer.BadParameter(msg, param_hint="--candidate")
    return first.choose(candidate - 1)


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
