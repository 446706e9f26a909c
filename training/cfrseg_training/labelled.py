"""Labelled planes in memory: what training, the gate and the robot work on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfrseg_training.atlas import Sample
from cfrseg_training.packed import to_uint8
from cfrseg_training.real_clicks import RealClick
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.folders import MAX_CHANNELS, spread_planes
from napari_cfrseg.evaluation.objects import (
    AnnotatedPlane,
    BenchmarkObject,
    find_components,
)

#: labelled planes taken of each stack, spread evenly along z
PLANES_PER_STACK = 16
#: smaller objects are neither trained on nor asked for
MIN_AREA_PX = 30
#: larger ids are numbered anew: tables are made by id
MOST_LABEL = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPlane:
    """One plane with its labels.

    Attributes
    ----------
    name
        The image it is of: planes of one stack share it.
    plane
        Index along the stack, or None.
    image
        (Y, X) or (Y, X, C), C ≤ 4, any dtype, as read.
    labels
        (Y, X) integer instance ids, 0 background; 0 where ``ignore`` holds.
    ignore
        (Y, X) bool, pixels nothing is known of, or None.
    is_sparse
        True where unlabelled pixels may hold further objects.
    clicks
        A person's clicks on this plane.
    """

    name: str
    plane: int | None
    image: NDArray[Any]
    labels: NDArray[np.int32]
    ignore: NDArray[np.bool_] | None = None
    is_sparse: bool = False
    clicks: tuple[RealClick, ...] = ()

    def sample(self) -> Sample:
        """Return what an atlas takes."""
        return Sample(
            to_uint8(self.image),
            self.labels,
            "own",
            self.name,
            self.is_sparse,
            self.ignore,
            self.clicks,
        )


@dataclass(frozen=True, slots=True)
class LabelledData:
    """What was read.

    Attributes
    ----------
    planes
        Usable planes, with at least one object each.
    broken
        What cannot be used, with the reason.
    """

    planes: tuple[LabelledPlane, ...] = ()
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the images, each once, in order."""
        return list(dict.fromkeys(plane.name for plane in self.planes))

    def fingerprint(self) -> str:
        """SHA-256 of all pixels, labels and clicks."""
        digest = hashlib.sha256()
        for plane in self.planes:
            shape = (plane.image.shape, str(plane.image.dtype), plane.is_sparse)
            digest.update(repr((plane.name, plane.plane, shape, plane.clicks)).encode())
            digest.update(np.ascontiguousarray(plane.image).tobytes())
            digest.update(np.ascontiguousarray(plane.labels, "<i4").tobytes())
            if plane.ignore is not None:
                digest.update(np.packbits(plane.ignore).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class MemorySource:
    """Planes in memory as the evaluation's robot reads them."""

    name: str
    planes: tuple[LabelledPlane, ...]

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Return one plane."""
        for item in self.planes:
            if (item.name, item.plane) == (image_name, plane):
                return AnnotatedPlane(item.image, item.labels[None], item.ignore)
        msg = f"no plane {plane} of {image_name}"
        raise DatasetError(msg)

    def objects(self) -> Iterator[BenchmarkObject]:
        """List the objects a robot can be asked for."""
        for item in self.planes:
            annotated = AnnotatedPlane(item.image, item.labels[None], item.ignore)
            for layer, label, anchor, area in find_components(
                annotated, min_area_px=MIN_AREA_PX
            ):
                yield BenchmarkObject(
                    self, self.name, item.name, item.plane, label, layer, anchor, area
                )


def describe(planes: Sequence[LabelledPlane]) -> str:
    """Return one line that says how much there is."""
    images = len({plane.name for plane in planes})
    objects = sum(len(np.unique(p.labels)) - 1 for p in planes)
    clicks = sum(len(p.clicks) for p in planes)
    extra = f", {clicks} clicks a person made" if clicks else ""
    return f"{images} images, {len(planes)} planes, {objects} labels{extra}"


def labelled(
    name: str,
    image: NDArray[Any],
    labels: NDArray[Any],
    ignore: str | int = "background",
    planes_per_stack: int = PLANES_PER_STACK,
) -> Iterator[LabelledPlane]:
    """Yield the labelled planes of one image.

    Parameters
    ----------
    image
        The labels' axes, and one of at most 4 channels more wherever it stands.
    labels
        (…, Y, X) integer ids; negative ones do not count.

    Raises
    ------
    DatasetError
        The shapes do not fit, or the labels are no ids.
    """
    labels = _ids(labels, image.shape, name)
    image = _channels_last(image, labels.shape, name)
    stack = labels.reshape(-1, *labels.shape[-2:])
    planes = image.reshape(-1, *image.shape[labels.ndim - 2 :])
    with_labels = [z for z in range(len(stack)) if (stack[z] > 0).any()]
    count = min(planes_per_stack, len(with_labels))
    for index in spread_planes(len(with_labels), count):
        z = with_labels[index]
        unknown = stack[z] < 0
        if not isinstance(ignore, str):
            unknown |= stack[z] == ignore
        yield LabelledPlane(
            name,
            z if labels.ndim > 2 else None,
            np.array(planes[z]),  # a copy: the file may change once it was read
            np.where(unknown, 0, stack[z]).astype(np.int32),
            unknown if unknown.any() else None,
            ignore == "sparse",
        )


def _ids(
    labels: NDArray[Any], image_shape: tuple[int, ...], name: str
) -> NDArray[np.int64]:
    colours = labels.ndim == 3 and labels.shape[-1] <= MAX_CHANNELS
    if labels.ndim < 2 or (colours and labels.shape[:2] == image_shape[:2]):
        msg = (
            f"{name}: labels of shape {labels.shape} are a picture in colours; "
            "expected one integer id per pixel"
        )
        raise DatasetError(msg)
    if labels.dtype.kind == "f" and not (np.mod(labels, 1) == 0).all():
        msg = f"{name}: labels hold fractions; expected one integer id per pixel"
        raise DatasetError(msg)
    if labels.dtype.kind not in "buif":
        msg = f"{name}: labels of type {labels.dtype}; expected integers"
        raise DatasetError(msg)
    ids = labels.astype(np.int64)
    if ids.max(initial=0) > MOST_LABEL:
        positive = ids > 0
        ids[positive] = 1 + np.unique(ids[positive], return_inverse=True)[1]
    return ids


def _channels_last(
    image: NDArray[Any], shape: tuple[int, ...], name: str
) -> NDArray[Any]:
    if image.shape == shape:
        return image
    for axis in (image.ndim - 1, *range(image.ndim - 1)):
        rest = image.shape[:axis] + image.shape[axis + 1 :]
        if rest == shape and image.shape[axis] <= MAX_CHANNELS:
            return np.moveaxis(image, axis, -1)
    msg = (
        f"{name}: the image has shape {image.shape}, its labels {shape}; expected the "
        f"same, or one axis of at most {MAX_CHANNELS} channels more"
    )
    raise DatasetError(msg)
