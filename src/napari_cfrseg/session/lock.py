"""One writer for each session: a lock that ends with its process, however it ends.

The lock is the operating system's, on a file beside the session; the file's text only
says who holds it. After a crash the file may stay, but it locks nothing.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from napari_cfrseg.errors import SessionError

_BINARY = getattr(os, "O_BINARY", 0)
#: the byte that Windows locks, behind the text
_LOCKED_BYTE = 1 << 20
_TRIES = 5


class SessionInUseError(SessionError):
    """Another window or program has the session open for writing."""


class FileLock:
    """Held from construction until :meth:`release` or the end of the process.

    Parameters
    ----------
    path
        The lock file, in a folder that is there.

    Raises
    ------
    SessionInUseError
        It is held already; the message says by whom.
    OSError
        The lock file cannot be made (a read-only folder).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for _ in range(_TRIES):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
            try:
                locked = _lock(handle)
                current = locked and _is_at(handle, path)
            except OSError:
                os.close(handle)
                raise
            if not locked:
                os.close(handle)
                raise SessionInUseError(_held_message(path))
            if current:
                break
            os.close(handle)  # its former holder removed the file meanwhile
        else:
            raise SessionInUseError(_held_message(path))
        self._handle: int | None = handle
        with suppress(OSError):  # a full disk: the lock holds, only the text is missing
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(_myself()).encode())

    def release(self) -> None:
        """Let others open the session; the lock file goes away."""
        if self._handle is None:
            return
        if os.name == "posix":  # while it is locked, so that nobody else's goes
            with suppress(OSError):
                self.path.unlink()
        os.close(self._handle)
        self._handle = None
        if os.name != "posix":
            with suppress(OSError):
                self.path.unlink()


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock."""
    if not path.exists():
        return False
    try:
        FileLock(path).release()
    except SessionInUseError:
        return True
    except OSError:
        return False
    return False


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at the path."""
    if os.name != "posix":
        return True
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _myself() -> dict[str, object]:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def _held_message(path: Path) -> str:
    said = {}
    with suppress(OSError, ValueError):
        said = json.loads(path.read_bytes()[:1000])
    by = ""
    if isinstance(said, dict) and {"pid", "host", "since"} <= said.keys():
        by = (
            f" (process {said['pid']} on {str(said['host'])[:80]}, "
            f"since {str(said['since'])[:40]})"
        )
    return (
        f"{path.stem} is open in another window{by}: close it there, or save a copy "
        "under another name"
    )


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> bool:
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
