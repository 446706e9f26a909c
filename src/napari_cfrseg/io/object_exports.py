"""Export objects as polygons: COCO JSON, GeoJSON or a zip of ImageJ ROIs."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.io.atomic import atomic_path, write_text
from napari_cfrseg.io.tiled_labels import AnyLabels, label_runs

PathLike = str | os.PathLike[str]
#: category of objects without a class
NO_CLASS = "object"


def write_coco(
    path: PathLike,
    labels: AnyLabels,
    rows: Sequence[ExportedObject] = (),
    *,
    file_name: str = "",
) -> None:
    """Write objects as COCO annotations: polygons; run lengths if there are holes.

    Labels are (…, Y, X) integers; each plane is one COCO image of the file
    ``file_name``. ``rows`` have the names and classes of the objects; each class is a
    category, "object" that of objects without a class. The path ends in ``.json``.
    """
    height, width = labels.shape[-2:]
    ids = {plane: i for i, plane in enumerate(np.ndindex(labels.shape[:-2]), start=1)}
    images = [
        {
            "id": i,
            "file_name": file_name,
            "height": height,
            "width": width,
            "plane": list(plane),
        }
        for plane, i in ids.items()
    ]
    found = regions(labels, rows)
    classes = sorted({r.row.object_class for r in found} - {"", NO_CLASS})
    categories = {name: i for i, name in enumerate((NO_CLASS, *classes), start=1)}
    annotations = [
        {
            "id": number,
            "image_id": ids[region.plane],
            "category_id": categories[region.row.object_class or NO_CLASS],
            **_coco_shape(region, (height, width)),
            "iscrowd": 0,
            "object_id": region.row.object_id,
            "name": region.row.name,
        }
        for number, region in enumerate(found, start=1)
    ]
    content = {
        "images": images,
        "categories": [{"id": i, "name": name} for name, i in categories.items()],
        "annotations": annotations,
    }
    _write_json(path, content)


def _coco_shape(region: Region, shape: tuple[int, int]) -> dict[str, Any]:
    (y, x), (h, w) = region.offset, region.mask.shape
    rings = rings_of(region)
    segmentation: Any = [outer[:-1, ::-1].ravel().tolist() for outer, _ in rings]
    if any(holes for _, holes in rings):  # polygons would fill them
        turned = region.mask.T
        runs = LabelRuns.from_labels(
            turned.astype(np.int32), turned, (shape[1], shape[0]), (x, y)
        )
        ends = np.stack([runs.starts, runs.starts + runs.lengths], axis=1).ravel()
        bounds = np.unique(np.append(ends, shape[0] * shape[1]))
        segmentation = {
            "size": list(shape),
            "counts": np.diff(bounds, prepend=0).tolist(),
        }
    area = int(region.mask.sum())
    return {"segmentation": segmentation, "area": area, "bbox": [x, y, w, h]}


def write_geojson(
    path: PathLike,
    labels: AnyLabels,
    rows: Sequence[ExportedObject] = (),
    axes: Sequence[str] | None = None,
) -> None:
    """Write objects as GeoJSON polygons in pixels, as QuPath reads them.

    Labels are (…, Y, X) integers; ``rows`` have the names and colours of the objects,
    ``axes`` are the names of the labels' axes (which are z, t and c). The path ends in
    ``.geojson``. A position is (x, y), as the format demands; the first pixel is the
    square from (0, 0) to (1, 1), and filling the polygons gives the labels back.
    """
    features = [
        _feature(region, plane_place(region.plane, axes))
        for region in regions(labels, rows)
    ]
    _write_json(path, {"type": "FeatureCollection", "features": features})


def plane_place(
    plane: tuple[int, ...], axes: Sequence[str] | None = None
) -> dict[str, int]:
    """Return a plane's z, t and c, those that it has, counted from 0.

    Axes of other names, or of none, are z, then t, then c from the last one on.
    """
    names = [str(name).lower() for name in (axes or ())][: len(plane)]
    names += [""] * (len(plane) - len(names))
    free = [name for name in "ztc" if name not in names]
    place: dict[str, int] = {}
    for name, index in reversed(list(zip(names, plane, strict=True))):
        known = name if name in ("z", "t", "c") else (free.pop(0) if free else "")
        if known:
            place[known] = int(index)
    return place


def _feature(region: Region, place: dict[str, int]) -> dict[str, Any]:
    polygons = [
        [ring[:, ::-1].tolist() for ring in (outer, *holes)]
        for outer, holes in rings_of(region)
    ]
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "name": region.row.name,
        "color": region.row.rgb,
        "object_id": region.row.object_id,
        "plane": list(region.plane),
    }
    if region.row.object_class:
        properties["classification"] = {"name": region.row.object_class}
    single = len(polygons) == 1
    geometry: dict[str, Any] = {
        "type": "Polygon" if single else "MultiPolygon",
        "coordinates": polygons[0] if single else polygons,
        # QuPath's: −1 stands for all channels
        "plane": {
            "c": place.get("c", -1),
            "z": place.get("z", 0),
            "t": place.get("t", 0),
        },
    }
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write_imagej_rois(
    path: PathLike,
    labels: AnyLabels,
    rows: Sequence[ExportedObject] = (),
    axes: Sequence[str] | None = None,
) -> None:
    """Write objects as a zip of ImageJ ROIs, one for each object on each plane.

    An object in one part is a polygon; one with holes or further parts a composite.
    Parameters are those of :func:`write_geojson`; the path ends in ``.zip``.
    """
    entries: dict[str, bytes] = {}
    for region in regions(labels, rows):
        place = plane_place(region.plane, axes)
        marks = "".join(f"-{a}{place[a] + 1:04}" for a in "ctz" if a in place)
        stem = _entry_name(region.row.name) + marks
        name, number = stem, 1
        while name in entries:
            number += 1
            name = f"{stem} ({number})"
        entries[name] = _imagej_roi(region, place)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.roi", content)


def _entry_name(name: str) -> str:
    """Return a name as a file in the archive can have it, on any system."""
    safe = "".join("_" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in name)
    return safe.strip(". ")[:100] or "object"


def _imagej_roi(region: Region, place: dict[str, int]) -> bytes:
    import roifile

    rings = rings_of(region)
    if len(rings) == 1 and not rings[0][1]:
        roi = roifile.ImagejRoi.frompoints(
            rings[0][0][:-1, ::-1].astype(np.int64), name=region.row.name
        )
        roi.roitype = roifile.ROI_TYPE.POLYGON
    else:
        path: list[float] = []
        for ring in (ring for outer, holes in rings for ring in (outer, *holes)):
            for number, (y, x) in enumerate(ring[:-1]):
                path += [float(number > 0), float(x), float(y)]
            path.append(4.0)
        roi = roifile.ImagejRoi()
        roi.name = region.row.name
        roi.roitype = roifile.ROI_TYPE.RECT
        roi.multi_coordinates = np.array(path, np.float32)
        roi.shape_roi_size = len(path)
        (roi.top, roi.left), (h, w) = region.offset, region.mask.shape
        roi.bottom, roi.right = roi.top + h, roi.left + w
    # names need not be unique, and a reader joins an object's planes
    roi.props = f"object_id: {region.row.object_id}\n"
    for axis, index in place.items():
        setattr(roi, f"{axis}_position", index + 1)
    if len(place) == 1:
        roi.position = next(iter(place.values())) + 1
    roi.stroke_color = b"\xff" + bytes.fromhex(region.row.colour[1:])
    content: bytes = roi.tobytes()
    return content


def _write_json(path: PathLike, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False) + "\n")


Ring = NDArray[np.float64]


def rings_of(region: Region) -> list[tuple[Ring, list[Ring]]]:
    """Return each connected part's outer ring and its holes.

    Rings are (N, 2) arrays of (row, column) corners, closed (first = last), in pixel
    edges: the pixel (0, 0) is the square from 0 to 1. Parts and holes that touch at a
    corner only are apart, so no ring touches itself.
    """
    parts, _ = ndimage.label(region.mask)
    found = []
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        part = parts[box] == number
        place = _first(box, region.offset)
        outside, _ = ndimage.label(~np.pad(part, 1))
        outside = outside[1:-1, 1:-1]
        holes = [
            _trace(outside[one] == hole, _first(one, place))
            for hole, one in enumerate(ndimage.find_objects(outside), start=1)
            if hole > 1 and one is not None  # 1 is around the part
        ]
        found.append((_trace(part | (outside > 1), place), holes))
    return found


def _first(box: tuple[slice, ...], offset: tuple[int, int]) -> tuple[int, int]:
    return box[0].start + offset[0], box[1].start + offset[1]


def _trace(mask: NDArray[np.bool_], offset: tuple[int, int]) -> Ring:
    """Walk around a connected mask along pixel edges, collinear corners left out."""
    # on a grid three times as fine the level line lies beside the pixels' edges
    fine = np.pad(np.kron(mask, np.ones((3, 3))), 3)
    contours = find_contours(fine, 0.5, fully_connected="low")
    longest = max(contours, key=len)
    ring = np.round((longest - 2.5) / 3).astype(np.int64)
    steps = np.diff(ring, axis=0)  # the line is closed: its last point is its first
    moves = steps.any(axis=1)
    ring, steps = ring[:-1][moves], np.sign(steps[moves])
    ring = ring[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]
    closed: Ring = (np.vstack([ring, ring[:1]]) + offset).astype(np.float64)
    return closed


@dataclass(frozen=True, slots=True)
class ExportedObject:
    """One object: its label, name, colour (``#rrggbb``) and, if said, class."""

    object_id: int
    name: str
    colour: str = "#ffffff"
    object_class: str = ""

    @property
    def rgb(self) -> list[int]:
        """The colour's red, green and blue, 0 to 255."""
        return list(bytes.fromhex(self.colour[1:]))


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One object on one plane: (h, w) bool, its first pixel at ``offset``."""

    row: ExportedObject
    plane: tuple[int, ...]
    offset: tuple[int, int]
    mask: NDArray[np.bool_]


def regions(labels: AnyLabels, rows: Sequence[ExportedObject] = ()) -> list[Region]:
    """Return each object on each plane where it is, by plane and label.

    ``labels`` are (…, Y, X) integers, 0 = background; objects of which ``rows`` says
    nothing are called "Object N".
    """
    known = {row.object_id: row for row in rows}
    found = []
    for plane in np.ndindex(labels.shape[:-2]):
        for label, patch in label_runs(labels, plane).masks().items():
            row = known.get(label, ExportedObject(label, f"Object {label}"))
            found.append(Region(row, plane, patch.offset, patch.mask))
    return found
