"""Objects, with their clicks and edits on each plane, and the history of changes.

Objects are frozen values: a change makes a new one, and the old one stays in the
history with the rounds the network computed for it. So undo never computes anything.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import countOf
from types import MappingProxyType
from typing import TYPE_CHECKING

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.probability_patch import Shelf
from napari_cfrseg.engine.refinement import DEFAULT_REFINEMENT, Refinement
from napari_cfrseg.geometry.masks import LabelRuns, MaskPatch, Plane
from napari_cfrseg.geometry.windows import Box

if TYPE_CHECKING:
    from napari_cfrseg.engine.prediction import Prediction

#: hue step of the golden angle: neighbours in number are far apart in hue
_GOLDEN = 0.61803398875
#: lightness and saturation cycle apart from the hue, for those who see few hues
_SHADES = ((0.55, 0.90), (0.72, 0.75), (0.42, 0.85), (0.82, 0.85))
#: objects whose colours are all different; then the colours start again
PALETTE_SIZE = 64


def default_colour(object_id: int) -> str:
    """Return the colour (``#rrggbb``) of an object that was given none."""
    index = (object_id - 1) % PALETTE_SIZE
    lightness, saturation = _SHADES[index % len(_SHADES)]
    rgb = colorsys.hls_to_rgb((0.13 + index * _GOLDEN) % 1.0, lightness, saturation)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


@dataclass(frozen=True, slots=True)
class ClickEntry:
    """A click and the settings its round is computed with."""

    click_id: int
    click: Click
    refinement: Refinement
    focus_shift: int = 0
    hint: FocusHint | None = None
    #: the object's when the click was made: the mask that it corrects does not follow
    #: the slider afterwards
    threshold: float = 0.5
    candidate: int = 0  #: which of the masks found at a first click was taken
    box: Box | None = None  #: where its mask ends
    given: bool = False  #: the mask came with the click, as a suggestion's does

    @classmethod
    def of(
        cls, event: ev.ClickAdded, refinement: Refinement, threshold: float
    ) -> ClickEntry:
        """Return the entry that an event adds to an object cut at ``threshold``."""
        cut = threshold if event.threshold is None else event.threshold
        made = event.click_id, event.click, refinement
        return cls(*made, event.focus_shift, event.hint, cut, box=event.box)


@dataclass(frozen=True, slots=True, eq=False)
class PaintEntry:
    """Pixels a person added and removed by hand."""

    added: MaskPatch
    removed: MaskPatch
    #: the object's when it was painted: the mask under the edit does not follow the
    #: slider afterwards
    threshold: float
    holds: bool = False  #: as in :class:`~napari_cfrseg.annotation.events.Painted`


Entry = ClickEntry | PaintEntry


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """The result of an entry: a prediction for a click, a mask for a painted edit."""

    prediction: Prediction | None = None
    mask: MaskPatch | None = None
    masks: int = 0  #: how many different ones were found at a first click


@dataclass(frozen=True, slots=True)
class Carried:
    """Marks a plane whose mask was carried there and not confirmed."""

    confidence: float  #: the IoU to expect
    stop: str | None = None  #: why the run ended on this plane
    #: what it was computed from: the anchors' indices and their states' stamps, and
    #: whether the object spans the range
    source: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PlaneState:
    """One object on one plane."""

    start: MaskPatch | None = None  #: the mask it began with (imported), or None
    entries: tuple[Entry, ...] = ()  #: clicks and painted edits in order
    #: one per entry, each computed from the one before it
    rounds: tuple[Round, ...] = ()
    #: the mask now, at the object's threshold; what it would own if it were alone
    mask: MaskPatch = field(default_factory=MaskPatch.empty)
    stamp: int = 0  #: number of the event that changed it last
    carried: Carried | None = None  #: set where the start mask came from a propagation

    @property
    def clicks(self) -> tuple[ClickEntry, ...]:
        """The clicks, in order."""
        return tuple(e for e in self.entries if isinstance(e, ClickEntry))

    @property
    def click_count(self) -> int:
        """Number of the clicks."""
        return countOf(map(type, self.entries), ClickEntry)

    @property
    def is_empty(self) -> bool:
        """True when nothing was done on the plane and nothing imported."""
        return self.start is None and not self.entries and self.carried is None

    @property
    def is_anchor(self) -> bool:
        """True when a person annotated the plane: propagation never changes it."""
        return bool(self.entries) or (self.start is not None and self.carried is None)


@dataclass(frozen=True, slots=True, eq=False)
class ObjectState:
    """One object, and what was done to it on each plane."""

    object_id: int  #: its label, ≥ 1
    name: str
    colour: str  #: ``#rrggbb``
    locked: bool = False
    threshold: float = 0.5  #: probability from which a pixel belongs to it
    object_class: str = ""
    planes: Mapping[Plane, PlaneState] = field(
        default_factory=lambda: MappingProxyType({})
    )

    def on(self, plane: Plane) -> PlaneState:
        """Return its state on a plane (an empty one where nothing was done)."""
        return self.planes.get(plane, PlaneState())

    def with_plane(self, plane: Plane, state: PlaneState) -> ObjectState:
        """Return the object with another state on one plane."""
        planes = {key: value for key, value in self.planes.items() if key != plane}
        if not state.is_empty:
            planes[plane] = state
        return replace(self, planes=MappingProxyType(planes))

    def is_as_suggested(self, plane: Plane | None = None) -> bool:
        """Whether it was suggested (on a plane), accepted and never corrected."""
        states = self.planes.values() if plane is None else [self.on(plane)]
        made = [entry for state in states for entry in state.entries]
        return bool(made) and all(isinstance(e, ClickEntry) and e.given for e in made)

    @property
    def click_count(self) -> int:
        """Number of its clicks on all planes."""
        return sum(state.click_count for state in self.planes.values())

    def clicks(self) -> tuple[tuple[Plane, ClickEntry], ...]:
        """Return its clicks on all planes, in order within each plane."""
        return tuple(
            (plane, entry)
            for plane, state in self.planes.items()
            for entry in state.clicks
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings in force for later clicks and masks."""

    refinement: Refinement = DEFAULT_REFINEMENT
    rule: ev.OverlapRule = ev.OverlapRule.KEEP
    adapted: ev.ModelAdapted = field(default_factory=ev.ModelAdapted)


@dataclass(frozen=True, slots=True, eq=False)
class ObjectChange:
    """An object before and after a step; None: it did not exist."""

    before: ObjectState | None
    after: ObjectState | None


@dataclass(frozen=True, slots=True, eq=False)
class JudgedProposal:
    """A suggestion that was accepted as an object, or rejected (object 0)."""

    plane: Plane
    object_id: int
    proposal: ev.Proposal


Judged = tuple[JudgedProposal, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Transaction:
    """One step that can be undone; ``judged`` are the suggestions' verdicts with it."""

    event: ev.Event
    changes: Mapping[int, ObjectChange]
    patches: tuple[LabelRuns, ...]
    judged: tuple[Judged, Judged] = ((), ())

    def inverted(self) -> Transaction:
        """Return the transaction that undoes this one."""
        return Transaction(
            self.event,
            {i: ObjectChange(c.after, c.before) for i, c in self.changes.items()},
            tuple(patch.inverted() for patch in reversed(self.patches)),
            self.judged[::-1],
        )

    def followed_by(self, later: Transaction) -> Transaction:
        """Return both as one, under the later one's event."""
        changes = dict(self.changes)
        for object_id, change in later.changes.items():
            first = changes.get(object_id, change)
            changes[object_id] = ObjectChange(first.before, change.after)
        patches = self.patches + later.patches
        judged = self.judged[0], later.judged[1]
        return Transaction(later.event, changes, patches, judged)


class History:
    """The steps done and the steps undone; arrays of older ones are in files."""

    def __init__(self, most_bytes: int = 1_000_000) -> None:
        self._shelf = Shelf(most_bytes)
        self._done: list[Transaction] = []
        self._undone: list[Transaction] = []

    @property
    def undo_depth(self) -> int:
        """How many steps can be undone."""
        return len(self._done)

    @property
    def redo_depth(self) -> int:
        """How many steps can be redone."""
        return len(self._undone)

    def push(self, transaction: Transaction, begins: ev.Event) -> None:
        """Remember a step, which ``begins`` with an event; forget what was undone.

        It joins the step before where that event continues it (:func:`continues`).
        """
        self._undone.clear()
        self._hold(transaction)
        if self._done and continues(self._done[-1].event, begins):
            transaction = self._done.pop().followed_by(transaction)
        self._done.append(transaction)

    def _hold(self, transaction: Transaction) -> None:
        for patch in transaction.patches:
            self._shelf.add(patch, "starts", "lengths", "after", "before")
        for change in transaction.changes.values():
            before = {} if change.before is None else change.before.planes
            after = {} if change.after is None else change.after.planes
            for plane, state in after.items():
                if state is not before.get(plane):
                    self._shelf.add(state.mask, "mask")

    def undo(self) -> Transaction | None:
        """Return what undoes the last step, or None if there is none."""
        if not self._done:
            return None
        self._undone.append(self._done.pop())
        return self._undone[-1].inverted()

    def redo(self) -> Transaction | None:
        """Return the step to redo, or None if there is none."""
        if not self._undone:
            return None
        self._done.append(self._undone.pop())
        return self._done[-1]


#: what is done to several objects of the table at once
_TABLE_EDITS = (
    ev.ObjectDeleted,
    ev.ObjectRecoloured,
    ev.ObjectClassified,
    ev.ObjectLocked,
)


#: what objects made elsewhere become
_IMPORTS = (
    ev.LabelsImported,
    ev.ObjectCreated,
    ev.MaskImported,
    ev.ObjectClassified,
)


def continues(first: ev.Event, second: ev.Event) -> bool:
    """Return whether two events are one undo step."""
    if isinstance(first, ev.ObjectCreated):
        return (
            isinstance(second, ev.ClickAdded | ev.MaskImported)
            and second.object_id == first.object_id
        )
    if isinstance(first, ev.ClickAdded) and isinstance(second, ev.ClickAdded):
        same = (first.object_id, first.plane) == (second.object_id, second.plane)
        return second.together or (second.stroke and same)
    if isinstance(first, ev.ClickAdded) and isinstance(second, ev.ObjectCreated):
        return second.together
    for kinds in (_IMPORTS, ev.Painted, _TABLE_EDITS):
        if isinstance(first, kinds) and isinstance(second, kinds):
            return second.together
    return (
        isinstance(first, ev.ThresholdChanged)
        and isinstance(second, ev.ThresholdChanged)
        and second.object_id == first.object_id
    )
