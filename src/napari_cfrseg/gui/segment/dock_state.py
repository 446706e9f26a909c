"""What the dock shows now: one view, changed in one place and told whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.engine.refinement import DEFAULT_REFINEMENT, Refinement
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.gui.stack.propagator import StackView


class DockState:
    """The objects as last computed, and the view made of them.

    Parameters
    ----------
    changed
        Told each new view.
    notify
        Told (level, message), level "info", "warning" or "error". An attribute, too.

    Attributes
    ----------
    view
        What the dock shows.
    objects
        By id, as the annotator last told them.
    device
        What the model computes on; "" before it is loaded.
    """

    def __init__(
        self,
        changed: Callable[[DockView], None],
        notify: Callable[[str, str], None],
    ) -> None:
        self._changed = changed
        self.notify = notify
        self.view = DockView()
        self.objects: dict[int, ObjectState] = {}
        self.device = ""

    def show(self, **changes: Any) -> None:
        """Change fields of the view; tell it unless it stays as it was."""
        view = replace(self.view, **changes)
        if view != self.view:
            self.view = view
            self._changed(view)

    def tell(self, error: Exception) -> None:
        """Tell the person of an error they can mend; any other is raised."""
        if not isinstance(error, CfrSegError):
            raise error
        self.show(status=str(error))
        self.notify("warning", str(error))


def object_rows(objects: Mapping[int, ObjectState]) -> tuple[ObjectRow, ...]:
    """Return the rows of the object table, by id."""
    return tuple(
        ObjectRow(
            s.object_id, s.name, s.colour, s.click_count, s.locked, s.object_class
        )
        for s in sorted(objects.values(), key=lambda s: s.object_id)
    )


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
