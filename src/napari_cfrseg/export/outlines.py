"""Outlines of regions along pixel edges, so that filling one gives the mask back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours

from napari_cfrseg.export.rows import Region

Ring = NDArray[np.float64]


def rings_of(region: Region) -> list[tuple[Ring, list[Ring]]]:
    """Return each connected part's outer ring and its holes.

    Returns
    -------
    Rings as (N, 2) arrays of (row, column) corners, closed (first = last). Corners are
    in pixel edges: the pixel (0, 0) is the square from 0 to 1. Parts that touch at a
    corner only are apart.
    """
    from scipy import ndimage

    parts, count = ndimage.label(region.mask)
    found = []
    for number in range(1, count + 1):
        part = parts == number
        outside, _ = ndimage.label(~np.pad(part, 1), np.ones((3, 3)))
        holes = [
            _trace(outside[1:-1, 1:-1] == hole, region.offset)
            for hole in range(2, int(outside.max()) + 1)
        ]
        filled = part | (outside[1:-1, 1:-1] > 1)
        found.append((_trace(filled, region.offset), holes))
    return found


def _trace(mask: NDArray[np.bool_], offset: tuple[int, int]) -> Ring:
    """Walk around a connected mask along pixel edges, collinear corners left out."""
    # on a grid three times as fine the level line lies beside the pixels' edges
    fine = np.pad(np.kron(mask, np.ones((3, 3))), 3)
    contours = find_contours(fine, 0.5, fully_connected="low")
    longest = max(contours, key=len)
    corners = np.round((longest - 2.5) / 3).astype(np.int64)
    keep = [corners[0]]
    for corner in corners[1:]:
        if (corner != keep[-1]).any():
            keep.append(corner)
    ring = np.array(keep)
    if (ring[0] != ring[-1]).any():
        ring = np.vstack([ring, ring[:1]])
    steps = np.sign(np.diff(ring, axis=0))
    turns = (steps != np.roll(steps, 1, axis=0)).any(axis=1)
    ring = ring[:-1][turns]
    closed: Ring = (np.vstack([ring, ring[:1]]) + offset).astype(np.float64)
    return closed
