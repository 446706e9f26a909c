"""Outlines of objects in other programs' files: QuPath's GeoJSON, ImageJ's ROIs."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import MaskPatch, Plane
from napari_cfrseg.io.object_exports import plane_place

#: endings of the files that are read
OUTLINE_SUFFIXES = (".geojson", ".json", ".zip", ".roi")
#: larger files of outlines are refused
MOST_BYTES = 1 << 28
#: the axis of an ImageJ ROI that says its position in a stack of one axis only
_ONLY_AXIS = ""
#: ImageJ's kinds that surround an area, by roifile's names
_AREAS = {"POLYGON", "RECT", "OVAL", "FREEHAND", "TRACED"}


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """One object on one plane.

    ``rings`` are (N, 2) arrays of (row, column) corners; the first pixel is the square
    from 0 to 1. What an even number of rings surrounds is outside. ``place`` are z, t
    and c, from 0, as far as the file says. Outlines of one ``key`` (not "") on several
    planes are one object.
    """

    rings: tuple[NDArray[np.float64], ...]
    name: str = ""
    object_class: str = ""
    key: str = ""
    place: Mapping[str, int] = field(default_factory=dict)

    def mask(self, shape: tuple[int, int]) -> MaskPatch:
        """Return the pixels of a (Y, X) plane whose middles are inside."""
        corners = np.concatenate(self.rings)
        low = np.clip(np.floor(corners.min(axis=0)), 0, shape).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)), low, shape).astype(int)
        inside = np.zeros(high - low, np.bool_)
        for ring in self.rings:
            rows, columns = polygon(*(ring - 0.5 - low).T, inside.shape)
            inside[rows, columns] ^= True
        return MaskPatch.from_mask(inside, (int(low[0]), int(low[1])))

    def plane(self, here: Plane, axes: Sequence[str]) -> Plane:
        """Return its plane; an axis the file says nothing of is as ``here``.

        ``axes`` are the names of the axes before Y.
        """
        places = plane_place(tuple(range(len(here))), axes)
        if len(here) == 1:
            places[_ONLY_AXIS] = 0
        found = list(here)
        for name, index in self.place.items():
            if name in places:
                found[places[name]] = index
        return tuple(found)


def read_outlines(path: Path) -> list[Outline]:
    """Read the areas in a ``.geojson``, ``.zip`` or ``.roi``; lines are left out.

    A SessionError says that it cannot be read, or holds no area.
    """
    read = _imagej if path.suffix.lower() in (".zip", ".roi") else _geojson
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES >> 20} MB")
        found = [one for one in read(path) if all(len(ring) > 2 for ring in one.rings)]
        if not all(np.isfinite(ring).all() for one in found for ring in one.rings):
            raise ValueError("a coordinate is no finite number")
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise _unreadable(path, error) from error
    except (RecursionError, zipfile.BadZipFile, struct.error) as error:
        raise _unreadable(path, error) from error
    if not found:
        raise SessionError(f"{path.name} holds no outlines of areas")
    return found


def _unreadable(path: Path, error: Exception) -> SessionError:
    said = " ".join(str(error).split())[:200]
    return SessionError(f"{path.name}: no outlines can be read ({said})")


def _geojson(path: Path) -> Iterator[Outline]:
    whole = json.loads(path.read_text("utf-8"))
    features = whole if isinstance(whole, list) else whole.get("features", [whole])
    for feature in features:
        geometry, said = feature["geometry"], feature.get("properties") or {}
        kind, given = geometry["type"], geometry.get("coordinates")
        polygons = {"Polygon": [given], "MultiPolygon": given}.get(kind, [])
        rings = tuple(
            np.array(ring, np.float64)[:, 1::-1] for part in polygons for ring in part
        )
        place = geometry.get("plane") or {}
        name = str(said.get("name") or "")
        if rings:
            yield Outline(
                rings,
                name,
                str((said.get("classification") or {}).get("name") or ""),
                str(said.get("object_id") or name),
                {axis: int(n) for axis, n in place.items() if int(n) >= 0},
            )


def _imagej(path: Path) -> Iterator[Outline]:
    import roifile

    found: Any = roifile.roiread(path)
    for roi in found if isinstance(found, list) else [found]:
        if roi.roitype.name not in _AREAS:
            continue
        rings = roi.coordinates(multi=True)
        place = {a: getattr(roi, f"{a}_position") - 1 for a in "ztc"}
        place = {axis: index for axis, index in place.items() if index >= 0}
        if not place and roi.position > 0:
            place = {_ONLY_AXIS: roi.position - 1}
        yield Outline(
            tuple(np.asarray(ring, np.float64)[:, ::-1] for ring in rings),
            roi.name,
            key=roi.name,
            place=place,
        )
