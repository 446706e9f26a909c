"""Labelled micrographs: folders of images and labels, and OME-Zarr images.

::

    FOLDER/images/NAME.tif      any format that is read, any integer or float dtype
    FOLDER/labels/NAME.tif      integer instance ids, 0 background; same plane shape

An image has the axes of its labels and at most one more, of channels. With
(Z, Y, X) labels it is a stack, measured plane by plane. Files that cannot be used are
left out, each with a line in the log. ::

    IMAGE.zarr/                 OME-Zarr (NGFF 0.4, 0.5): metadata with named axes
      0/ …                      full resolution
      labels/NAME/0/            instance ids on the image's y and x (and z)

of which the first time point is used, and only the planes needed are read.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import CfrSegError, DatasetError
from napari_cfrseg.evaluation.datasets import (
    MAX_PLANE_SHARE,
    MIN_AREA_PX,
    AnnotatedPlane,
    BenchmarkObject,
    objects_of,
)
from napari_cfrseg.io import images
from napari_cfrseg.io.named_axes import OpenImage
from napari_cfrseg.io.ome_zarr import is_zarr, open_zarr

#: planes of a stack that are searched for objects, spread evenly along z
PLANES_PER_STACK = 8
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LabelledSet(ABC):
    """Fields that both layouts share."""

    folder: Path  #: its path (OME-Zarr: one image, or a folder of them)
    name: str  #: name of the set in tables
    ignore_value: int | None = None  #: of pixels that do not count; nor do those < 0
    #: smaller objects are left out
    min_area_px: int = MIN_AREA_PX
    #: planes of a stack that are searched, spread evenly along z
    planes_per_stack: int = PLANES_PER_STACK

    @abstractmethod
    def names(self) -> list[str]:
        """Return the images' names, sorted."""

    @abstractmethod
    def objects_in(self, name: str) -> Iterator[BenchmarkObject]:
        """List every object of one image; CfrSegError if it cannot be used."""

    @abstractmethod
    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read one plane; CfrSegError if image and labels are missing or do not fit."""

    def objects(self) -> Iterator[BenchmarkObject]:
        """List every object, image by image; DatasetError if no image can be used."""
        left_out: list[str] = []
        names = self.names()
        for name in names:
            try:
                found = list(self.objects_in(name))
            except CfrSegError as error:
                left_out.append(f"{name} is left out: {error}")
                _LOG.warning("%s", left_out[-1])
                continue
            yield from found
        if len(left_out) == len(names):
            raise DatasetError(f"{self.folder}: {'; '.join(left_out[:3])}")

    def _objects_of(
        self, image_name: str, plane: int | None, labels: NDArray[Any]
    ) -> Iterator[BenchmarkObject]:
        where = self, self.name, image_name, plane
        return objects_of(*where, self._annotate(labels, labels), self.min_area_px)

    def _annotate(self, image: NDArray[Any], labels: NDArray[Any]) -> AnnotatedPlane:
        ignored = labels < 0
        if self.ignore_value is not None:
            ignored |= labels == self.ignore_value
        return AnnotatedPlane(image, labels[None], ignored if ignored.any() else None)

    def _planes_of(self, depth: int) -> list[int]:
        return spread_planes(depth, min(self.planes_per_stack, depth))


@dataclass(frozen=True, slots=True)
class LabelFolder(_LabelledSet):
    """A folder with ``images/`` and ``labels/``."""

    #: the images to use, by name without suffix; None: all in ``labels/``
    image_names: tuple[str, ...] | None = None
    #: False: a stack is measured plane by plane, an object that crosses several of the
    #: planes counting in each. True: every 3-D object is used once, all of its id on
    #: the plane where it is largest (the first of equals).
    per_object: bool = False
    axes: str | None = None  #: letters of the images' axes; None: the files'

    def names(self) -> list[str]:
        """Return the images' names, sorted; DatasetError if a folder is missing."""
        for part in ("images", "labels"):
            if not (self.folder / part).is_dir():
                raise DatasetError(
                    f"{self.folder} has no folder {part}/: expected images/NAME.tif "
                    "and labels/NAME.tif"
                )
        if self.image_names is not None:
            return sorted(self.image_names)
        names = list(images.image_files(self.folder / "labels"))
        if not names:
            raise DatasetError(f"{self.folder / 'labels'} holds no image files")
        return names

    def objects_in(self, name: str) -> Iterator[BenchmarkObject]:
        """List every object of one image; CfrSegError if it cannot be used."""
        image, labels = self._pair(name)
        if labels.ndim == 2:
            image.plane()  # pixels that cannot be decoded are found now
            yield from self._objects_of(name, None, labels)
        elif self.per_object:
            yield from self._largest_sections(name, labels)
        else:
            for plane in self._planes_of(len(labels)):
                image.plane(plane)
                yield from self._objects_of(name, plane, labels[plane])

    def _pair(self, name: str) -> tuple[OpenImage, NDArray[np.integer]]:
        labels = images.read_labels(find_file(self.folder / "labels", name))
        if labels.ndim > 3:
            msg = f"labels of shape {labels.shape}: expected (Y, X) or (Z, Y, X)"
            raise DatasetError(msg)
        path = find_file(self.folder / "images", name)
        image = images.open_image(path, axes=self.axes)
        return image.fitted(labels.shape, str(path)), labels

    def _largest_sections(
        self, name: str, labels: NDArray[Any]
    ) -> Iterator[BenchmarkObject]:
        areas: dict[int, NDArray[np.int64]] = {}
        for z, plane in enumerate(labels):
            for label, area in zip(*np.unique(plane, return_counts=True), strict=True):
                per_plane = areas.setdefault(int(label), np.zeros(len(labels), int))
                per_plane[z] = area
        most = MAX_PLANE_SHARE * labels[0].size
        for label, per_plane in sorted(areas.items()):
            z = int(per_plane.argmax())
            counts = label > 0 and label != self.ignore_value
            if counts and self.min_area_px <= per_plane[z] <= most:
                area = int(per_plane[z])
                yield BenchmarkObject(self, self.name, name, z, label, area_px=area)

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read one plane; CfrSegError if image and labels are missing or do not fit."""
        image, labels = self._pair(image_name)
        if labels.ndim == 2:
            return self._annotate(image.plane(), labels)
        index = 0 if plane is None else plane
        return self._annotate(image.plane(index), labels[index])


@dataclass(frozen=True, slots=True)
class OmeZarr(_LabelledSet):
    """Labelled OME-Zarr images; of several label images the first one listed."""

    def objects_in(self, name: str) -> Iterator[BenchmarkObject]:
        """List every object of one image; CfrSegError if it cannot be used."""
        shape = self._open(name, labels=True).shape
        planes = [*self._planes_of(shape[0])] if len(shape) == 3 else [None]
        for plane in planes:
            ids = self.read_plane(name, plane).labels[0]
            yield from self._objects_of(name, plane, ids)

    def names(self) -> list[str]:
        """Return the images' names: paths relative to the folder, sorted."""
        if is_zarr(self.folder):
            return ["."]
        names = []
        if self.folder.is_dir():
            names = sorted(p.name for p in self.folder.iterdir() if is_zarr(p))
        if not names:
            raise DatasetError(f"{self.folder} is no OME-Zarr image and holds none")
        return names

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read one plane of one image."""
        labels = self._open(image_name, labels=True)
        where = str(self.folder / image_name)
        image = self._open(image_name, labels=False).fitted(labels.shape, where)
        index = () if plane is None else (plane,)
        ids = images.whole_numbers(labels.plane(*index), where)
        return self._annotate(image.plane(*index), ids)

    def _open(self, image_name: str, *, labels: bool) -> OpenImage:
        """Open the finest level: the first time, a few of many channels."""
        path = self.folder / image_name
        with images.reading(path):
            if labels:
                return open_zarr(path, labels="").arranged(keep="zyx")
            return open_zarr(path).arranged(keep="zyxc").with_few_channels()


def find_file(
    folder: Path, name: str, suffixes: Iterable[str] = (*images.IMAGE_SUFFIXES, ".zarr")
) -> Path:
    """Find ``folder/name.*`` with one of the suffixes, or raise DatasetError."""
    for suffix in suffixes:
        for ending in (suffix, suffix.upper(), f".ome{suffix}"):
            path = folder / f"{name}{ending}"
            if path.exists():
                return path
    raise DatasetError(f"{folder} has no {name} with suffix {', '.join(suffixes)}")


def spread_planes(length: int, count: int) -> list[int]:
    """Return ``count`` indices spread evenly, away from both ends."""
    return [int((i + 0.5) * length / count) for i in range(count)]
