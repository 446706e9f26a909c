"""Objects as COCO JSON, GeoJSON, an ImageJ ROI zip; clicks as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.atomic import atomic_path

PathLike = str | os.PathLike[str]


def write_coco(
    path: PathLike,
    labels: NDArray[np.integer],
    rows: Sequence[ObjectRow] = (),
    *,
    file_name: str = "",
    category: str = "object",
) -> None:
    """Write objects as COCO annotations: uncompressed run lengths, boxes, areas.

    Parameters
    ----------
    path
        Ends in ``.json``.
    labels
        (…, Y, X) integers; each plane is one COCO image.
    rows
        Names and classes of the objects; each class is a category.
    file_name
        Of the image.
    category
        What objects are that were given no class.
    """
    planes = list(np.ndindex(labels.shape[:-2]))
    height, width = labels.shape[-2:]
    images = [
        {
            "id": i + 1,
            "file_name": file_name,
            "height": height,
            "width": width,
            "plane": list(plane),
        }
        for i, plane in enumerate(planes)
    ]
    found = regions(labels, tuple(rows))
    classes = sorted({r.row.object_class for r in found} - {"", category})
    categories = {name: i for i, name in enumerate((category, *classes), start=1)}
    annotations = [
        _coco_annotation(
            number,
            region,
            planes,
            (height, width),
            categories[region.row.object_class or category],
        )
        for number, region in enumerate(found, start=1)
    ]
    said = {
        "images": images,
        "categories": [{"id": i, "name": name} for name, i in categories.items()],
        "annotations": annotations,
    }
    _write_json(path, said)


def _coco_annotation(
    number: int,
    region: Region,
    planes: list[tuple[int, ...]],
    shape: tuple[int, int],
    category_id: int,
) -> dict[str, Any]:
    (y, x), (h, w) = region.offset, region.mask.shape
    whole = np.zeros(shape, np.bool_)
    whole[y : y + h, x : x + w] = region.mask
    flat = whole.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flat)).view(np.int8)))
    bounds = np.concatenate(([0], edges, [flat.size]))
    return {
        "id": number,
        "image_id": planes.index(region.plane) + 1,
        "category_id": category_id,
        "segmentation": {
            "size": list(shape),
            "counts": np.diff(bounds).tolist(),
        },
        "area": int(region.mask.sum()),
        "bbox": [x, y, w, h],
        "iscrowd": 1,
        "object_id": region.row.object_id,
        "name": region.row.name,
    }


def write_geojson(
    path: PathLike, labels: NDArray[np.integer], rows: Sequence[ObjectRow] = ()
) -> None:
    """Write objects as GeoJSON polygons in pixels, as QuPath reads them.

    Parameters
    ----------
    path
        Ends in ``.geojson``.
    labels
        (…, Y, X) integers.
    rows
        Names and colours.

    Notes
    -----
    A position is (x, y), as the format demands; the first pixel is the square from
    (0, 0) to (1, 1), and filling the polygons gives the labels back.
    """
    features = [_feature(region) for region in regions(labels, tuple(rows))]
    _write_json(path, {"type": "FeatureCollection", "features": features})


def _feature(region: Region) -> dict[str, Any]:
    polygons = [
        [ring[:, ::-1].tolist() for ring in (outer, *holes)]
        for outer, holes in rings_of(region)
    ]
    colour = [int(region.row.colour[i : i + 2], 16) for i in (1, 3, 5)]
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "name": region.row.name,
        "color": colour,
        "object_id": region.row.object_id,
        "plane": list(region.plane),
    }
    if region.row.object_class:
        properties["classification"] = {"name": region.row.object_class}
    single = len(polygons) == 1
    geometry = {
        "type": "Polygon" if single else "MultiPolygon",
        "coordinates": polygons[0] if single else polygons,
    }
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write_imagej_rois(
    path: PathLike, labels: NDArray[np.integer], rows: Sequence[ObjectRow] = ()
) -> None:
    """Write objects as a zip of ImageJ ROIs, one for each part of each object.

    Holes are not kept: ImageJ's polygons have none.

    Parameters
    ----------
    path
        Ends in ``.zip``.
    labels
        (…, Y, X) integers; the last leading axis becomes ImageJ's slice.
    rows
        Names and colours.

    Raises
    ------
    ImageError
        roifile is not installed.
    """
    try:
        import roifile
    except ImportError as error:
        msg = "ImageJ ROIs need roifile: pip install 'napari-cfrseg[export]'"
        raise ImageError(msg) from error
    rois = []
    for region in regions(labels, tuple(rows)):
        for number, (outer, _) in enumerate(rings_of(region), start=1):
            name = region.row.name if number == 1 else f"{region.row.name} ({number})"
            roi = roifile.ImagejRoi.frompoints(outer[:-1, ::-1], name=name)
            roi.roitype = roifile.ROI_TYPE.POLYGON
            if region.plane:
                roi.z_position = roi.position = region.plane[-1] + 1
            colour = bytes.fromhex(region.row.colour[1:])
            roi.stroke_color = b"\xff" + colour
            rois.append(roi)
    with atomic_path(path) as temporary:
        temporary.unlink(missing_ok=True)
        roifile.roiwrite(temporary, rois)


def clicks_csv(rows: Iterable[ClickRow], depth: int) -> str:
    """Return clicks as CSV: object, click, sign, plane's indices, y, x.

    Parameters
    ----------
    rows
        The clicks.
    depth
        Number of axes before y.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    planes = [f"axis_{i}" for i in range(depth)]
    writer.writerow(["object", "name", "click", "sign", *planes, "y", "x"])
    for row in rows:
        sign = "+" if row.is_positive else "-"
        place = (*row.plane, *(repr(float(v)) for v in row.yx))
        writer.writerow([row.object_id, row.name, row.click_id, sign, *place])
    return out.getvalue()


def write_text(path: PathLike, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_json(path: PathLike, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False) + "\n")


Ring = NDArray[np.float64]


def rings_of(region: Region) -> list[tuple[Ring, list[Ring]]]:
    """Return each connected part's outer ring and its holes.

    Returns
    -------
    Rings as (N, 2) arrays of (row, column) corners, closed (first = last). Corners are
    in pixel edges: the pixel (0, 0) is the square from 0 to 1. Parts that touch at a
    corner only are apart.
    """
    from scipy import ndimage

    parts, count = ndimage.label(region.mask)
    found = []
    for number in range(1, count + 1):
        part = parts == number
        outside, _ = ndimage.label(~np.pad(part, 1), np.ones((3, 3)))
        holes = [
            _trace(outside[1:-1, 1:-1] == hole, region.offset)
            for hole in range(2, int(outside.max()) + 1)
        ]
        filled = part | (outside[1:-1, 1:-1] > 1)
        found.append((_trace(filled, region.offset), holes))
    return found


def _trace(mask: NDArray[np.bool_], offset: tuple[int, int]) -> Ring:
    """Walk around a connected mask along pixel edges, collinear corners left out."""
    # on a grid three times as fine the level line lies beside the pixels' edges
    fine = np.pad(np.kron(mask, np.ones((3, 3))), 3)
    contours = find_contours(fine, 0.5, fully_connected="low")
    longest = max(contours, key=len)
    corners = np.round((longest - 2.5) / 3).astype(np.int64)
    keep = [corners[0]]
    for corner in corners[1:]:
        if (corner != keep[-1]).any():
            keep.append(corner)
    ring = np.array(keep)
    if (ring[0] != ring[-1]).any():
        ring = np.vstack([ring, ring[:1]])
    steps = np.sign(np.diff(ring, axis=0))
    turns = (steps != np.roll(steps, 1, axis=0)).any(axis=1)
    ring = ring[:-1][turns]
    closed: Ring = (np.vstack([ring, ring[:1]]) + offset).astype(np.float64)
    return closed


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object: its label, name, colour (``#rrggbb``) and, if said, class."""

    object_id: int
    name: str
    colour: str = "#ffffff"
    object_class: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One object on one plane.

    Attributes
    ----------
    row
        The object.
    plane
        Index of the leading axes.
    offset
        (row, column) of the box's first pixel.
    mask
        (h, w) bool.
    """

    row: ObjectRow
    plane: tuple[int, ...]
    offset: tuple[int, int]
    mask: NDArray[np.bool_]


def regions(
    labels: NDArray[np.integer], rows: tuple[ObjectRow, ...] = ()
) -> list[Region]:
    """Return each object on each plane where it is, by plane and label.

    Parameters
    ----------
    labels
        (…, Y, X) integers, 0 = background.
    rows
        What is known of the objects; others are called "Object N".
    """
    known = {row.object_id: row for row in rows}
    found = []
    for plane in np.ndindex(labels.shape[:-2]):
        ids, compact = np.unique(labels[plane], return_inverse=True)
        compact = compact.reshape(labels.shape[-2:]) + 1
        for index, box in enumerate(ndimage.find_objects(compact)):
            label = int(ids[index])
            if box is None or label <= 0:
                continue
            row = known.get(label, ObjectRow(label, f"Object {label}"))
            offset = (int(box[0].start), int(box[1].start))
            mask = labels[plane][box] == label
            found.append(Region(row, plane, offset, mask))
    return found


@dataclass(frozen=True, slots=True)
class ClickRow:
    """One click: whose, where, which sign."""

    object_id: int
    name: str
    click_id: int
    plane: tuple[int, ...]
    yx: tuple[float, float]
    is_positive: bool
