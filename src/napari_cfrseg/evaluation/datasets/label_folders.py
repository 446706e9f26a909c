"""Labelled micrographs: folders of TIFF or PNG pairs, and OME-Zarr images.

::

    FOLDER/images/NAME.tif      any integer or float dtype; or .tiff, .png
    FOLDER/labels/NAME.tif      integer instance ids, 0 background; same plane shape

An image is (Y, X), (Y, X, C) with C ≤ 4, or (C, Y, X) with C ≤ 4, as its labels tell;
with (Z, Y, X) labels it is a stack, measured plane by plane. ::

    IMAGE.zarr/                 OME-Zarr (NGFF 0.4, 0.5): metadata with named axes
      0/ …                      full resolution
      labels/NAME/0/            instance ids on the image's y and x (and z)

of which the first time point is used, and only the planes needed are read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets import (
    MAX_PLANE_SHARE,
    MIN_AREA_PX,
    AnnotatedPlane,
    BenchmarkObject,
    find_components,
)

SUFFIXES = (".tif", ".tiff", ".png")
MAX_CHANNELS = 4
#: planes of a stack that are searched for objects, spread evenly along z
PLANES_PER_STACK = 8
#: errors of the readers for files that are cut short or are something else
_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,  # the codecs of imagecodecs
    SyntaxError,  # Pillow: a broken PNG
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class _LabelledSet:
    """Fields that both layouts share.

    Attributes
    ----------
    folder
        Its path (OME-Zarr: one image, or a folder of them).
    name
        Name of the set in tables.
    ignore_value
        Label of pixels that do not count, or None.
    min_area_px, max_plane_share
        Smaller or larger objects are left out.
    planes_per_stack
        Planes of a stack that are searched, spread evenly along z.
    """

    folder: Path
    name: str
    ignore_value: int | None = None
    min_area_px: int = MIN_AREA_PX
    max_plane_share: float = MAX_PLANE_SHARE
    planes_per_stack: int = PLANES_PER_STACK

    def _objects_of(
        self, image_name: str, plane: int | None, labels: NDArray[Any]
    ) -> Iterator[BenchmarkObject]:
        for layer, label, anchor, area in find_components(
            self._annotate(labels, labels),
            min_area_px=self.min_area_px,
            max_plane_share=self.max_plane_share,
        ):
            yield BenchmarkObject(
                self,  # type: ignore[arg-type]  # both layouts read planes
                self.name,
                image_name,
                plane,
                label,
                layer,
                anchor,
                area,
            )

    def _annotate(self, image: NDArray[Any], labels: NDArray[Any]) -> AnnotatedPlane:
        ignored = None if self.ignore_value is None else labels == self.ignore_value
        return AnnotatedPlane(image, labels[None], ignored)

    def _planes_of(self, depth: int) -> list[int]:
        return spread_planes(depth, min(self.planes_per_stack, depth))


@dataclass(frozen=True, slots=True)
class LabelFolder(_LabelledSet):
    """A folder with ``images/`` and ``labels/``.

    Attributes
    ----------
    image_names
        The images to use, by name without suffix; None: all in ``labels/``.
    per_object
        False: a stack is measured plane by plane, an object that crosses several of
        the planes counting in each. True: every 3-D object is used once, all of its id
        on the plane where it is largest (the first of equals).
    """

    image_names: tuple[str, ...] | None = None
    per_object: bool = False

    def names(self) -> list[str]:
        """Return the images' names, sorted.

        Raises
        ------
        DatasetError
            If the folder does not have the layout.
        """
        for part in ("images", "labels"):
            if not (self.folder / part).is_dir():
                msg = (
                    f"{self.folder} has no folder {part}/: expected images/NAME.tif "
                    "and labels/NAME.tif"
                )
                raise DatasetError(msg)
        if self.image_names is not None:
            return sorted(self.image_names)
        files = (self.folder / "labels").iterdir()
        names = sorted(p.stem for p in files if p.suffix.lower() in SUFFIXES)
        if not names:
            msg = f"{self.folder / 'labels'} holds no {', '.join(SUFFIXES)} file"
            raise DatasetError(msg)
        return names

    def objects(self) -> Iterator[BenchmarkObject]:
        """List every object, image by image."""
        for name in self.names():
            labels = read_image(find_file(self.folder / "labels", name))
            if labels.ndim == 2:
                yield from self._objects_of(name, None, labels)
            elif self.per_object:
                yield from self._largest_sections(name, labels)
            else:
                for plane in self._planes_of(len(labels)):
                    yield from self._objects_of(name, plane, labels[plane])

    def _largest_sections(
        self, name: str, labels: NDArray[Any]
    ) -> Iterator[BenchmarkObject]:
        areas: dict[int, NDArray[np.int64]] = {}
        for z, plane in enumerate(labels):
            for label, area in zip(*np.unique(plane, return_counts=True), strict=True):
                per_plane = areas.setdefault(int(label), np.zeros(len(labels), int))
                per_plane[z] = area
        most = self.max_plane_share * labels[0].size
        for label, per_plane in sorted(areas.items()):
            z = int(per_plane.argmax())
            counts = label != 0 and label != self.ignore_value
            if counts and self.min_area_px <= per_plane[z] <= most:
                area = int(per_plane[z])
                yield BenchmarkObject(self, self.name, name, z, label, area_px=area)

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read one plane of one image.

        Raises
        ------
        DatasetError
            If image and labels are missing or do not fit each other.
        """
        image_path = find_file(self.folder / "images", image_name)
        labels = read_image(find_file(self.folder / "labels", image_name))
        image = match_axes(read_image(image_path), labels.shape, image_path)
        if labels.ndim == 3:
            index = 0 if plane is None else plane
            image, labels = image[index], labels[index]
        return self._annotate(image, labels)


@dataclass(frozen=True, slots=True)
class OmeZarr(_LabelledSet):
    """Labelled OME-Zarr images.

    Attributes
    ----------
    label_name
        Name of the label image; None: the first one listed.
    """

    label_name: str | None = None

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
                planes = [*self._planes_of(array.shape[axes.index("z")])]
            for plane in planes:
                labels = _read(array, axes, plane)
                yield from self._objects_of(image_name, plane, labels)

    def names(self) -> list[str]:
        """Return the images' names: paths relative to the folder, sorted."""
        if is_zarr(self.folder):
            return ["."]
        names = []
        if self.folder.is_dir():
            names = sorted(p.name for p in self.folder.iterdir() if is_zarr(p))
        if not names:
            msg = f"{self.folder} is no OME-Zarr image and holds none"
            raise DatasetError(msg)
        return names

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
        return self._annotate(image, labels)

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


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group."""
    return any((path / name).is_file() for name in (".zgroup", "zarr.json"))


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


def _import_zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        msg = 'reading OME-Zarr needs zarr: pip install "napari-cfrseg[all]" or zarr'
        raise DatasetError(msg) from error
    return zarr


def match_axes(image: NDArray[Any], shape: tuple[int, ...], path: Path) -> NDArray[Any]:
    """Put an image's channels last, given the shape of its labels.

    Raises
    ------
    DatasetError
        If no order of the axes fits.
    """
    if image.shape == shape:
        return image
    if image.ndim == len(shape) + 1 and min(image.shape) <= MAX_CHANNELS:
        if image.shape[:-1] == shape and image.shape[-1] <= MAX_CHANNELS:
            return image
        if image.shape[1:] == shape and image.shape[0] <= MAX_CHANNELS:
            return np.moveaxis(image, 0, -1)
    msg = (
        f"{path} has shape {image.shape}, its labels {shape}: expected the same "
        f"shape, or one axis of at most {MAX_CHANNELS} channels more"
    )
    raise DatasetError(msg)


def find_file(folder: Path, name: str, suffixes: Iterable[str] = SUFFIXES) -> Path:
    """Find ``folder/name.*`` with one of the suffixes.

    Raises
    ------
    DatasetError
        If there is none.
    """
    for suffix in suffixes:
        for candidate in (suffix, suffix.upper()):
            path = folder / f"{name}{candidate}"
            if path.is_file():
                return path
    msg = f"{folder} has no {name} with suffix {', '.join(suffixes)}"
    raise DatasetError(msg)


def read_image(path: Path) -> NDArray[Any]:
    """Read a TIFF, PNG or JPEG file as it is.

    Raises
    ------
    DatasetError
        If it cannot be read.
    """
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            return np.asarray(tifffile.imread(path))
        from skimage.io import imread

        return np.asarray(imread(path))
    except _UNREADABLE as error:
        msg = f"{path} cannot be read as an image: {error}"
        raise DatasetError(msg) from error


def spread_planes(length: int, count: int) -> list[int]:
    """Return ``count`` indices spread evenly, away from both ends."""
    return [int((i + 0.5) * length / count) for i in range(count)]
