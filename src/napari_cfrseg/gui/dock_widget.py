"""What both docks are: a column of controls that scrolls, and lets go once closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget

if TYPE_CHECKING:
    import napari
    from napari.layers import Image


class DockWidget(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """A dock's contents; a subclass says in :meth:`let_go` what closing it ends."""

    def __init__(self) -> None:
        self._was_docked = False  # events come while Qt begins
        super().__init__()

    def let_go(self) -> None:
        """End what the dock began; called more than once."""
        raise NotImplementedError

    def fill_with(self, column: QWidget, narrowest_px: int) -> None:
        """Fill the dock with a column that scrolls where it is too low for it."""
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setWidget(column)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.setMinimumWidth(narrowest_px)

    def changeEvent(self, event: QEvent) -> None:
        """Let go when napari takes the dock away (its × button)."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._was_docked = True
            elif self._was_docked:
                self.let_go()

    def closeEvent(self, event: QEvent) -> None:
        """Let go with the window."""
        self.let_go()
        super().closeEvent(event)


def images_of(viewer: napari.Viewer) -> list[Image]:
    """Return the viewer's images; other layers that derive from Image are not."""
    from napari.layers import Image

    return [layer for layer in viewer.layers if type(layer) is Image]
