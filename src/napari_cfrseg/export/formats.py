"""Objects as COCO JSON, GeoJSON, an ImageJ ROI zip; clicks as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.atomic import atomic_path
from napari_cfrseg.errors import ImageError
from napari_cfrseg.export.outlines import rings_of
from napari_cfrseg.export.rows import ClickRow, ObjectRow, Region, regions

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
