"""Results on the disk: checked before they are computed, saved elsewhere on failure."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from napari_cfrseg.errors import OutputError
from napari_cfrseg.io.images import TIFF_SUFFIXES

#: pictures that keep every pixel: of one plane only
_PICTURES = (".png", ".bmp")


def check_output(path: Path, *, overwrite: bool = True) -> None:
    """Raise OutputError unless a file can be written there; leaves nothing behind."""
    if path.is_dir():
        msg = f"{path} is a folder: name a file"
        raise OutputError(msg)
    if path.exists() and not overwrite:
        msg = f"{path} exists: choose another --output, or add --overwrite"
        raise OutputError(msg)
    check_folder(path.parent)


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


def check_labels_output(path: Path, planes: int, *, overwrite: bool) -> None:
    """Raise OutputError unless labels of so many planes can be written there."""
    suffix = path.suffix.lower()
    if suffix == ".zarr":
        if path.exists() and not overwrite:
            msg = f"{path} exists: choose another --output, or add --overwrite"
            raise OutputError(msg)
        check_folder(path.parent)
        return
    if suffix not in (*TIFF_SUFFIXES, *_PICTURES):
        msg = f"{path}: expected the ending .tif, .zarr, .png or .bmp"
        raise OutputError(msg)
    if suffix in _PICTURES and planes > 1:
        msg = f"{path}: a picture holds one plane; write {planes} as .tif or .zarr"
        raise OutputError(msg)
    check_output(path, overwrite=overwrite)


def write_or_save_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Write a result; where that fails, write it to the system's temporary folder.

    Raises
    ------
    OutputError
        It could not be written; the message says where the result is now.
    """
    try:
        write(path)
    except OSError as error:
        reason = error.strerror or str(error)
        aside = Path(tempfile.gettempdir()) / path.name
        with suppress(OSError):
            write(aside)
            msg = f"{path} cannot be written ({reason}); the result is {aside}"
            raise OutputError(msg) from error
        msg = f"{path} cannot be written ({reason})"
        raise OutputError(msg) from error


def let_streams_print_anything() -> None:
    """Let standard streams replace characters that they cannot encode, not raise."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # one that was replaced or closed
            cast(Any, stream).reconfigure(errors="backslashreplace")
