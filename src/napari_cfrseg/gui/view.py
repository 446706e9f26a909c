"""What the dock shows, as one frozen value made by the controller."""

from __future__ import annotations

from dataclasses import dataclass, field

from napari_cfrseg.engine.cascade import DEFAULT_REFINEMENT, Refinement
from napari_cfrseg.engine.events import OverlapRule
from napari_cfrseg.gui.propagation import StackView


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One row of the object table."""

    object_id: int
    name: str
    colour: str
    clicks: int
    locked: bool
    object_class: str = ""


@dataclass(frozen=True, slots=True)
class DockView:
    """Everything the dock shows.

    Attributes
    ----------
    objects
        The table's rows, by id.
    selected
        The object that clicks go to; None: the next click starts object ``next_id``.
    is_positive
        The polarity of a left click.
    threshold, refinement, rule
        Settings in force.
    undo_depth, redo_depth
        Acts that can be taken back and done again.
    pending
        Acts not computed yet.
    model
        Name or path of the model; "" if it has none.
    loading
        Whether it is being loaded.
    status
        One line for the person.
    timing
        Device and time of the last click.
    stack
        The strip of planes; empty for an image of one plane.
    """

    objects: tuple[ObjectRow, ...] = ()
    selected: int | None = None
    next_id: int = 1
    is_positive: bool = True
    threshold: float = 0.5
    refinement: Refinement = DEFAULT_REFINEMENT
    rule: OverlapRule = OverlapRule.KEEP
    undo_depth: int = 0
    redo_depth: int = 0
    pending: int = 0
    model: str = ""
    loading: bool = False
    status: str = ""
    timing: str = ""
    stack: StackView = field(default_factory=StackView)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was done yet, so that nothing is lost by beginning anew."""
        acts = self.undo_depth or self.redo_depth or self.pending
        return not (self.objects or acts)
