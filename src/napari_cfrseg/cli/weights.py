"""``cfrseg models import | fetch``: the papers' published weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from napari_cfrseg.model.network import ClickNetwork

IMPORT_EXAMPLES = """\b
Examples:
  cfrseg models import coco_lvis_h18_itermask.pth
  cfrseg models import mae_pretrain_vit_base.pth --start vit_base_fcfi
"""
FETCH_EXAMPLES = """\b
Examples:
  cfrseg models fetch coco_lvis_h18_itermask
  cfrseg models fetch coco_lvis_h18_itermask --url http://mirror/h18.pth
"""

NameOption = Annotated[
    str | None,
    typer.Option("--name", help="The model's name [its network's name]."),
]
LicenceOption = Annotated[
    str | None,
    typer.Option("--licence", help="The weights' licence [as far as it is known]."),
]


def import_file(
    file: Annotated[Path, typer.Argument(help="RITM, SimpleClick, CFR-ICL or FCFI.")],
    name: NameOption = None,
    start: Annotated[
        str | None,
        typer.Option(help="The file is a pretrained backbone: start this network."),
    ] = None,
    licence: LicenceOption = None,
) -> None:
    """Install a checkpoint as published; nothing the file pickled is executed."""
    path = install(file, name, start=start, licence=licence)
    typer.echo(f"installed {path.stem}: {path}")


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
) -> None:
    """Fetch a published checkpoint and install it; without a name list them."""
    from dataclasses import replace

    from napari_cfrseg import checkpoint
    from napari_cfrseg.fetch import PUBLISHED, fetch, published

    if name is None:
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
    file = fetch(source, folder, progress=_told())
    if source.sha256 is None:
        typer.echo(f"its SHA-256, not recorded before: {_sha256(file)}")
    path = install(file, name, licence=licence or source.licence)
    file.unlink()
    typer.echo(f"installed {name}: {path}")


def install(
    file: Path,
    name: str | None,
    *,
    start: str | None = None,
    licence: str | None = None,
) -> Path:
    """Read a checkpoint and write it among the installed models.

    Parameters
    ----------
    file
        A published checkpoint, or with ``start`` a pretrained backbone.
    name
        The model's name; by default its network's name, else the file's.
    start
        A network to start from the backbone in the file.
    licence
        Of the weights; by default what is known of them.

    Returns
    -------
    The installed weights file.

    Raises
    ------
    CheckpointError
        If the file cannot be read or does not fit.
    """
    from napari_cfrseg import checkpoint
    from napari_cfrseg.model.registry import complete

    architecture: Mapping[str, Any]
    if start is not None:
        network, architecture = _started(start, file)
        chosen = name or f"{start.replace(':', '_')}_start"
        origin, known = "random, but for the backbone of", "that of the backbone's"
    else:
        from napari_cfrseg.weights_import.published import import_published

        network, found = import_published(file)
        architecture, known = found.architecture, found.weights_licence
        chosen, origin = name or found.name or file.stem, "as published:"
    metadata = checkpoint.Metadata(
        architecture=complete(architecture),
        name=chosen,
        training_data=[f"{origin} {file.name}, SHA-256 {_sha256(file)}"],
        licence=licence or known,
    )
    target = checkpoint.models_folder() / f"{chosen}{checkpoint.SUFFIX}"
    checkpoint.save(target, network, metadata, half=False)
    return target


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _started(network_name: str, file: Path) -> tuple[ClickNetwork, Mapping[str, Any]]:
    from napari_cfrseg.model.registry import build, named
    from napari_cfrseg.weights_import.starting import start_from

    try:
        architecture = named(network_name).architecture
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--start") from error
    network = build(architecture)
    start_from(network, file)
    return network, architecture


def _told() -> Callable[[int, int], None]:
    """Say every tenth of a download on standard error."""
    tenths_said = [0]

    def tell(done: int, total: int) -> None:
        tenth = 10 * done // total if total else 0
        if tenth > tenths_said[0]:
            tenths_said[0] = tenth
            typer.echo(f"fetching: {10 * tenth} % of {total / 1e6:.1f} MB", err=True)

    return tell
