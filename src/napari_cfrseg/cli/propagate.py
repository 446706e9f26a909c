"""``cfrseg propagate``: carry an object from a few clicked planes to the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from napari_cfrseg.cli import options
from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.atomic import write_or_save_aside
from napari_cfrseg.io.axes import plane_of, turned
from napari_cfrseg.io.named_axes import walking_spacing

if TYPE_CHECKING:
    from napari_cfrseg.annotation.annotator import Annotator
    from napari_cfrseg.io.named_axes import OpenImage

Along = Literal["z", "y", "x"]

EXAMPLES = """\b
Example:
  cfrseg propagate stack.tif --click 12,80,64,+ --click 30,84,60,+ --voxel 2,0.5,0.5
"""


def parse_plane_click(text: str) -> tuple[int, Click]:
    """Read ``Z,Y,X,+``: plane, row, column and sign.

    Examples
    --------
    >>> parse_plane_click("3,120,88.5,-")
    (3, Click(yx=(120.0, 88.5), is_positive=False))
    """
    plane, _, rest = text.partition(",")
    if not plane.strip().isdigit() or not rest:
        msg = f"{text!r} is not PLANE,ROW,COLUMN,+ or - (example: 12,80,64,+)"
        raise typer.BadParameter(msg)
    return int(plane), options.parse_click(rest)


def parse_voxel(text: str) -> tuple[float, float, float]:
    """Read ``Z,Y,X``: three positive numbers.

    Examples
    --------
    >>> parse_voxel("2,0.5,0.5")
    (2.0, 0.5, 0.5)
    """
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError as error:
        msg = f"{text!r} is not Z,Y,X (example: 2,0.5,0.5)"
        raise typer.BadParameter(msg) from error
    if not (0 < z < float("inf") and 0 < y < float("inf") and 0 < x < float("inf")):
        raise typer.BadParameter(f"{text!r}: a voxel's size is three positive numbers")
    return z, y, x


def propagate(
    image: Annotated[
        Path,
        typer.Argument(
            parser=options.parse_image, metavar="IMAGE", help="A stack: TIFF, OME-Zarr."
        ),
    ],
    clicks: Annotated[
        list[Any],
        typer.Option(
            "--click",
            "-c",
            parser=parse_plane_click,
            metavar="Z,Y,X,+",
            help="Plane, row, column and sign; again for every further click.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Labels [IMAGE's name.propagated.tif]."),
    ] = None,
    overwrite: options.OverwriteOption = False,
    first: Annotated[int, typer.Option(min=0, help="First plane to fill.")] = 0,
    last: Annotated[
        int | None, typer.Option(min=0, help="Last plane to fill [the last there is].")
    ] = None,
    spans: Annotated[
        bool, typer.Option("--spans", help="The object reaches from --first to --last.")
    ] = False,
    voxel: Annotated[
        Any,
        typer.Option(
            parser=parse_voxel,
            metavar="Z,Y,X",
            help="Size of a voxel [the file's, else 1,1,1].",
        ),
    ] = None,
    along: Annotated[
        Along,
        typer.Option(
            help="Walk across this axis: y and x are the orthogonal views. Clicks and "
            "voxel stay in the order z, y, x; planes are counted along this axis."
        ),
    ] = "z",
    axes: options.AxesOption = None,
    rgb: options.RgbOption = None,
    channels: options.ChannelsOption = None,
    model: options.ModelOption = "default",
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Segment one object on the planes clicked, and carry it to the others.

    The planes clicked are anchors and stay as the clicks make them. The labels are 1 in
    the object, 0 outside. Every plane is reported with the confidence of its mask, and
    with the reason where a run ended.
    """
    from napari_cfrseg.annotation import events as ev
    from napari_cfrseg.annotation.transaction import Progress
    from napari_cfrseg.io.label_exports import check_labels_output, write_labels

    target = output or Path(f"{image.stem}.propagated.tif")
    opened = options.open_arranged(image, axes, rgb, channels)
    if len(opened.axes) - opened.has_channels != 3:
        msg = f"{image} has axes {' '.join(opened.axes)}: expected one axis before y, x"
        raise ImageError(msg)
    check_labels_output(target, opened.shape[:3], image, overwrite=overwrite)
    axis = "zyx".index(along)
    count = opened.shape[axis]
    end = count - 1 if last is None else last
    if not first <= end < count:
        msg = f"planes {first} to {end} of {count}: no such range"
        raise typer.BadParameter(msg, param_hint="--first, --last")
    sizes = opened.spacing or (1.0, 1.0, 1.0)
    z, y, x = voxel or walking_spacing(sizes, opened.units, opened.axes[0])
    spacing = {"z": (z, y, x), "y": (y, z, x), "x": (x, z, y)}[along]
    turned = [_turned(plane, click, axis) for plane, click in clicks]
    annotator = _clicked(opened, axis, turned, model, device)
    with options.counting("propagating, planes") as report:
        annotator.apply(
            ev.Propagated((1,), (0,), 0, first, end, count, spacing, spans),
            on_preview=lambda now: (
                isinstance(now, Progress) and report(now.done, now.total)
            ),
        )
    labels = annotator.labels_array((count,))
    if axis or isinstance(labels, np.ndarray):
        labels = np.moveaxis(np.asarray(labels), 0, axis)
        labels = np.ascontiguousarray(labels, np.uint16)
    placed = opened.placement(opened.axes[:3])
    write_or_save_aside(target, lambda path: write_labels(path, labels, **placed))
    typer.echo(_report(target, annotator, as_json=as_json))


def _turned(plane: int, click: Click, axis: int) -> tuple[int, Click]:
    """Return a click at (z; y, x) as one on a plane across another axis."""
    place = [float(plane), *click.yx]
    index = round(place.pop(axis))
    return index, Click((place[0], place[1]), click.is_positive)


def _clicked(
    opened: OpenImage,
    axis: int,
    clicks: list[tuple[int, Click]],
    model: str,
    device: str,
) -> Annotator:
    from napari_cfrseg.annotation import events as ev
    from napari_cfrseg.annotation.annotator import Annotator
    from napari_cfrseg.engine.segmenter import Segmenter

    order = (axis, *(i for i in range(3) if i != axis))
    array = turned(opened.array, order)
    count, rows, columns = (int(n) for n in array.shape[:3])
    for index, _ in clicks:
        if index >= count:
            msg = f"plane {index} does not exist: the stack has {count}"
            raise typer.BadParameter(msg, param_hint="--click")

    annotator = Annotator(
        lambda plane: plane_of(array, plane),
        (rows, columns),
        Segmenter.load(model, device=device),
        rgb=opened.is_rgb,
    )
    annotator.apply(ev.ObjectCreated(1))
    for number, (index, click) in enumerate(clicks, 1):
        annotator.apply(ev.ClickAdded(1, (index,), click.yx, click.is_positive, number))
    return annotator


def _report(target: Path, annotator: Annotator, *, as_json: bool) -> str:
    planes = []
    for (index,), state in sorted(annotator.objects[1].planes.items()):
        carried = None if state.is_anchor else state.carried
        planes.append(
            {
                "plane": index,
                "annotated": state.is_anchor,
                "area_px": state.mask.area,
                "confidence": None if carried is None else carried.confidence,
                "ended": None if carried is None else carried.stop,
            }
        )
    if as_json:
        return json.dumps({"output": str(target), "planes": planes})
    lines = [f"{target}: {sum(1 for p in planes if p['area_px'])} planes"]
    for plane in planes:
        sure = "annotated" if plane["annotated"] else f"{plane['confidence']:.2f}"
        ended = f"  ended: {plane['ended']}" if plane["ended"] else ""
        lines.append(f"  {plane['plane']:>5}  {plane['area_px']:>7} px  {sure}{ended}")
    return "\n".join(lines)
