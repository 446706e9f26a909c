"""Sessions that were not saved yet, and those opened last."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.io.user_folders import data_folder
from napari_cfrseg.session.content import SUFFIX
from napari_cfrseg.session.journal import lock_path
from napari_cfrseg.session.lock import is_locked

#: Environment variable that names the folder for unsaved sessions and the list.
VARIABLE = "CFRSEG_SESSIONS"
_MOST_RECENT = 10


def sessions_folder() -> Path:
    """Where unsaved sessions live; the variable ``CFRSEG_SESSIONS`` overrides it."""
    return data_folder("sessions", VARIABLE)


def unsaved_path(identity: str) -> Path:
    """Return where a session lives until it is saved."""
    return sessions_folder() / f"unsaved-{identity}{SUFFIX}"


def unsaved_sessions() -> list[Path]:
    """Return sessions that were neither saved nor are open now, newest first."""
    folder = sessions_folder()
    found = []
    with suppress(OSError):
        for path in folder.glob(f"unsaved-*{SUFFIX}"):
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
    with suppress(OSError), atomic_path(sessions_folder() / "recent.json") as temporary:
        temporary.write_text(json.dumps(names, indent=1), encoding="utf-8")
