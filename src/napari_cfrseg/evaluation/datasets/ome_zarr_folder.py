"""OME-Zarr images with labels (NGFF 0.4 and 0.5).

Layout::

    IMAGE.zarr/            multiscales metadata with named axes
      0/ …                 full resolution
      labels/              {"labels": [NAME, …]}
        NAME/0/            instance ids on the image's y and x (and z)

A path to one image, or to a folder of ``*.zarr``. The first time point is used; up to
four channels go last; z makes a stack that is measured plane by plane. Only the planes
asked for are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets.benchmark_objects import (
    MAX_PLANE_SHARE,
    MIN_AREA_PX,
    AnnotatedPlane,
    BenchmarkObject,
    find_components,
)
from napari_cfrseg.evaluation.datasets.label_folders import (
    MAX_CHANNELS,
    PLANES_PER_STACK,
    spread_planes,
)


@dataclass(frozen=True, slots=True)
class OmeZarr:
    """Labelled OME-Zarr images.

    Attributes
    ----------
    folder
        One image, or a folder of them.
    name
        What the set is called in tables.
    label_name
        Which of the label images; None: the first listed.
    ignore_value
        Label of pixels that do not count, or None.
    min_area_px, max_plane_share
        Objects smaller or larger are not asked for.
    planes_per_stack
        Planes of a stack that are looked at, spread evenly along z.
    """

    folder: Path
    name: str
    label_name: str | None = None
    ignore_value: int | None = None
    min_area_px: int = MIN_AREA_PX
    max_plane_share: float = MAX_PLANE_SHARE
    planes_per_stack: int = PLANES_PER_STACK

    def objects(self) -> Iterator[BenchmarkObject]:
        """List every object of every image.

        Raises
        ------
        DatasetError
            If there is no image, or one without labels.
        """
        for image_name in self.names():
            array, axes = self._open(image_name, labels=True)
            planes: list[int | None] = [None]
            if "z" in axes:
                depth = array.shape[axes.index("z")]
                count = min(self.planes_per_stack, depth)
                planes = list(spread_planes(depth, count))
            for plane in planes:
                yield from self._objects_of(image_name, plane, array, axes)

    def names(self) -> list[str]:
        """Return the images' names: paths relative to the folder, sorted."""
        if _is_zarr(self.folder):
            return ["."]
        names = []
        if self.folder.is_dir():
            names = sorted(p.name for p in self.folder.iterdir() if _is_zarr(p))
        if not names:
            msg = f"{self.folder} is no OME-Zarr image and holds none"
            raise DatasetError(msg)
        return names

    def _objects_of(
        self, image_name: str, plane: int | None, array: Any, axes: str
    ) -> Iterator[BenchmarkObject]:
        labels = _read(array, axes, plane)
        annotated = AnnotatedPlane(labels, labels[None], self._ignored(labels))
        for layer, label, anchor, area in find_components(
            annotated,
            min_area_px=self.min_area_px,
            max_plane_share=self.max_plane_share,
        ):
            yield BenchmarkObject(
                self, self.name, image_name, plane, label, layer, anchor, area
            )

    def _ignored(self, labels: NDArray[Any]) -> NDArray[np.bool_] | None:
        return None if self.ignore_value is None else labels == self.ignore_value

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read one plane of one image."""
        image = _read(*self._open(image_name, labels=False), plane)
        labels = _read(*self._open(image_name, labels=True), plane)
        if image.shape[:2] != labels.shape:
            msg = (
                f"{self.folder / image_name}: the image's plane is {image.shape[:2]}, "
                f"its labels' {labels.shape}"
            )
            raise DatasetError(msg)
        return AnnotatedPlane(image, labels[None], self._ignored(labels))

    def _open(self, image_name: str, *, labels: bool) -> tuple[Any, str]:
        """Return the full-resolution array and its axes, one letter each."""
        zarr = _import_zarr()
        group = zarr.open_group(self.folder / image_name, mode="r")
        where = str(self.folder / image_name)
        if labels:
            name = self.label_name or _first_label(group, where)
            where = f"{where}/labels/{name}"
            try:
                group = group[f"labels/{name}"]
            except KeyError as error:
                msg = f"{where} does not exist"
                raise DatasetError(msg) from error
        scales = _attributes(group).get("multiscales")
        if not scales:
            msg = f"{where} has no multiscales metadata: not an OME-Zarr image"
            raise DatasetError(msg)
        array = group[scales[0]["datasets"][0]["path"]]
        axes = "".join(axis["name"] for axis in scales[0].get("axes", ()))
        axes = axes or "tczyx"[-array.ndim :]
        if len(axes) != array.ndim or not axes.endswith("yx"):
            msg = f"{where} has axes {axes!r}: expected some of t, c, z, then y, x"
            raise DatasetError(msg)
        return array, axes


def _read(array: Any, axes: str, plane: int | None) -> NDArray[Any]:
    """Read (Y, X) or (Y, X, C): first time point, one z, channels last."""
    index: list[Any] = []
    for axis, length in zip(axes, array.shape, strict=True):
        if axis == "z":
            index.append(0 if plane is None else plane)
        elif axis == "c":
            index.append(0 if length == 1 else slice(0, MAX_CHANNELS))
        else:
            index.append(slice(None) if axis in "yx" else 0)
    values = np.asarray(array[tuple(index)])
    return np.moveaxis(values, 0, -1) if values.ndim == 3 else values


def _attributes(group: Any) -> Mapping[str, Any]:
    """Metadata of 0.4 (at the top) and 0.5 (under "ome")."""
    attributes: Mapping[str, Any] = dict(group.attrs)
    nested: Mapping[str, Any] = attributes.get("ome", attributes)
    return nested


def _first_label(group: Any, where: str) -> str:
    try:
        return str(_attributes(group["labels"])["labels"][0])
    except (KeyError, IndexError) as error:
        msg = f"{where} has no labels: expected labels/NAME listed in labels/"
        raise DatasetError(msg) from error


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in (".zgroup", "zarr.json"))


def _import_zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        msg = 'reading OME-Zarr needs zarr: pip install "napari-cfrseg[all]" or zarr'
        raise DatasetError(msg) from error
    return zarr
