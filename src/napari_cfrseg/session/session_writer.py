"""The writer of an open session, which owns its journal, its lock and its file.

Every event is on the disk before the next one is done: ``record`` appends a line to the
journal and waits for the disk; ``save`` folds the journal into the session file. If
the disk is full or the folder read-only, work continues: the events wait in memory and
``problem`` says why until they are written.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.event_fields import Event, event_line
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.errors import CfrSegError, SessionError, counted
from napari_cfrseg.io.atomic import (
    AppendOnly,
    clear_leftovers,
    replace_file,
    whole_path,
)
from napari_cfrseg.session.format import SessionContent, Snapshot
from napari_cfrseg.session.session_file import (
    journal_line,
    journal_path,
    lock_path,
    parse_at,
    read_journal,
    session_lines,
)
from napari_cfrseg.session.unsaved_sessions import SessionLock

#: The journal is folded into the file when it is larger than this and than the file.
COMPACT_BYTES = 4_000_000


class SessionWriter:
    """A session open for writing; made by :meth:`create` or :meth:`open`.

    ``problem`` is why events wait in memory, None when all are on the disk;
    ``on_problem`` is called with it whenever it changes, on the thread that records.
    """

    def __init__(self, path: Path, content: SessionContent, lock: SessionLock) -> None:
        self.path = path
        self.problem: str | None = None
        self.on_problem: Callable[[str | None], None] = lambda _: None
        self._lock: SessionLock | None = lock
        self._content = replace(content, events=())
        #: knows the objects; None: the events do not fit each other
        self._known: Annotator | None = Annotator(None, content.image.plane_shape)
        self._events: list[Event] = []
        self._lines: list[str] = []
        self._note(content.events, map(event_line, content.events))
        self._written = 0
        self._file_bytes = 0
        self._journal: AppendOnly | None = None
        self._guard = threading.RLock()

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], content: SessionContent
    ) -> SessionWriter:
        """Begin a session file.

        A SessionError says that there is one already, or that it is open elsewhere; an
        OSError that the folder cannot be written to.
        """
        target = whole_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target) as lock:
            if target.exists():
                msg = f"{target.name} exists: open it, or choose another name"
                raise SessionError(msg)
            writer = cls(target, content, lock)
            writer._compact()
        return writer

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SessionWriter:
        """Go on with a session file, with all that its journal holds.

        A SessionError says that it is no session, or open elsewhere; an OSError that
        the folder cannot be written to.
        """
        target = whole_path(path)
        content = parse_at(target)  # before the lock: it may not be a session
        with _locked(target) as lock:
            clear_leftovers(target.parent, {target.stem})
            content = parse_at(target)
            journal = journal_path(target)
            found = read_journal(journal, content.identity, len(content.events))
            writer = cls(target, content, lock)
            writer._file_bytes = target.stat().st_size
            writer._written = len(content.events)
            writer._note(found.events, found.lines)
            if found.lost:
                stamp = time.strftime("%Y%m%d-%H%M%S")
                journal.rename(journal.with_name(f"{journal.name}.lost-{stamp}"))
                with suppress(OSError):
                    writer._compact()
            else:
                writer._journal = AppendOnly(journal, found.size)
                writer._written = len(writer._lines)
        return writer

    @property
    def content(self) -> SessionContent:
        """The session as it is now."""
        with self._guard:
            return replace(self._content, events=tuple(self._events))

    @property
    def event_count(self) -> int:
        """Number of events recorded."""
        return len(self._lines)

    @property
    def objects(self) -> tuple[ObjectState, ...]:
        """The objects as they are now, by id; their masks are empty."""
        known = {} if self._known is None else self._known.objects
        return tuple(known[i] for i in sorted(known))

    def record(self, *events: Event) -> None:
        """Write events down; return once they are on the disk or ``problem`` is set."""
        with self._guard:
            self._note(events, map(event_line, events))
            self._flush()

    def update(self, **changes: object) -> None:
        """Change image, model or settings; written with the next save."""
        with self._guard:
            self._content = replace(self._content, **changes)  # type: ignore[arg-type]  # names of SessionContent

    def save(self, snapshot: Snapshot | None = None) -> None:
        """Fold the journal into the session file.

        ``snapshot``, the labels now, is shown at once when the file is opened. After an
        OSError file and journal are as before.
        """
        with self._guard:
            if snapshot is not None:
                self._content = replace(self._content, snapshot=snapshot)
            self._compact()

    def move_to(
        self,
        path: str | os.PathLike[str],
        content: SessionContent,
        *,
        keep: bool = False,
    ) -> None:
        """Go on under another name; the old file goes away, and one there is replaced.

        With ``keep`` the old file stays, with all that was done until now.
        ``content`` gives image, model and settings (the image's path is relative to the
        new folder). A SessionError says that the other session is open elsewhere; after
        an OSError the session stays where it was.
        """
        with self._guard:
            target = whole_path(path)
            if target == self.path:
                self._content = replace(content, events=())
                self._compact()
                return
            with _locked(target) as lock:
                if keep:
                    self._compact()
                path, before, journal = self.path, self._content, self._journal
                self.path, self._journal = target, None
                self._content = replace(content, events=())
                try:
                    self._compact()
                except BaseException:
                    self.path, self._content, self._journal = path, before, journal
                    raise
            former, self._lock = self._lock, lock
            _remove(path, journal, former, keep=keep)

    def close(self) -> None:
        """Save, and let others open the session. Nothing is lost if saving fails."""
        with self._guard:
            if self._lock is None:
                return
            try:
                self._compact()
            except OSError as error:
                self._set_problem(error)
            if self._journal is not None:
                self._journal.close()
            if self.problem is None:
                with suppress(OSError):
                    journal_path(self.path).unlink()
            self._lock.release()
            self._lock = None

    def discard(self) -> None:
        """Close the session and remove its files."""
        with self._guard:
            _remove(self.path, self._journal, self._lock)
            self._lock = None

    # -- the files -------------------------------------------------------------------

    def _note(self, events: Iterable[Event], lines: Iterable[str]) -> None:
        for event, line in zip(events, lines, strict=True):
            self._events.append(event)
            self._lines.append(line)
            if self._known is not None:
                try:
                    self._known.apply(event)
                except CfrSegError:
                    self._known = None  # no summary; a replay will say what is wrong

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
        lines = session_lines(self._content, self.objects, self._lines)
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
                f"{counted(waiting, 'act')} not on the disk yet; make room, or save "
                "elsewhere"
            )
        if problem != self.problem:
            self.problem = problem
            self.on_problem(problem)


@contextmanager
def _locked(session: Path) -> Iterator[SessionLock]:
    """Lock a session; where what follows fails, let go of it."""
    lock = SessionLock(lock_path(session))
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def _remove(
    path: Path,
    journal: AppendOnly | None,
    lock: SessionLock | None,
    *,
    keep: bool = False,
) -> None:
    """Remove a session's files; with ``keep`` all but the session itself."""
    if journal is not None:
        journal.close()
    for name in (journal_path(path), *(() if keep else (path,))):
        with suppress(OSError):
            name.unlink()
    if lock is not None:
        lock.release()
