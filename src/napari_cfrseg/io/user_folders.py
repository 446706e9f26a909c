"""Where a person's own files are kept: one rule for each operating system."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_data_path


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
    return Path(named) if named else user_data_path("napari-cfrseg", False) / kind
