"""One part for each kind of event: how it is written, and what it means.

The names and defaults here are the file format; they change only with the schema
version, whatever becomes of the engine's classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from napari_cfrseg.session.fields import (
    ClickId,
    Colour,
    FocusShift,
    Hint,
    Index,
    LabelsPart,
    MaskPart,
    ObjectId,
    Part,
    PlaneIndex,
    Position,
    RefinementPart,
    ScalingPart,
    Sha256,
    Side,
    Spacing,
    Text,
    Threshold,
)


class ObjectCreatedPart(Part):
    """A new, empty object."""

    type: Literal["object_created"] = "object_created"
    object: ObjectId
    name: Text = ""
    colour: Colour | None = None
    threshold: Threshold = 0.5


class ObjectDeletedPart(Part):
    """An object is gone."""

    type: Literal["object_deleted"] = "object_deleted"
    object: ObjectId


class ObjectRenamedPart(Part):
    """An object's name changed."""

    type: Literal["object_renamed"] = "object_renamed"
    object: ObjectId
    name: Text


class ObjectRecolouredPart(Part):
    """An object's colour changed."""

    type: Literal["object_recoloured"] = "object_recoloured"
    object: ObjectId
    colour: Colour


class ObjectClassifiedPart(Part):
    """What an object is; empty: nothing is said. Since version 2."""

    type: Literal["object_classified"] = "object_classified"
    object: ObjectId
    object_class: Text = ""


class ObjectLockedPart(Part):
    """An object was locked or unlocked."""

    type: Literal["object_locked"] = "object_locked"
    object: ObjectId
    locked: bool


class ObjectResetPart(Part):
    """An object's clicks and painted edits on a plane are gone."""

    type: Literal["object_reset"] = "object_reset"
    object: ObjectId
    plane: PlaneIndex = Field(default_factory=list)


class ClickAddedPart(Part):
    """One click.

    ``scaling`` is what the network saw as black and white on this plane; it is written
    with a plane's first click and holds for all its clicks.
    """

    type: Literal["click_added"] = "click_added"
    object: ObjectId
    click: ClickId
    plane: PlaneIndex = Field(default_factory=list)
    yx: Position
    positive: bool
    focus_shift: FocusShift = 0
    hint: Hint | None = None
    position: Index | None = None
    scaling: ScalingPart | None = None


class MovePart(Part):
    """A click's new place."""

    click: ClickId
    yx: Position


class ClicksMovedPart(Part):
    """Clicks were dragged, in one act."""

    type: Literal["clicks_moved"] = "clicks_moved"
    moves: list[MovePart]


class ClickRefocusedPart(Part):
    """A click looks closer or wider than it did."""

    type: Literal["click_refocused"] = "click_refocused"
    click: ClickId
    focus_shift: FocusShift


class ClicksRemovedPart(Part):
    """Clicks were deleted, in one act."""

    type: Literal["clicks_removed"] = "clicks_removed"
    clicks: list[ClickId]


class PaintedPart(Part):
    """Labels painted by hand; label 0 erases."""

    type: Literal["painted"] = "painted"
    plane: PlaneIndex = Field(default_factory=list)
    labels: LabelsPart


class MaskImportedPart(Part):
    """A mask an object starts from on a plane."""

    type: Literal["mask_imported"] = "mask_imported"
    object: ObjectId
    plane: PlaneIndex = Field(default_factory=list)
    mask: MaskPart


class LabelsImportedPart(Part):
    """Every label of a plane becomes an object."""

    type: Literal["labels_imported"] = "labels_imported"
    plane: PlaneIndex = Field(default_factory=list)
    labels: LabelsPart


class PropagatedPart(Part):
    """Objects were carried from annotated planes to others. Since version 2.

    ``results``: how many planes were kept of what was cancelled; null: all.
    """

    type: Literal["propagated"] = "propagated"
    objects: Annotated[list[ObjectId], Field(min_length=1)]
    plane: Annotated[PlaneIndex, Field(min_length=1)]
    axis: Index
    first: Index
    last: Index
    count: Side
    spacing: Spacing
    spans: bool = False
    only_stale: bool = True
    results: Index | None = None


class PlaneConfirmedPart(Part):
    """A propagated mask was found right. Since version 2."""

    type: Literal["plane_confirmed"] = "plane_confirmed"
    object: ObjectId
    plane: PlaneIndex = Field(default_factory=list)


class ThresholdChangedPart(Part):
    """An object's probability threshold changed."""

    type: Literal["threshold_changed"] = "threshold_changed"
    object: ObjectId
    threshold: Threshold


class RefinementChangedPart(Part):
    """Clicks from now on use another refinement."""

    type: Literal["refinement_changed"] = "refinement_changed"
    refinement: RefinementPart


class ModelChangedPart(Part):
    """Rounds from now on use other weights. Since version 2."""

    type: Literal["model_changed"] = "model_changed"
    name: Text
    sha256: Sha256 | None = None


class OverlapChangedPart(Part):
    """The overlap rule from now on."""

    type: Literal["overlap_changed"] = "overlap_changed"
    rule: Annotated[str, Field(pattern=r"^(keep|overwrite)$")]


class UndonePart(Part):
    """The last act was taken back."""

    type: Literal["undone"] = "undone"


class RedonePart(Part):
    """The last act taken back was done again."""

    type: Literal["redone"] = "redone"


EventPart = Annotated[
    ObjectCreatedPart
    | ObjectDeletedPart
    | ObjectRenamedPart
    | ObjectRecolouredPart
    | ObjectClassifiedPart
    | ObjectLockedPart
    | ObjectResetPart
    | ClickAddedPart
    | ClicksMovedPart
    | ClickRefocusedPart
    | ClicksRemovedPart
    | PaintedPart
    | MaskImportedPart
    | LabelsImportedPart
    | PropagatedPart
    | PlaneConfirmedPart
    | ThresholdChangedPart
    | RefinementChangedPart
    | ModelChangedPart
    | OverlapChangedPart
    | UndonePart
    | RedonePart,
    Field(discriminator="type"),
]
