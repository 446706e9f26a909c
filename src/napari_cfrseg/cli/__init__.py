"""The command line, ``cfrseg``; its subcommands are in ``commands``."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def main() -> None:
    """Run the command line; Ctrl+C ends it quietly, with exit code 130."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:  # while it loads there is nothing to put in order
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from napari_cfrseg.cli.commands import run

    try:
        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        sys.exit(130)


def __getattr__(name: str) -> Any:
    """Return the Typer program ``app``, which is loaded only where it is used."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from napari_cfrseg.cli.commands import app

    return app
