"""The subcommands of ``cfrseg``, their errors and exit codes.

Exit codes: 0 done, 1 a :class:`~napari_cfrseg.errors.CfrSegError` or an ``OSError``
(one line on standard error, with the remedy), 2 wrong usage, 130 ended by Ctrl+C.

Each command's module is light: typer and numpy at import time, everything else inside
the command, so that ``cfrseg --help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from napari_cfrseg import __version__
from napari_cfrseg.cli import bench, demo, evaluate, propagate, replay, segment, suggest
from napari_cfrseg.cli.models import models
from napari_cfrseg.cli.options import Command
from napari_cfrseg.errors import CfrSegError, TrainingError, as_memory_error, said_of
from napari_cfrseg.io.atomic import let_streams_print_anything


@contextmanager
def _said_in_one_line() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # `cfrseg … | head`: the reader has seen enough
        raise
    except (CfrSegError, OSError, MemoryError, RuntimeError) as error:
        known = isinstance(error, CfrSegError | OSError)
        said = error if known else as_memory_error(error)
        if said is None:
            raise
        typer.echo(f"cfrseg: {said_of(said)}", err=True)
        _drop_unwritten()
        raise typer.Exit(1) from error


def _drop_unwritten() -> None:
    """Drop output that finds no room: Python would try again at its end, and say so."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _OneLineErrors(TyperGroup):
    """Turns an error that the user can fix into one line and exit code 1."""

    def make_context(self, *given: Any, **options: Any) -> Any:
        """Read the options before a subcommand; print help or the version."""
        with _said_in_one_line():
            return super().make_context(*given, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        # what is wrong with a file is said in the one line, not before it
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        with _said_in_one_line():
            return super().invoke(ctx)


#: the training program parses its own options and prints its own help
_TRAIN_SETTINGS = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def train(context: typer.Context) -> None:
    """Fine-tune a model on your labels; keep it only if it needs fewer clicks."""
    programs = entry_points(group="console_scripts", name="cfrseg-train")
    if not programs:
        msg = "the training program is missing: python -m pip install napari-cfrseg"
        raise TrainingError(msg)
    (program, *_) = programs
    program.load()(context.args, "cfrseg train")


app = typer.Typer(
    name="cfrseg",
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    epilog="Example: cfrseg demo",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=demo.EXAMPLES)(demo.demo)
app.command(cls=Command, epilog=segment.EXAMPLES)(segment.segment)
app.command(cls=Command, epilog=propagate.EXAMPLES)(propagate.propagate)
app.command(epilog=replay.EXAMPLES)(replay.replay)
app.command(epilog=suggest.EXAMPLES)(suggest.suggest)
app.command(context_settings=_TRAIN_SETTINGS)(train)
app.add_typer(models)
app.command(cls=Command, epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(cls=Command, epilog=bench.EXAMPLES)(bench.bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cfrseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it."
        ),
    ] = False,
) -> None:
    """Click on an object in a micrograph and get its mask."""


def run() -> None:
    """Run the command that the shell gives."""
    # On a busy machine, threads that spin while they wait for each other cost far
    # more than they save; read once, when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    let_streams_print_anything()
    warnings.formatwarning = lambda message, *_, **__: f"cfrseg: {message}\n"
    app()
