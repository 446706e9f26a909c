"""The journal: one line for each event, on the disk before the next one is done.

``NAME.cfrseg.journal`` lies beside ``NAME.cfrseg.json``. Each line has the event's
number and a checksum that covers the session's identity, so a line cut by a crash, or
of another session, is told from a whole one. Lines that the session file holds already
(a crash between compaction and clearing) are passed over.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from napari_cfrseg.annotation.events import Event
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.io.durable import encode
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.session.content import SUFFIX
from napari_cfrseg.session.reading import (
    note_scaling,
    parse_event,
    parse_json,
    read_bytes,
)

_LINE = re.compile(rb'\{"n": (\d{1,15}), "crc": "([0-9a-f]{8})", "event": (.*)\}\n')


@dataclass(slots=True)
class Journal:
    """What was found in a journal.

    Attributes
    ----------
    events, lines
        Events that the session file does not hold, and their JSON.
    scalings
        Written with them.
    size
        Bytes up to the end of the last whole line.
    lost
        What is there but cannot be used, in words; empty if nothing.
    """

    events: list[Event] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    scalings: dict[Plane, Scaling] = field(default_factory=dict)
    size: int = 0
    lost: str = ""


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
    """Read a journal behind the first ``start`` events.

    Raises
    ------
    SessionError
        It is there but cannot be read.
    """
    found = Journal()
    if not path.exists():
        return found
    data = read_bytes(path)
    position = 0
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
                event, scaling = parse_event(parse_json(text), f"event {number}")
            except SessionError as error:
                found.lost = str(error)
                return found
            found.events.append(event)
            found.lines.append(text.decode("utf-8", "replace"))
            note_scaling(found.scalings, event, scaling)
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
