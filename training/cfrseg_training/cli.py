"""``cfrseg-train``: fine-tune a model on a folder of images and labels."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_cfrseg.errors import CfrSegError

if TYPE_CHECKING:
    from cfrseg_training.finetune import Outcome

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXAMPLES = """\b
Example:
  cfrseg-train my-cells --base default --minutes 15 --output my-cells.safetensors
"""


@app.command(epilog=EXAMPLES)
def train(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="Holds images/NAME.tif and labels/NAME.tif (or .png).",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The new weights, .safetensors.")
    ],
    base: Annotated[str, typer.Option(help="Model to start from.")] = "default",
    minutes: Annotated[
        float, typer.Option(min=0.01, help="Of training; judging comes on top.")
    ] = 15.0,
    keep_unproven: Annotated[
        bool, typer.Option(help="Write the model although its gain is not proven.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads [torch's choice].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fine-tune on your labels; keep the model only if it needs fewer clicks."""
    if output.suffix != ".safetensors":
        raise typer.BadParameter(f"{output} must end in .safetensors")
    if output.exists():
        raise typer.BadParameter(f"{output} exists: choose another name")
    from cfrseg_training.finetune import fine_tune
    from napari_cfrseg.evaluation.folders import LabelFolder

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    try:
        outcome = fine_tune(
            LabelFolder(folder, folder.name),
            output,
            base=base,
            minutes=minutes,
            keep_unproven=keep_unproven,
            seed=seed,
            threads=threads,
        )
    except CfrSegError as error:
        typer.echo(f"cfrseg-train: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps(asdict(outcome)) if as_json else _report(outcome, output))


def _report(outcome: Outcome, output: Path) -> str:
    lines = [
        "         objects  NoC@85  NoC@90  IoU@1  IoU@5",
        *(
            f"{name:8s} {f.objects:7d}  {f.noc85:6.2f}  {f.noc90:6.2f}  "
            f"{f.iou1:.3f}  {f.iou5:.3f}"
            for name, f in (("before", outcome.before), ("after", outcome.after))
        ),
        f"change in clicks to 90 %: {outcome.difference:+.2f} "
        f"(95 % interval {outcome.low:+.2f} to {outcome.high:+.2f}), judged on "
        f"{len(outcome.held_out)} held-out images",
    ]
    endings = {
        "kept": f"kept: {output}",
        "not proven": (
            f"not proven: kept as you asked: {output}"
            if output.exists()
            else "not proven, so not written: more images, more minutes, or "
            "--keep-unproven"
        ),
        "refused": (
            "refused: it needs more clicks than before; check the labels, or give "
            "more images"
        ),
    }
    return "\n".join([*lines, endings[outcome.verdict]])


def main() -> None:
    """Run the command line."""
    app()
