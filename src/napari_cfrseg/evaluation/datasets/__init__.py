"""Objects of a benchmark, and the data sets that their pixels come from."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.geometry.windows import mask_box, slices
from napari_cfrseg.io.plane_image import Scaling, open_plane

#: objects smaller than this many pixels are left out
MIN_AREA_PX = 40
#: and those that cover more than this share of the plane
MAX_PLANE_SHARE = 0.5
#: objects per set, at most
MAX_OBJECTS_PER_SET = 40


@dataclass(frozen=True, slots=True)
class AnnotatedPlane:
    """One plane and its annotation."""

    #: (Y, X) or (Y, X, C), any dtype, as a segmenter's ``set_image`` takes it
    image: NDArray[Any]
    #: (L, Y, X) integer layers of instance ids, 0 background; one layer unless objects
    #: overlap
    labels: NDArray[Any]
    #: (Y, X) bool or None: pixels that do not count
    ignore_mask: NDArray[np.bool_] | None = None


class Source(Protocol):
    """A data set that can be read plane by plane; small and picklable."""

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read one plane of one image (``plane`` is None for a single plane)."""


@dataclass(frozen=True, slots=True)
class BenchmarkObject:
    """One object to segment by clicks."""

    source: Source  #: where its plane is read from
    #: the data set's name and the image's name in it
    set_name: str
    image_name: str
    plane: int | None  #: index along z, or None where the image is one plane
    label: int  #: its id in the label layer
    layer: int = 0  #: the label layer it is in
    #: (row, column) of one of its pixels: with an anchor the object is the connected
    #: component (8-neighbours) of its id around that pixel, without one all pixels of
    #: the id
    anchor: tuple[int, int] | None = None
    area_px: int = 0  #: its number of pixels; 0 when unknown

    @property
    def plane_key(self) -> str:
        """Name of the plane, the same for all its objects."""
        plane = "" if self.plane is None else f"@z{self.plane}"
        return f"{self.set_name}/{self.image_name}{plane}"

    @property
    def key(self) -> str:
        """Lasting name of the object: rows of a resumed run are matched by it."""
        layer = f".{self.layer}" if self.layer else ""
        anchor = "" if self.anchor is None else f"@{self.anchor[0]},{self.anchor[1]}"
        return f"{self.plane_key}#{self.label}{layer}{anchor}"

    def mask_in(self, plane: AnnotatedPlane) -> NDArray[np.bool_]:
        """Cut the object out of its annotated plane: (Y, X) bool."""
        mask: NDArray[np.bool_] = plane.labels[self.layer] == self.label
        if self.anchor is None:
            return mask
        box = mask_box(mask)
        y, x = self.anchor
        if box is None or not mask[y, x]:
            msg = f"{self.key}: pixel {self.anchor} is not of label {self.label}"
            raise DatasetError(msg)
        components = measure.label(mask[slices(box)], connectivity=2)
        mask[slices(box)] = components == components[y - box[0], x - box[1]]
        return mask


def as_rgb(image: NDArray[Any], *, keep_bytes: bool = False) -> NDArray[np.float32]:
    """Return (Y, X, 3) float32 in [0, 1] of a (Y, X) or (Y, X, C) image.

    Values are scaled as the product scales them; with ``keep_bytes`` uint8 is only
    divided by 255.
    """
    plane = open_plane(image)
    if keep_bytes and image.dtype == np.uint8:
        limits = (0.0,) * plane.channels, (255.0,) * plane.channels
        plane = replace(plane, scaling=Scaling(*limits))
    return plane.read()


def find_components(
    plane: AnnotatedPlane, *, min_area_px: int = MIN_AREA_PX
) -> Iterator[tuple[int, int, tuple[int, int], int]]:
    """List a plane's objects: connected components (8-neighbours) of one id.

    Yields (layer, label, anchor, area_px) in layer, then row-major order of the
    anchors, the components' first pixels.
    """
    most = MAX_PLANE_SHARE * plane.labels[0].size
    for layer, labels in enumerate(plane.labels):
        if plane.ignore_mask is not None:
            labels = np.where(plane.ignore_mask, 0, labels)
        flat = measure.label(labels, background=0, connectivity=2).ravel()
        areas = np.bincount(flat)
        _, first = np.unique(flat, return_index=True)
        for index in first:
            if flat[index] == 0 or not min_area_px <= areas[flat[index]] <= most:
                continue
            y, x = divmod(int(index), labels.shape[1])
            yield layer, int(labels[y, x]), (y, x), int(areas[flat[index]])


def objects_of(
    source: Source,
    set_name: str,
    image_name: str,
    plane: int | None,
    annotated: AnnotatedPlane,
    min_area_px: int = MIN_AREA_PX,
) -> Iterator[BenchmarkObject]:
    """List the connected components on one plane of a source as objects."""
    where = source, set_name, image_name, plane
    for component in find_components(annotated, min_area_px=min_area_px):
        yield BenchmarkObject(*where, component[1], component[0], *component[2:])


def sample_objects(
    objects: Sequence[BenchmarkObject],
    max_objects: int | None = MAX_OBJECTS_PER_SET,
    *,
    seed: int = 0,
) -> list[BenchmarkObject]:
    """Draw objects, taking turns between planes so that no image dominates.

    ``max_objects=None`` keeps all; a smaller draw is a prefix of a larger one. The same
    seed and objects give the same draw on any machine.
    """
    by_plane: dict[str, list[BenchmarkObject]] = {}
    for item in sorted(objects, key=lambda item: item.key):
        by_plane.setdefault(item.plane_key, []).append(item)
    name = objects[0].set_name if objects else ""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    planes = [by_plane[key] for key in sorted(by_plane)]
    planes = [planes[i] for i in rng.permutation(len(planes))]
    turns = [[group[i] for i in rng.permutation(len(group))] for group in planes]
    drawn = [item for turn in zip_longest(*turns) for item in turn if item is not None]
    return drawn[:max_objects]


def group_by_plane(objects: Iterable[BenchmarkObject]) -> list[list[BenchmarkObject]]:
    """Put objects of one plane together, so that each plane is read and set once."""
    ordered = sorted(objects, key=lambda item: item.plane_key)
    return [list(group) for _, group in groupby(ordered, key=lambda o: o.plane_key)]
