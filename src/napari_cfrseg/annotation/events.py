"""The kinds of events: everything a person can do, one frozen class per kind.

``Annotator.apply`` turns each event into changes of objects and labels. A list of
events together with the image and the model's weights *is* the annotation: the window,
a saved session and a headless replay all feed the same values to the same method.

A kind of event is defined once: its class here gives the values in memory, their
checks, the session file's names and bounds and its JSON Schema; its handler in
:mod:`~napari_cfrseg.annotation.handlers` says what it does. Fields and names here are
the file format: they change only with the schema version.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from napari_cfrseg.annotation import event_fields as form
from napari_cfrseg.annotation.event_fields import Event as Event
from napari_cfrseg.annotation.event_fields import event
from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.adapted import MOST_NUMBERS, Adaptation
from napari_cfrseg.engine.suggestions import ObjectSuggestion
from napari_cfrseg.geometry.masks import LabelRuns


class OverlapRule(StrEnum):
    """Who gets a pixel that two objects' masks hold."""

    KEEP = "keep"
    """the object that already has it"""
    OVERWRITE = "overwrite"
    """the object that was worked on last; never at a locked object's cost"""


@event("model_changed")
class ModelChanged(Event):
    """Rounds computed from now on use other weights, by name and their file's SHA-256.

    Earlier results stay; a click that is moved later is recomputed.
    """

    is_setting: ClassVar[bool] = True
    name: form.Text
    sha256: form.Sha256 | None = None


@event("model_adapted")
class ModelAdapted(Event):
    """First clicks made from now on use what finished objects taught, or forget it.

    Earlier results stay. ``numbers`` are added to the light parameters of the network,
    whose SHA-256 is ``base``; they are kept and not computed again, so a replay has the
    same ones. Without ``object_ids`` what was learnt is forgotten. ``gain`` is the IoU
    that first clicks gained on finished objects that did not teach.
    """

    is_setting: ClassVar[bool] = True
    object_ids: form.Objects = ()
    base: form.Sha256 | None = None
    numbers: Annotated[tuple[form.Float, ...], Field(max_length=MOST_NUMBERS)] = ()
    gain: form.Float = 0.0

    @property
    def adaptation(self) -> Adaptation | None:
        """Return what is used from now on; None: the model as it is."""
        if self.base is None or not self.numbers:
            return None
        return Adaptation(self.base, self.numbers, self.gain)


@event("object_created")
class ObjectCreated(Event):
    """A new, empty object; ``object_id`` (≥ 1) is its label."""

    object_id: form.ObjectId
    name: form.Text = ""
    colour: form.Colour | None = None
    threshold: form.Threshold = 0.5
    together: form.Bool = False


@event("object_deleted")
class ObjectDeleted(Event):
    """An object is gone, with its clicks and pixels on every plane.

    ``together``, in this and other kinds: one undo step with the event before it.
    """

    object_id: form.ObjectId
    together: form.Bool = False


@event("object_renamed")
class ObjectRenamed(Event):
    """An object's name changed."""

    object_id: form.ObjectId
    name: form.Text


@event("object_recoloured")
class ObjectRecoloured(Event):
    """An object's colour (``#rrggbb``) changed."""

    object_id: form.ObjectId
    colour: form.Colour
    together: form.Bool = False


@event("object_classified")
class ObjectClassified(Event):
    """An object got a class ("nucleus", "artefact"), or (empty) lost it."""

    object_id: form.ObjectId
    object_class: form.Text = ""
    together: form.Bool = False


@event("object_locked")
class ObjectLocked(Event):
    """An object was locked (nothing changes it any more) or unlocked."""

    object_id: form.ObjectId
    locked: form.Bool
    together: form.Bool = False


@event("objects_merged")
class ObjectsMerged(Event):
    """Objects became one: the first of them; the others are gone.

    It takes their pixels on every plane, and later clicks keep them.
    """

    object_ids: Annotated[form.Objects, Field(min_length=2)]


@event("object_split")
class ObjectSplit(Event):
    """The part of an object that holds a pixel became an object of its own.

    A part is what is connected on the plane, over corners, too; ``yx`` is a (row,
    column) of it. The object keeps the rest, and later clicks leave the part alone.
    ``new_id`` is the new object's label; its class is the object's.
    """

    object_id: form.ObjectId
    plane: form.EventPlane
    yx: form.Position
    new_id: Annotated[form.ObjectNumber, form.named("new_object")]


@event("object_reset")
class ObjectReset(Event):
    """An object's clicks and painted edits on a plane are gone.

    A mask it was imported with comes back.
    """

    object_id: form.ObjectId
    plane: form.EventPlane


@event("click_added")
class ClickAdded(Event):
    """One click for an object, at (row, column) ``yx`` of a plane.

    ``focus_shift`` are steps to a smaller (negative) or larger focus window; ``hint``
    is the object's size as the person was looking at it. ``scaling`` are the image
    values painted black and white for this click and the later ones on its plane;
    recorded with a plane's first click. ``threshold`` is where the mask that it
    corrects is cut; None: at the object's. ``box``, (y0, x0, y1, x1), ends exclusive,
    was dragged around the object: the click's mask ends there, later clicks may go
    beyond. ``stroke``: it was made with the click before it in one stroke, one undo
    step. ``position`` is before which of the object's entries on the plane it goes,
    None after the last; only in files of early versions.
    """

    object_id: form.ObjectId
    plane: form.EventPlane
    yx: form.Position
    is_positive: Annotated[form.Bool, form.named("positive")]
    click_id: form.ClickId
    focus_shift: form.FocusShift = 0
    hint: form.HintField | None = None
    position: form.Index | None = None
    scaling: form.ScalingField | None = None
    threshold: form.Threshold | None = None
    box: form.BoxField | None = None
    stroke: form.Bool = False
    together: form.Bool = False

    def __post_init__(self) -> None:
        if self.box is not None:
            (y, x), (y0, x0, y1, x1) = self.click.pixel, self.box
            if not (y0 <= y < y1 and x0 <= x < x1):
                raise ValueError(f"click at ({y}, {x}): not in its box {self.box}")

    @property
    def click(self) -> Click:
        """Position on the plane and sign."""
        return Click(self.yx, self.is_positive)


@event("clicks_moved")
class ClicksMoved(Event):
    """Clicks were dragged, in one step: (click_id, new (row, column)) each."""

    moves: tuple[form.Move, ...]


@event("click_refocused")
class ClickRefocused(Event):
    """A click looks closer or wider than it did; its ``focus_shift`` is now this."""

    click_id: form.ClickId
    focus_shift: form.FocusShift


@event("candidate_chosen")
class CandidateChosen(Event):
    """Another of the masks found at an object's first click is taken.

    0 is the best one; beyond the last one the last is meant.
    """

    click_id: form.ClickId
    candidate: form.Candidate


@event("clicks_removed")
class ClicksRemoved(Event):
    """Clicks were deleted, in one step."""

    click_ids: Annotated[tuple[form.ClickNumber, ...], form.named("clicks")]


@event("painted")
class Painted(Event):
    """Labels were painted by hand on a plane; label 0 erases.

    Where it ``holds``, the stroke stays after later clicks of the object; a click of
    the other sign on a part of it takes that part back. Else (and in early files) the
    next click starts from the stroke and may change it.
    """

    plane: form.EventPlane
    labels: form.LabelsField
    holds: form.Bool = False
    together: form.Bool = False


@event("mask_imported")
class MaskImported(Event):
    """A mask the object starts from on a plane; clicks then correct it.

    Any clicks the object had on that plane are recomputed from it.
    """

    object_id: form.ObjectId
    plane: form.EventPlane
    mask: form.MaskField
    together: form.Bool = False


@event("labels_imported")
class LabelsImported(Event):
    """Every label of a plane (Cellpose, StarDist, painted) becomes an object.

    A label whose number is already an object's is that object's start mask.
    """

    plane: form.EventPlane
    labels: form.LabelsField
    together: form.Bool = False


@event("propagated")
class Propagated(Event):
    """Objects were carried from their annotated planes to others (see propagation).

    ``axis`` is which of the plane's indices is walked along (its own entry there does
    not count), from ``first`` to ``last``, both inclusive, of ``count`` planes.
    ``spacing`` is the (between planes, y, x) size of a voxel. ``spans``: the objects
    reach from first to last, and runs do not end where they fade. ``only_stale`` leaves
    gaps out whose anchors are the same. ``results`` are the planes kept of what was
    cancelled; None: all.
    """

    object_ids: Annotated[form.Objects, Field(min_length=1)]
    plane: Annotated[form.PlaneIndex, Field(min_length=1)]
    axis: form.Index
    first: form.Index
    last: form.Index
    count: form.Side
    spacing: form.Spacing = (1.0, 1.0, 1.0)
    spans: form.Bool = False
    only_stale: form.Bool = True
    results: form.Index | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < self.count:
            msg = f"planes {self.first} to {self.last} of {self.count}: no such range"
            raise ValueError(msg)
        if not 0 <= self.axis < len(self.plane):
            raise ValueError(f"axis {self.axis} of a plane with index {self.plane}")


@event("plane_confirmed")
class PlaneConfirmed(Event):
    """A propagated mask was found right: from now on it is annotated, an anchor."""

    object_id: form.ObjectId
    plane: form.EventPlane


@form.in_file
class Proposal:
    """A suggested object as it is recorded.

    ``yx`` is the (row, column) of the click that accepted or rejected it, else of its
    seed; ``score`` is how probable it was that it is right, computed from ``traits``.
    ``continues`` is the object of another plane that it is; None: a new one.
    """

    mask: form.MaskField
    yx: form.Position
    score: form.Probability
    traits: tuple[form.Float, ...] = ()
    continues: form.ObjectNumber | None = None

    @classmethod
    def of(
        cls,
        suggestion: ObjectSuggestion,
        shape: tuple[int, int],
        yx: tuple[float, float] | None = None,
    ) -> Proposal:
        """Record a suggestion on a (Y, X) plane, with the click at ``yx``."""
        mask = suggestion.mask
        y, x = suggestion.seed if yx is None else yx
        runs = LabelRuns.from_labels(
            mask.mask.astype(np.int32), mask.mask, shape, mask.offset
        )
        place = (float(y), float(x))
        traits, continues = suggestion.traits, suggestion.continues
        return cls(runs, place, suggestion.score, traits, continues)


@event("objects_suggested")
class ObjectsSuggested(Event):
    """Objects were suggested on a plane: (row, column, score) of each seed."""

    is_setting: ClassVar[bool] = True
    plane: form.EventPlane
    seeds: tuple[tuple[form.Coordinate, form.Coordinate, form.Probability], ...]


@event("suggestions_accepted")
class SuggestionsAccepted(Event):
    """Suggestions became objects or planes of objects, in one act, each with a click.

    ``object_id`` and ``click_id`` are those of the first one; the others' follow,
    whether a new object or not.
    """

    object_id: form.ObjectId
    plane: form.EventPlane
    click_id: form.ClickId
    accepted: Annotated[tuple[Proposal, ...], Field(min_length=1)]


@event("suggestions_rejected")
class SuggestionsRejected(Event):
    """Suggestions were found wrong, in one act."""

    plane: form.EventPlane
    rejected: Annotated[tuple[Proposal, ...], Field(min_length=1)]


@event("threshold_changed")
class ThresholdChanged(Event):
    """The probability from which a pixel belongs to the object changed."""

    object_id: form.ObjectId
    threshold: form.Threshold


@event("refinement_changed")
class RefinementChanged(Event):
    """Clicks made from now on use another refinement."""

    is_setting: ClassVar[bool] = True
    refinement: form.RefinementField


@event("overlap_changed")
class OverlapChanged(Event):
    """The overlap rule from now on."""

    is_setting: ClassVar[bool] = True
    rule: OverlapRule


@event("undone")
class Undone(Event):
    """The last step that changed objects or labels is undone."""


@event("redone")
class Redone(Event):
    """The last step undone is done again."""


def object_ids(made: Event) -> tuple[int, ...]:
    """Return the numbers of the objects an event makes, or may make."""
    match made:
        case ObjectCreated():
            return (made.object_id,)
        case ObjectSplit():
            return (made.new_id,)
        case SuggestionsAccepted():
            return tuple(range(made.object_id, made.object_id + len(made.accepted)))
        case Painted():
            return tuple(number for number in made.labels.areas() if number)
    return ()


def click_ids(made: Event) -> tuple[int, ...]:
    """Return the numbers of the clicks an event makes."""
    match made:
        case ClickAdded():
            return (made.click_id,)
        case SuggestionsAccepted():
            return tuple(range(made.click_id, made.click_id + len(made.accepted)))
    return ()
