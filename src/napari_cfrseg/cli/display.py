"""Can a window be opened here? Asked in a process of its own.

Qt ends the whole process where its platform plugin lacks a system library, and napari's
canvas fails late without OpenGL: a probe that may die answers before either happens.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec

_PROBE = """
from qtpy.QtGui import QOpenGLContext
from qtpy.QtWidgets import QApplication
application = QApplication([])
if not QOpenGLContext().create():
    raise SystemExit("OpenGL is not available")
"""
_TIMEOUT_S = 60


def display_problem(environment: Mapping[str, str] = os.environ) -> str | None:
    """Say in one line why no window can be opened, or None if one can.

    Parameters
    ----------
    environment
        The process's environment variables.
    """
    if find_spec("napari") is None:
        return 'napari is not installed (python -m pip install "napari-cfrseg[all]")'
    if sys.platform.startswith("linux") and not (
        environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    ):
        return "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"Qt did not answer within {_TIMEOUT_S} s"
    if probe.returncode == 0:
        return None
    return f"Qt cannot open a window here ({_reason(probe.stderr)})"


def _reason(stderr: str) -> str:
    """Pick the line that names the cause."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = (
        "is needed",
        "cannot open shared object",
        "could not connect",
        "Could not find the Qt platform plugin",
    )
    for line in lines:
        if any(words in line for words in telling):
            return line
    return lines[-1] if lines else "it ended without a message"
