"""``cfrseg models``: models and networks there are, and what each says of itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_cfrseg.cli import weights
from napari_cfrseg.cli.options import JsonOption

models = typer.Typer(
    name="models",
    help="The models there are.",
    no_args_is_help=True,
    epilog="Example: cfrseg models list",
)
models.command(name="import", epilog=weights.IMPORT_EXAMPLES)(weights.import_file)
models.command(name="fetch", epilog=weights.FETCH_EXAMPLES)(weights.fetch_file)

LIST_EXAMPLES = """\b
Examples:
  cfrseg models list
  cfrseg models list --json
  cfrseg models list --measure fcfi_r101 fcfi:convnext_tiny
"""


@models.command(name="list", epilog=LIST_EXAMPLES)
def list_all(
    only: Annotated[
        list[str] | None, typer.Argument(help="Names, fcfi:<timm model> too [all].")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Time a click of each here first (CPU)."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List models (their weights are here) and networks (to import, fetch or train).

    The milliseconds of a first and a next click are those measured on this machine:
    with --measure, or earlier by cfrseg bench --all-models.
    """
    from napari_cfrseg import checkpoint
    from napari_cfrseg.model.catalogue import names

    installed = list(checkpoint.list_models())
    chosen = only or [*installed, *(n for n in names() if n not in installed)]
    rows = [_row(name) for name in chosen]
    if measure:
        _measure(chosen)
    _add_timings(rows)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    groups = (
        (f"models (installed ones live in {checkpoint.models_folder()})", True),
        ("networks (weights: cfrseg models import, fetch, or training)", False),
    )
    for title, is_installed in groups:
        members = [row for row in rows if (row["path"] is not None) == is_installed]
        if members:
            typer.echo(title)
        for row in members:
            typer.echo("\t".join(_cells(row)))


@models.command(epilog="Example: cfrseg models info default")
def info(
    name: Annotated[str, typer.Argument(help="A model's name or weights file.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a model's file says: architecture, training data, figures, licence."""
    row = _describe(name)
    if as_json:
        typer.echo(json.dumps(row))
        return
    for key, value in row.items():
        typer.echo(f"{key}: {_readable(value)}")


def _row(name: str) -> dict[str, Any]:
    """Describe a model by its file, a network by the catalogue."""
    from napari_cfrseg import checkpoint
    from napari_cfrseg.model.catalogue import named

    if name in checkpoint.list_models():
        return _describe(name)
    try:
        entry = asdict(named(name))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAMES") from error
    return {**entry, "licence": entry["weights_licence"], "path": None}


def _describe(name_or_path: str) -> dict[str, Any]:
    from napari_cfrseg import checkpoint

    path = checkpoint.resolve(name_or_path)
    said = asdict(checkpoint.read_metadata(path))
    parameters = checkpoint.count_parameters(path)
    return said | {
        "name": name_or_path,
        "path": str(path),
        "size_mb": round(path.stat().st_size / 1e6, 1),
        "parameters": parameters,
        "input_sizes": _input_sizes(said["architecture"], parameters),
    }


def _input_sizes(architecture: dict[str, Any], parameters: int) -> list[int]:
    """Side of the model's grid in pixels, and those its network was published for.

    Family and size tell the network without building it, which would take torch.
    """
    from napari_cfrseg.model.catalogue import named, names

    sizes = [architecture["grid_size"]] if "grid_size" in architecture else []
    for entry in map(named, names()):
        same = entry.architecture["family"] == architecture.get("family")
        if same and entry.parameters == parameters:
            sizes += entry.input_sizes
    return sorted(set(sizes))


def _measure(names: list[str]) -> None:
    from napari_cfrseg.bench.everything import arithmetics, bench_networks
    from napari_cfrseg.bench.recorded import record
    from napari_cfrseg.progress import track

    how = arithmetics("cpu", None)
    for name in track(names, "timing clicks, networks"):
        record(bench_networks([name], how, repeats=2, sample="powder_sem"))


def _add_timings(rows: list[dict[str, Any]]) -> None:
    from napari_cfrseg.bench.recorded import recorded

    known = recorded()
    for row in rows:
        row["ms"] = known.get(row["name"], {})


def _cells(row: dict[str, Any]) -> list[str]:
    millions = f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] else "? M"
    sizes = "/".join(str(size) for size in row["input_sizes"])
    times = "; ".join(
        f"{ms['first']:.0f}, {ms['next']:.0f} ms ({where})"
        for where, ms in row["ms"].items()
    )
    cells = [row["name"], millions, f"{sizes} px", times or "not measured"]
    if row["path"] is None:
        return [*cells, f"weights: {row['licence']}", row["summary"]]
    family = row["architecture"].get("family", "?")
    size = f"{row['size_mb']} MB"
    return [*cells, row["licence"], family, size, str(Path(row["path"]))]


def _readable(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_readable(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(_readable(v) for v in value) or "none"
    return "unknown" if value is None else str(value)
