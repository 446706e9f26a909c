"""``cfrseg evaluate``: let a robot click objects and report the clicks it takes."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from napari_cfrseg.cli import options
from napari_cfrseg.engine.refinement import Refinement

if TYPE_CHECKING:
    from napari_cfrseg.evaluation.datasets import BenchmarkObject
    from napari_cfrseg.evaluation.evaluate_objects import RunSettings
    from napari_cfrseg.evaluation.report.tables import Summary
    from napari_cfrseg.evaluation.segmenters import SegmenterSpec

EXAMPLES = """\b
Examples:
  cfrseg evaluate my_data --output report
  cfrseg evaluate DATA --split benchmarks/split.json -s default -s watershed \\
      --refinement standard --refinement A-CFR-4 --output report
  cfrseg evaluate --compare report/runs/watershed report/runs/default-standard
"""
HINT_NOTE = (
    "{} get the object's size (the longer side of its bounding box) and work on a crop "
    "of three times that around the first click; the networks get the whole image and "
    "no hint."
)


def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder with images/ and labels/, or another layout."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Report folder; a killed run continues there."
        ),
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
        str, typer.Option(help="micro, ritm, simpleclick, paper-cfr or paper-fcfi.")
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
    axes: options.AxesOption = None,
    per_object: Annotated[
        bool, typer.Option(help="Stacks: each 3-D object once, at its largest plane.")
    ] = False,
    robot: Annotated[
        Literal["exact", "human"],
        typer.Option(help="exact (the papers') or human (clicks as people do)."),
    ] = "exact",
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="Seed of the human robot; repeat.")
    ] = None,
    actions: Annotated[
        bool,
        typer.Option(
            "--actions",
            help="The robot may also take the next candidate or move the outline.",
        ),
    ] = False,
    suggest: Annotated[
        bool,
        typer.Option(
            "--suggest",
            help="Measure suggestions: on planes of 30 objects and more three are "
            "clicked, the rest is suggested.",
        ),
    ] = False,
    fields: Annotated[
        int | None,
        typer.Option(min=1, help="--suggest: planes per set. [default: all]"),
    ] = None,
    max_clicks: Annotated[
        int, typer.Option(min=1, help="Most clicks (or actions) per object.")
    ] = 20,
    target: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Stop at this IoU. [default: 0.9; paper-cfr 0.95]"
        ),
    ] = None,
    surfaces: Annotated[
        bool, typer.Option(help="Boundary IoU and ASSD after each click, too.")
    ] = False,
    spacing: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Size of a pixel in µm, Y X: ASSD in µm, too."),
    ] = None,
    workers: options.WorkersOption = 1,
    scheduler: options.SchedulerOption = None,
    device: options.DeviceOption = "auto",
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Compare two finished runs instead: A B."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Let a robot user click every object, and report how many clicks it takes."""
    if compare is not None:
        _compare(*compare, as_json=as_json)
        return
    if data is None or output is None:
        raise typer.BadParameter("name the data folder and --output (or --compare A B)")
    from napari_cfrseg.evaluation.datasets.choice import draw_objects
    from napari_cfrseg.evaluation.evaluate_objects import RunSettings
    from napari_cfrseg.evaluation.papers import paper_protocol
    from napari_cfrseg.evaluation.report import check_report

    check_report(output)
    is_human, paper = robot == "human", None
    for wrong, message in (
        (seed and not is_human, "--seed is the human robot's: add --robot human"),
        (fields and not suggest, "--fields counts the planes of --suggest: add it"),
        (
            suggest and (is_human or actions or protocol != "micro"),
            "--suggest has its own robot: leave out --robot, --actions and --protocol",
        ),
    ):
        if wrong:
            raise typer.BadParameter(message)
    with options.usage():
        if protocol != "micro":
            paper = paper_protocol(protocol, dataset=layout, backbone=backbone)
        if target is None:
            target = paper.target if paper else 0.90
        how = protocol, device, layout, backbone
        specs = _segmenters(segmenter or ["default"], refinement or ["standard"], how)
        robots = [
            RunSettings(
                max_clicks=max_clicks,
                target=target,
                # the papers' loop stops as soon as the target is reached
                min_clicks=1 if paper else min(5, max_clicks),
                human=is_human,
                seed=number,
                surfaces=surfaces or spacing is not None,
                published=paper is not None,
                spacing_um=spacing,
                actions=actions,
            )
            for number in seed or [0]
        ]
        objects = draw_objects(
            data,
            layout,
            split=split,
            side=side,
            sets=only or None,
            max_objects=sys.maxsize if suggest else max_objects,
            seed=draw,
            min_area_px=min_area,
            ignore_value=ignore,
            per_object=per_object,
            axes=axes,
        )
    for spec in specs:
        spec.check()
    if suggest:
        _suggest(output, specs, objects, fields, max_objects, as_json=as_json)
        return
    choices = list(product(specs, robots))
    _click(output, choices, objects, workers, scheduler, as_json=as_json)


def _click(
    output: Path,
    choices: Sequence[tuple[SegmenterSpec, RunSettings]],
    objects: Sequence[BenchmarkObject],
    workers: int,
    scheduler: str | None,
    *,
    as_json: bool,
) -> None:
    """Let each robot click every object with its segmenter, and write the report."""
    from napari_cfrseg.evaluation.report import write_report
    from napari_cfrseg.evaluation.runner import run_benchmark
    from napari_cfrseg.evaluation.segmenters import PEERS

    command = shlex.join(["cfrseg", *sys.argv[1:]])
    runs = []
    for spec, settings in choices:
        folder = output / "runs" / _folder_name(spec, settings)
        with options.counting(folder.name, len(objects)) as report:
            runs.append(
                run_benchmark(
                    folder,
                    spec,
                    objects,
                    settings=settings,
                    workers=workers,
                    scheduler=scheduler,
                    progress=lambda _row, done, _total: report(done),
                    command=command,
                )
            )
    hinted = dict.fromkeys(s.label for s, _ in choices if s.segmenter in PEERS)
    notes = [HINT_NOTE.format(", ".join(hinted))] if hinted else []
    by_key = {item.key: item for item in objects}
    results = write_report(output, runs, by_key, command=command, notes=notes)
    if as_json:
        figures = {name: [s.to_dict() for s in sets] for name, sets in results}
        typer.echo(json.dumps(figures))
        return
    typer.echo((output / "table.md").read_text(encoding="utf-8"))
    for name, sets in results:
        typer.echo(_one_line(name, sets[-1]))
    typer.echo(f"report: {output}")


def _segmenters(
    names: Sequence[str], refinements: Sequence[str], how: tuple[str, str, str, str]
) -> list[SegmenterSpec]:
    """Return the segmenters to measure, networks once per refinement.

    ``how`` are protocol, device, data set and backbone. An unknown refinement is a
    ValueError.
    """
    from napari_cfrseg.evaluation.segmenters import SegmenterSpec

    protocol, device, dataset, backbone = how
    for refinement in refinements:
        Refinement.parse(refinement)
    specs = []
    for name, refinement in product(names, refinements):
        spec = SegmenterSpec(name, protocol, refinement, device, dataset, backbone)
        specs.append(spec if spec.is_network else SegmenterSpec(name, device=device))
    return list(dict.fromkeys(specs))


def _folder_name(spec: SegmenterSpec, settings: RunSettings) -> str:
    name = re.sub(r"[^\w.-]+", "-", spec.label).strip("-").lower()
    name += f"-human{settings.seed}" if settings.human else ""
    return f"{name}-actions" if settings.actions else name


def _one_line(name: str, pool: Summary) -> str:
    said = [f"{pool.objects} objects"]
    if not math.isnan(pool.noc_ok):
        said.append(f"NoC@ok {pool.noc_ok:.2f}")
    said += [f"NoC@{goal} {value:.2f}" for goal, value in pool.noc.items()]
    return f"{name}: {', '.join(said)}, IoU@1 {pool.iou_at[1]:.3f}"


def _suggest(
    output: Path,
    specs: Sequence[SegmenterSpec],
    objects: Sequence[BenchmarkObject],
    fields: int | None,
    max_objects: int | None,
    *,
    as_json: bool,
) -> None:
    """Measure suggestions field by field; a killed run continues."""
    from napari_cfrseg.engine.segmenter import Segmenter
    from napari_cfrseg.evaluation.evaluate_fields import evaluate_fields, format_fields
    from napari_cfrseg.evaluation.fields import (
        MIN_OBJECTS,
        FieldSettings,
        crowded_planes,
    )

    planes = crowded_planes(objects, fields)
    spec = specs[0]
    if not planes or len(specs) > 1 or not spec.is_network:
        msg = (
            f"--suggest needs one network, and planes of {MIN_OBJECTS} objects or more"
        )
        raise typer.BadParameter(msg)
    settings = FieldSettings(max_objects or FieldSettings().max_objects)
    segmenter = Segmenter.load(spec.segmenter, device=spec.device)
    output.mkdir(parents=True, exist_ok=True)
    identity = {"segmenter": spec.segmenter, "weights_sha256": spec.fingerprint()}
    rows = []
    results = output / "fields.jsonl"
    with options.counting("suggesting, fields", len(planes)) as report:
        for row in evaluate_fields(results, segmenter, planes, settings, identity):
            rows.append(row)
            report(len(rows))
    table = format_fields(rows, settings)
    (output / "fields.md").write_text(table, encoding="utf-8")
    typer.echo(json.dumps([asdict(row) for row in rows]) if as_json else table)


def _compare(first: Path, second: Path, *, as_json: bool) -> None:
    from napari_cfrseg.evaluation.report import name_runs
    from napari_cfrseg.evaluation.report.comparisons import (
        compare_runs,
        format_differences,
    )
    from napari_cfrseg.evaluation.runner import find_run

    runs = [find_run(first), find_run(second)]
    differences = compare_runs(*runs)
    if as_json:
        typer.echo(json.dumps([d.to_dict() for d in differences]))
        return
    typer.echo(format_differences(differences, *name_runs(runs)))
