"""``cfrseg evaluate``: the command line of the evaluator."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from napari_cfrseg.evaluation.object_row import ObjectRow
    from napari_cfrseg.evaluation.plan import Plan
    from napari_cfrseg.evaluation.report.results import Summary

EXAMPLES = """\b
Examples:
  cfrseg evaluate my_data --out report
  cfrseg evaluate DATA --split benchmarks/split.json -s default -s watershed \\
      --refinement standard --refinement A-CFR-4 --out report
  cfrseg evaluate --compare report/runs/watershed report/runs/default-standard
"""


def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder with images/ and labels/, or another layout."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Report folder; a killed run goes on there."),
    ] = None,
    segmenter: Annotated[
        list[str] | None,
        typer.Option(
            "--segmenter",
            "-s",
            help="default, a weights file, random-walker, watershed, grabcut, "
            "sam:FILE or module:factory; repeat for several.",
        ),
    ] = None,
    refinement: Annotated[
        list[str] | None,
        typer.Option("--refinement", help="standard, CFR-n or A-CFR-n; repeat."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(help="micro, ritm, simpleclick, paper-cfr or paper-fcfi."),
    ] = "micro",
    backbone: Annotated[
        str, typer.Option(help="paper-fcfi: hrnet18s or resnet101.")
    ] = "hrnet18s",
    layout: Annotated[
        str,
        typer.Option(
            help="auto, folder, ome-zarr, grabcut, berkeley, davis, coco-mval, sbd, "
            "voc or coco-lvis."
        ),
    ] = "auto",
    split: Annotated[
        Path | None, typer.Option(help="Split file; DATA holds a folder per set.")
    ] = None,
    side: Annotated[
        str, typer.Option(help="Side of the split: train, validation or test.")
    ] = "validation",
    only: Annotated[
        list[str] | None, typer.Option("--set", help="Only this set; repeat.")
    ] = None,
    max_objects: Annotated[
        int | None,
        typer.Option(min=1, help="Objects per set. [default: 40; published sets: all]"),
    ] = None,
    draw: Annotated[int, typer.Option(min=0, help="Seed of the objects drawn.")] = 0,
    min_area: Annotated[int, typer.Option(min=1, help="Smallest object, px.")] = 40,
    ignore: Annotated[
        int | None, typer.Option(help="Label of pixels that do not count.")
    ] = None,
    per_object: Annotated[
        bool, typer.Option(help="Stacks: each 3-D object once, at its largest plane.")
    ] = False,
    robot: Annotated[
        str, typer.Option(help="exact (the papers') or human (clicks as people do).")
    ] = "exact",
    seed: Annotated[
        list[int] | None, typer.Option(help="Seed of the human robot; repeat.")
    ] = None,
    clicks: Annotated[int, typer.Option(min=1, help="Most clicks per object.")] = 20,
    target: Annotated[
        float | None,
        typer.Option(help="Stop at this IoU. [default: 0.9; paper-cfr 0.95]"),
    ] = None,
    surfaces: Annotated[
        bool, typer.Option(help="Boundary IoU and ASSD after each click, too.")
    ] = False,
    spacing: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Size of a pixel in µm, Y X: ASSD in µm, too."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-j", min=1)] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, tcp://HOST:PORT.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Compare two finished runs instead: A B."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON value.")
    ] = False,
) -> None:
    """Let a robot user click every object, and report how many clicks it takes."""
    if compare is not None:
        _compare(*compare, as_json=as_json)
        return
    if data is None or out is None:
        msg = "name the data folder and --out (or --compare A B)"
        raise typer.BadParameter(msg)
    if robot not in ("exact", "human"):
        msg = f"--robot {robot}: expected exact or human"
        raise typer.BadParameter(msg)
    from napari_cfrseg.evaluation.datasets.choice import LAYOUTS, DataChoice
    from napari_cfrseg.evaluation.plan import Plan

    if layout not in LAYOUTS:
        msg = f"--layout {layout}: expected one of {', '.join(LAYOUTS)}"
        raise typer.BadParameter(msg)
    choice = DataChoice(
        data,
        layout,
        split,
        side,
        tuple(only) if only else None,
        max_objects,
        draw,
        min_area,
        ignore,
        per_object,
    )
    plan = Plan(
        choice,
        out,
        segmenters=tuple(segmenter or ("default",)),
        refinements=tuple(refinement or ("standard",)),
        protocol=protocol,
        backbone=backbone,
        device=device,
        human=robot == "human",
        seeds=tuple(seed or (0,)),
        max_clicks=clicks,
        target=target,
        surfaces=surfaces or spacing is not None,
        spacing_um=spacing,
        workers=workers,
        scheduler=scheduler,
        command=shlex.join(["cfrseg", *sys.argv[1:]]),
    )
    _run(plan, as_json=as_json)


def _run(plan: Plan, *, as_json: bool) -> None:
    from napari_cfrseg.evaluation.plan import run_plan

    try:
        plan.specs()
        plan.settings()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with _Bar() as bar:
        results = run_plan(plan, starting=bar.start, progress=bar.advance)
    if as_json:
        found = {name: [s.to_dict() for s in sets] for name, sets in results}
        typer.echo(json.dumps(found))
        return
    typer.echo((plan.out / "table.md").read_text(encoding="utf-8"))
    for name, sets in results:
        typer.echo(_one_line(name, sets[-1]))
    typer.echo(f"report: {plan.out}")


def _one_line(name: str, pool: Summary) -> str:
    clicks = ", ".join(f"NoC@{goal} {value:.2f}" for goal, value in pool.noc.items())
    return f"{name}: {pool.objects} objects, {clicks}, IoU@1 {pool.iou_at[1]:.3f}"


def _compare(first: Path, second: Path, *, as_json: bool) -> None:
    from napari_cfrseg.evaluation.plan import find_run
    from napari_cfrseg.evaluation.report.comparisons import (
        compare_runs,
        format_differences,
    )
    from napari_cfrseg.evaluation.report.write import name_runs

    runs = [find_run(first), find_run(second)]
    differences = compare_runs(*runs)
    if as_json:
        typer.echo(json.dumps([d.to_dict() for d in differences]))
        return
    typer.echo(format_differences(differences, *name_runs(runs)))


class _Bar:
    """A progress bar with the time left on a terminal, plain lines in a log."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: Any = None
        self._name = ""

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def start(self, name: str, total: int) -> None:
        self._name = name
        self._task = self._progress.add_task(name, total=total)

    def advance(self, row: ObjectRow, done: int, total: int) -> None:
        del row
        self._progress.update(self._task, completed=done)
        tenth = max(1, total // 10)
        if not self._console.is_terminal and (done % tenth == 0 or done == total):
            typer.echo(f"{self._name}: {done}/{total} objects", err=True)
