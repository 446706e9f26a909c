"""``cfrseg train`` (``cfrseg-train``): fine-tune a model on one's own labels."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_cfrseg.errors import CfrSegError, TrainingError, said_of
from napari_cfrseg.io.atomic import check_folder, let_streams_print_anything
from napari_cfrseg.processes import MOST_THREADS, use_threads
from napari_cfrseg.training_job import (
    JobReporter,
    JobStatus,
    TrainingJob,
    verdict_sentence,
    yield_to_others,
)

if TYPE_CHECKING:
    from cfrseg_training.configuration import Settings
    from cfrseg_training.loop.labelled import LabelledData

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXAMPLES = """\b
Examples:
  cfrseg train --images raw --labels masks --minutes 15 --output my-cells.safetensors
  cfrseg train my-cells --output my-cells.safetensors --dry-run
  cfrseg train config.toml
  cfrseg train my-cells --recipe cfr_icl_vit_base_sbd --base random -o vit.safetensors
  torchrun --nproc-per-node 4 -m cfrseg_training.command config.toml
"""


@app.command(epilog=EXAMPLES)
def train(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            exists=True,
            help="A .toml with everything; or folders with images/ and labels/, of "
            "*.zarr or of *.cfrseg.json; or one .zarr or session.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(exists=True, help="TIFF or PNG files (or one).")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(exists=True, help="Their labels, of the same names.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New weights, .safetensors.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Model to start from. [default]")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="Minutes of training, without judging. [15]"),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(
            metavar="ZCYX",
            help="A letter for each axis of the images: Y, X, Z, T, C (channels), "
            "S (RGB). [the files']",
        ),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(
            help="What unlabelled pixels are: background, sparse (unknown away from "
            "the object), or the number of a label to ignore. [background]"
        ),
    ] = None,
    keep_unproven: Annotated[
        bool,
        typer.Option(
            "--keep-unproven", help="Write the model even if its gain is not proven."
        ),
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of all chance. [0]")] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_THREADS, help="CPU threads. [torch's choice]"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Do not train: list the data, time a step, and write a contact "
            "sheet of samples with their clicks (OUTPUT.sheet.png).",
        ),
    ] = False,
    job: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder of states and progress: the same command continues a run "
            "that was killed. With a job.json in it nothing else is needed.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Train a paper's network as the paper did instead: a recipe's name or "
            "file. --base: its network's weights, or random; nothing is judged."
        ),
    ] = None,
    background: Annotated[
        bool,
        typer.Option(
            "--background", help="Use only the processor time other programs leave."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fine-tune on your labels; keep the model only if it needs fewer clicks."""
    if background:
        yield_to_others()  # before torch is loaded and starts threads
    from cfrseg_training.loop import run_state

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options: dict[str, Any] = {
        "output": output,
        "base": base,
        "minutes": minutes,
        "seed": seed,
        "threads": threads,
        "keep_unproven": keep_unproven or None,
    }
    folder = None if job is None else TrainingJob(job)
    try:
        settings = _settings(sources or [], images, labels, ignore, axes, folder)
        changed = {k: v for k, v in options.items() if v is not None}
        settings = replace(settings, **changed)
        run_state.join_processes()
        problem = run_state.decided_by_first(_problem(settings, dry_run=dry_run))
        if problem:
            raise typer.BadParameter(problem)
        use_threads(settings.threads)
        if recipe is not None:
            _run_recipe(recipe, settings, base, minutes, as_json=as_json)
        else:
            _run(settings, folder, dry_run=dry_run, as_json=as_json)
    except (CfrSegError, OSError) as error:
        text = _explained(error, folder)
        is_first = run_state.process_rank() == 0
        if folder is not None and folder.folder.is_dir() and is_first:
            with suppress(OSError):  # a full disk has no room for a status either
                share = folder.status.share
                folder.write_status(JobStatus("failed", share, None, text))
        typer.echo(f"cfrseg-train: {text}", err=True)
        raise typer.Exit(1) from error


def _explained(error: CfrSegError | OSError, job: TrainingJob | None) -> str:
    """Return one line: the problem and what to do."""
    text = said_of(error)
    if isinstance(error, CfrSegError):
        return text
    state = "" if job is None else f" to go on from {job.folder}"
    return f"{text}; then run the same command again{state}"


def _settings(
    sources: list[Path],
    images: Path | None,
    labels: Path | None,
    ignore: str | None,
    axes: str | None,
    job: TrainingJob | None,
) -> Settings:
    from cfrseg_training.configuration import Settings, read_settings, settings_of
    from cfrseg_training.loop.labelled import SESSION_SUFFIX, DataRequest

    configs = [path for path in sources if path.suffix == ".toml"]
    if configs:
        if len(sources) > 1 or images or labels:
            msg = "a .toml names its data: give no other data beside it"
            raise typer.BadParameter(msg)
        return read_settings(configs[0])
    if job is not None and job.request and not (sources or images):
        return settings_of(job.request, job.folder, str(job.folder / "job.json"))
    if not (sources or images):
        msg = "nothing to train on: give --images and --labels, a folder or a .toml"
        raise typer.BadParameter(msg)
    sessions = tuple(p for p in sources if p.name.endswith(SESSION_SUFFIX))
    folders = tuple(p for p in sources if p not in sessions)
    policy: str | int = "background" if ignore is None else ignore
    if isinstance(policy, str) and policy.lstrip("-").isdigit():
        policy = int(policy)
    try:
        data = DataRequest(images, labels, folders, sessions, policy, axes=axes)
        return Settings(data)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _problem(settings: Settings, *, dry_run: bool) -> str:
    """Return what is wrong with the output, "" if nothing."""
    if settings.output is None:
        return "no output: give --output NAME.safetensors"
    if settings.output.suffix != ".safetensors":
        return f"{settings.output} must end in .safetensors"
    check_folder(settings.output.parent)
    if settings.output.exists() and not dry_run:
        return f"{settings.output} exists: choose another name"
    return ""


def _run(
    settings: Settings, job: TrainingJob | None, *, dry_run: bool, as_json: bool
) -> None:
    from cfrseg_training.finetune.dry_run import dry_run_text
    from cfrseg_training.finetune.gate import report_text
    from cfrseg_training.finetune.tuning import fine_tune
    from cfrseg_training.loop.run_state import process_count, process_rank

    is_first = process_rank() == 0
    if job is not None and is_first:
        job.folder.mkdir(parents=True, exist_ok=True)
        job.start_heartbeat()
        job.write_status(JobStatus("reading", 0.0, None, "reading images and labels"))
    data = _read(settings, aloud=is_first)
    if dry_run:
        typer.echo(dry_run_text(settings, data, as_json=as_json))
        return
    outcome = fine_tune(
        data,
        settings,
        config=replace(settings.train_config(), synchronous=process_count() > 1),
        work=None if job is None else job.folder,
        reporter=None if job is None else JobReporter(job),
    )
    if not is_first:
        return
    if job is not None:
        report = asdict(outcome)
        job.write_report(report)
        done = ("done", 1.0, 0.0, verdict_sentence(report))
        job.write_status(JobStatus(*done, outcome.verdict, outcome.model))
    typer.echo(json.dumps(asdict(outcome)) if as_json else report_text(outcome))


def _run_recipe(
    name: str,
    settings: Settings,
    base: str | None,
    minutes: float | None,
    *,
    as_json: bool,
) -> None:
    from cfrseg_training.loop.labelled import describe
    from cfrseg_training.loop.run_state import launched_processes
    from cfrseg_training.papers.recipe import find_recipe
    from cfrseg_training.papers.recipe_training import train_by_recipe

    if launched_processes() > 1:
        msg = "a recipe trains in one process: start it without a launcher"
        raise TrainingError(msg)
    if settings.output is None:  # checked before
        raise TrainingError
    recipe = find_recipe(name)
    data = _read(settings, aloud=True)
    outcome = train_by_recipe(
        recipe,
        [plane.sample() for plane in data.planes],
        settings.output,
        trained_on=[describe(data.planes)],
        base=base,
        minutes=minutes,
        seed=settings.seed,
    )
    text = (
        f"{outcome.network} by {outcome.recipe}: {outcome.epochs} epochs, "
        f"{outcome.steps} steps, {outcome.seconds:.0f} s, last loss "
        f"{outcome.loss:.4f}: {outcome.model}"
    )
    typer.echo(json.dumps(asdict(outcome)) if as_json else text)


def _read(settings: Settings, *, aloud: bool) -> LabelledData:
    from cfrseg_training.loop.labelled import describe, read_data

    data = read_data(settings.data)
    if aloud:
        for name, reason in data.broken.items():
            typer.echo(f"left out {name}: {reason}", err=True)
        typer.echo(f"training data: {describe(data.planes)}", err=True)
    return data


def main(arguments: Sequence[str] | None = None, name: str | None = None) -> None:
    """Run the command line, by default the process's own."""
    let_streams_print_anything()
    app(args=arguments, prog_name=name)


if __name__ == "__main__":
    main()
