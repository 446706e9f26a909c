"""Keys on the canvas that napari does not get, and a box drawn over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QRubberBand, QWidget

from napari_cfrseg.gui.dock_widget import on_current

if TYPE_CHECKING:
    from napari_cfrseg.gui.dock_widget import Current


class CanvasExtras:
    """Extras on the canvases of one window; ``current`` is what the keys act on."""

    def __init__(self, current: Current) -> None:
        self._current = current
        self._shortcuts: list[QShortcut] = []
        self._band: QRubberBand | None = None

    def find(self, window: QWidget) -> None:
        """Take the canvases in a window, in place of those taken before."""
        self.close()
        canvases = [
            widget
            for widget in window.findChildren(QWidget)
            if type(widget).__module__.startswith("vispy.")
        ]
        self._band = QRubberBand(
            QRubberBand.Shape.Rectangle, next(iter(canvases), window)
        )
        for key, act in (
            ("Tab", lambda c: c.other_mask()),
            ("Shift+Tab", lambda c: c.other_mask(-1)),
            ("?", lambda c: c.show_keys()),
        ):
            for canvas in canvases:
                shortcut = QShortcut(QKeySequence(key), canvas)
                shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
                shortcut.activated.connect(on_current(self._current, act))
                self._shortcuts.append(shortcut)

    def close(self) -> None:
        """Give the keys back."""
        for made in (*self._shortcuts, *filter(None, [self._band])):
            made.deleteLater()
        self._shortcuts.clear()
        self._band = None

    def show_band(self, start: tuple[float, ...], end: tuple[float, ...]) -> None:
        """Show a box between two places of the canvas; () for none."""
        if self._band is not None:
            self._band.setVisible(bool(start))
        if self._band is not None and start:
            corners = [
                QPoint(round(place[0]), round(place[1])) for place in (start, end)
            ]
            self._band.setGeometry(QRect(*corners).normalized())
