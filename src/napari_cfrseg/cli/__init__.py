"""The command line: ``cfrseg``.

Each command's module is light: typer and numpy at import time, everything else inside
the command, so that ``cfrseg --help`` answers at once.
"""

from __future__ import annotations

from napari_cfrseg.cli.app import app, main

__all__ = ["app", "main"]
