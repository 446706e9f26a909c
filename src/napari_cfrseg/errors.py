"""The errors that a user can correct, each one line with the remedy.

A wrong *argument* of a Python call is a plain ``ValueError`` or ``TypeError``.
"""

from __future__ import annotations

import errno
import re


class CfrSegError(Exception):
    """An error that the user can correct; the message says how."""


class ImageError(CfrSegError):
    """The image cannot be segmented as it is (its shape, type or content)."""


class CheckpointError(CfrSegError):
    """The weights file cannot be read or does not fit the network."""


class DeviceError(CfrSegError):
    """The requested device is not available."""


class SessionError(CfrSegError):
    """The click session or click list cannot be used."""


class DatasetError(CfrSegError):
    """The data set's folder does not have the documented layout."""


class TrainingError(CfrSegError):
    """The training cannot go on; files written before are complete."""


class OutputError(CfrSegError):
    """The result cannot be written there."""


class LockedObjectError(CfrSegError):
    """The edit would change a locked object."""


class JobCancelled(BaseException):
    """Raised inside a job that reports, or waits for pixels, after it was cancelled.

    Like KeyboardInterrupt it is no error: no reader of pixels takes it for its own.
    """


def counted(number: int, noun: str) -> str:
    """Return so many of a thing in words.

    Examples
    --------
    >>> counted(1, "click"), counted(3, "click")
    ('1 click', '3 clicks')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def said_of(error: BaseException) -> str:
    """Return an error in one line; what a disk refuses to write with the remedy.

    Examples
    --------
    >>> said_of(OSError(28, "No space left on device"))
    'No space left on device; make room'
    >>> said_of(OSError(30, "Read-only file system", "cells.cfrseg.json"))
    "Read-only file system: 'cells.cfrseg.json'; choose another folder"
    """
    said = re.sub(r"^\[Errno -?\d+\] ", "", " ".join(str(error).split()))
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        said += f"; {_REMEDIES[error.errno]}"
    return said or type(error).__name__


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EROFS: "choose another folder",
}


#: Environment variable: gigabytes that this process may take on its device.
MEMORY_VARIABLE = "CFRSEG_MEMORY_GB"


def as_memory_error(error: BaseException) -> CfrSegError | None:
    """Return what to say where memory ran out, in NumPy or in torch; else None."""
    said = str(error)
    if MEMORY_VARIABLE in said:
        return CfrSegError(f"{said}: allow more, or unset it")
    # torch raises a RuntimeError where the processor's memory ends
    kinds = isinstance(error, MemoryError), type(error).__name__ == "OutOfMemoryError"
    if any(kinds) or "DefaultCPUAllocator" in said:
        msg = "There is not enough memory: close what you do not need, try again."
        return CfrSegError(msg)
    return None
