"""The format of the session file and its journal: read within bounds, written in lines.

The journal of an open session belongs to :mod:`napari_cfrseg.session.session_writer`.

Reading names in one line what is wrong first. Writing keeps one object or event on a
line, so that versions of a session can be compared.

The journal ``NAME.cfrseg.journal`` lies beside ``NAME.cfrseg.json`` and holds one line
for each event since the file was written. A line has the event's number and a checksum
that covers the session's identity, so a line cut by a crash, or of another session, is
recognised. Lines that the session file holds already (a crash between compaction and
clearing) are skipped.
"""

from __future__ import annotations

import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from napari_cfrseg import __version__
from napari_cfrseg.annotation.event_fields import (
    Event,
    fields_of,
    one_line,
    read_event,
    shown,
)
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.errors import SessionError
from napari_cfrseg.io.atomic import encode
from napari_cfrseg.session.format import (
    SCHEMA_VERSION,
    SUFFIX,
    ObjectLine,
    SessionContent,
    SessionHead,
    Snapshot,
)

#: Larger files are refused unread; a million clicks take about 150 MB.
MOST_BYTES = 1 << 30


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most ``MOST_BYTES`` bytes.

    A SessionError says that it is missing, no file (a device or pipe would never end),
    or too large.
    """
    try:
        # a named pipe would block even the opening
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise SessionError(f"{path}: expected a file, found something else")
            if found.st_size > MOST_BYTES:
                size = found.st_size
                msg = f"{path}: {size} bytes; sessions have {MOST_BYTES} at most"
                raise SessionError(msg)
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SessionError(f"{path}: cannot be read ({reason})") from error


def parse_session(data: bytes) -> SessionContent:
    """Make a session of a file's bytes; SessionErrors say in one line what is wrong."""
    try:
        return _parsed(data)
    except SessionError as error:
        raise SessionError(shown(str(error))) from error


def _parsed(data: bytes) -> SessionContent:
    raw = parse_json(data)
    if not isinstance(raw, dict):
        msg = f"expected a session (a JSON object), found {type(raw).__name__}"
        raise SessionError(msg)
    raw = migrated(raw, SCHEMA_VERSION)
    listed = raw.pop("events", [])
    if not isinstance(listed, list):
        raise SessionError(f"events: expected a list, found {type(listed).__name__}")
    try:
        head = SessionHead.model_validate(raw, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SessionError(one_line(error)) from error
    events: list[Event] = []
    for number, part in enumerate(listed):
        events.append(parse_event(part, f"event {number}"))
        listed[number] = None  # a long session is not held twice
    about = head.image, head.model, head.settings
    return SessionContent(*about, tuple(events), head.snapshot, head.session)


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


def parse_event(raw: Any, where: str) -> Event:
    """Return the event of its parsed JSON; errors say ``where`` it stands."""
    try:
        return read_event(raw)
    except ValidationError as error:
        raise SessionError(f"{where}: {one_line(error)}") from error


# -- files of earlier versions -------------------------------------------------------

Migration = Callable[[dict[str, Any]], dict[str, Any]]


def _as_it_is(raw: dict[str, Any]) -> dict[str, Any]:
    """Versions 2 and 4 added kinds and fields of events and took none away."""
    return raw


def _to_3(raw: dict[str, Any]) -> dict[str, Any]:
    """Before version 3 a click corrected the mask cut at 1/2, whatever was shown."""
    events = raw.get("events")
    if not isinstance(events, list) or not any(
        isinstance(one, dict) and "threshold" in one for one in events
    ):
        return raw
    return {
        **raw,
        "events": [
            {**one, "threshold": 0.5}
            if isinstance(one, dict) and one.get("type") == "click_added"
            else one
            for one in events
        ],
    }


#: version → how its file becomes one of the next version; 1 is the first ever written
MIGRATIONS: Mapping[int, Migration] = MappingProxyType(
    {1: _as_it_is, 2: _to_3, 3: _as_it_is}
)


def migrated(
    raw: dict[str, Any], current: int, migrations: Mapping[int, Migration] = MIGRATIONS
) -> dict[str, Any]:
    """Return a parsed file in the layout of version ``current``.

    No version, one that never was, or one of a newer program is a SessionError.
    """
    version = raw.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SessionError(
            f"expected a whole number ≥ 1 as schema_version, found {str(version)[:40]}"
        )
    if version > current:
        raise SessionError(
            f"written by a newer napari-cfrseg (schema_version {version}; this one "
            f"reads up to {current}): update napari-cfrseg to open it"
        )
    for step in range(version, current):
        raw = {**migrations[step](raw), "schema_version": step + 1}
    return raw


# -- writing -------------------------------------------------------------------------


def session_lines(
    content: SessionContent, objects: Iterable[ObjectState], events: Iterable[str]
) -> Iterator[str]:
    """Return a session file's lines, newlines included.

    ``objects`` are those in the end; ``events`` are the events' lines.
    """
    yield "{\n"
    yield f' "schema_version": {SCHEMA_VERSION},\n'
    yield f' "session": {_line(content.identity)},\n'
    yield f' "written_by": {_line(f"napari-cfrseg {__version__}")},\n'
    image = {"path": None, **fields_of(content.image)}
    yield f' "image": {_line(image)},\n'
    if content.model is not None:
        yield f' "model": {_line(fields_of(content.model))},\n'
    # all settings, defaults too: a later version may have others
    settings = fields_of(content.settings, defaults=True)
    yield f' "settings": {_line(settings)},\n'
    yield from _listed("objects", (_line(fields_of(_object(o))) for o in objects))
    yield ",\n"
    yield from _listed("events", events)
    if content.snapshot is not None:
        yield ",\n"
        yield from _snapshot_lines(content.snapshot)
    yield "\n}\n"


def _object(found: ObjectState) -> ObjectLine:
    told = found.object_id, found.name, found.colour, found.locked, found.object_class
    return ObjectLine(*told, found.threshold, found.click_count)


def _listed(name: str, lines: Iterable[str]) -> Iterator[str]:
    yield f' "{name}": ['
    separator = "\n"
    for line in lines:
        yield f"{separator}  {line}"
        separator = ",\n"
    yield "]" if separator == "\n" else "\n ]"


def _snapshot_lines(snapshot: Snapshot) -> Iterator[str]:
    one_by_one = (replace(snapshot, labels=(runs,)) for runs in snapshot.labels)
    planes = (fields_of(one, defaults=True)["planes"][0] for one in one_by_one)
    yield f' "snapshot": {{"events": {snapshot.events},\n'
    yield from _listed("planes", (_line(plane) for plane in planes))
    yield "}"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# -- the journal ---------------------------------------------------------------------

_LINE = re.compile(rb'\{"n": (\d{1,15}), "crc": "([0-9a-f]{8})", "event": (.*)\}\n')


@dataclass(slots=True)
class Journal:
    """The content of a journal."""

    #: events that the session file does not hold, and their JSON
    events: list[Event] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    size: int = 0  #: bytes up to the end of the last whole line
    lost: str = ""  #: what is there but cannot be used, in words; empty if nothing


def journal_path(session: Path) -> Path:
    """Return where a session's journal lies."""
    return session.with_name(stem_of(session) + ".cfrseg.journal")


def lock_path(session: Path) -> Path:
    """Return where a session's lock lies."""
    return session.with_name(stem_of(session) + ".cfrseg.lock")


def stem_of(session: Path) -> str:
    """Return a session file's name without ``.cfrseg.json``."""
    name = session.name
    return name[: -len(SUFFIX)] if name.endswith(SUFFIX) else session.stem


def journal_line(identity: str, number: int, event_line: str) -> bytes:
    """Return one line of a journal."""
    text = encode(event_line)
    checksum = _checksum(identity, number, text)
    return b'{"n": %d, "crc": "%08x", "event": %s}\n' % (number, checksum, text)


def read_journal(path: Path, identity: str, start: int) -> Journal:
    """Read a journal from the event ``start`` on.

    A SessionError says why it cannot be read.
    """
    found, position = Journal(), 0
    try:
        data = read_bytes(path)
    except SessionError:
        if path.exists():
            raise
        return found  # it was never written, or the session was closed just now
    while (end := data.find(b"\n", position)) >= 0:
        entry = _entry(data[position : end + 1], identity)
        position = end + 1
        if entry is None:
            found.lost = found.lost or "a damaged line"
            continue
        number, text = entry
        expected = start + len(found.events)
        if number > expected:
            found.lost = f"event {expected} is missing, later ones are there"
            return found
        found.size = position
        if number == expected:
            try:
                event = parse_event(parse_json(text), f"event {number}")
            except SessionError as error:
                found.lost = str(error)
                return found
            found.events.append(event)
            found.lines.append(text.decode("utf-8", "replace"))
            found.lost = ""
    return found


def _entry(line: bytes, identity: str) -> tuple[int, bytes] | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    number, text = int(match[1]), match[3]
    if int(match[2], 16) != _checksum(identity, number, text):
        return None
    return number, text


def _checksum(identity: str, number: int, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(f"{identity}:{number}:".encode()))
