"""Which objects labelled images have: numbered, with points inside, and weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

if TYPE_CHECKING:
    from cfrseg_training.loop.atlas import Sample


#: interior points kept per object: the innermost, 4 near it, 4 anywhere inside
POINTS = 9


@dataclass(slots=True)
class ObjectColumns:
    """The objects found so far, a list for each of their values."""

    image: list[int]
    label: list[int]
    box: list[tuple[int, int, int, int]]
    points: list[NDArray[np.float32]]


def interior_points(
    mask: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return (9, 2) float32 points (y, x) inside a mask that is padded by zeros."""
    depth = ndimage.distance_transform_edt(mask)
    innermost = np.unravel_index(int(depth.argmax()), depth.shape)
    near = np.argwhere(depth > depth.max() / 2)
    inside = np.argwhere(mask)
    return np.concatenate(
        [
            np.asarray([innermost]),
            near[rng.integers(len(near), size=4)],
            inside[rng.integers(len(inside), size=4)],
        ]
    ).astype(np.float32)


def number_components(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return the connected components of every label, numbered from 1."""
    out = np.zeros(labels.shape, np.int32)
    count = 0
    for index, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), 1):
        if box is None:
            continue
        parts, found = ndimage.label(labels[box] == index, np.ones((3, 3)))
        out[box][parts > 0] = parts[parts > 0] + count
        count += found
    return out


def collect(
    objects: ObjectColumns,
    index: int,
    numbered: NDArray[np.int32],
    rng: np.random.Generator,
    min_area_px: int,
) -> None:
    """Add the components of one image that are neither too small nor half the plane."""
    half_plane = numbered.size / 2
    for number, box in enumerate(ndimage.find_objects(numbered), 1):
        if box is None:
            continue
        mask = np.pad(numbered[box] == number, 1)
        if not min_area_px <= mask.sum() <= half_plane:
            continue
        corner = np.asarray([box[0].start, box[1].start])
        objects.image.append(index)
        objects.label.append(number)
        objects.box.append((*corner.tolist(), box[0].stop, box[1].stop))
        objects.points.append(
            (interior_points(mask, rng) + corner - 1).astype(np.float32)
        )


def object_weights(
    samples: list[Sample], object_image: list[int], set_power: float
) -> list[float]:
    """Weigh objects so that sets, groups, images and crowded images balance."""
    groups: dict[str, set[str]] = {}
    images: dict[tuple[str, str], int] = {}
    for sample in samples:
        groups.setdefault(sample.dataset, set()).add(sample.group)
        key = (sample.dataset, sample.group)
        images[key] = images.get(key, 0) + 1
    per_image = np.bincount(object_image, minlength=len(samples))
    total = {
        name: sum(images[name, g] ** 0.5 for g in members)
        for name, members in groups.items()
    }
    weights = []
    for index in object_image:
        sample = samples[index]
        in_group = images[sample.dataset, sample.group]
        share = in_group**0.5 / total[sample.dataset] / in_group
        of_set = len(groups[sample.dataset]) ** set_power
        weights.append(of_set * share / float(per_image[index]))
    return weights


#: (label, y, x, is positive)
RealClick = tuple[int, float, float, bool]
#: of one object's clicks so many are kept
MOST_CLICKS = 8


def real_clicks(
    samples: Sequence[Sample],
    object_image: Sequence[int],
    object_points: Sequence[NDArray[np.float32]],
) -> Tensor | None:
    """Return the clicks of each object of an atlas.

    An object is one connected component; a label of several components gives each of
    them the clicks from the first positive one that hits it on.

    Parameters
    ----------
    samples
        Labelled images with their clicks.
    object_image, object_points
        Of each object: its sample's index and points (P, 2) inside it.

    Returns
    -------
    (N, K, 3) float32 rows ``[y, x, label]``, label −1 where there is none; None if no
    sample has clicks.
    """
    if not any(sample.clicks for sample in samples):
        return None
    out = torch.full((len(object_image), MOST_CLICKS, 3), -1.0)
    for index, (image, points) in enumerate(
        zip(object_image, object_points, strict=True)
    ):
        sample = samples[image]
        y, x = (int(v) for v in points[0])
        label = int(sample.labels[y, x])
        own = [c[1:] for c in sample.clicks if c[0] == label]
        while own and not _hits(sample.labels, label, own[0]):
            own.pop(0)
        for row, (click_y, click_x, positive) in enumerate(own[:MOST_CLICKS]):
            out[index, row] = torch.tensor([click_y, click_x, float(positive)])
    return out


def _hits(
    labels: NDArray[np.integer], label: int, click: tuple[float, float, bool]
) -> bool:
    y, x, positive = round(click[0]), round(click[1]), click[2]
    inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
    return positive and inside and int(labels[y, x]) == label
