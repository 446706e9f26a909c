"""Stacks with an annotation, and a robot that clicks planes of their objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation.datasets.label_folders import find_file
from napari_cfrseg.evaluation.robots import ExactRobot
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.io.images import open_image, read_labels

#: (z, y, x) voxel size of the sets that are not isotropic, from their descriptions
VOXELS: Mapping[str, tuple[float, float, float]] = {
    "stacks/bbbc050_mouse_embryo": (1.75, 0.8, 0.8)
}


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A stack and its annotation.

    Attributes
    ----------
    set_name, name
        The data set and the stack.
    image, labels
        (Z, Y, X) pixels and ids.
    voxel
        (z, y, x) size of a voxel.
    """

    set_name: str
    name: str
    image: NDArray[Any]
    labels: NDArray[Any]
    voxel: tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class VolumeObject:
    """One object of a stack.

    Attributes
    ----------
    label
        Its id.
    first, last
        Its planes, both inclusive.
    truth
        (Z, Y, X) bool.
    """

    label: int
    first: int
    last: int
    truth: NDArray[np.bool_]

    @property
    def planes(self) -> int:
        """How many planes it spans."""
        return self.last - self.first + 1

    def iou(self, masks: Mapping[int, MaskPatch]) -> float:
        """Intersection over union of masks by plane with the object, in 3-D."""
        shape = self.truth.shape[1:]
        both = found = 0
        for index, mask in masks.items():
            plane = mask.to_mask((shape[0], shape[1]))
            both += int(np.count_nonzero(plane & self.truth[index]))
            found += mask.area
        union = found + int(np.count_nonzero(self.truth)) - both
        return both / union if union else 1.0


def open_volume(folder: Path, set_name: str, name: str) -> Volume:
    """Read a stack ``folder/images/NAME`` with its ``labels/NAME``."""
    path = find_file(folder / "images", name)
    labels = read_labels(find_file(folder / "labels", name))
    image = open_image(path).fitted(labels.shape, str(path))
    z, y, x = VOXELS.get(set_name) or image.spacing or (1.0, 1.0, 1.0)
    return Volume(set_name, name, image.read(), labels, (z, y, x))


def objects_of(
    volume: Volume,
    *,
    most: int | None = None,
    min_planes: int = 5,
    min_voxels: int = 200,
    min_area_px: int = 40,
    seed: int = 0,
) -> list[VolumeObject]:
    """Return objects that are large enough, drawn in a seeded order.

    An object spans ``min_planes`` planes or more, has ``min_voxels`` voxels or more and
    ``min_area_px`` pixels on its largest plane, and is in one piece along z.
    """
    labels, counts = np.unique(volume.labels, return_counts=True)
    known = [
        int(i) for i, n in zip(labels, counts, strict=True) if i and n >= min_voxels
    ]
    rng = np.random.default_rng(seed)
    found: list[VolumeObject] = []
    for label in rng.permutation(known).tolist():
        truth = volume.labels == label
        areas = truth.sum(axis=(1, 2))
        there = np.flatnonzero(areas)
        first, last = int(there[0]), int(there[-1])
        if areas.max() < min_area_px or there.size < min_planes:
            continue
        if there.size != last - first + 1:
            continue
        found.append(VolumeObject(int(label), first, last, truth))
        if most is not None and len(found) == most:
            break
    return found


def spread_anchors(item: VolumeObject, count: int) -> list[int]:
    """Return ``count`` planes spread evenly over an object, away from both ends."""
    n = item.planes
    return sorted({item.first + int((i + 0.5) * n / count) for i in range(count)})


class PlaneAnnotator:
    """Annotates planes of an object with the published robot.

    Parameters
    ----------
    segmenter
        Segments the planes.
    volume, item
        The stack and the object.
    target, most_clicks
        A plane is done at this IoU, or after so many clicks.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        volume: Volume,
        item: VolumeObject,
        *,
        target: float = 0.9,
        most_clicks: int = 5,
    ) -> None:
        self._segmenter = segmenter
        self._volume = volume
        self._item = item
        self._target = target
        self._most = most_clicks

    def annotate(
        self, index: int, start: MaskPatch | None = None
    ) -> tuple[MaskPatch, int]:
        """Click a plane, from nothing or a mask; return its mask and the clicks."""
        truth = self._item.truth[index]
        shape = (truth.shape[0], truth.shape[1])
        robot = ExactRobot(truth)
        self._segmenter.set_image(self._volume.image[index])
        mask = None if start is None else start.to_mask(shape)
        previous: Any = mask
        clicks: list[Click] = []
        while len(clicks) < self._most:
            if mask is not None and clicks and _iou(mask, truth) >= self._target:
                break
            if mask is not None and np.array_equal(mask, truth):
                break
            clicks.append(robot.next_click(mask))
            previous = self._segmenter.predict(clicks, previous=previous)
            mask = previous.mask
        if mask is None:
            mask = np.zeros(shape, bool)
        return MaskPatch.from_mask(mask), len(clicks)


def _iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 1.0
