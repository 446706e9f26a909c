"""Outlines in other programs' files: QuPath's GeoJSON, ImageJ's ROIs, COCO."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import LabelRuns, MaskPatch, Plane
from napari_cfrseg.geometry.windows import overlap
from napari_cfrseg.io.object_exports import NO_CLASS, plane_place

#: endings of the files that are read
OUTLINE_SUFFIXES = (".geojson", ".json", ".zip", ".roi")
#: larger files of outlines are refused
MOST_BYTES = 1 << 28
#: archives of more files are refused
MOST_ENTRIES = 1 << 18
#: masks of run lengths whose box is larger are refused
_MOST_PX = 1 << 28
#: the axis of an ImageJ ROI that says its position in a stack of one axis only
_ONLY_AXIS = ""
#: ImageJ's kinds that surround an area, by roifile's names
_AREAS = {"POLYGON", "RECT", "OVAL", "FREEHAND", "TRACED"}


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """One object on one plane.

    ``rings`` are (N, 2) arrays of (row, column) corners; the first pixel is the square
    from 0 to 1. What an even number of rings surrounds is outside, unless
    ``is_union``. ``place`` are z, t and c, from 0, as far as the file says, or
    ``index`` is that of its plane. Outlines of one ``key`` (not "") on several planes
    are one object. ``columns`` are there instead of rings where the file has pixels:
    runs of the (X, Y) plane. ``size`` is the (Y, X) plane's, if the file says it.
    """

    rings: tuple[NDArray[np.float64], ...]
    name: str = ""
    object_class: str = ""
    key: str = ""
    place: Mapping[str, int] = field(default_factory=dict)
    index: Plane = ()
    columns: LabelRuns | None = None
    is_union: bool = False
    size: tuple[int, int] | None = None

    def runs(self, shape: tuple[int, int]) -> LabelRuns:
        """Return the pixels of a (Y, X) plane whose middles are inside, as label 1.

        A middle on an edge belongs to what lies right of or below it: outlines that
        share an edge share no pixel, and none is between them.
        """
        if self.columns is not None:
            turned = self.columns.mask()
            pixels = MaskPatch(turned.offset[::-1], turned.mask.T)
            box = overlap(pixels.box, (0, 0, *shape))
            mask = pixels.window(box)
            return LabelRuns.from_labels(mask.view(np.int8), mask, shape, box[:2])
        found = [np.sort(_crossings(ring - 0.5, *shape)) for ring in self.rings]
        crossed = np.concatenate([np.zeros(0, np.int64), *found])
        if self.is_union:
            signs = [np.where(np.arange(ring.size) % 2, -1, 1) for ring in found]
            crossed = _outermost(crossed, np.concatenate([crossed[:0], *signs]))
        else:
            crossed = np.sort(crossed)
        # a row is entered and left equally often: its places lie in pairs
        starts, lengths = crossed[::2], crossed[1::2] - crossed[::2]
        rows = starts // (shape[1] + 1)
        kept = lengths > 0
        starts, lengths = (starts - rows)[kept], lengths[kept]
        return LabelRuns(shape, starts, lengths, np.ones(starts.size, np.int32))

    def plane(self, here: Plane, axes: Sequence[str]) -> Plane:
        """Return its plane; an axis the file says nothing of is as ``here``.

        ``axes`` are the names of the axes before Y.
        """
        if self.index and len(self.index) == len(here):
            return self.index
        places = plane_place(tuple(range(len(here))), axes)
        if len(here) == 1:
            places[_ONLY_AXIS] = 0
        found = list(here)
        for name, index in self.place.items():
            if name in places:
                found[places[name]] = index
        return tuple(found)


def _outermost(
    places: NDArray[np.int64], signs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return where what several rings surround begins and ends, in order.

    Each is entered (``signs`` 1) and left (-1) at ``places``.
    """
    order = np.lexsort((-signs, places))
    depth, begins = np.cumsum(signs[order]), signs[order] > 0
    found: NDArray[np.int64] = places[order][(depth == 0) | (begins & (depth == 1))]
    return found


def _crossings(ring: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """Return where a ring crosses the rows 0 to ``height`` - 1, at most once each edge.

    A place is row * (``width`` + 1) + column; a column, up to ``width``, is the first
    one at or right of the crossing.
    """
    ring = np.clip(ring, -1e300, 1e300)
    edges = np.stack([ring, np.roll(ring, -1, axis=0)], axis=1)
    # from above to below: an edge that two outlines share is crossed at one place
    turned = edges[:, 0, 0] > edges[:, 1, 0]
    edges[turned] = edges[turned, ::-1]
    first, end = np.clip(np.ceil(edges[:, :, 0]), 0, height).astype(np.int64).T
    counts = end - first
    (y0, x0), (y1, x1) = np.repeat(edges, counts, axis=0).transpose(1, 2, 0)
    rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - end, counts)
    places = x0 + (rows - y0) / (y1 - y0) * (x1 - x0)
    columns = np.clip(np.ceil(places), 0, width).astype(np.int64)
    found: NDArray[np.int64] = rows * (width + 1) + columns
    return found


def read_outlines(path: Path, names: Collection[str] = ()) -> list[Outline]:
    """Read the areas in a ``.geojson``, ``.json``, ``.zip`` or ``.roi``, no lines.

    Rings of fewer than three corners are left out; an area may have no others. Of
    COCO's of several images, those of the one that has one of ``names`` are read, with
    its ending or without. A SessionError says that the file cannot be read, or holds no
    area, or which images it is of.
    """
    is_imagej = path.suffix.lower() in (".zip", ".roi")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(_TOO_LARGE)
        found = list(_imagej(path) if is_imagej else _geojson(path, names))
    except _OF_DAMAGED_FILES as error:
        raise _unreadable(path, error) from error
    if not any(outline.rings or outline.columns for outline in found):
        raise SessionError(f"{path.name} holds no outlines of areas")
    return found


_OF_DAMAGED_FILES = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError),
    *(RuntimeError, OverflowError, MemoryError, EOFError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
_TOO_LARGE = f"larger than {MOST_BYTES >> 20} MB"


def _rings(found: Iterable[Any]) -> tuple[NDArray[np.float64], ...]:
    """Return rings of (x, y, …) corners as those of an outline."""
    rings = [np.array(ring, np.float64) for ring in found if len(ring) > 2]
    if any(ring.ndim != 2 or ring.shape[1] < 2 for ring in rings):
        raise ValueError("a corner is no (x, y)")
    if not all(np.isfinite(ring).all() for ring in rings):
        raise ValueError("a coordinate is no finite number")
    return tuple(ring[:, 1::-1] for ring in rings)


def _key(object_id: object, name: str) -> str:
    """Return what an object's outlines have in common: our exports' number, a name."""
    return name if object_id is None else f"object_id {object_id}"


def _unreadable(path: Path, error: Exception) -> SessionError:
    said = " ".join(str(error).split())[:200]
    said += " is missing" if isinstance(error, KeyError) else ""
    return SessionError(f"{path.name}: no outlines can be read ({said})")


def _geojson(path: Path, names: Collection[str]) -> Iterator[Outline]:
    whole = json.loads(path.read_text("utf-8-sig"))
    if isinstance(whole, list) and whole and "segmentation" in whole[0]:
        whole = {"annotations": whole}  # of pycocotools
    if isinstance(whole, dict) and "annotations" in whole:
        yield from _coco(whole, names)
        return
    features = whole if isinstance(whole, list) else whole.get("features", [whole])
    for feature in features:
        geometry, said = feature["geometry"], feature.get("properties") or {}
        if geometry is None:
            continue
        kind, given = geometry["type"], geometry.get("coordinates")
        polygons = {"Polygon": [given], "MultiPolygon": given}.get(kind, [])
        place = geometry.get("plane") or {}
        name = str(said.get("name") or "")
        if polygons:
            yield Outline(
                _rings(ring for part in polygons for ring in part),
                name,
                str((said.get("classification") or {}).get("name") or ""),
                _key(said.get("object_id"), name),
                {axis: int(n) for axis, n in place.items() if int(n) >= 0},
            )


def _coco(whole: Mapping[str, Any], names: Collection[str]) -> Iterator[Outline]:
    """Yield COCO's annotations, of one image or of our exports' planes."""
    images = {image["id"]: image for image in whole.get("images") or []}
    planes = {i: image["plane"] for i, image in images.items() if image.get("plane")}
    classes = {c["id"]: c.get("name") for c in whole.get("categories") or []}
    others = {i: image for i, image in images.items() if i not in planes}
    for one in _of_one_image(whole["annotations"], others, planes, names):
        shape, name = one.get("segmentation") or (), str(one.get("name") or "")
        number = one.get("image_id")
        of_image = images.get(number, {})
        size = of_image.get("height"), of_image.get("width")
        columns: LabelRuns | None = None
        parts: list[Any] = []
        if isinstance(shape, dict):
            size, columns = shape["size"], _columns_of(shape)
        elif shape:
            parts = shape if isinstance(shape[0], list) else [shape]
        label = str(classes.get(one.get("category_id")) or "")
        yield Outline(
            _rings(np.reshape(part, (-1, 2)) for part in parts),
            name,
            "" if label == NO_CLASS else label,
            _key(one.get("object_id"), name),
            index=tuple(map(int, planes.get(number, ()))),
            columns=columns,
            is_union=True,
            size=(int(size[0]), int(size[1])) if all(size) else None,
        )


def _of_one_image(
    annotations: Sequence[Mapping[str, Any]],
    images: Mapping[Any, Mapping[str, Any]],
    planes: Collection[Any],
    names: Collection[str],
) -> Sequence[Mapping[str, Any]]:
    """Return what is of the only image, or of the one that has one of the names.

    Annotations of ``planes`` are of one image.
    """
    files = {
        i: PureWindowsPath(str(image.get("file_name"))) for i, image in images.items()
    }
    found = [i for i, file in files.items() if {file.name, file.stem} & {*names}]
    if len(found) == 1 < len(files):
        return [one for one in annotations if one.get("image_id") == found[0]]
    drawn = dict.fromkeys(one.get("image_id") for one in annotations)
    several = [i for i in drawn if i not in planes]
    if len(several) > 1:
        said = [files[i].name for i in several[:3] if i in files]
        named = f", or give the layer its name ({', '.join(said)}, …)" if said else ""
        msg = f"it holds objects of {len(several)} images: keep those of one{named}"
        raise ValueError(msg)
    return annotations


def _columns_of(shape: Mapping[str, Any]) -> LabelRuns:
    """Return the pixels of COCO's run lengths, column by column, packed or not."""
    height, width = (int(n) for n in shape["size"])
    counts = shape["counts"]
    ends = np.cumsum(_unpacked(counts) if isinstance(counts, str) else counts)
    starts, lengths = ends[:-1:2], np.diff(ends)[::2]
    kept = lengths != 0
    starts, lengths = starts[kept], lengths[kept]
    if starts.size:
        columns, low = np.divmod(starts, height)
        wide = (starts[-1] + lengths[-1] - 1) // height - columns[0] + 1
        high = (low + lengths).max()  # beyond the height where a run turns a corner
        if wide * (height if high > height else high - low.min()) > _MOST_PX:
            raise ValueError(f"a mask of {height} × {width} pixels")
    return LabelRuns((width, height), starts, lengths, np.ones(starts.size, np.int32))


def _unpacked(text: str) -> list[int]:
    """Return run lengths that pycocotools has packed: five bits a letter."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode():
        value |= (code - 48 & 31) << shift
        shift += 5
        if not code - 48 & 32:
            value -= (code - 48 & 16) and 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _imagej(path: Path) -> Iterator[Outline]:
    import roifile

    for content in _imagej_files(path):
        roi: Any = roifile.ImagejRoi.frombytes(content)
        if roi.roitype.name not in _AREAS:
            continue
        place = {a: getattr(roi, f"{a}_position") - 1 for a in "ztc"}
        place = {axis: index for axis, index in place.items() if index >= 0}
        if not place and roi.position > 0:
            place = {_ONLY_AXIS: roi.position - 1}
        yield Outline(
            _rings(roi.coordinates(multi=True)),
            roi.name,
            key=_key(roi.properties.get("object_id"), roi.name),
            place=place,
        )


def _imagej_files(path: Path) -> Iterator[bytes]:
    """Yield a ROI's bytes, or those of each in an archive."""
    if path.suffix.lower() == ".roi":
        yield path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_ENTRIES:
            raise ValueError(f"more than {MOST_ENTRIES} files")
        if sum(entry.file_size for entry in entries) > MOST_BYTES:
            raise ValueError(_TOO_LARGE)
        for entry in entries:
            if not entry.is_dir() and not entry.filename.startswith("__MACOSX/"):
                yield archive.read(entry)
