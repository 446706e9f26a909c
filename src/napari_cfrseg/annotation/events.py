"""What a person did, one frozen value per act, in the order it was done.

``Annotator.apply`` turns each event into changes of objects and labels. A list of
events together with the image and the model's weights *is* the annotation: the window,
a saved session and a headless replay all feed the same values to the same method.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.geometry.masks import LabelRuns, Plane


class OverlapRule(StrEnum):
    """Who gets a pixel that two objects' masks hold."""

    KEEP = "keep"
    """the object that already has it"""
    OVERWRITE = "overwrite"
    """the object that was worked on last; never at a locked object's cost"""


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """A new, empty object; ``object_id`` (≥ 1) is its label."""

    object_id: int
    name: str = ""
    colour: str | None = None
    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class ObjectDeleted:
    """An object is gone, with its clicks and pixels on every plane."""

    object_id: int


@dataclass(frozen=True, slots=True)
class ObjectRenamed:
    """An object's name changed."""

    object_id: int
    name: str


@dataclass(frozen=True, slots=True)
class ObjectRecoloured:
    """An object's colour (``#rrggbb``) changed."""

    object_id: int
    colour: str


@dataclass(frozen=True, slots=True)
class ObjectClassified:
    """What an object is ("nucleus", "artefact") was said, or (empty) taken back."""

    object_id: int
    object_class: str


@dataclass(frozen=True, slots=True)
class ObjectLocked:
    """An object was locked (nothing changes it any more) or unlocked."""

    object_id: int
    locked: bool


@dataclass(frozen=True, slots=True)
class ObjectReset:
    """An object's clicks and painted edits on a plane are gone.

    A mask it was imported with comes back.
    """

    object_id: int
    plane: Plane


@dataclass(frozen=True, slots=True)
class ClickAdded:
    """One click for an object.

    Attributes
    ----------
    object_id
        Whose click.
    plane
        The plane clicked on.
    click
        Position on the plane and sign.
    click_id
        Unique number, by which the click is moved or removed.
    focus_shift
        Steps to a smaller (negative) or larger (positive) focus window.
    hint
        What was known of the object's size (what the person was looking at), or None.
    position
        Before which of the object's entries on the plane it goes; None: after the last.
    """

    object_id: int
    plane: Plane
    click: Click
    click_id: int
    focus_shift: int = 0
    hint: FocusHint | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class ClicksMoved:
    """Clicks were dragged, in one act: (click_id, new (row, column)) each."""

    moves: tuple[tuple[int, tuple[float, float]], ...]


@dataclass(frozen=True, slots=True)
class ClickRefocused:
    """A click looks closer or wider than it did; its ``focus_shift`` is now this."""

    click_id: int
    focus_shift: int


@dataclass(frozen=True, slots=True)
class ClicksRemoved:
    """Clicks were deleted, in one act."""

    click_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Painted:
    """Labels were painted by hand on a plane; label 0 erases."""

    plane: Plane
    labels: LabelRuns


@dataclass(frozen=True, slots=True)
class MaskImported:
    """A mask the object starts from on a plane; clicks then correct it.

    Any clicks the object had on that plane are computed anew from it.
    """

    object_id: int
    plane: Plane
    mask: LabelRuns


@dataclass(frozen=True, slots=True)
class LabelsImported:
    """Every label of a plane (Cellpose, StarDist, painted) becomes an object.

    A label whose number is already an object's is that object's start mask.
    """

    plane: Plane
    labels: LabelRuns


@dataclass(frozen=True, slots=True)
class Propagated:
    """Objects were carried from their annotated planes to others (see propagation).

    Attributes
    ----------
    object_ids
        Which objects.
    plane
        A plane of the line walked along; its entry at ``axis`` does not count.
    axis
        Which of the plane's indices is walked along.
    first, last
        From which plane to which, both inclusive.
    count
        How many planes there are along the axis.
    spacing
        (between planes, y, x) size of a voxel.
    spans
        The objects reach from first to last: runs do not end where they fade.
    only_stale
        Leave out what is as it would become: gaps whose anchors are the same.
    results
        How many planes were kept of what was cancelled; None: all.
    """

    object_ids: tuple[int, ...]
    plane: Plane
    axis: int
    first: int
    last: int
    count: int
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    spans: bool = False
    only_stale: bool = True
    results: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < self.count:
            msg = f"planes {self.first} to {self.last} of {self.count}: no such range"
            raise ValueError(msg)
        if not 0 <= self.axis < len(self.plane):
            msg = f"axis {self.axis} of a plane with index {self.plane}"
            raise ValueError(msg)
        if not all(0 < v < float("inf") for v in self.spacing):
            msg = f"voxel size {self.spacing}: expected three positive numbers"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class PlaneConfirmed:
    """A propagated mask was found right: from now on it is annotated, an anchor."""

    object_id: int
    plane: Plane


@dataclass(frozen=True, slots=True)
class ThresholdChanged:
    """The probability from which a pixel belongs to the object changed."""

    object_id: int
    threshold: float

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < 1.0:
            msg = f"threshold {self.threshold}: must lie between 0 and 1"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class RefinementChanged:
    """Clicks made from now on use another refinement."""

    refinement: Refinement


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """Rounds computed from now on use other weights.

    What was computed before stays; a click that is moved later is computed anew.

    Attributes
    ----------
    name
        The model's name.
    sha256
        Of its weights file; None: not known.
    """

    name: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class OverlapChanged:
    """The overlap rule from now on."""

    rule: OverlapRule

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", OverlapRule(self.rule))


@dataclass(frozen=True, slots=True)
class Undone:
    """The last act that changed objects or labels is taken back."""


@dataclass(frozen=True, slots=True)
class Redone:
    """The last act taken back is done again."""


Event = (
    ObjectCreated
    | ObjectDeleted
    | ObjectRenamed
    | ObjectRecoloured
    | ObjectClassified
    | ObjectLocked
    | ObjectReset
    | ClickAdded
    | ClicksMoved
    | ClickRefocused
    | ClicksRemoved
    | Painted
    | MaskImported
    | LabelsImported
    | Propagated
    | PlaneConfirmed
    | ThresholdChanged
    | RefinementChanged
    | ModelChanged
    | OverlapChanged
    | Undone
    | Redone
)
