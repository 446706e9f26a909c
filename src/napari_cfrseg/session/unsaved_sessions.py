"""Where sessions are: unsaved ones after a crash, recent ones, and locks of open ones.

Until a session is saved under a name, it lies in a common folder
(:func:`sessions_folder`). One in there that no process has locked was left by a crash:
the window offers to reopen it, and its journal restores every event.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import filelock

from napari_cfrseg.errors import SessionError
from napari_cfrseg.io.atomic import data_folder, write_text
from napari_cfrseg.session.format import SUFFIX
from napari_cfrseg.session.session_file import lock_path

#: Environment variable that names the folder for unsaved sessions and the list.
VARIABLE = "CFRSEG_SESSIONS"
_MOST_RECENT = 10


class SessionInUseError(SessionError):
    """Another window or program has the session open for writing."""


class SessionLock:
    """One writer for each session, until :meth:`release` or the end of the process.

    A file beside the lock says who holds it; after a crash both may stay, but they lock
    nothing. Raises SessionInUseError, which says by whom, if it is held already;
    OSError if the lock file cannot be made (a read-only folder).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = filelock.FileLock(path, thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise SessionInUseError(_held_message(path)) from error
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        with suppress(OSError):  # a full disk: the lock holds, only the text is missing
            _holder_path(path).write_text(json.dumps(holder))

    def release(self) -> None:
        """Let others open the session; the lock's files go away."""
        if not self._lock.is_locked:
            return
        names = [_holder_path(self.path)]
        names += [self.path] if os.name == "posix" else []
        for name in names:  # while it is locked: never another holder's files
            with suppress(OSError):
                name.unlink()
        self._lock.release()


def is_locked(path: Path) -> bool:
    """Return whether a living process holds the lock."""
    if not path.exists():
        return False
    try:
        SessionLock(path).release()
    except SessionInUseError:
        return True
    except OSError:
        return False
    return False


def _holder_path(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.json")


def _held_message(path: Path) -> str:
    holder = {}
    with suppress(OSError, ValueError):
        holder = json.loads(_holder_path(path).read_bytes()[:1000])
    by = ""
    if isinstance(holder, dict) and {"pid", "host", "since"} <= holder.keys():
        by = (
            f" (process {holder['pid']} on {str(holder['host'])[:80]}, "
            f"since {str(holder['since'])[:40]})"
        )
    return (
        f"{path.stem} is open in another window{by}: close it there, or save a copy "
        "under another name"
    )


def sessions_folder() -> Path:
    """Where unsaved sessions live; the variable ``CFRSEG_SESSIONS`` overrides it."""
    return data_folder("sessions", VARIABLE).resolve()


def unsaved_path(identity: str) -> Path:
    """Return where a session lives until it is saved."""
    return sessions_folder() / f"unsaved-{identity}{SUFFIX}"


def unsaved_sessions() -> list[Path]:
    """Return sessions that were neither saved nor are open now, newest first."""
    folder = sessions_folder()
    found = []
    for path in folder.glob(f"unsaved-*{SUFFIX}"):
        with suppress(OSError):  # one that is gone by now hides no other
            if not is_locked(lock_path(path)):
                found.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(found, reverse=True)]


def recent_sessions() -> list[Path]:
    """Return the sessions opened or saved last that are still there, newest first."""
    try:
        listed = json.loads((sessions_folder() / "recent.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    names = listed if isinstance(listed, list) else []
    return [Path(n) for n in names if isinstance(n, str) and Path(n).is_file()]


def note_recent(path: Path) -> None:
    """Put a session first among the recent ones; what cannot be written is not."""
    whole = path.absolute()
    others = [p for p in recent_sessions() if p != whole]
    names = [str(p) for p in (whole, *others)][:_MOST_RECENT]
    with suppress(OSError):
        write_text(sessions_folder() / "recent.json", json.dumps(names, indent=1))
