"""Write the labels of large planes as OME-TIFF: tiled, with coarser levels.

A TIFF lists every tile of a plane, whether it holds labels or not: 51,000 of them in a
pyramid of 100,000². The lists are arrays here, and all tiles without labels are one
block that is written once. (TIFF readers differ in what they make of a tile that is
left out: libtiff refuses it.)
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg import __version__
from napari_cfrseg.io.tiled_labels import TiledLabels, labelled_tiles

_TILE_PX = 512
#: TIFF's numbers for the types of values
_TYPES = {"S1": 2, "u2": 3, "u4": 4, "u8": 16}
_DEFLATE, _BLACK_IS_ZERO, _ONE_PLANE = 8, 1, 1
_UNSIGNED, _SIGNED = 1, 2
#: where a file's head says the place of its first directory
_FIRST_LINK = 8
_Tags = dict[int, NDArray[Any]]


def write_tiled_tiff(
    file: BinaryIO, labels: TiledLabels, metadata: Mapping[str, Any]
) -> None:
    """Write (…, Y, X) labels as a deflate BigTIFF; ``metadata`` are tifffile's."""
    from tifffile import OmeXml

    levels = labels.levels_down_to(_TILE_PX)
    shape, dtype = levels[0].shape, levels[0].dtype
    count = math.prod(shape[:-2])
    said = OmeXml(Creator=f"napari-cfrseg {__version__}")
    said.addimage(dtype, shape, (count, 1, 1, *shape[-2:], 1), **metadata)
    text = said.tostring().encode() + b"\0"

    file.write(b"II" + struct.pack("<HHHQ", 43, 8, 0, 0))
    link = _FIRST_LINK  # where the place of the next directory goes
    empty = _append(file, np.zeros((_TILE_PX, _TILE_PX), dtype))
    for plane in np.ndindex(shape[:-2]):
        finest, *coarser = (_write_pixels(file, x, plane, empty) for x in levels)
        places = [_write_directory(file, {254: _longs(1), **t}) for t in coarser]
        finest[330] = np.array(places, "<u8")
        if link == _FIRST_LINK:
            finest[270] = np.frombuffer(text, "S1")
        place = _write_directory(file, finest)
        file.seek(link)
        file.write(struct.pack("<Q", place))
        file.seek(0, 2)
        link = place + 8 + 20 * len(finest)


def _write_pixels(
    file: BinaryIO, level: Any, plane: tuple[int, ...], empty: tuple[int, int]
) -> _Tags:
    """Write the tiles of a level's plane that hold labels; return its tags.

    ``empty`` are place and size of the block for the others.
    """
    height, width = level.shape[-2:]
    grid = -(-height // _TILE_PX), -(-width // _TILE_PX)
    offsets = np.full(grid, empty[0], "<u8")
    counts = np.full(grid, empty[1], "<u4")
    for tile, pixels in labelled_tiles(level, plane, (_TILE_PX, _TILE_PX)):
        offsets[tile], counts[tile] = _append(file, pixels)
    return {
        256: _longs(width),
        257: _longs(height),
        258: _shorts(8 * level.dtype.itemsize),
        259: _shorts(_DEFLATE),
        262: _shorts(_BLACK_IS_ZERO),
        277: _shorts(1),
        284: _shorts(_ONE_PLANE),
        322: _longs(_TILE_PX),
        323: _longs(_TILE_PX),
        324: offsets,
        325: counts,
        339: _shorts(_UNSIGNED if level.dtype.kind == "u" else _SIGNED),
    }


def _append(file: BinaryIO, pixels: NDArray[Any]) -> tuple[int, int]:
    """Write a tile; return where it is and its bytes."""
    little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    place, packed = file.tell(), zlib.compress(little.tobytes(), 1)
    file.write(packed + bytes(len(packed) % 2))
    return place, len(packed)


def _write_directory(file: BinaryIO, tags: _Tags) -> int:
    """Write a directory of tags that ends the file so far; return where it is."""
    entries = b""
    for code, value in sorted(tags.items()):
        data = value.tobytes()
        kind, count = _TYPES[value.dtype.str[1:]], value.size
        if len(data) > 8:
            place = file.tell()
            file.write(data + bytes(len(data) % 2))
            data = struct.pack("<Q", place)
        entries += struct.pack("<HHQ8s", code, kind, count, data)
    start = file.tell()
    file.write(struct.pack("<Q", len(tags)) + entries + bytes(8))
    return start


def _shorts(value: int) -> NDArray[Any]:
    return np.array([value], "<u2")


def _longs(value: int) -> NDArray[Any]:
    return np.array([value], "<u4")
