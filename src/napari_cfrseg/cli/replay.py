"""``cfrseg replay``: apply click sessions without a window and write the labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from napari_cfrseg.cli import options
from napari_cfrseg.errors import CfrSegError, counted
from napari_cfrseg.io.addresses import absolute
from napari_cfrseg.io.atomic import check_folder
from napari_cfrseg.io.images import stem_of
from napari_cfrseg.model import weights_file as checkpoint

if TYPE_CHECKING:
    from napari_cfrseg.session.replay_session import Replayed, ReplayTask

EXAMPLES = """\b
Examples:
  cfrseg replay cells.cfrseg.json
  cfrseg replay sessions/*.cfrseg.json --output labels --workers 4 --only-changed
  cfrseg replay well_a1.cfrseg.json --image "plate/*.tif" --output labels
  cfrseg replay *.cfrseg.json --export measurements.csv --export geojson
  cfrseg replay *.cfrseg.json --model finetuned.safetensors --output compared
"""


#: of what --export writes beside the labels
ENDINGS = ("measurements.csv", "volumes.csv", "csv", "geojson", "coco.json", "zip")


def replay(
    sessions: Annotated[
        list[Path], typer.Argument(metavar="SESSION…", help="Click-session files.")
    ],
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="PATH|GLOB",
            help="Replay on another image of the same kind, or on each of several.",
        ),
    ] = None,
    output: options.FolderOption = Path(),
    output_format: Annotated[
        Literal["tiff", "zarr"],
        typer.Option("--format", help="Of the labels: tiff or zarr (OME)."),
    ] = "tiff",
    exports: Annotated[
        list[str] | None,
        typer.Option(
            "--export",
            metavar="ENDING",
            help=f"Write NAME.ENDING, too: {', '.join(ENDINGS)}; repeat.",
        ),
    ] = None,
    model: options.SessionModelOption = None,
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
    those the window showed, bit for bit. On each of several images they are called
    NAME.IMAGE. --export adds what the window's Export writes. With --json one JSON
    value is printed for each result. What fails is listed at the end; then the exit
    code is 1.
    """
    from napari_cfrseg.session.replay_session import ReplayTask, write_contact_sheet

    if not dry_run:
        check_folder(output)
    task = partial(
        ReplayTask,
        output=output.absolute(),
        weights=None if model is None else checkpoint.resolve(model).resolve(),
        device=device,
        format=output_format,
        exports=tuple(dict.fromkeys(f".{ending(text)}" for text in exports or ())),
        only_changed=only_changed,
        dry_run=dry_run,
    )
    tasks = _tasks(sessions, options.images_named(images), task)
    failed: list[Replayed] = []
    compared: list[Path] = []
    for result in _run(tasks, workers, scheduler):
        if result.status == "failed":
            failed.append(result)
        if as_json:
            typer.echo(json.dumps(asdict(result)))
        elif result.status != "failed":
            typer.echo(_line(result))
        if result.changed:
            compared.append(output / f"{result.name}.compare.png")
    if compared:
        write_contact_sheet(output / "contact-sheet.png", sorted(compared))
    if failed:
        raise CfrSegError(_failures(failed, len(tasks)))


def ending(text: str) -> str:
    """Return what a result is to end in, with or without the dot; others are refused.

    Examples
    --------
    >>> ending(".geojson")
    'geojson'
    """
    found = text.removeprefix(".").lower()
    if found not in ENDINGS:
        msg = f"{text!r} is none of {', '.join(ENDINGS)}"
        raise typer.BadParameter(msg, param_hint="--export")
    return found


def _failures(failed: Sequence[Replayed], count: int) -> str:
    """List what failed; return the last line of it."""
    said = [
        f"{r.session}{f' on {r.image}' if r.image else ''}: {r.reason}" for r in failed
    ]
    if count == 1:
        return said[0]
    typer.echo("\n".join(f"failed: {text}" for text in said), err=True)
    return f"{len(failed)} of {count} failed"


def _tasks(
    sessions: Sequence[Path], images: Sequence[Path], task: Callable[..., ReplayTask]
) -> list[ReplayTask]:
    """Return a task for each session, or for each on each of the images."""
    from napari_cfrseg.session.replay_session import name_of

    tasks = []
    for session in sessions:
        for path in images or (None,):
            name = name_of(session)
            if path is not None and len(images) > 1:
                name += f".{stem_of(path)}"
            image = None if path is None else absolute(path)
            tasks.append(task(session.absolute(), name=name, image=image))
    options.check_apart([task.name for task in tasks])
    return tasks


def _run(
    tasks: list[ReplayTask], workers: int, scheduler: str | None
) -> Iterator[Replayed]:
    """Yield results; say how many are done, where there are several."""
    from napari_cfrseg.session.replay_many import replay_all

    if scheduler is None and tasks[0].device is not None:
        from napari_cfrseg.engine.devices import resolve_device

        resolve_device(tasks[0].device)  # one that is missing is said once
    results = replay_all(tasks, workers, scheduler)
    if len(tasks) == 1:
        yield from results
        return
    for _ in options.track(range(len(tasks)), "replaying sessions"):
        yield next(results)


def _line(result: Replayed) -> str:
    if result.status != "done":
        return f"{result.name}: {result.status}"
    line = (
        f"{result.name}: {counted(result.objects, 'object')}, "
        f"{counted(result.clicks, 'click')}, "
        f"{result.seconds:.2f} s → {', '.join((result.labels, *result.exports))}"
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
