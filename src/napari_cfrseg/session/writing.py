"""Sessions as text: one line for each object and event, so that versions diff well."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from napari_cfrseg import __version__
from napari_cfrseg.annotation.events import ClickAdded, Event
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.session import format as schema
from napari_cfrseg.session.content import ImageReference, SessionContent, Snapshot
from napari_cfrseg.session.convert import (
    labels_part,
    refinement_part,
    scaling_part,
)
from napari_cfrseg.session.convert_events import part_of
from napari_cfrseg.session.fields import Part
from napari_cfrseg.session.summary import ObjectSummary


def event_line(event: Event, scaling: Scaling | None = None) -> str:
    """Return an event as one line of JSON."""
    return _line(_tagged(part_of(event, scaling)))


def event_lines(
    events: Iterable[Event], scalings: Mapping[Plane, Scaling]
) -> Iterator[str]:
    """Return events as lines, each plane's scaling with its first click."""
    written: set[Plane] = set()
    for event in events:
        scaling = None
        if isinstance(event, ClickAdded) and event.plane not in written:
            scaling = scalings.get(event.plane)
            written.add(event.plane)
        yield event_line(event, scaling)


def session_lines(
    content: SessionContent, objects: Iterable[ObjectSummary], events: Iterable[str]
) -> Iterator[str]:
    """Return a session file's lines, newlines included.

    Parameters
    ----------
    content
        All but the events.
    objects
        The summary.
    events
        The events' lines.
    """
    settings = content.settings
    model = content.model
    yield "{\n"
    yield f' "schema_version": {schema.SCHEMA_VERSION},\n'
    yield f' "session": {_line(content.identity)},\n'
    yield f' "written_by": {_line(f"napari-cfrseg {__version__}")},\n'
    yield f' "image": {_line(_plain(_image_part(content.image)))},\n'
    if model is not None:
        part = schema.ModelPart(name=model.name, sha256=model.sha256)
        yield f' "model": {_line(_plain(part))},\n'
    said = schema.SettingsPart(
        device=settings.device,
        backend=settings.backend,
        precision=settings.precision,
        threads=settings.threads,
        rgb=settings.rgb,
        scaling=scaling_part(settings.scaling),
        refinement=refinement_part(settings.refinement),
        overlap=settings.rule.value,
    )
    yield f' "settings": {_line(said.model_dump())},\n'
    summary = (_line(_plain(_object_part(o))) for o in objects)
    yield from _listed("objects", summary)
    yield ",\n"
    yield from _listed("events", events)
    if content.snapshot is not None:
        yield ",\n"
        yield from _snapshot_lines(content.snapshot)
    yield "\n}\n"


def _listed(name: str, lines: Iterable[str]) -> Iterator[str]:
    yield f' "{name}": ['
    separator = "\n"
    for line in lines:
        yield f"{separator}  {line}"
        separator = ",\n"
    yield "]" if separator == "\n" else "\n ]"


def _snapshot_lines(snapshot: Snapshot) -> Iterator[str]:
    planes = (
        _line({"plane": list(plane), "labels": labels_part(runs).model_dump()})
        for plane, runs in snapshot.labels
    )
    yield f' "snapshot": {{"events": {snapshot.events},\n'
    yield from _listed("planes", planes)
    yield "}"


def _image_part(image: ImageReference) -> schema.ImagePart:
    return schema.ImagePart(
        path=image.path,
        shape=list(image.shape),
        dtype=image.dtype,
        axes=list(image.axes),
        fingerprint=image.fingerprint,
        spacing=None if image.spacing is None else list(image.spacing),
        units=None if image.units is None else list(image.units),
        level=image.level,
        select=[schema.SelectPart(axis=a, index=i) for a, i in image.select],
        order=list(image.order),
    )


def _object_part(found: ObjectSummary) -> schema.ObjectPart:
    return schema.ObjectPart(
        id=found.object_id,
        name=found.name,
        colour=found.colour,
        locked=found.locked,
        object_class=found.object_class,
        threshold=found.threshold,
        clicks=len(found.clicks),
    )


def _tagged(part: Part) -> dict[str, Any]:
    """Return an event's fields, defaults left out, its type first."""
    fields = part.model_dump(exclude_defaults=True)
    return {"type": part.__class__.model_fields["type"].default, **fields}


def _plain(part: Part) -> dict[str, Any]:
    said = part.model_dump(exclude_defaults=True)
    if isinstance(part, schema.ImagePart):
        said.setdefault("path", None)
    return said


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
