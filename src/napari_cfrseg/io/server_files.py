"""A file on a server, read in ranges: only what is asked for is sent.

Python's way to such a file (fsspec) has no answer to three questions: whether a server
sends ranges at all, whether the file is still the one that was opened, and which parts
can be fetched at the same time. A server that ignores ranges would send the whole file
for each of them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.addresses import answering, needing, server_options
from napari_cfrseg.latest import Latest

#: a file's head is read in blocks of this size; those that are kept, in bytes
_BLOCK_BYTES, _KEPT_BYTES = 1 << 16, 1 << 25
#: ranges that are no farther apart are one
_GAP_BYTES = 1 << 14
#: requests at the same time
_AT_ONCE = 8
#: the server is asked whether the file is the same after so long
_SAME_FOR_S = 20.0
#: what says that a file was changed
_MARKS = ("size", "ETag", "Last-Modified", "LastModified")

_kept = Latest(_KEPT_BYTES, len)


class ServerFile(io.RawIOBase):
    """A file on a server; any thread may fetch, one reads it as a stream.

    An ImageError says in one line why it cannot be read: it is not there, the server
    does not answer, breaks off or sends whole files only, or the file was changed.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self.name = address  # tifffile reads the format off it
        with needing(address):
            from fsspec.core import url_to_fs

            self._server, self._path = url_to_fs(address, **server_options(address))
        self._at = 0
        self._marks = self._ask()
        if not isinstance(self._marks[0], int):
            raise ImageError(f"{address}: the server does not say how long it is")
        self.size: int = self._marks[0]
        self._check_ranges()

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes at (offset, length) places, fetched at the same time."""
        if time.monotonic() - self._asked > _SAME_FOR_S and self._ask() != self._marks:
            self._marks = ()
        if not self._marks:
            msg = f"{self.name} was changed after it was opened: open it again"
            raise ImageError(msg)
        joined: list[list[int]] = []
        for start, length in sorted(ranges):
            if joined and start <= joined[-1][1] + _GAP_BYTES:
                joined[-1][1] = max(joined[-1][1], start + length)
            else:
                joined.append([start, start + length])
        if any(end > self.size for _, end in joined):
            raise ImageError(f"{self.name} is damaged: it ends within its pixels")
        found = self._fetched(joined)
        return [
            next(
                found[i][start - first : start - first + length]
                for i, (first, end) in enumerate(joined)
                if first <= start and start + length <= end
            )
            for start, length in ranges
        ]

    def _fetched(self, joined: Sequence[Sequence[int]]) -> list[bytes]:
        with answering(self.name):
            found: list[bytes] = self._server.cat_ranges(
                [self._path] * len(joined),
                [start for start, _ in joined],
                [end for _, end in joined],
                batch_size=_AT_ONCE,
                on_error="raise",
            )
        if [len(part) for part in found] != [end - start for start, end in joined]:
            raise ImageError(f"{self.name}: the server's answer is cut off; try again")
        return found

    def _ask(self) -> tuple[Any, ...]:
        self._server.invalidate_cache()
        with answering(self.name):
            said = self._server.info(self._path)
        self._asked = time.monotonic()
        return tuple(said.get(mark) for mark in _MARKS)

    def _check_ranges(self) -> None:
        """Raise ImageError where a server sends whole files only; none is awaited."""
        middle = self.size // 2
        options = {"block_size": 1, "cache_type": "none", "size": self.size}
        try:
            with (
                answering(self.name),
                self._server.open(self._path, "rb", **options) as stream,
            ):
                stream.seek(middle)
                stream.read(1)
        except ImageError as error:
            if not isinstance(error.__cause__, ValueError):
                raise
            msg = f"{self.name}: the server sends whole files only: download it"
            raise ImageError(msg) from error

    # -- as a stream -----------------------------------------------------------------

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place from the start, here or the end."""
        self._at = max(offset + (0, self._at, self.size)[whence], 0)
        return self._at

    def _block(self, number: int) -> bytes:
        start = number * _BLOCK_BYTES
        place = start, min(_BLOCK_BYTES, self.size - start)
        key = self.name, *self._marks, number
        return _kept.get(key, lambda: self.fetch([place])[0])

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes; return how many there were."""
        start = min(self._at, self.size)
        count = min(len(buffer), self.size - start)
        if count > _BLOCK_BYTES:
            (found,) = self.fetch([(start, count)])
        else:
            first, last = start // _BLOCK_BYTES, -(-(start + count) // _BLOCK_BYTES)
            blocks = b"".join(self._block(i) for i in range(first, last))
            found = blocks[start - first * _BLOCK_BYTES :][:count]
        buffer[:count] = found
        self._at += count
        return count
