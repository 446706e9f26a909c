"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: a temporary file of a process nobody can ask after is left alone so long
_LEFT_ALONE_S = 3600.0
_TEMPORARY = re.compile(r"\.(.+)\.([^.]+)-(\d+)(-old)?(\.[^.]+)$")


def temporary_beside(target: Path, mark: str = "") -> Path:
    """Return the name under which this process prepares a file or folder.

    Parameters
    ----------
    target
        What it will be called.
    mark
        "-old" for what it replaces.
    """
    host = socket.gethostname().replace(".", "_")
    name = f".{target.stem}.{host}-{os.getpid()}{mark}{target.suffix}"
    return target.with_name(name)


def clear_leftovers(folder: Path, stems: Collection[str]) -> None:
    """Remove what processes that were killed had begun to write.

    Those of this machine are removed once their process has ended, those of others
    (a shared disk) once they are an hour old.

    Parameters
    ----------
    folder
        Where to look.
    stems
        Names, without endings, of the files that may be half written there.
    """
    host = socket.gethostname().replace(".", "_")
    with suppress(OSError):
        for path in list(folder.iterdir()):
            found = _TEMPORARY.fullmatch(path.name)
            if found is None or found[1] not in stems:
                continue
            known = os.name == "posix" and found[2] == host
            if _runs(int(found[3])) if known else _is_young(path):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks only; not on Windows, where it would end it
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _is_young(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < _LEFT_ALONE_S
    except OSError:
        return True


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place on success.

    A reader never sees half a file, and a failure leaves what was there before.
    Missing parent folders are made.

    Parameters
    ----------
    path
        Where the file is to stand.

    Yields
    ------
    A path in the same folder, with the same suffix, for the caller to write.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> target = Path(mkdtemp()) / "note.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
