"""A session's results: in other programs' formats, in words, and compared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg import __version__
from napari_cfrseg.annotation.events import (
    ClickAdded,
    ModelAdapted,
    ModelChanged,
    Propagated,
    RefinementChanged,
)
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import SessionError
from napari_cfrseg.io import object_exports as formats
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.io.axes import Order, back, put, turned
from napari_cfrseg.io.click_tables import TableClick, clicks_csv
from napari_cfrseg.io.label_exports import write_ome_tiff, write_ome_zarr
from napari_cfrseg.io.object_exports import ObjectRow
from napari_cfrseg.io.tiled_labels import AnyLabels
from napari_cfrseg.overlay import draw_overlay
from napari_cfrseg.session.format import ModelReference, SessionContent
from napari_cfrseg.session.measurements import measure, table_csv

#: file endings and what they hold
FORMATS = {
    ".ome.tif": "OME-TIFF labels",
    ".tif": "OME-TIFF labels",
    ".zarr": "OME-Zarr labels",
    ".coco.json": "COCO JSON",
    ".geojson": "GeoJSON polygons",
    ".zip": "ImageJ ROIs",
    ".measurements.csv": "measurements as CSV",
    ".csv": "clicks as CSV",
    ".txt": "methods paragraph",
}


def export(
    path: str | os.PathLike[str],
    content: SessionContent,
    objects: Sequence[ObjectState],
    labels: AnyLabels,
    pixels: Any = None,
) -> Path:
    """Write a session's results in the format that the file's ending says.

    Parameters
    ----------
    path
        Ends in one of :data:`FORMATS`; SessionError if not.
    content, objects
        The session and its objects.
    labels
        (…, Y, X) integers.
    pixels
        The image with the labels' leading axes, for intensities; None: none are
        measured.
    """
    target = Path(path)
    ending = next((e for e in FORMATS if target.name.lower().endswith(e)), None)
    rows = tuple(
        ObjectRow(o.object_id, o.name, o.colour, o.object_class) for o in objects
    )
    image = content.image.in_the_file
    labels = turned(labels, back(content.image.order))
    place: dict[str, Any] = {
        "axes": image.axes[: labels.ndim],
        "spacing": None if image.spacing is None else image.spacing[: labels.ndim],
        "units": None if image.units is None else image.units[: labels.ndim],
    }
    match ending:
        case ".ome.tif" | ".tif":
            write_ome_tiff(target, labels, **place)
        case ".zarr":
            write_ome_zarr(target, labels, rows, **place)
        case ".coco.json":
            name = Path(image.path or "").name
            formats.write_coco(target, labels, rows, file_name=name)
        case ".geojson":
            formats.write_geojson(target, labels, rows, place["axes"])
        case ".zip":
            formats.write_imagej_rois(target, labels, rows, place["axes"])
        case ".measurements.csv":
            pixels = (
                None if pixels is None else turned(pixels, back(content.image.order))
            )
            table = measure(labels, objects, image, pixels)
            formats.write_text(target, table_csv(table))
        case ".csv":
            clicks = _click_rows(objects, content.image.order)
            formats.write_text(target, clicks_csv(clicks, labels.ndim - 2))
        case ".txt":
            formats.write_text(target, methods_paragraph(content, objects) + "\n")
        case _:
            msg = f"{target.name}: expected one of the endings {', '.join(FORMATS)}"
            raise SessionError(msg)
    return target


def _click_rows(
    objects: Sequence[ObjectState], order: Order
) -> Iterator[tuple[int, TableClick]]:
    """Yield all clicks, object by object; places as the file has its axes."""
    for found in objects:
        for plane, made in found.clicks():
            *index, y, x = put((*plane, *made.click.yx), back(order))
            where = tuple(round(i) for i in index)
            click = Click((y, x), made.click.is_positive)
            row = TableClick(str(found.object_id), found.name, where, click)
            yield made.click_id, row


def methods_paragraph(content: SessionContent, objects: Sequence[ObjectState]) -> str:
    """Return what a paper's methods section should say of this annotation."""
    made = [on_plane for o in objects for on_plane in o.clicks()]
    clicks = [entry.click for _, entry in made]
    positive = sum(c.is_positive for c in clicks)
    settings = content.settings
    image = content.image
    size = " × ".join(str(n) for n in image.shape)
    backend = f", {settings.backend}" if settings.backend else ""
    planes = {plane for plane, _ in made}
    on_planes = f" on {len(planes)} planes" if len(planes) > 1 else ""
    mean = f"{len(clicks) / len(objects):.1f}" if objects else "0"
    return (
        f"Objects were segmented interactively with napari-cfrseg {__version__} using "
        f"{_weights(content)}, {_refinements(content)} inference, "
        f"{settings.precision} precision on {settings.device}{backend}. In an image of "
        f"{size} pixels "
        f"({image.dtype}), {len(objects)} objects were outlined with {len(clicks)} "
        f"clicks ({positive} positive, {len(clicks) - positive} negative; {mean} per "
        f"object){on_planes}.{_propagations(content)}{_suggestions(objects)} The "
        "session file holds every act in order and reproduces the labels (cfrseg "
        "replay)."
    )


def _weights(content: SessionContent) -> str:
    """Name the models that computed the masks, in the order they came in."""
    used = [] if content.model is None else [content.model]
    used += [
        ModelReference(e.name, e.sha256)
        for e in content.events
        if isinstance(e, ModelChanged)
    ]
    named = [
        f"{model.name} (weights SHA-256 {model.sha256})" if model.sha256 else model.name
        for model in dict.fromkeys(used)
    ]
    if not named:
        return "an unnamed model"
    taught = [
        f", its first clicks adapted to {len(e.object_ids)} finished objects"
        for e in content.events
        if isinstance(e, ModelAdapted) and e.object_ids
    ]
    names = f"the model{'s' if len(named) > 1 else ''} {', then '.join(named)}"
    return names + "".join(taught[-1:])


def _refinements(content: SessionContent) -> str:
    """Name the refinements that clicks were made with, in the order they came in."""
    now = content.settings.refinement
    used = []
    for event in content.events:
        if isinstance(event, RefinementChanged):
            now = event.refinement
        elif isinstance(event, ClickAdded):
            used.append(str(now))
    return " and ".join(dict.fromkeys(used)) or str(now)


def _suggestions(objects: Sequence[ObjectState]) -> str:
    clicks = [[entry for _, entry in o.clicks()] for o in objects]
    found = [min(each, key=lambda e: e.click_id).given for each in clicks if each]
    kept = sum(o.is_as_suggested() for o in objects)
    carried = sum(entry.given for each in clicks for entry in each) - sum(found)
    text = ""
    if any(found):
        text += (
            f" Of the objects, {sum(found)} were suggested by their likeness to "
            f"finished ones and accepted, {kept} of them without correction."
        )
    if carried:
        text += (
            f" On {carried} further planes an object's mask was suggested from the "
            "plane beside it and accepted."
        )
    return text


def _propagations(content: SessionContent) -> str:
    count = sum(isinstance(event, Propagated) for event in content.events)
    times = "once" if count == 1 else f"{count} times"
    return f" Objects were carried to further planes {times}." if count else ""


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
    same = np.bincount(before[(before == after) & (before > 0)].ravel())
    first = np.bincount(before[before > 0].ravel())
    second = np.bincount(after[after > 0].ravel())
    size = max(len(same), len(first), len(second), 1)
    same, first, second = (np.pad(a, (0, size - len(a))) for a in (same, first, second))
    changed = []
    for label in np.flatnonzero(first + second):
        joint = int(first[label] + second[label] - same[label])
        if same[label] != joint:
            changed.append(
                {
                    "object": int(label),
                    "before_px": int(first[label]),
                    "after_px": int(second[label]),
                    "iou": round(int(same[label]) / joint, 4),
                }
            )
    return sorted(changed, key=lambda c: (c["iou"], c["object"]))


def write_comparison(
    path: Path,
    image: Any,
    before: NDArray[np.integer],
    after: NDArray[np.integer],
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
    with atomic_path(path) as temporary:
        picture.save(temporary)


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
    with atomic_path(path) as temporary:
        sheet.save(temporary)
