"""Images whose planes are in several TIFFs: which of their files are missing."""

from __future__ import annotations

import math
import re
from html import unescape
from pathlib import Path
from typing import Any

from napari_cfrseg.errors import ImageError

#: how MicroManager's summary calls the numbers of planes
_COUNTS = ("Channels", "Slices", "Frames", "Positions")
#: an OME-TIFF whose XML is in another file
_ELSEWHERE = re.compile(r"\bBinaryOnly\b[^>]*?\bMetadataFile\s*=\s*[\"']([^\"']+)")


def _file_names(file: Any) -> set[str]:
    """Return the files that an OME-TIFF names as those of the image."""
    said = file.ome_metadata if file.is_ome else None
    found = re.findall(r"\bFileName\s*=\s*[\"']([^\"']+)", said or "")
    return {unescape(name) for name in found}


def check_alone(file: Any) -> None:
    """Raise ImageError for one file of several on a server: only it would be found."""
    if len(_file_names(file)) > 1:
        raise ImageError("it is one of several files of an image: download them all")


def check_files(file: Any, main: Any) -> None:
    """Raise ImageError where named files with other planes of the image are gone."""
    if not file.is_ome or not _empty_pages(main):
        return
    folder, names = Path(file.filehandle.dirname), sorted(_file_names(file))
    gone = [name for name in names if not (folder / name).exists()]
    if gone and len(names) > 1:
        raise ImageError(
            f"{len(gone)} of the {len(names)} files of the image are missing "
            f"({', '.join(gone[:3])}{', …' if gone[3:] else ''}): put them beside it"
        )


def missing_planes(file: Any, main: Any) -> str:
    """Return what of its planes is in no file that was found, "" for nothing."""
    if main.kind == "mmstack":
        summary = file.micromanager_metadata["Summary"]
        said = math.prod(max(int(summary.get(name) or 1), 1) for name in _COUNTS)
        held = len(main) - _empty_pages(main)
        gone = max(said, len(main)) - held
        if gone > 0:
            return (
                f"{gone} of its {gone + held} planes are in no file beside it: the "
                "recording ended early, or files of it are missing (put them there)."
            )
    elif file.is_micromanager and not file.is_ndtiff and not file.is_mmstack:
        return "NDTiff.index is not beside it: only this file's own planes are shown."
    elif file.is_ome:
        elsewhere = _ELSEWHERE.search(file.ome_metadata or "")
        if elsewhere is not None:
            name = unescape(elsewhere[1])
            return f"it is one file of several ({name} knows all): only it is shown."
        if black := _empty_pages(main):
            return f"{black} of {len(main)} planes are not in it: shown as zeros."
    return ""


def _empty_pages(main: Any) -> int:
    """Return how many planes of an image are promised and were not found."""
    ends = main.kind == "mmstack"  # whose planes are known by their places
    return sum(page is None or (ends and not any(page.dataoffsets)) for page in main)
