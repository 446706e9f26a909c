"""Files on the disk: checked first, written whole or not at all, kept in one place."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from platformdirs import user_data_path

from napari_cfrseg.errors import OutputError, said_of

_BINARY = getattr(os, "O_BINARY", 0)
#: seconds for which the temporary file of an unknown process is left alone
_LEFT_ALONE_S = 3600.0
_TEMPORARY = re.compile(r"\.(.+)\.([^.]+)-(\d+)(-old)?(\.[^.]+)$")


def behind_links(path: str | os.PathLike[str]) -> Path:
    """Return the file a path leads to: what is written there must not end a link."""
    target = Path(path)
    return target.resolve() if target.is_symlink() else target


def temporary_beside(target: Path, mark: str = "") -> Path:
    """Return the name a process prepares a file under; "-old": of what it replaces."""
    host = socket.gethostname().replace(".", "_")
    name = f".{target.stem}.{host}-{os.getpid()}{mark}{target.suffix}"
    return target.with_name(name)


def clear_leftovers(folder: Path, stems: Collection[str]) -> None:
    """Remove what processes that were killed had begun to write under these names.

    Names are without endings. Files of this machine go once their process has ended,
    others (a shared disk) once they are an hour old.
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
def atomic_path(
    path: str | os.PathLike[str], *, durable: bool = False
) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place on success.

    A reader never sees half a file, and a failure leaves what was there before.
    Missing parent folders are made; a symbolic link stays, and the file it leads to is
    replaced. With ``durable`` the file is on the disk when the block ends.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> target = Path(mkdtemp()) / "note.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = behind_links(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink()
    if durable:
        sync_folder(target.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode(text))


def encode(text: str) -> bytes:
    """Return text as UTF-8; what has no code (a lone surrogate) becomes ``?``."""
    return text.encode("utf-8", "replace")


def replace_file(path: Path, lines: Iterable[str]) -> int:
    """Write a text file that is on the disk, whole, when this returns; return its size.

    The folder must exist. After an OSError the file is as before.
    """
    path.parent.stat()
    with atomic_path(path, durable=True) as temporary, temporary.open("wb") as file:
        return sum(file.write(encode(line)) for line in lines)


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

    It is made if it does not exist; what lies beyond ``size`` bytes is cut off.
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
        """Write, and wait until it is on the disk.

        After an OSError the file is as before.
        """
        if self._handle is None:
            raise OSError(f"{self.path} is closed")
        try:
            os.lseek(self._handle, self.size, os.SEEK_SET)
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
            os.fsync(self._handle)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._handle, self.size)
            raise
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


def check_output(
    path: Path, *, overwrite: bool = True, is_folder: bool = False
) -> None:
    """Raise OutputError unless a file, or a folder, can be written there.

    Leaves nothing behind; what a process that was killed had begun to write there is
    removed.
    """
    if path.is_dir() and not is_folder:
        raise OutputError(f"{path} is a folder: name a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: choose another --output, or add --overwrite")
    check_folder(path.parent)
    clear_leftovers(path.parent, {path.stem})


def check_spares(path: Path, image: Path) -> None:
    """Raise OutputError if a result there would replace its image, or its folder."""
    whole = image.resolve()
    if path.resolve() in (whole, *whole.parents):
        raise OutputError(f"{path} is the image itself: choose another place")


def check_folder(folder: Path) -> None:
    """Raise OutputError unless files can be made in a folder, which need not exist."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        msg = f"nothing can be written in {existing} ({error.strerror or error})"
        raise OutputError(msg) from error


def whole_path(path: str | os.PathLike[str]) -> Path:
    """Return a path from the root; OutputError where no file can have the name."""
    if "\0" in os.fspath(path):
        said = os.fspath(path).replace("\0", "\\0")
        raise OutputError(f"{said}: a name cannot hold the character \\0")
    return Path(path).resolve()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names what was not written."""
    whole_path(path)
    try:
        yield
    except OSError as error:
        msg = f"{path} was not written ({said_of(error)})"
        raise OutputError(msg) from error


def write_or_save_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Write a result; where that fails, write it to the system's temporary folder.

    Then an OutputError says where the result is now.
    """
    try:
        write(path)
    except OSError as error:
        reason = said_of(error)
        with suppress(OSError):
            aside = Path(tempfile.mkdtemp(prefix="cfrseg-")) / path.name[-100:]
            write(aside)
            msg = f"{path} cannot be written ({reason}); the result is {aside}"
            raise OutputError(msg) from error
        raise OutputError(f"{path} cannot be written ({reason})") from error


def let_streams_print_anything() -> None:
    """Let standard streams replace characters that they cannot encode, not raise."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # one that was replaced or closed
            cast(Any, stream).reconfigure(errors="backslashreplace")


def data_folder(kind: str, variable: str) -> Path:
    """Return the folder of one kind of a person's own files; it need not exist.

    The environment variable names it, else it is ``napari-cfrseg/KIND`` below the
    system's folder for data (``$XDG_DATA_HOME`` on Linux).
    """
    named = os.environ.get(variable)
    return Path(named) if named else user_data_path("napari-cfrseg", False) / kind


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
