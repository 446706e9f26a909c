"""``cfrseg bench --all-models``: every network side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from napari_cfrseg.bench.networks import NetworkCost

_REFINEMENTS = ("standard", "CFR-1", "A-CFR-4")


def bench_all(
    names: Sequence[str],
    *,
    device: str,
    threads: int | None,
    cpu_time: bool,
    compiled: bool,
    repeats: int,
    sample: str,
    as_json: bool,
) -> None:
    """Time networks and print their figures as they come.

    Parameters
    ----------
    names
        Networks and installed models; empty: all.
    device, threads, cpu_time, compiled
        Where and how to compute.
    repeats
        Times each is run.
    sample
        Bundled micrograph to click in.
    as_json
        Print one JSON value at the end instead.

    Raises
    ------
    typer.BadParameter
        If a name is unknown or the options do not fit together.
    """
    from napari_cfrseg.bench import everything, recorded
    from napari_cfrseg.engine.stages import resolve_device

    if device != "auto":
        resolve_device(device)
    _check(names)
    try:
        how = everything.arithmetics(
            device, threads, cpu_time=cpu_time, compiled=compiled
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--cpu-time") from error
    chosen = tuple(names) or everything.all_networks()
    costs = []
    for cost in everything.bench_networks(chosen, how, repeats=repeats, sample=sample):
        costs.append(cost)
        recorded.record([cost])
        if not as_json:
            typer.echo("\n".join(_lines(cost, head=len(costs) == 1)))
    if as_json:
        typer.echo(json.dumps([cost.as_dict() for cost in costs]))


def _check(names: Sequence[str]) -> None:
    from napari_cfrseg import checkpoint
    from napari_cfrseg.model.catalogue import named

    models = checkpoint.list_models()
    for name in names:
        try:
            if name not in models:
                named(name)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--network") from error


def _lines(cost: NetworkCost, *, head: bool) -> Iterator[str]:
    if head:
        yield (
            "milliseconds per click; (steps) of A-CFR-4 depend on the weights; × is "
            "the time over ritm_hrnet18s's standard click, timed beside it"
        )
        yield _row(
            ["network", "computed on", "Mparam", "px", "weights"]
            + [f"{c} {r}" for c in ("first", "next") for r in _REFINEMENTS]
            + ["× first", "× next", "× next A-CFR-4", "GMAC", "of matmul", "peak MB"]
        )
    if cost.error:
        yield _row([cost.network, cost.arithmetic, cost.error])
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
        f"{100 * cost.matmul_share:.0f} %",
        f"{cost.peak_mb:.0f}",
    ]
    yield _row(cells)


def _row(cells: Sequence[str]) -> str:
    return "\t".join(cells)
