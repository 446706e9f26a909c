"""SHA-256 of files, and fingerprints of images: shape, dtype and a sample of pixels.

Of an image at most nine blocks on each of at most eight planes are read, so that one of
a terabyte costs a few chunks. It does not matter how the pixels are stored or loaded.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np

#: Arrays of at most so many values are read whole.
WHOLE_VALUES = 1 << 18
BLOCK_PX = 64
_PLANES, _BLOCKS = 8, 3


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(array: Any, has_channels: bool = False) -> str:
    """Return the fingerprint of an image.

    Parameters
    ----------
    array
        (…, Y, X) or (…, Y, X, C); NumPy, or lazy with ``shape``, ``dtype``, slicing.
    has_channels
        Whether the last axis is C.
    """
    shape = tuple(int(n) for n in array.shape)
    dtype = np.dtype(array.dtype).newbyteorder("=")
    digest = hashlib.sha256(f"{shape} {dtype.name}".encode())
    if int(np.prod(shape)) <= WHOLE_VALUES:
        _add(digest, array[(slice(None),) * len(shape)])
        return digest.hexdigest()
    depth = len(shape) - 2 - has_channels
    leading, (height, width) = shape[:depth], shape[depth : depth + 2]
    boxes = itertools.product(_starts(height), _starts(width))
    places = [(slice(y, y + BLOCK_PX), slice(x, x + BLOCK_PX)) for y, x in boxes]
    for flat in _spread(int(np.prod(leading)), _PLANES):
        plane = tuple(int(i) for i in np.unravel_index(flat, leading)) if depth else ()
        for rows, columns in places:
            _add(digest, array[(*plane, rows, columns)])
    return digest.hexdigest()


def _add(digest: Any, values: Any) -> None:
    block = np.ascontiguousarray(np.asarray(values))
    little = block.astype(block.dtype.newbyteorder("<"), copy=False)
    digest.update(little.tobytes())


def _starts(length: int) -> list[int]:
    return _spread(max(length - BLOCK_PX, 0) + 1, _BLOCKS)


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` whole numbers from 0 to ``count - 1``, evenly."""
    if count <= most:
        return list(range(count))
    return sorted({i * (count - 1) // (most - 1) for i in range(most)})
