"""Clicks that people made, brought to the objects of an atlas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from cfrseg_training.atlas import Sample

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
