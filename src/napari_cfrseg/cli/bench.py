"""``cfrseg bench``: what a click costs here."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from napari_cfrseg.cli.options import DeviceOption, JsonOption, ModelOption

if TYPE_CHECKING:
    from napari_cfrseg.bench import BenchRow

EXAMPLES = """\b
Examples:
  cfrseg bench --threads 2
  cfrseg bench --sizes 512,2048 --device cuda --json
  cfrseg bench --all-models --threads 1
  cfrseg bench --network fcfi_r101 --network fcfi:convnext_tiny
"""
_STAGES = ("crop", "embed_image", "embed_clicks", "refine", "paste")


def bench(
    sizes: Annotated[
        str, typer.Option(help="Sides of the images in pixels, comma-separated.")
    ] = "512,2048,8192",
    clicks: Annotated[int, typer.Option(min=1, help="Objects per size.")] = 20,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads [torch's choice].")
    ] = None,
    sample: Annotated[
        str, typer.Option(help="Bundled micrograph to tile.")
    ] = "powder_sem",
    model: ModelOption = "default",
    device: DeviceOption = "auto",
    all_models: Annotated[
        bool,
        typer.Option("--all-models", help="Every model and network instead."),
    ] = False,
    network: Annotated[
        list[str] | None,
        typer.Option(help="Only this network; again for more (fcfi:<timm model>)."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Runs of each network that count.")
    ] = 3,
    cpu_time: Annotated[
        bool,
        typer.Option(
            "--cpu-time", help="Networks: processor's seconds (one thread, busy CPU)."
        ),
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Networks: through torch.compile.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Time first and next clicks, by stage, on images of several sizes.

    Times are medians in milliseconds; "×std" compares with standard inference on the
    very same clicks. With --all-models or --network: one window on each network, with
    its weights if it is installed, else random ones, beside RITM HRNet-18s; on --device
    auto the CPU and, where there is one, CUDA in float32, bfloat16 and float16.
    """
    if all_models or network:
        from napari_cfrseg.cli.bench_networks import bench_all

        _check_sample(sample)
        bench_all(
            network or (),
            device=device,
            threads=threads,
            cpu_time=cpu_time,
            compiled=compiled,
            repeats=repeats,
            sample=sample,
            as_json=as_json,
        )
        return
    sides = _parse_sizes(sizes)

    from napari_cfrseg.bench import run_bench
    from napari_cfrseg.engine.segmenter import Segmenter
    from napari_cfrseg.progress import track
    from napari_cfrseg.samples import load_sample

    _check_sample(sample)
    micrograph = load_sample(sample)
    segmenter = Segmenter.load(model, device=device, threads=threads)
    rows = [
        row
        for side in track(sides, "timing clicks, sizes")
        for row in run_bench(
            segmenter,
            micrograph.image,
            micrograph.labels,
            sides=(side,),
            clicks=clicks,
        )
    ]
    if as_json:
        typer.echo(json.dumps([row.as_dict() for row in rows]))
    else:
        typer.echo(f"{segmenter.name} on {segmenter.device}")
        typer.echo("\n".join(_table(rows)))


def _check_sample(name: str) -> None:
    from napari_cfrseg.samples import sample_names

    if name not in sample_names():
        msg = f"{name!r} is none of {', '.join(sample_names())}"
        raise typer.BadParameter(msg, param_hint="--sample")


def _parse_sizes(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text.replace(" ", "")):
        msg = f"{text!r} is not a list of sizes (example: 512,2048)"
        raise typer.BadParameter(msg, param_hint="--sizes")
    sides = tuple(int(side) for side in text.split(","))
    if min(sides) < 64:
        msg = f"{min(sides)} px is too small: 64 at least"
        raise typer.BadParameter(msg, param_hint="--sizes")
    return sides


def _table(rows: list[BenchRow]) -> list[str]:
    head = ["image", "click", "refinement", "median", "p95", *_STAGES, "steps", "×std"]
    cells = [head] + [
        [
            f"{row.side_px}²",
            row.click,
            row.refinement,
            f"{row.median_ms:.0f}",
            f"{row.p95_ms:.0f}",
            *(f"{row.stages_ms[stage]:.1f}" for stage in _STAGES),
            f"{row.mean_steps:.1f}",
            f"{row.ratio_to_standard:.2f}",
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
