"""What the dock shows now: one view, changed in one place and told whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from napari_cfrseg.engine.objects import ObjectState
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.gui.view import DockView, ObjectRow


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
