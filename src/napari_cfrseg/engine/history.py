"""Undo and redo without limit: clicks and labels together, nothing recomputed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from napari_cfrseg.engine import events as ev
from napari_cfrseg.engine.masks import LabelPatch
from napari_cfrseg.engine.objects import ObjectState


@dataclass(frozen=True, slots=True, eq=False)
class ObjectChange:
    """An object before and after an act; None: it did not exist."""

    before: ObjectState | None
    after: ObjectState | None


@dataclass(frozen=True, slots=True, eq=False)
class Transaction:
    """One act that can be taken back."""

    event: ev.Event
    changes: Mapping[int, ObjectChange]
    patches: tuple[LabelPatch, ...]

    def inverted(self) -> Transaction:
        """Return the act that takes this one back."""
        return Transaction(
            self.event,
            {i: ObjectChange(c.after, c.before) for i, c in self.changes.items()},
            tuple(patch.inverted() for patch in reversed(self.patches)),
        )

    def followed_by(self, later: Transaction) -> Transaction:
        """Return both acts as one, under the later one's event."""
        changes = dict(self.changes)
        for object_id, change in later.changes.items():
            first = changes.get(object_id, change)
            changes[object_id] = ObjectChange(first.before, change.after)
        return Transaction(later.event, changes, self.patches + later.patches)


class History:
    """The acts done and the acts taken back."""

    def __init__(self) -> None:
        self._done: list[Transaction] = []
        self._undone: list[Transaction] = []

    @property
    def undo_depth(self) -> int:
        """How many acts can be taken back."""
        return len(self._done)

    @property
    def redo_depth(self) -> int:
        """How many acts can be done again."""
        return len(self._undone)

    def push(self, transaction: Transaction) -> None:
        """Remember an act; what had been taken back is forgotten.

        An object's creation and the first thing done to it are one step, and so is a
        slider's way from one threshold to another.
        """
        self._undone.clear()
        if self._done and _is_continued(self._done[-1].event, transaction.event):
            transaction = self._done.pop().followed_by(transaction)
        self._done.append(transaction)

    def undo(self) -> Transaction | None:
        """Return what takes the last act back, or None if there is none."""
        if not self._done:
            return None
        self._undone.append(self._done.pop())
        return self._undone[-1].inverted()

    def redo(self) -> Transaction | None:
        """Return the act to do again, or None if there is none."""
        if not self._undone:
            return None
        self._done.append(self._undone.pop())
        return self._done[-1]


def _is_continued(first: ev.Event, second: ev.Event) -> bool:
    if isinstance(first, ev.ObjectCreated):
        return (
            isinstance(second, ev.ClickAdded | ev.MaskImported)
            and second.object_id == first.object_id
        )
    return (
        isinstance(first, ev.ThresholdChanged)
        and isinstance(second, ev.ThresholdChanged)
        and second.object_id == first.object_id
    )
