"""``cfrseg models``: list, describe, import and fetch models and networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_cfrseg.cli.options import JsonOption, track, usage
from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.io.atomic import file_sha256
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.published.fetch import PUBLISHED, fetch, published

if TYPE_CHECKING:
    from napari_cfrseg.model.network import ClickNetwork


models = typer.Typer(
    name="models",
    help="The models there are.",
    no_args_is_help=True,
    epilog="Example: cfrseg models list",
)

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
        bool, typer.Option("--measure", help="Time a click of each here first (CPU).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List models (their weights are here) and networks (to import, fetch or train).

    The milliseconds of a first and a next click are those measured on this machine:
    with --measure, or earlier by cfrseg bench --all-models.
    """
    from napari_cfrseg.evaluation.click_times import recorded
    from napari_cfrseg.model.registry import names

    installed = list(checkpoint.list_models())
    chosen = only or [*installed, *(n for n in names() if n not in installed)]
    rows = [_row(name) for name in chosen]
    if measure:
        _measure(chosen)
    known = recorded()
    for row in rows:
        row["ms"] = known.get(row["name"], {})
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
    """Show a model's architecture, training data, figures and licence."""
    row = _describe(name)
    if as_json:
        typer.echo(json.dumps(row))
        return
    for key, value in row.items():
        typer.echo(f"{key}: {_readable(value)}")


@models.command(epilog="Example: cfrseg models prepare default")
def prepare(
    name: Annotated[str, typer.Argument(help="A model's name or weights file.")],
) -> None:
    """Prepare a model for OpenVINO on this machine's CPU (the extra "fast").

    Takes seconds; the window does it by itself when a model is loaded for the first
    time, and uses OpenVINO from the next start on where a trial finds it faster.
    """
    from napari_cfrseg.engine.segmenter import Segmenter

    segmenter = Segmenter.load(name, device="cpu", backend="openvino")
    typer.echo(segmenter.placement.reason)


def _row(name: str) -> dict[str, Any]:
    """Describe a model from its file, a network from the registry."""
    from napari_cfrseg.model.registry import named

    if name in checkpoint.list_models():
        return _describe(name)
    with usage("NAMES"):
        entry = asdict(named(name))
    return {**entry, "licence": entry["weights_licence"], "path": None}


def _describe(name_or_path: str) -> dict[str, Any]:
    path = checkpoint.resolve(name_or_path)
    metadata = asdict(checkpoint.read_metadata(path))
    parameters = checkpoint.count_parameters(path)
    return metadata | {
        "name": name_or_path,
        "path": str(path),
        "size_mb": round(path.stat().st_size / 1e6, 1),
        "parameters": parameters,
        "input_sizes": _input_sizes(metadata["architecture"], parameters),
    }


def _input_sizes(architecture: dict[str, Any], parameters: int) -> list[int]:
    """Side of the model's grid in pixels, and those its network was published for.

    Family and size identify the network without building it, which needs torch.
    """
    from napari_cfrseg.model.registry import named, names

    sizes = [architecture["grid_size"]] if "grid_size" in architecture else []
    for entry in map(named, names()):
        same = entry.architecture["family"] == architecture.get("family")
        if same and entry.parameters == parameters:
            sizes += entry.input_sizes
    return sorted(set(sizes))


def _measure(names: list[str]) -> None:
    from napari_cfrseg.evaluation.click_times import arithmetics, bench_networks, record

    how = arithmetics("cpu", None)
    for name in track(names, "timing clicks, networks"):
        record(bench_networks([name], how, repeats=2))


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


IMPORT_EXAMPLES = """\b
Examples:
  cfrseg models import coco_lvis_h18_itermask.pth
  cfrseg models import my-cells.safetensors
  cfrseg models import mae_pretrain_vit_base.pth --start vit_base_fcfi
"""
FETCH_EXAMPLES = """\b
Examples:
  cfrseg models fetch coco_lvis_h18_itermask
  cfrseg models fetch coco_lvis_h18_itermask --url http://mirror/h18.pth
"""


def _as_name(name: str | None) -> str | None:
    """Refuse a path: what is installed in another folder is not listed."""
    if name is not None and (
        Path(name).name != name or name.endswith(checkpoint.SUFFIX)
    ):
        raise typer.BadParameter(f"{name!r}: a name has neither folder nor ending")
    return name


NameOption = Annotated[
    str | None,
    typer.Option(
        "--name", help="The model's name [its network's name].", callback=_as_name
    ),
]
LicenceOption = Annotated[
    str | None,
    typer.Option("--licence", help="The weights' licence [as far as it is known]."),
]


@models.command(name="import", epilog=IMPORT_EXAMPLES)
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="RITM, SimpleClick, CFR-ICL, FCFI, or a fine-tuned model's file."
        ),
    ],
    name: NameOption = None,
    start: Annotated[
        str | None,
        typer.Option(help="The file is a pretrained backbone: start this network."),
    ] = None,
    licence: LicenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Install a fine-tuned or published model; no code in the file is executed."""
    _report(install(file, name, start=start, licence=licence), as_json=as_json)


def _report(path: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"name": path.stem, "path": str(path)}))
    else:
        typer.echo(f"installed {path.stem}: {path}")


@models.command(name="fetch", epilog=FETCH_EXAMPLES)
def fetch_file(
    name: Annotated[
        str | None, typer.Argument(help="The checkpoint's published name.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Fetch it from here [where it was published].")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="The file's SHA-256 [the recorded one].")
    ] = None,
    licence: LicenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a published checkpoint and install it; without a name list them."""
    if name is None:
        if as_json:
            typer.echo(json.dumps([asdict(entry) for entry in PUBLISHED.values()]))
            return
        for entry in PUBLISHED.values():
            how = "by hand: " if entry.by_hand else ""
            typer.echo(f"{entry.name}\t{entry.licence}\t{how}{entry.url}")
        return
    source = published(name)
    if url is not None:
        source = replace(source, url=url, by_hand=False)
    if sha256 is not None:
        source = replace(source, sha256=sha256.lower())
    folder = checkpoint.models_folder() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    file = fetch(source, folder, progress=_progress())
    if source.sha256 is None:
        typer.echo(f"its SHA-256, not recorded before: {file_sha256(file)}", err=True)
    path = install(file, name, licence=licence or source.licence)
    file.unlink()
    _report(path, as_json=as_json)


def install(
    file: Path,
    name: str | None,
    *,
    start: str | None = None,
    licence: str | None = None,
) -> Path:
    """Read a checkpoint and write it among the installed models; return its path.

    With ``start`` the file is a pretrained backbone, to start that network from. By
    default the model is called after its network, else its file, and its licence is
    what is known of it. A file of our own is copied. Raises CheckpointError if the
    file cannot be read or does not fit, or another model has the name.
    """
    from napari_cfrseg.model.registry import complete

    if start is None and checkpoint.is_own(file):
        return checkpoint.install_copy(file, name or file.stem)
    architecture: Mapping[str, Any]
    if start is not None:
        network, architecture = _started(start, file)
        chosen = name or f"{start.replace(':', '_')}_start"
        origin, known = "random, but for the backbone of", "that of the backbone's"
    else:
        from napari_cfrseg.model.published.import_checkpoint import import_published

        network, found = import_published(file)
        architecture, known = found.architecture, found.weights_licence
        chosen, origin = name or found.name or file.stem, "as published:"
    digest = file_sha256(file)
    metadata = checkpoint.Metadata(
        architecture=complete(architecture),
        name=chosen,
        training_data=[f"{origin} {file.name}, SHA-256 {digest}"],
        licence=licence or known,
    )
    target = checkpoint.models_folder() / f"{chosen}{checkpoint.SUFFIX}"
    if target.exists():
        there = checkpoint.read_metadata(target).training_data
        if not any(said.endswith(digest) for said in there):
            msg = f"another model is called {chosen!r}: choose another name (--name)"
            raise CheckpointError(msg)
    checkpoint.save(target, network, metadata, half=False)
    return target


def _started(network_name: str, file: Path) -> tuple[ClickNetwork, Mapping[str, Any]]:
    from napari_cfrseg.model.published.starting_weights import start_from
    from napari_cfrseg.model.registry import build, named

    with usage("--start"):
        architecture = named(network_name).architecture
    network = build(architecture)
    start_from(network, file)
    return network, architecture


def _progress() -> Callable[[int, int], None]:
    """Print every tenth of a download to standard error."""
    tenths = [0]

    def advance(done: int, total: int) -> None:
        tenth = 10 * done // total if total else 0
        if tenth > tenths[0]:
            tenths[0] = tenth
            typer.echo(f"fetching: {10 * tenth} % of {total / 1e6:.1f} MB", err=True)

    return advance
