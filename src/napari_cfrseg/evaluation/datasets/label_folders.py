"""Folders of micrographs with instance labels, planes and stacks.

Layout::

    FOLDER/images/NAME.tif      any integer or float dtype; or .tiff, .png
    FOLDER/labels/NAME.tif      integer instance ids, 0 background; same plane shape

An image is (Y, X), (Y, X, C) with C ≤ 4, or (C, Y, X) with C ≤ 4, as its labels tell;
with (Z, Y, X) labels it is a stack, measured plane by plane.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
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

SUFFIXES = (".tif", ".tiff", ".png")
MAX_CHANNELS = 4
#: planes of a stack that are looked at for objects, spread evenly along z
PLANES_PER_STACK = 8
#: what the readers say of files that are cut short or are something else
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
class LabelFolder:
    """A folder with ``images/`` and ``labels/``.

    Attributes
    ----------
    folder
        Its path.
    name
        What the set is called in tables.
    image_names
        The images to use, by name without suffix; None: all in ``labels/``.
    ignore_value
        Label of pixels that do not count, or None.
    min_area_px, max_plane_share
        Objects smaller or larger are not asked for.
    planes_per_stack
        Planes of a stack that are looked at, spread evenly along z.
    per_object
        False: a stack is asked plane by plane, an object that crosses several of the
        planes counting in each. True: every 3-D object is asked once, all of its id
        on the plane where it is largest (the first of equals).
    """

    folder: Path
    name: str
    image_names: tuple[str, ...] | None = None
    ignore_value: int | None = None
    min_area_px: int = MIN_AREA_PX
    max_plane_share: float = MAX_PLANE_SHARE
    planes_per_stack: int = PLANES_PER_STACK
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
        names = sorted(
            path.stem
            for path in (self.folder / "labels").iterdir()
            if path.suffix.lower() in SUFFIXES
        )
        if not names:
            msg = f"{self.folder / 'labels'} holds no {', '.join(SUFFIXES)} file"
            raise DatasetError(msg)
        return names

    def objects(self) -> Iterator[BenchmarkObject]:
        """List every object that can be asked for, image by image."""
        for name in self.names():
            labels = read_image(find_file(self.folder / "labels", name))
            if labels.ndim == 2:
                yield from self._objects_of(name, None, labels)
                continue
            if self.per_object:
                yield from self._largest_sections(name, labels)
                continue
            count = min(self.planes_per_stack, len(labels))
            for plane in spread_planes(len(labels), count):
                yield from self._objects_of(name, plane, labels[plane])

    def _objects_of(
        self, name: str, plane: int | None, labels: NDArray[Any]
    ) -> Iterator[BenchmarkObject]:
        annotated = self._annotate(labels, labels)
        for layer, label, anchor, area in find_components(
            annotated,
            min_area_px=self.min_area_px,
            max_plane_share=self.max_plane_share,
        ):
            yield BenchmarkObject(
                self, self.name, name, plane, label, layer, anchor, area
            )

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
            wanted = label != 0 and label != self.ignore_value
            if wanted and self.min_area_px <= per_plane[z] <= most:
                area = int(per_plane[z])
                yield BenchmarkObject(self, self.name, name, z, label, area_px=area)

    def _annotate(self, image: NDArray[Any], labels: NDArray[Any]) -> AnnotatedPlane:
        ignore_mask = None
        if self.ignore_value is not None:
            ignore_mask = labels == self.ignore_value
        return AnnotatedPlane(image, labels[None], ignore_mask)

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
