"""``cfrseg replay``: apply click sessions without a window and write the labels."""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_cfrseg.cli import options
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.io.addresses import absolute, address_of
from napari_cfrseg.io.atomic import check_folder
from napari_cfrseg.model import weights_file as checkpoint

if TYPE_CHECKING:
    from napari_cfrseg.session.replay_session import Replayed, ReplayTask

EXAMPLES = """\b
Examples:
  cfrseg replay cells.cfrseg.json
  cfrseg replay sessions/*.cfrseg.json --output labels --workers 4 --only-changed
  cfrseg replay well_a1.cfrseg.json --image "plate/*.tif" --output labels
  cfrseg replay *.cfrseg.json --model finetuned.safetensors --output compared
"""
_FORMATS = {"tiff", "zarr"}


class _SomeFailedError(CfrSegError):
    """Sessions failed; the others' results are there."""


def replay(
    sessions: Annotated[
        list[Path], typer.Argument(metavar="SESSION…", help="Click-session files.")
    ],
    image: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|GLOB",
            help="Replay on another image of the same kind (or on each of several).",
        ),
    ] = None,
    output: options.FolderOption = Path(),
    output_format: Annotated[
        str, typer.Option("--format", help="Of the labels: tiff or zarr (OME).")
    ] = "tiff",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Another model; reports what it changed [session's]."
        ),
    ] = None,
    device: options.SessionDeviceOption = None,
    workers: options.WorkersOption = 1,
    scheduler: options.SchedulerOption = None,
    only_changed: Annotated[
        bool,
        typer.Option(
            "--only-changed", help="Keep results whose inputs have not changed."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, compute nothing.")
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Apply click sessions with no window and write the objects' labels.

    Each session gives NAME.labels.tif (or .zarr) and NAME.replay.json, which records
    what the labels were made from. On the session's own image and model the labels are
    those the window showed, bit for bit. With --json one JSON value is printed for
    each session. Sessions that fail are listed at the end; then the exit code is 1.
    """
    if output_format not in _FORMATS:
        msg = f"{output_format!r} is none of tiff, zarr"
        raise typer.BadParameter(msg, param_hint="--format")
    if not dry_run:
        check_folder(output)
    tasks = _tasks(
        sessions, _images(image), output, output_format, model, device,
        only_changed=only_changed, dry_run=dry_run,
    )  # fmt: skip
    failed: list[Replayed] = []
    compared: list[Path] = []
    for result in _run(tasks, workers, scheduler):
        typer.echo(json.dumps(asdict(result)) if as_json else _line(result))
        if result.status == "failed":
            failed.append(result)
        if result.changed:
            stem = Path(result.labels).name.partition(".labels.")[0]
            compared.append(output / f"{stem}.compare.png")
    if compared:
        from napari_cfrseg.session.replay_session import write_contact_sheet

        write_contact_sheet(output / "contact-sheet.png", sorted(compared))
    if failed:
        for result in failed:
            typer.echo(f"failed: {result.session}: {result.reason}", err=True)
        raise _SomeFailedError(f"{len(failed)} of {len(tasks)} sessions failed")


def _images(image: str | None) -> list[Path] | None:
    if image is None:
        return None
    if address_of(Path(image)) is not None or Path(image).exists():
        return [Path(image)]
    found = [Path(p) for p in sorted(glob.glob(image, recursive=True))]  # noqa: PTH207 - absolute patterns, too
    if not found:
        msg = f"{image!r} names no image"
        raise typer.BadParameter(msg, param_hint="--image")
    return found


def _tasks(
    sessions: list[Path],
    images: list[Path] | None,
    output: Path,
    output_format: str,
    model: str | None,
    device: str | None,
    *,
    only_changed: bool,
    dry_run: bool,
) -> list[ReplayTask]:
    from napari_cfrseg.session.replay_session import ReplayTask, name_of

    weights = None if model is None else checkpoint.resolve(model).resolve()
    names = [name_of(session) for session in sessions]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        msg = (
            f"several sessions are called {doubled[0]!r}: their results would "
            "overwrite each other; replay them into different folders"
        )
        raise typer.BadParameter(msg, param_hint="SESSION")
    tasks = []
    for session, name in zip(sessions, names, strict=True):
        for number, path in enumerate(images or [None], start=1):
            several = images is not None and len(images) > 1
            task = ReplayTask(
                session.absolute(),
                output.absolute(),
                f"{name}.{number}" if several else name,
                None if path is None else absolute(path),
                weights,
                device,
                "zarr" if output_format == "zarr" else "tiff",
                only_changed,
                dry_run,
            )
            tasks.append(task)
    return tasks


def _run(
    tasks: list[ReplayTask], workers: int, scheduler: str | None
) -> Iterator[Replayed]:
    """Yield results; say how many are done, where there are several."""
    from napari_cfrseg.session.replay_many import replay_all, replay_on_cluster

    if scheduler is not None:
        results = replay_on_cluster(tasks, scheduler)
    else:
        results = replay_all(tasks, workers)
    if len(tasks) == 1:
        yield from results
        return
    for _ in options.track(range(len(tasks)), "replaying sessions"):
        yield next(results)


def _line(result: Replayed) -> str:
    name = Path(result.session).name
    if result.status == "failed":
        return f"{name}: failed: {result.reason}"
    if result.status != "done":
        return f"{name}: {result.status}"
    line = (
        f"{name}: {result.objects} objects, {result.clicks} clicks, "
        f"{result.seconds:.2f} s → {result.labels}"
    )
    if result.changed:
        lowest = result.changed[0]
        line += (
            f"; {len(result.changed)} objects changed, most object "
            f"{lowest['object']} (IoU {lowest['iou']:.3f})"
        )
    elif result.as_saved is not None:
        line += "; as saved" if result.as_saved else "; NOT as saved"
    return line
