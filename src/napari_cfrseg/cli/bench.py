"""``cfrseg bench``: time clicks on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from napari_cfrseg.cli.options import (
    DeviceOption,
    JsonOption,
    ModelOption,
    track,
    usage,
)
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.processes import MOST_THREADS
from napari_cfrseg.samples import load_sample, sample_names

if TYPE_CHECKING:
    from napari_cfrseg.evaluation.click_times import BenchRow
    from napari_cfrseg.evaluation.network_times import Arithmetic, NetworkCost


EXAMPLES = """\b
Examples:
  cfrseg bench --threads 2
  cfrseg bench --sizes 512,2048 --device cuda --json
  cfrseg bench --all-models --threads 1
  cfrseg bench --network fcfi_r101 --network fcfi:convnext_tiny
"""


def bench(
    sizes: Annotated[
        str, typer.Option(help="Sides of the images in pixels, comma-separated.")
    ] = "512,2048,8192",
    objects: Annotated[int, typer.Option(min=1, help="Objects clicked per size.")] = 20,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_THREADS, help="CPU threads [torch's choice]."),
    ] = None,
    sample: Annotated[
        str, typer.Option(help="Bundled micrograph to tile.")
    ] = "powder_sem",
    model: ModelOption = "default",
    device: DeviceOption = "auto",
    backend: Annotated[
        str, typer.Option(help="torch, openvino, or auto: the faster one.")
    ] = "torch",
    all_models: Annotated[
        bool, typer.Option("--all-models", help="Every model and network instead.")
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
    from napari_cfrseg.engine.devices import resolve_device
    from napari_cfrseg.engine.segmenter import Segmenter
    from napari_cfrseg.evaluation.click_times import arithmetics, run_bench

    if sample not in sample_names():
        msg = f"{sample!r} is none of {', '.join(sample_names())}"
        raise typer.BadParameter(msg, param_hint="--sample")
    if all_models or network:
        if device != "auto":
            resolve_device(device)
        with usage("--cpu-time"):
            how = arithmetics(device, threads, cpu_time=cpu_time, compiled=compiled)
        _bench_networks(network or (), how, repeats, as_json=as_json)
        return
    sides = _parse_sizes(sizes)
    micrograph = load_sample(sample)
    with usage("--backend"):
        segmenter = Segmenter.load(
            model,
            device=device,
            threads=threads,
            backend=backend,  # type: ignore[arg-type]  # checked there
        )
    rows = [
        row
        for side in track(sides, "timing clicks, sizes")
        for row in run_bench(
            segmenter, micrograph.image, micrograph.labels, side, objects
        )
    ]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows]))
    else:
        typer.echo(f"{segmenter.name} on {segmenter.device}")
        typer.echo(segmenter.placement.reason)
        typer.echo("\n".join(_table(rows)))


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
    head = ["image", "click", "refinement", "median", "p95"]
    head += [*rows[0].stages_ms, "steps", "×std"]
    cells = [head] + [
        [
            f"{row.side_px}²",
            row.click,
            row.refinement,
            f"{row.median_ms:.0f}",
            f"{row.p95_ms:.0f}",
            *(f"{ms:.1f}" for ms in row.stages_ms.values()),
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


_REFINEMENTS = ("standard", "CFR-1", "A-CFR-4")


def _bench_networks(
    names: Sequence[str],
    how: Sequence[Arithmetic],
    repeats: int,
    *,
    as_json: bool,
) -> None:
    """Time networks and installed models, all where none is named.

    Their figures are printed as they come, or as one JSON value at the end.
    """
    from napari_cfrseg.evaluation.click_times import (
        all_networks,
        bench_networks,
        record,
    )
    from napari_cfrseg.model.registry import named

    models = checkpoint.list_models()
    for name in names:
        with usage("--network"):
            if name not in models:
                named(name)
    chosen = tuple(names) or all_networks()
    costs = []
    for cost in bench_networks(chosen, how, repeats):
        costs.append(cost)
        record([cost])
        if not as_json:
            typer.echo("\n".join(_lines(cost, head=len(costs) == 1)))
    if as_json:
        typer.echo(json.dumps([asdict(cost) for cost in costs]))


def _lines(cost: NetworkCost, *, head: bool) -> Iterator[str]:
    if head:
        yield (
            "milliseconds per click; (steps) of A-CFR-4 depend on the weights; × is "
            "the time over ritm_hrnet18s's standard click, timed beside it"
        )
        yield "\t".join(
            ["network", "computed on", "Mparam", "px", "weights"]
            + [f"{c} {r}" for c in ("first", "next") for r in _REFINEMENTS]
            + ["× first", "× next", "× next A-CFR-4", "GMAC", "peak MB"]
        )
    if cost.error:
        yield "\t".join([cost.network, cost.arithmetic, cost.error])
        return
    cells = [
        cost.network,
        cost.arithmetic,
        f"{cost.parameters / 1e6:.1f}",
        str(cost.grid_px),
        cost.weights,
    ]
    for click in ("first", "next"):
        for refinement in _REFINEMENTS:
            found = cost.cost(click, refinement)
            steps = f" ({found.steps:.0f})" if refinement == "A-CFR-4" else ""
            cells.append(f"{found.ms:.0f}{steps}")
    cells += [
        f"{cost.cost('first', 'standard').ratio:.2f}",
        f"{cost.cost('next', 'standard').ratio:.2f}",
        f"{cost.cost('next', 'A-CFR-4').ratio:.2f}",
        f"{cost.gmac:.1f}",
        f"{cost.peak_mb:.0f}",
    ]
    yield "\t".join(cells)
