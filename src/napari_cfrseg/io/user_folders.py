"""Where a person's own files live: one rule for each operating system."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def data_folder(kind: str, variable: str) -> Path:
    """Return the folder for one kind of files; it need not be there.

    Parameters
    ----------
    kind
        Its name, "models" for example.
    variable
        Environment variable that names another folder.

    Returns
    -------
    ``%LOCALAPPDATA%`` on Windows, ``~/Library/Application Support`` on macOS, else
    ``$XDG_DATA_HOME`` (``~/.local/share``), and below it ``napari-cfrseg/KIND``.
    """
    named = os.environ.get(variable)
    if named:
        return Path(named)
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", home / ".local" / "share"))
    return base / "napari-cfrseg" / kind
