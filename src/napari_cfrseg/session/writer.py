"""Autosave: every event is on the disk before the next one is done.

``record`` appends a line to the journal and waits for the disk; ``save`` folds the
journal into the session file. If the disk is full or the folder read-only, work goes
on: the events wait in memory, ``problem`` says what is wrong until they are written.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from napari_cfrseg.annotation.events import ClickAdded, Event
from napari_cfrseg.errors import SessionError
from napari_cfrseg.io.durable import (
    AppendOnly,
    clear_unfinished,
    replace_file,
)
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.session.content import SessionContent, Snapshot
from napari_cfrseg.session.journal import (
    journal_line,
    journal_path,
    lock_path,
    read_journal,
)
from napari_cfrseg.session.lock import FileLock
from napari_cfrseg.session.reading import one_line, parse_at
from napari_cfrseg.session.summary import Ledger, ObjectSummary
from napari_cfrseg.session.writing import event_line, event_lines, session_lines

#: The journal is folded into the file when it is larger than this and than the file.
COMPACT_BYTES = 4_000_000


class SessionWriter:
    """A session open for writing; made by :meth:`create` or :meth:`open`.

    Attributes
    ----------
    path
        The session file.
    problem
        Why events wait in memory, or None when all are on the disk.
    on_problem
        Told ``problem`` whenever it changes, on the thread that records.
    """

    def __init__(self, path: Path, content: SessionContent, lock: FileLock) -> None:
        self.path = path
        self.problem: str | None = None
        self.on_problem: Callable[[str | None], None] = lambda _: None
        self._lock: FileLock | None = lock
        self._content = replace(content, events=())
        self._scalings = dict(content.scalings)
        self._ledger: Ledger | None = Ledger()
        self._events: list[Event] = []
        self._lines: list[str] = []
        self._note(content.events, event_lines(content.events, content.scalings))
        self._written = 0
        self._file_bytes = 0
        self._journal: AppendOnly | None = None
        self._guard = threading.RLock()

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], content: SessionContent
    ) -> SessionWriter:
        """Begin a session file.

        Raises
        ------
        SessionError
            There is one already, or it is open elsewhere.
        OSError
            The folder cannot be written to.
        """
        target = Path(path).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path(target))
        if target.exists():
            lock.release()
            msg = f"{target.name} exists: open it, or choose another name"
            raise SessionError(msg)
        writer = cls(target, content, lock)
        try:
            writer._compact()
        except OSError:
            lock.release()
            raise
        return writer

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SessionWriter:
        """Go on with a session file, with all that its journal holds.

        Raises
        ------
        SessionError
            It is no session, or it is open elsewhere.
        OSError
            The folder cannot be written to.
        """
        target = Path(path).resolve()
        content = parse_at(target)  # what is no session is not locked
        lock = FileLock(lock_path(target))
        try:
            clear_unfinished(target)
            content = parse_at(target)
            journal = journal_path(target)
            found = read_journal(journal, content.identity, len(content.events))
            writer = cls(target, content, lock)
            writer._file_bytes = target.stat().st_size
            if found.lost:
                _set_aside(journal)
            else:
                writer._journal = AppendOnly(journal, found.size)
        except (SessionError, OSError):
            lock.release()
            raise
        writer._note(found.events, found.lines)
        writer._scalings = {**found.scalings, **writer._scalings}
        writer._written = len(content.events)
        if found.lost:
            with suppress(OSError):
                writer._compact()
        else:
            writer._written = len(writer._lines)
        return writer

    @property
    def content(self) -> SessionContent:
        """The session as it is now."""
        with self._guard:
            scalings = MappingProxyType(dict(self._scalings))
            return replace(self._content, events=tuple(self._events), scalings=scalings)

    @property
    def event_count(self) -> int:
        """Number of events recorded."""
        return len(self._lines)

    @property
    def objects(self) -> tuple[ObjectSummary, ...]:
        """The objects as they are now."""
        return () if self._ledger is None else self._ledger.summary()

    def record(self, event: Event, scaling: Scaling | None = None) -> None:
        """Write an event down; returns when it is on the disk, or ``problem`` is set.

        Parameters
        ----------
        event
            What was done.
        scaling
            What the network saw as black and white; kept once for each plane.

        Raises
        ------
        SessionError
            The event has values that no session file may hold.
        """
        with self._guard:
            if isinstance(event, ClickAdded) and scaling is not None:
                if event.plane in self._scalings:
                    scaling = None
                else:
                    self._scalings[event.plane] = scaling
            self._note([event], [line_of(event, scaling)])
            self._flush()

    def update(self, **changes: object) -> None:
        """Change image, model or settings; written with the next save."""
        with self._guard:
            self._content = replace(self._content, **changes)  # type: ignore[arg-type]  # names of SessionContent

    def save(self, snapshot: Snapshot | None = None) -> None:
        """Fold the journal into the session file.

        Parameters
        ----------
        snapshot
            The labels now, to be shown at once when the file is opened.

        Raises
        ------
        OSError
            It could not be written; file and journal are as before.
        """
        with self._guard:
            if snapshot is not None:
                self._content = replace(self._content, snapshot=snapshot)
            self._compact()

    def move_to(self, path: str | os.PathLike[str], content: SessionContent) -> None:
        """Go on under another name; the old file goes away.

        Parameters
        ----------
        path
            The new name; a session file there is replaced.
        content
            Gives image, model and settings (the image's path is relative to the new
            folder).

        Raises
        ------
        SessionError
            The other session is open elsewhere.
        OSError
            It could not be written; the session goes on where it was.
        """
        with self._guard:
            target = Path(path).absolute()
            if target == self.path:
                self.save()
                return
            lock = FileLock(lock_path(target))
            before = (self.path, self._content, self._journal, self._lock)
            self._content = replace(content, events=())
            self.path, self._journal = target, None
            try:
                self._compact()
            except OSError:
                lock.release()
                self.path, self._content, self._journal, self._lock = before
                raise
            self._lock = lock
            _remove(before[0], before[2], before[3])

    def close(self) -> None:
        """Save, and let others open the session. Nothing is lost if saving fails."""
        with self._guard:
            if self._lock is None:
                return
            saved = False
            try:
                self._compact()
                saved = True
            except OSError as error:
                self._set_problem(error)
            if self._journal is not None:
                self._journal.close()
            if saved:
                with suppress(OSError):
                    journal_path(self.path).unlink()
            self._lock.release()
            self._lock = None

    def discard(self) -> None:
        """Close and remove the files: nobody wants this session."""
        with self._guard:
            _remove(self.path, self._journal, self._lock)
            self._lock = None

    # -- the files -------------------------------------------------------------------

    def _note(self, events: Iterable[Event], lines: Iterable[str]) -> None:
        for event, line in zip(events, lines, strict=True):
            self._events.append(event)
            self._lines.append(line)
            if self._ledger is not None:
                try:
                    self._ledger.apply(event)
                except SessionError:
                    self._ledger = None  # no summary; a replay will say what is wrong

    def _flush(self) -> None:
        try:
            waiting = enumerate(self._lines[self._written :], self._written)
            identity = self._content.identity
            data = b"".join(journal_line(identity, n, line) for n, line in waiting)
            if self._journal is None:
                self._journal = AppendOnly(journal_path(self.path), 0)
            self._journal.append(data)
            self._written = len(self._lines)
            if self._journal.size > max(COMPACT_BYTES, self._file_bytes):
                self._compact()
        except OSError as error:
            self._set_problem(error)
        else:
            self._set_problem(None)

    def _compact(self) -> None:
        scalings = MappingProxyType(self._scalings)
        content = replace(self._content, scalings=scalings)
        lines = session_lines(content, self.objects, self._lines)
        self._file_bytes = replace_file(self.path, lines)
        self._written = len(self._lines)
        if self._journal is not None:
            self._journal.clear()
        self._set_problem(None)

    def _set_problem(self, error: OSError | None) -> None:
        problem = None
        if error is not None:
            waiting = len(self._lines) - self._written
            problem = (
                f"{self.path.name} is not being saved ({error.strerror or error}): "
                f"{waiting} acts wait in memory; free space or save elsewhere"
            )
        if problem != self.problem:
            self.problem = problem
            self.on_problem(problem)


def line_of(event: Event, scaling: Scaling | None = None) -> str:
    """Return an event's line; values that no file may hold raise SessionError."""
    try:
        return event_line(event, scaling)
    except ValidationError as error:
        msg = f"{type(event).__name__} cannot be saved: {one_line(error)}"
        raise SessionError(msg) from error


def _set_aside(journal: Path) -> None:
    """Keep a journal that cannot be used, under another name."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    journal.rename(journal.with_name(f"{journal.name}.lost-{stamp}"))


def _remove(path: Path, journal: AppendOnly | None, lock: FileLock | None) -> None:
    if journal is not None:
        journal.close()
    for name in (journal_path(path), path):
        with suppress(OSError):
            name.unlink()
    if lock is not None:
        lock.release()
