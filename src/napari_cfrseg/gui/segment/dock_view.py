"""The state that the dock shows: frozen values, made by the projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.refinement import DEFAULT_REFINEMENT, Refinement
from napari_cfrseg.engine.suggestions import ACCEPT_FROM
from napari_cfrseg.errors import counted

Kind = Literal["none", "anchor", "carried", "stopped"]


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One row of the object table."""

    object_id: int
    name: str
    colour: str
    clicks: int
    locked: bool
    object_class: str = ""
    area_px: int = 0  #: on all planes
    planes: int = 0  #: that it is on


@dataclass(frozen=True, slots=True, eq=False)
class Remedy:
    """A button beside the status line that mends what the line speaks of."""

    text: str
    act: Callable[[], object]


@dataclass(frozen=True, slots=True)
class StripCell:
    """One plane of the strip; ``confidence`` is the IoU expected, 1 if annotated."""

    kind: Kind = "none"
    confidence: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True)
class StackView:
    """The state of the stack that the dock shows.

    ``axes`` are the names of those that can be walked along, ``axis`` is the one that
    is; there is a cell for each plane along it. ``worst`` is the plane to look at next,
    ``all_objects``: every unlocked object is propagated, not only the selected one.
    """

    axes: tuple[str, ...] = ()
    axis: int = 0
    cells: tuple[StripCell, ...] = ()
    here: int = 0
    worst: int | None = None
    all_objects: bool = False


@dataclass(frozen=True, slots=True)
class SuggestionsView:
    """Suggestions as the dock shows them: scores, slider, whether more come.

    ``follows``: the view is searched again when it moves.
    """

    scores: tuple[float, ...] = ()
    threshold: float = ACCEPT_FROM
    running: bool = False
    follows: bool = True

    @property
    def sure(self) -> int:
        """How many the slider accepts."""
        return sum(score >= self.threshold for score in self.scores)


@dataclass(frozen=True, slots=True)
class LearningView:
    """Whether lessons are wanted, what came of the last one, whether it is in use."""

    wanted: bool = False
    text: str = ""
    in_use: bool = False


@dataclass(frozen=True, slots=True)
class DockView:
    """Everything the dock shows."""

    objects: tuple[ObjectRow, ...] = ()
    #: the object that clicks go to; None: the next click starts object ``next_id``
    selected: int | None = None
    next_id: int = 1
    is_positive: bool = True  #: the polarity of a left click
    threshold: float = 0.5
    refinement: Refinement = DEFAULT_REFINEMENT
    rule: ev.OverlapRule = ev.OverlapRule.KEEP
    undo_depth: int = 0
    redo_depth: int = 0
    pending: int = 0  #: acts not computed yet
    model: str = ""  #: name or path; "" where there is none yet
    loading: bool = False
    device: str = ""  #: what the model computes on; "" where there is none yet
    #: the program that computes, and why it and the device were chosen
    backend: str = ""
    placement: str = ""
    precision: str = "float32"
    #: time and refinement steps of the last click; None: there is none
    seconds: float | None = None
    steps: int = 0
    #: steps done, and of how many, of a long act; (0, 0): none is under way
    progress: tuple[int, int] = (0, 0)
    #: one line for the person, and what mends it if anything does
    status: str = ""
    remedy: Remedy | None = None
    #: whether objects are drawn as outlines; None: there is no image
    outlined: bool | None = None
    #: the strip of planes; empty for an image of one plane
    stack: StackView = field(default_factory=StackView)
    #: area of a pixel, or volume of a voxel, and its unit
    pixel_size: tuple[float, str] = (1.0, "px")
    #: what is suggested on the plane shown
    suggestions: SuggestionsView = field(default_factory=SuggestionsView)
    #: whether first clicks follow finished objects
    learning: LearningView = field(default_factory=LearningView)

    @property
    def timing(self) -> str:
        """Device, time and steps of the last click, in one line."""
        by = self.backend.split(" ")[0]
        device = f"{self.device} ({by})" if by not in ("", "torch") else self.device
        if self.seconds is None:
            return device
        steps = counted(self.steps, "step")
        return f"{device} · {1000 * self.seconds:.0f} ms · {steps}".removeprefix(" · ")

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was done yet, so that starting again loses nothing."""
        done = self.objects or self.undo_depth or self.redo_depth
        return not (done or self.pending or self.progress[1])
