"""The command line, ``cfrseg``; its subcommands are in ``commands``."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Run ``cfrseg``; Ctrl+C ends it quietly, with exit code 130."""
    _run("napari_cfrseg.cli.commands", "run")


def train(*given: Any) -> None:
    """Run ``cfrseg-train`` in the same way."""
    _run("cfrseg_training.command", "main", *given)


def _run(module: str, name: str, *given: Any) -> None:
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:  # while it loads there is nothing to put in order
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    program = getattr(import_module(module), name)
    try:
        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        program(*given)
    except KeyboardInterrupt:
        sys.exit(130)


def __getattr__(name: str) -> Any:
    """Return the Typer program ``app``, which is loaded only where it is used."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from napari_cfrseg.cli.commands import app

    return app
