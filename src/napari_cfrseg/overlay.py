"""Draw outlines and clicks over an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.io.plane_image import open_plane

#: Okabe and Ito's colours, safe for colour-blind readers.
COLOURS: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
ORANGE, SKY_BLUE, GREEN, YELLOW, BLUE, VERMILION, PURPLE = COLOURS
_POSITIVE, _NEGATIVE = (255, 255, 255), (255, 60, 60)
_ARM_PX = 5


def hex_of(colour: tuple[int, int, int]) -> str:
    """Return a colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def draw_overlay(
    image: NDArray[Any], labels: NDArray[Any], clicks: Sequence[Iterable[Click]] = ()
) -> NDArray[np.uint8]:
    """Return (Y, X, 3) uint8: the objects' outlines and the clicks over an image.

    The image is (Y, X) or (Y, X, C) of any real dtype, scaled as the segmenter scales
    it; labels are (Y, X) instance numbers, 0 = background. Of each object's clicks
    positive ones become a white +, negative ones a red ×.
    """
    from skimage.segmentation import find_boundaries

    picture = (open_plane(image).read() * 255).round().astype(np.uint8)
    edges = find_boundaries(labels, mode="inner") & (labels > 0)
    palette = np.asarray(COLOURS, dtype=np.uint8)
    picture[edges] = palette[(labels[edges].astype(np.int64) - 1) % len(palette)]
    for click in (click for one_object in clicks for click in one_object):
        _draw_mark(picture, click)
    return picture


def _draw_mark(picture: NDArray[np.uint8], click: Click) -> None:
    y, x = click.pixel
    arm = np.arange(-_ARM_PX, _ARM_PX + 1)
    flat = np.zeros_like(arm)
    if click.is_positive:
        offsets = np.concatenate([np.stack([arm, flat]), np.stack([flat, arm])], axis=1)
    else:
        offsets = np.concatenate([np.stack([arm, arm]), np.stack([arm, -arm])], axis=1)
    rows, columns = y + offsets[0], x + offsets[1]
    inside = (
        (rows >= 0)
        & (rows < picture.shape[0])
        & (columns >= 0)
        & (columns < picture.shape[1])
    )
    picture[rows[inside], columns[inside]] = (
        _POSITIVE if click.is_positive else _NEGATIVE
    )
