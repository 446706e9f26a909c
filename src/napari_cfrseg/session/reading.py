"""Session files into memory: bounded, strict, one-line errors."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from napari_cfrseg.annotation.events import Event, OverlapRule
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.io.axes import is_order
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.session import format as schema
from napari_cfrseg.session.content import (
    ImageReference,
    ModelReference,
    SessionContent,
    SessionSettings,
    Snapshot,
)
from napari_cfrseg.session.convert import labels_of, refinement_of, scaling_of
from napari_cfrseg.session.convert_events import event_of
from napari_cfrseg.session.event_parts import ClickAddedPart
from napari_cfrseg.session.migrate import migrated

#: Larger files are refused unread; a million clicks take about 150 MB.
MOST_BYTES = 1 << 30
_LONGEST_PROBLEM = 300


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a regular file of at most ``most`` bytes.

    Raises
    ------
    SessionError
        Not there, not a file (a device or pipe would never end), or too large.
    """
    try:
        # a named pipe would block even the opening
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                msg = f"{path}: expected a file, found something else"
                raise SessionError(msg)
            if found.st_size > most:
                msg = f"{path}: {found.st_size} bytes; sessions have {most} at most"
                raise SessionError(msg)
            return file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{path}: cannot be read ({reason})"
        raise SessionError(msg) from error


def parse_session(data: bytes) -> SessionContent:
    """Make a session of a file's bytes.

    Raises
    ------
    SessionError
        Saying in one line what was expected and found.
    """
    try:
        return _parsed(data)
    except SessionError as error:
        raise SessionError(_shown(str(error))) from error


def _parsed(data: bytes) -> SessionContent:
    raw = parse_json(data)
    if not isinstance(raw, dict):
        msg = f"expected a session (a JSON object), found {type(raw).__name__}"
        raise SessionError(msg)
    raw = migrated(raw, schema.SCHEMA_VERSION)
    listed = raw.pop("events", [])
    if not isinstance(listed, list):
        msg = f"events: expected a list, found {type(listed).__name__}"
        raise SessionError(msg)
    try:
        head = schema.HeadPart.model_validate(raw)
    except ValidationError as error:
        raise SessionError(one_line(error)) from error
    events: list[Event] = []
    scalings: dict[Plane, Scaling] = {}
    for number, part in enumerate(listed):
        event, scaling = parse_event(part, f"event {number}")
        listed[number] = None  # a long session is not held twice
        events.append(event)
        note_scaling(scalings, event, scaling)
    try:
        return _content(head, tuple(events), scalings)
    except ValueError as error:
        raise SessionError(" ".join(str(error).split())) from error


def parse_at(path: Path) -> SessionContent:
    """Read a session file without its journal; errors name the file."""
    try:
        return parse_session(read_bytes(path))
    except SessionError as error:
        text = str(error)
        msg = text if text.startswith(str(path)) else f"{path}: {text}"
        raise SessionError(msg) from error


def parse_json(data: bytes) -> Any:
    """Parse strict JSON: no NaN, bounded depth; errors are SessionErrors."""
    try:
        return from_json(data, allow_inf_nan=False, cache_strings="keys")
    except (ValueError, RecursionError) as error:
        msg = f"expected JSON, found something else ({str(error)[:200]})"
        raise SessionError(msg) from error


def parse_event(raw: Any, where: str) -> tuple[Event, Scaling | None]:
    """Return the event of its parsed JSON, and the scaling written with it.

    Raises
    ------
    SessionError
        It is no event; ``where`` says which.
    """
    try:
        part = schema.EVENT.validate_python(raw)
        scaling = part.scaling if isinstance(part, ClickAddedPart) else None
        return event_of(part), scaling_of(scaling)
    except ValidationError as error:
        msg = f"{where}: {one_line(error)}"
        raise SessionError(msg) from error
    except ValueError as error:
        msg = f"{where}: {' '.join(str(error).split())[:300]}"
        raise SessionError(msg) from error


def note_scaling(
    scalings: dict[Plane, Scaling], event: Event, scaling: Scaling | None
) -> None:
    """Remember a plane's scaling; the first one counts."""
    if scaling is not None:
        scalings.setdefault(getattr(event, "plane", ()), scaling)


def one_line(error: ValidationError) -> str:
    """Say in one line where the file is wrong first."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    where = ".".join(str(step)[:40] for step in first["loc"][:8])
    problem = first["msg"]
    if len(problem) > _LONGEST_PROBLEM:
        problem = f"{problem[:_LONGEST_PROBLEM]}…"
    found = repr(first["input"])[:60]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return _shown(f"{where}: {problem}, found {found}{more}")


def _shown(said: str) -> str:
    """Return one line without what a file could command a terminal to do."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(said.split()))


def _content(
    head: schema.HeadPart, events: tuple[Event, ...], scalings: Mapping[Plane, Scaling]
) -> SessionContent:
    settings, model = head.settings, head.model
    return SessionContent(
        image=_image(head.image),
        model=None if model is None else ModelReference(model.name, model.sha256),
        settings=SessionSettings(
            settings.device,
            settings.backend,
            settings.precision,
            settings.threads,
            settings.rgb,
            scaling_of(settings.scaling),
            refinement_of(settings.refinement),
            OverlapRule(settings.overlap),
        ),
        events=events,
        scalings=MappingProxyType(dict(scalings)),
        snapshot=_snapshot(head.snapshot),
        identity=head.session,
    )


def _image(part: schema.ImagePart) -> ImageReference:
    if len(part.axes) != len(part.shape) or len(set(part.axes)) != len(part.axes):
        msg = f"image.axes {part.axes}: expected {len(part.shape)} different names"
        raise ValueError(msg)
    planes = len(part.axes) - (part.axes[-1] == "c" and len(part.axes) > 2)
    if part.order and not is_order(part.order, planes):
        msg = (
            f"image.order {part.order}: expected the axes 0 to {planes - 1}, each once"
        )
        raise ValueError(msg)
    return ImageReference(
        path=part.path,
        shape=tuple(part.shape),
        dtype=part.dtype,
        axes=tuple(part.axes),
        fingerprint=part.fingerprint,
        spacing=None if part.spacing is None else tuple(part.spacing),
        units=None if part.units is None else tuple(part.units),
        level=part.level,
        select=tuple((s.axis, s.index) for s in part.select),
        order=tuple(part.order),
    )


def _snapshot(part: schema.SnapshotPart | None) -> Snapshot | None:
    if part is None:
        return None
    planes = tuple((tuple(p.plane), labels_of(p.labels)) for p in part.planes)
    return Snapshot(part.events, planes)
