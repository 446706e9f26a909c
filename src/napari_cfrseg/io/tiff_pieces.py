"""Read pages of a TIFF whole, by tiles, by strips or row by row; keep the latest.

A first click reads several windows around one place, and the next click reads there
again: of whole pages the last one is kept, and decoded pieces for all open files
together, within one budget.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.io.axes import LazyArray, per_axis
from napari_cfrseg.latest import Latest

#: decoded pieces that are kept, in bytes
_KEPT_BYTES = 1 << 27
_JPEG, _IN_ONE_PLANE = 7, 1
#: JPEG's first and last marker, that of its pixels, and what cannot stand among them:
#: markers other than a stuffed byte, a restart, padding, and those of further scans
_JPEG_START, _JPEG_END, _SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
_STRAY = re.compile(rb"\xff[^\x00\xff\xd0-\xd7\xd9\xc4\xda\xdb\xdd\xfe]")

#: so much is read at once of pixels that lie in no pieces
_ROWS_BYTES = 1 << 18
#: a page's number and a piece's there
_Place = tuple[int, int]

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


class Pages(LazyArray):
    """Pages of a TIFF, decoded whole, one at a time; ``depth`` axes lie before theirs.

    ``held`` keeps the file open as long as this is there.
    """

    def __init__(self, held: Any, series: Any, depth: int) -> None:
        self.shape = tuple(int(n) for n in series.shape)
        self.dtype = np.dtype(series.dtype).newbyteorder("=")
        self.chunks = (*(1,) * depth, *self.shape[depth:])
        self._held, self._depth, self._pages = held, depth, series.pages
        self._last: tuple[int, NDArray[Any]] | None = None
        self._decoding = threading.Lock()

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by whole numbers and slices of step 1 or more."""
        key = per_axis(key, self.ndim)
        empty = np.zeros((), self.dtype)
        wanted: NDArray[Any] = np.broadcast_to(empty, self.shape)[key]
        if not wanted.size:
            return wanted.copy()
        sizes = self.shape[: self._depth]
        leading, own = key[: self._depth], key[self._depth :]
        numbers = np.arange(math.prod(sizes)).reshape(sizes)[leading].ravel()
        parts = self._parts(numbers.tolist(), *own)
        found = parts[0] if len(parts) == 1 else np.stack(parts)
        return found.reshape(wanted.shape)

    def _parts(self, numbers: Sequence[int], *own: Any) -> list[NDArray[Any]]:
        """Return what an index of the pages' own axes takes of some of them."""
        return [self._page(number)[own] for number in numbers]

    def _page(self, number: int) -> NDArray[Any]:
        with self._decoding:
            if self._last is None or self._last[0] != number:
                self._last = number, self._decode(number)
            return self._last[1]

    def _decode(self, number: int) -> NDArray[Any]:
        page, shape = self._pages[number], self.shape[self._depth :]
        if page is None:  # a page that the file's metadata promise, and that is missing
            return np.zeros(shape, self.dtype)
        handle = page.parent.filehandle
        of_another = handle.closed  # file of the image: tifffile has closed it again
        if of_another:
            handle.open()
        try:
            pixels: NDArray[Any] = np.asarray(page.asarray(), self.dtype)
        finally:
            if of_another:
                handle.close()
        return pixels.reshape(shape)


class Pieces(Pages):
    """Pages, (…, Y, X) or (…, Y, X, S), of which only what is asked for is decoded."""

    def __init__(self, held: Any, series: Any, depth: int) -> None:
        super().__init__(held, series, depth)
        self._first = series.keyframe
        self.chunks = (*(1,) * depth, *self._first.chunks)
        self._sides = tuple(int(n) for n in self._first.chunks[:2])
        self._handle = held.file.filehandle
        self._lock = self._handle.lock
        self._opened = self._state()
        self._owner = object()

    def __del__(self) -> None:
        _kept.drop(self._owner)

    def _parts(
        self, numbers: Sequence[int], rows: Any, columns: Any, *rest: Any
    ) -> list[NDArray[Any]]:
        ahead = self._fetched(numbers, rows, columns)
        planes = (self._plane(number, rows, columns, ahead) for number in numbers)
        return [plane[(..., *rest)] for plane in planes]

    def _ends(self, rows: Any, columns: Any) -> tuple[tuple[int, int], ...]:
        size = self.shape[self._depth : self._depth + 2]
        return tuple(_ends(k, n) for k, n in zip((rows, columns), size, strict=True))

    def _plane(
        self, number: int, rows: Any, columns: Any, ahead: Mapping[_Place, bytes]
    ) -> NDArray[Any]:
        """Return rows and columns of a page."""
        (top, bottom), (left, right) = self._ends(rows, columns)
        rest = self.shape[self._depth + 2 :]
        out = np.empty((max(bottom - top, 0), max(right - left, 0), *rest), self.dtype)
        tall, wide = self._sides
        for row, column in self._grid(rows, columns):
            y, x = row * tall, column * wide
            piece = self._piece(number, row, column, ahead)
            inner = piece[max(top - y, 0) : bottom - y, max(left - x, 0) : right - x]
            y, x = max(y - top, 0), max(x - left, 0)
            out[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
        return out[
            tuple(
                slice(None, None, k.step) if isinstance(k, slice) else 0
                for k in (rows, columns)
            )
        ]

    def _grid(self, rows: Any, columns: Any) -> Iterator[tuple[int, int]]:
        """Yield the (row, column) of each piece that rows and columns lie in."""
        tall, wide = self._sides
        (top, bottom), (left, right) = self._ends(rows, columns)
        return product(
            range(top // tall, -(-bottom // tall)),
            range(left // wide, -(-right // wide)),
        )

    def _index(self, row: int, column: int) -> int:
        across = -(-self.shape[self._depth + 1] // self._sides[1])
        return row * across + column

    def _piece(
        self, number: int, row: int, column: int, ahead: Mapping[_Place, bytes]
    ) -> NDArray[Any]:
        index = self._index(row, column)

        def make() -> NDArray[Any]:
            place = self._place(number, index)
            data = ahead.get((number, index))
            if data is None and place is not None:
                data = self._read(*place)
            return self._decoded(number, index, data)

        if math.prod(self.chunks) * self.dtype.itemsize > _KEPT_BYTES // 4:
            return make()
        return _kept.get((self._owner, number, index), make)

    def _place(self, number: int, index: int) -> tuple[int, int] | None:
        """Return a piece's offset and length; None: it was left out."""
        page = self._pages[number]
        if page is None:  # a page that the file's metadata promise, and that is missing
            return None
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        return (offset, count) if offset and count else None

    def _decoded(self, number: int, index: int, data: bytes | None) -> NDArray[Any]:
        page = self._pages[number]
        if page is None:
            return np.zeros(self.chunks[self._depth :], self.dtype)
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

    def _fetched(
        self, planes: Sequence[int], rows: Any, columns: Any
    ) -> dict[_Place, bytes]:
        """Return what a server sends for pieces that are not kept, asked at once."""
        if self._held.server is None:
            return {}
        wanted = {
            (number, index): place
            for number in planes
            for index in (self._index(*at) for at in self._grid(rows, columns))
            if _kept.find((self._owner, number, index)) is None
            and (place := self._place(number, index)) is not None
        }
        found = self._held.server.fetch(list(wanted.values()))
        return dict(zip(wanted, found, strict=True))

    def _read(self, offset: int, count: int) -> bytes:
        if self._held.server is not None:
            sent: list[bytes] = self._held.server.fetch([(offset, count)])
            return sent[0]
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


class Rows(Pieces):
    """Pixels that lie in a file as they are, without pages; rows are what is read."""

    def __init__(self, held: Any, series: Any) -> None:
        super().__init__(held, series, series.axes.index("Y"))
        width = self.shape[self._depth + 1]
        self._row = math.prod(self.shape[self._depth + 1 :])
        tall = max(_ROWS_BYTES // (self._row * self.dtype.itemsize), 1)
        self._sides = (min(tall, self.shape[self._depth]), width)
        rest = self.shape[self._depth + 2 :]
        self.chunks = (*(1,) * self._depth, *self._sides, *rest)
        self._start, self._order = series.dataoffset, series.keyframe.parent.byteorder

    def _place(self, number: int, index: int) -> tuple[int, int] | None:
        tall, height = self._sides[0], self.shape[self._depth]
        rows = min(tall, height - index * tall)
        size = self._row * self.dtype.itemsize
        return self._start + (number * height + index * tall) * size, rows * size

    def _decoded(self, number: int, index: int, data: bytes | None) -> NDArray[Any]:
        found = np.frombuffer(data or b"", self.dtype.newbyteorder(self._order))
        shape = (-1, *self.shape[self._depth + 1 :])
        return found.astype(self.dtype).reshape(shape)


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
