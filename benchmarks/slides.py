"""Build a sparse whole slide: a pyramid of RGB pixels with tissue at a few places."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

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


def build_slide(
    path: Path, side: int, spots: int = 3, version: Literal["0.4", "0.5"] = "0.5"
) -> list[tuple[int, int]]:
    """Write an OME-Zarr pyramid of side² RGB pixels in a second or two.

    Parameters
    ----------
    path
        A folder that does not exist yet.
    side
        Of the finest level, at least ``SPOT_PX``.
    spots
        Pieces of tissue along each axis.
    version
        Of OME-Zarr: 0.4 is Zarr 2, 0.5 is Zarr 3.

    Returns
    -------
    The (row, column) of each piece's first pixel.
    """
    import zarr

    room = (side - SPOT_PX) // CHUNK_PX
    starts = sorted({CHUNK_PX * round(room * i / spots) for i in range(spots)})
    places = list(product(starts, starts))
    form: Literal[2, 3] = 2 if version == "0.4" else 3
    group: Any = zarr.open_group(str(path), mode="w-", zarr_format=form)
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
    said = {
        "version": version,
        "name": path.stem,
        "axes": [*axes, {"name": "c", "type": "channel"}],
        "datasets": datasets,
    }
    if version == "0.4":
        group.attrs["multiscales"] = [said]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [said]}
    return places


#: sides of the slides that ``build_svs`` makes are multiples of it
SVS_PX = 4096
#: size of their pixels
SVS_UM = 0.252
_TILE_PX = 256


def build_svs(path: Path, side: int, spots: int = 3) -> list[tuple[int, int]]:
    """Write a slide as Aperio's scanners do, made of a micrograph.

    JPEG tiles whose tables stand apart, in levels of 1, 1/4 and 1/16, and a thumbnail,
    the label and an overview beside them. Returns as ``build_slide`` does.
    """
    import tifffile

    room = side // SVS_PX - 1
    starts = sorted({SVS_PX * round(room * i / spots) for i in range(spots)})
    places = list(product(starts, starts))
    said = f"Aperio Image Library v11.2.1\r\n{side}x{side} (256x256) JPEG/RGB Q=80"
    piece = tissue().astype(np.uint16)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for factor in (1, 4, 16):
            tables, blank = _split_jpeg(np.full((_TILE_PX, _TILE_PX, 3), EMPTY, "u1"))
            tiles = {}
            for y, x in places:
                for (row, column), part in _cut(piece.astype(np.uint8)):
                    at = y // factor // _TILE_PX + row, x // factor // _TILE_PX + column
                    tiles[at] = _split_jpeg(part)[1]
            count = side // factor // _TILE_PX
            file.write(
                (tiles.get(at, blank) for at in np.ndindex(count, count)),
                shape=(side // factor, side // factor, 3),
                dtype="u1",
                tile=(_TILE_PX, _TILE_PX),
                compression="jpeg",
                photometric="ycbcr",
                subsampling=(2, 2),
                description=f"{said}|AppMag = 40|MPP = {SVS_UM}",
                extratags=[(347, 7, len(tables), tables, True)],
                metadata=None,
            )
            if factor == 1:
                _picture(file, said)
            half = len(piece) // 4
            piece = piece.reshape(half, 4, half, 4, 3).mean((1, 3)).astype(np.uint16)
        for kind, number in (("label", 1), ("macro", 9)):
            named = f"Aperio Image Library v11.2.1\r\n{kind} 300x300"
            _picture(file, named, subfiletype=number, rowsperstrip=16)
    return places


def _picture(file: Any, said: str, **options: int) -> None:
    pixels = np.full((300, 300, 3), 200, np.uint8)
    options_too = {"photometric": "rgb", "metadata": None}
    file.write(pixels, description=said, **options_too, **options)


def _cut(
    piece: NDArray[np.uint8],
) -> Iterator[tuple[tuple[int, int], NDArray[np.uint8]]]:
    """Yield (row, column) and pixels of a piece's tiles."""
    missing = -len(piece) % _TILE_PX
    edges = ((0, missing), (0, missing), (0, 0))
    whole = np.pad(piece, edges, constant_values=EMPTY)
    for row, column in np.ndindex(*(n // _TILE_PX for n in whole.shape[:2])):
        y, x = row * _TILE_PX, column * _TILE_PX
        yield (row, column), whole[y : y + _TILE_PX, x : x + _TILE_PX]


def _split_jpeg(tile: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """Return a JPEG's tables and the rest of it, as scanners write them."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", quality=80, subsampling="4:2:0")
    whole = file.getvalue()
    tables = rest = b""
    at = 2
    while whole[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
        if whole[at + 1] in (0xDB, 0xC4):
            tables += whole[at:end]
        else:
            rest += whole[at:end]
        at = end
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest + whole[at:]
