"""``cfrseg suggest``: objects like a session's, on its own image or on others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from napari_cfrseg.cli.options import (
    FolderOption,
    JsonOption,
    SessionDeviceOption,
    parse_image,
)
from napari_cfrseg.errors import SessionError
from napari_cfrseg.io.addresses import absolute
from napari_cfrseg.io.atomic import check_folder

if TYPE_CHECKING:
    from napari_cfrseg.annotation import events as ev
    from napari_cfrseg.engine.likeness import Likeness
    from napari_cfrseg.session.format import SessionContent
    from napari_cfrseg.session.recording import RecordedAnnotator

EXAMPLES = """\b
Examples:
  cfrseg suggest cells.cfrseg.json
  cfrseg suggest cells.cfrseg.json --image day2.tif --image day3.tif -o suggested
"""


def suggest(
    session: Annotated[Path, typer.Argument(help="A session with finished objects.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--image",
            parser=parse_image,
            metavar="PATH",
            help="Suggest on another image of the same kind; again for each further "
            "one [the session's own].",
        ),
    ] = None,
    output: FolderOption = Path(),
    above: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Least probability to be right [as in the window]."
        ),
    ] = None,
    device: SessionDeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find objects like a session's finished ones and write them down.

    Each image gives NAME.suggested.tif, the labels, and NAME.suggested.cfrseg.json, a
    session with every object marked as suggested, to be looked through and corrected
    in the window. On the session's own image its objects are kept.
    """
    from napari_cfrseg.engine.suggestions import ACCEPT_FROM
    from napari_cfrseg.session.references import find_weights, load_segmenter
    from napari_cfrseg.session.session import Session

    check_folder(output)
    opened = Session.open(session)
    content = opened.content
    chosen = device or content.settings.device
    segmenter = load_segmenter(content, find_weights(content.model), chosen)
    own = opened.annotator(segmenter=segmenter)
    for _ in own.restore(content):
        pass
    known = own.learn()
    wanted: list[Path | None] = [*images] if images else [None]
    for path in wanted:
        annotator, target = own, content
        if path is not None:
            from napari_cfrseg.session.references import open_reference, reference_of

            found = open_reference(content.image, path)
            annotator = opened.annotator(found.array, segmenter)
            said = content.image
            image = reference_of(
                found.array,
                path=absolute(path),
                folder=output.resolve(),
                axes=said.axes,
                spacing=found.spacing,
                select=said.select,
                channels=said.used_channels,
                order=said.order,
            )
            target = replace(content, image=image, events=(), snapshot=None)
        name = (session if path is None else path).name.split(".")[0]
        least = ACCEPT_FROM if above is None else above
        events = tuple(_accepted(annotator, known, least))
        target = replace(target, events=(*target.events, *events), snapshot=None)
        labels = output / f"{name}.suggested.tif"
        count = sum(len(event.accepted) for event in events)
        _write(annotator, target, labels)
        if as_json:
            typer.echo(json.dumps({"output": str(labels), "suggested": count}))
        else:
            typer.echo(f"{labels}: {count} objects suggested")


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
        batches = annotator.suggest(plane, known=known)
        found = [s for batch in batches for s in batch.found if s.score >= above]
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
    if target.exists():
        msg = f"{target} exists: move it, or choose another folder with --output"
        raise SessionError(msg)
    labels = annotator.labels_array(annotator.leading)
    export(path, content, tuple(annotator.objects.values()), labels)
    writer = SessionWriter.create(target, content)
    writer.save(annotator.snapshot(writer.event_count))
    writer.close()
