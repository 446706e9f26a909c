"""Read large pages of a TIFF tile by tile, or strip by strip, and keep the latest.

A first click reads several windows around one place, and the next click reads there
again: decoded pieces are kept for all open files together, within one budget.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.latest import Latest

#: decoded pieces that are kept, in bytes
_KEPT_BYTES = 1 << 27
_JPEG, _IN_ONE_PLANE = 7, 1
#: JPEG's first and last marker, that of its pixels, and what cannot stand among them:
#: markers other than a stuffed byte, a restart, padding, and those of further scans
_JPEG_START, _JPEG_END, _SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
_STRAY = re.compile(rb"\xff[^\x00\xff\xd0-\xd7\xd9\xc4\xda\xdb\xdd\xfe]")

#: by whose piece it is, of which page, and its number there
_kept = Latest(_KEPT_BYTES, lambda piece: piece.nbytes)


def is_in_pieces(series: Any, depth: int) -> bool:
    """Whether :class:`Pieces` reads a series of pages, ``depth`` axes before theirs."""
    page = series.keyframe
    contiguous = page.samplesperpixel == 1 or page.planarconfig == _IN_ONE_PLANE
    return bool(
        page.imagedepth == 1
        and contiguous
        and page.ndim in (2, 3)
        and page.ndim == len(page.chunks)
        and len(series.pages) == math.prod(series.shape[:depth])
        and getattr(series, "transform", None) is None
        and math.prod(page.chunked) > 1
    )


class Pieces:
    """Pages of a TIFF, (…, Y, X) or (…, Y, X, S); only what is asked for is decoded."""

    def __init__(self, held: Any, series: Any, depth: int) -> None:
        self.shape: tuple[int, ...] = tuple(int(n) for n in series.shape)
        self.dtype = np.dtype(series.dtype).newbyteorder("=")
        self.ndim = len(self.shape)
        self.chunks = (*(1,) * depth, *series.keyframe.chunks)
        self._depth, self._pages, self._first = depth, series.pages, series.keyframe
        self._sides = tuple(int(n) for n in series.keyframe.chunks[:2])
        self._held = held  # stays open as long as this does
        self._handle = held.file.filehandle
        self._lock = self._handle.lock
        self._opened = self._state()
        self._owner = object()

    def __del__(self) -> None:
        _kept.drop(self._owner)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by whole numbers and slices of step 1 or more."""
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *(slice(None),) * (self.ndim - len(key)))
        wanted: NDArray[Any] = np.broadcast_to(np.zeros((), self.dtype), self.shape)[
            key
        ]
        if not wanted.size:
            return wanted.copy()
        sizes = self.shape[: self._depth]
        leading, (rows, columns, *rest) = key[: self._depth], key[self._depth :]
        planes = np.arange(math.prod(sizes)).reshape(sizes)[leading]
        parts = [self._plane(int(i), rows, columns) for i in planes.ravel()]
        found: NDArray[Any] = np.stack(parts)
        if rest:
            found = found[(*(slice(None),) * (found.ndim - 1), *rest)]
        return found.reshape(wanted.shape)

    def _plane(self, number: int, rows: Any, columns: Any) -> NDArray[Any]:
        """Return rows and columns of a page."""
        page, size = self._pages[number], self.shape[self._depth : self._depth + 2]
        (top, bottom), (left, right) = (
            _ends(k, n) for k, n in zip((rows, columns), size, strict=True)
        )
        rest = self.shape[self._depth + 2 :]
        out = np.empty((max(bottom - top, 0), max(right - left, 0), *rest), self.dtype)
        tall, wide = self._sides
        if page is None:  # a page that the file's metadata promise, and that is missing
            out[...] = 0
        elif out.size:
            for row in range(top // tall, -(-bottom // tall)):
                for column in range(left // wide, -(-right // wide)):
                    y, x = row * tall, column * wide
                    piece = self._piece(page, number, row, column)
                    inner = piece[
                        max(top - y, 0) : bottom - y, max(left - x, 0) : right - x
                    ]
                    y, x = max(y - top, 0), max(x - left, 0)
                    out[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
        return out[
            tuple(
                slice(None, None, k.step) if isinstance(k, slice) else 0
                for k in (rows, columns)
            )
        ]

    def _piece(self, page: Any, number: int, row: int, column: int) -> NDArray[Any]:
        index = row * -(-self.shape[self._depth + 1] // self._sides[1]) + column
        size = math.prod(self.chunks) * self.dtype.itemsize
        if size > _KEPT_BYTES // 4:
            return self._decoded(page, index)
        key = self._owner, number, index
        return _kept.get(key, lambda: self._decoded(page, index))

    def _decoded(self, page: Any, index: int) -> NDArray[Any]:
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        data = self._read(offset, count) if offset and count else None
        options = {}
        if page.jpegtables is not None:
            options["jpegtables"] = page.jpegtables
        if self._first.jpegheader is not None:
            options["jpegheader"] = self._first.jpegheader
        decoded, _, shape = self._first.decode(data, index, **options)
        if decoded is None:
            decoded = np.full(shape, self._first.nodata, self.dtype)
        elif (
            data is not None
            and self._first.compression == _JPEG
            and not options.get("jpegheader")
        ):
            _check_jpeg(data)
        piece = np.asarray(decoded, self.dtype)[0, : shape[1], : shape[2]]
        return piece[..., 0] if self._first.ndim == 2 else piece

    def _read(self, offset: int, count: int) -> bytes:
        if self._state() != self._opened:
            raise ValueError("it was changed after it was opened: open it again")
        with self._lock:
            self._handle.seek(offset)
            data: bytes = self._handle.read(count)
        if len(data) < count:
            raise ValueError("it ends within its pixels")
        return data

    def _state(self) -> tuple[int, int] | None:
        """Return what changes when somebody writes to the open file."""
        try:
            found = os.fstat(self._handle.fileno())
        except (OSError, AttributeError, ValueError):
            return None
        return found.st_mtime_ns, found.st_size


def _ends(key: Any, length: int) -> tuple[int, int]:
    """Return first and end of what an index along an axis needs."""
    if not isinstance(key, slice):
        at = range(length)[int(key)]
        return at, at + 1
    places = range(length)[key]
    if places.step < 0:
        raise IndexError("a TIFF is read forwards")
    return (places.start, places[-1] + 1) if places else (0, 0)


def _check_jpeg(data: bytes) -> None:
    """Raise ValueError for a damaged JPEG: decoders fill up what is missing.

    Scanners may leave out the end marker, but not leave zeros or other markers.
    """
    at = 2 if data.startswith(_JPEG_START) else len(data)
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != _SCAN:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    pixels = data[at + 2 :]
    if data[at : at + 2] != _SCAN or _STRAY.search(pixels):
        raise ValueError("one of its tiles is damaged: it is no whole JPEG")
    rest = len(data) - len(data.rstrip(b"\x00"))
    if rest > len(data) // 16 and not data[:-rest].endswith(_JPEG_END):
        raise ValueError("one of its tiles is damaged: it ends in zeros")
