"""``cfrseg train``: run the training program, which is a package of its own."""

from __future__ import annotations

from importlib.metadata import entry_points

import typer

from napari_cfrseg.errors import TrainingError

#: the training program parses its own options and prints its own help
SETTINGS = {
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
