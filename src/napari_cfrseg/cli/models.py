"""``cfrseg models``: the weights there are, and what each says of itself."""

from __future__ import annotations

import json
from dataclasses import asdict
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
models.command(epilog=weights.NETWORKS_EXAMPLES)(weights.networks)
models.command(name="import", epilog=weights.IMPORT_EXAMPLES)(weights.import_file)
models.command(name="fetch", epilog=weights.FETCH_EXAMPLES)(weights.fetch_file)


@models.command(name="list", epilog="Example: cfrseg models list --json")
def list_all(as_json: JsonOption = False) -> None:
    """List the models that ship with the package or are installed."""
    from napari_cfrseg import checkpoint

    rows = [_describe(name) for name in checkpoint.list_models()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        family = row["architecture"].get("family", "?")
        typer.echo(
            f"{row['name']}\t{family}\t{row['size_mb']} MB\t{row['licence']}"
            f"\t{row['path']}"
        )
    if not rows:
        typer.echo(f"no models (installed ones live in {checkpoint.models_folder()})")


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


def _describe(name_or_path: str) -> dict[str, Any]:
    from napari_cfrseg import checkpoint

    path = checkpoint.resolve(name_or_path)
    size_mb = round(path.stat().st_size / 1e6, 1)
    said = asdict(checkpoint.read_metadata(path))
    return said | {"name": name_or_path, "path": str(path), "size_mb": size_mb}


def _readable(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_readable(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(_readable(v) for v in value) or "none"
    return "unknown" if value is None else str(value)
