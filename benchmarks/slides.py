"""Build a sparse whole slide: a pyramid of RGB pixels with tissue at a few places."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: what the slide shows where no tissue is
EMPTY = 243
CHUNK_PX = 512
#: side of a piece of tissue
SPOT_PX = 1024


def tissue() -> NDArray[np.uint8]:
    """Return real stained tissue, (SPOT_PX, SPOT_PX, 3)."""
    from skimage.data import immunohistochemistry

    one: NDArray[np.uint8] = immunohistochemistry()
    row = np.concatenate([one, one[:, ::-1]], axis=1)
    return np.concatenate([row, row[::-1]])


def build_slide(path: Path, side: int, spots: int = 3) -> list[tuple[int, int]]:
    """Write an OME-Zarr pyramid of side² RGB pixels in a second or two.

    Parameters
    ----------
    path
        A folder that does not exist yet.
    side
        Of the finest level, at least ``SPOT_PX``.
    spots
        Pieces of tissue along each axis.

    Returns
    -------
    The (row, column) of each piece's first pixel.
    """
    import zarr

    room = (side - SPOT_PX) // CHUNK_PX
    starts = sorted({CHUNK_PX * round(room * i / spots) for i in range(spots)})
    places = list(product(starts, starts))
    group: Any = zarr.open_group(str(path), mode="w-", zarr_format=3)
    piece = tissue()
    datasets, level, length = [], 0, side
    while True:
        array = group.create_array(
            str(level),
            shape=(length, length, 3),
            chunks=(CHUNK_PX, CHUNK_PX, 3),
            dtype="u1",
            fill_value=EMPTY,
        )
        for y, x in ((y >> level, x >> level) for y, x in places):
            part = piece[: length - y, : length - x]
            array[y : y + part.shape[0], x : x + part.shape[1]] = part
        scale = {"type": "scale", "scale": [2.0**level, 2.0**level, 1.0]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
        if length <= CHUNK_PX:
            break
        wide = piece.astype(np.uint16)
        rows = wide[::2] + wide[1::2]
        piece = ((rows[:, ::2] + rows[:, 1::2]) // 4).astype(np.uint8)
        level, length = level + 1, -(-length // 2)
    axes = [{"name": name, "type": "space"} for name in "yx"]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": path.stem,
                "axes": [*axes, {"name": "c", "type": "channel"}],
                "datasets": datasets,
            }
        ],
    }
    return places
