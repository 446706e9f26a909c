"""``cfrseg suggest``: objects like a session's, on its own image or on others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from napari_cfrseg.cli.options import (
    FolderOption,
    JsonOption,
    SessionDeviceOption,
    SessionModelOption,
    check_apart,
    counting,
    images_named,
    track,
)
from napari_cfrseg.errors import CfrSegError, SessionError, counted, said_of
from napari_cfrseg.io.atomic import check_folder
from napari_cfrseg.io.images import stem_of as image_stem
from napari_cfrseg.io.named_axes import OpenImage
from napari_cfrseg.model.weights_file import resolve

if TYPE_CHECKING:
    from napari_cfrseg.annotation import events as ev
    from napari_cfrseg.engine.likeness import Likeness
    from napari_cfrseg.engine.suggestions import ObjectSuggestion
    from napari_cfrseg.session.format import ImageReference, SessionContent
    from napari_cfrseg.session.recording import RecordedAnnotator

EXAMPLES = """\b
Examples:
  cfrseg suggest cells.cfrseg.json
  cfrseg suggest cells.cfrseg.json --image "day*.tif" --output suggested
"""


def suggest(
    session: Annotated[Path, typer.Argument(help="A session with finished objects.")],
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="PATH|GLOB",
            help="Suggest on another image of the same kind, or on each of several "
            "[the session's own].",
        ),
    ] = None,
    output: FolderOption = Path(),
    above: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Least probability to be right [as in the window]."
        ),
    ] = None,
    model: SessionModelOption = None,
    device: SessionDeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find objects like a session's finished ones and write them down.

    Each image gives NAME.suggested.tif, the labels, and NAME.suggested.cfrseg.json, a
    session with every object marked as suggested, to be looked through and corrected
    in the window. On the session's own image its objects are kept. With --json one
    JSON value is printed for each image.
    """
    wanted: list[Path | None] = [*images_named(images)] or [None]
    targets = list(zip(wanted, _targets(session, wanted, output), strict=True))
    several = len(targets) > 1
    suggest_on = _suggester(session, model, device, above, output)
    failed: list[str] = []
    for path, labels in track(targets, "images") if several else targets:
        try:
            count = suggest_on(path, labels)
        except (CfrSegError, OSError) as error:
            if not several:
                raise
            failed.append(f"failed: {path}: {said_of(error)}")
            continue
        if as_json:
            typer.echo(json.dumps({"output": str(labels), "suggested": count}))
        else:
            typer.echo(f"{labels}: {counted(count, 'object')} suggested")
    if failed:
        typer.echo("\n".join(failed), err=True)
        raise SessionError(f"{len(failed)} of {len(targets)} failed")


def _targets(session: Path, images: list[Path | None], output: Path) -> list[Path]:
    """Return where the labels go; refuse what would overwrite something."""
    from napari_cfrseg.session.session_file import stem_of

    names = [stem_of(session) if path is None else image_stem(path) for path in images]
    check_apart(names)
    check_folder(output)
    for name in names:
        target = output / f"{name}.suggested.cfrseg.json"
        if target.exists():
            msg = f"{target} exists: move it, or choose another folder with --output"
            raise SessionError(msg)
    return [output / f"{name}.suggested.tif" for name in names]


def _suggester(
    session: Path,
    model: str | None,
    device: str | None,
    above: float | None,
    output: Path,
) -> Callable[[Path | None, Path], int]:
    """Learn from a session; return what suggests on an image and writes the results.

    It takes an image (None: the session's own) and where its labels go, and returns
    the number of objects suggested.
    """
    from napari_cfrseg.engine.suggestions import ACCEPT_FROM
    from napari_cfrseg.session.format import SessionContent
    from napari_cfrseg.session.references import (
        find_image,
        find_weights,
        load_segmenter,
        model_reference,
        open_reference,
        relative_path,
    )
    from napari_cfrseg.session.session import Session

    opened = Session.open(session)
    content = opened.content
    weights = find_weights(content.model) if model is None else resolve(model)
    content = replace(content, model=model_reference(weights))
    chosen = device or content.settings.device
    segmenter = load_segmenter(content, weights, chosen)
    own = opened.annotator(segmenter=segmenter)
    for _ in own.restore(content):
        pass
    known = own.learn()
    least = ACCEPT_FROM if above is None else above

    def suggest_on(path: Path | None, labels: Path) -> int:
        annotator, before = own, content.events
        if path is None:
            place = find_image(content.image, session.parent)
            image = replace(content.image, path=relative_path(place, output))
        else:
            found = open_reference(content.image, path)
            annotator, before = opened.annotator(found.array, segmenter), ()
            image = _reference(content.image, found, path, output)
        events = tuple(_accepted(annotator, known, least))
        done = (*before, *events)
        made = SessionContent(image, content.model, content.settings, done)
        _write(annotator, made, labels)
        return sum(len(event.accepted) for event in events)

    return suggest_on


def _reference(
    said: ImageReference, found: OpenImage, path: Path, folder: Path
) -> ImageReference:
    """Return the reference to another image, opened as a session's own is."""
    from napari_cfrseg.session.references import reference_of

    return reference_of(
        found.array,
        path=path,
        folder=folder,
        axes=said.axes,
        spacing=found.spacing,
        units=found.units,
        level=said.level,
        select=said.select,
        channels=said.used_channels,
        order=said.order,
    )


def _accepted(
    annotator: RecordedAnnotator, known: Likeness, above: float
) -> Iterator[ev.SuggestionsAccepted]:
    """Accept what is sure enough, plane by plane; yield the events."""
    from napari_cfrseg.annotation import events as ev

    used = [
        entry.click_id for o in annotator.objects.values() for _, entry in o.clicks()
    ]
    click_id = max(used, default=0) + 1
    for plane in np.ndindex(annotator.leading):
        found: list[ObjectSuggestion] = []
        with counting("suggesting") as report:
            for batch in annotator.suggest(plane, known=known):
                found += [s for s in batch.found if s.score >= above]
                report(batch.done, batch.total)
        if not found:
            continue
        shape = annotator.plane_shape
        proposals = tuple(ev.Proposal.of(s, shape) for s in found)
        object_id = max(annotator.objects, default=0) + 1
        made = ev.SuggestionsAccepted(object_id, plane, click_id, proposals)
        annotator.apply(made)
        click_id += len(proposals)
        yield made


def _write(annotator: RecordedAnnotator, content: SessionContent, path: Path) -> None:
    from napari_cfrseg.session.session_exports import export
    from napari_cfrseg.session.session_writer import SessionWriter

    target = path.with_name(path.name.removesuffix(".tif") + ".cfrseg.json")
    labels = annotator.labels_array(annotator.leading)
    export(path, content, tuple(annotator.objects.values()), labels)
    writer = SessionWriter.create(target, content)
    writer.save(annotator.snapshot(writer.event_count))
    writer.close()
