"""Writing that survives a crash: on the disk before it is said to be done."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_BINARY = getattr(os, "O_BINARY", 0)


def encode(text: str) -> bytes:
    """Return text as UTF-8; what has no code (a lone surrogate) becomes ``?``."""
    return text.encode("utf-8", "replace")


def replace_file(path: Path, lines: Iterable[str]) -> int:
    """Write a file that appears whole or not at all, also through a power cut.

    Returns
    -------
    Its size in bytes.

    Raises
    ------
    OSError
        It could not be written; what was there before still is.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    size = 0
    try:
        with temporary.open("wb") as file:
            for line in lines:
                size += file.write(encode(line))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_folder(path.parent)
    return size


def clear_unfinished(path: Path) -> None:
    """Remove what killed writers of a file left half written beside it.

    For whoever holds the lock: nobody else writes the file now.
    """
    unfinished = re.compile(rf"\.{re.escape(path.name)}\.\d+\.tmp")
    with suppress(OSError):
        for found in list(path.parent.iterdir()):
            if unfinished.fullmatch(found.name):
                found.unlink()


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk, where the system can."""
    if os.name != "posix":
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class AppendOnly:
    """A file that grows by whole records; a failed append leaves no trace.

    Parameters
    ----------
    path
        Made if it is not there.
    size
        Where to go on: what lies behind is cut off.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._handle: int | None = os.open(
            path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666
        )
        self.path = path
        self.size = size
        if os.fstat(self._handle).st_size > size:
            os.ftruncate(self._handle, size)
        sync_folder(path.parent)

    def append(self, data: bytes) -> None:
        """Write and wait until it is on the disk.

        Raises
        ------
        OSError
            It could not be written; the file is as before.
        """
        if self._handle is None:
            msg = f"{self.path} is closed"
            raise OSError(msg)
        done = False
        try:
            os.lseek(self._handle, self.size, os.SEEK_SET)
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
            os.fsync(self._handle)
            done = True
        finally:
            if not done:
                with suppress(OSError):
                    os.ftruncate(self._handle, self.size)
        self.size += len(data)

    def clear(self) -> None:
        """Make it empty."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.fsync(self._handle)
        self.size = 0

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
