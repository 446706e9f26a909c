"""Keys on the canvas that napari does not get, a box over it, presses without delay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QRubberBand, QWidget
from vispy.scene import SceneCanvas, ViewBox, VisualNode

from napari_cfrseg.gui.dock_widget import on_current

if TYPE_CHECKING:
    from napari_cfrseg.gui.dock_widget import Current


class CanvasExtras:
    """Extras on the canvases of one window; ``current`` is what the keys act on."""

    def __init__(self, current: Current) -> None:
        self._current = current
        self._shortcuts: list[QShortcut] = []
        self._undo: list[Callable[[], object]] = []
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
        for canvas in canvases:
            self._undo.append(find_by_place(canvas))
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
        """Give the keys back, and find what is pressed as before."""
        while self._undo:
            self._undo.pop()()
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


def find_by_place(widget: QWidget) -> Callable[[], object]:
    """Let vispy find what is pressed on a canvas by its place; return the undoing.

    SPEED: at each press and turn of the wheel vispy draws all layers once more, each
    in a colour of its own, only to read which one is under the pointer, and then the
    canvas again: some 40 ms without a graphics card. In napari nothing but the views
    takes the mouse. There is no public way from the widget to its canvas; without it,
    or where something else than a view takes the mouse, vispy draws as before.
    """
    canvas = getattr(widget, "_vispy_canvas", None)
    if not isinstance(canvas, SceneCanvas):
        return lambda: None
    drawn = canvas.visual_at

    def visual_at(place: Any) -> Any:
        with suppress(AttributeError, TypeError, ValueError):
            visuals = (n for n in _shown(canvas.scene) if isinstance(n, VisualNode))
            takers = [visual for visual in visuals if visual.interactive]
            if all(isinstance(node, ViewBox) for node in takers):
                return next((n for n in takers if _holds(canvas, n, place)), None)
        return drawn(place)

    canvas.unfreeze()
    canvas.visual_at = visual_at
    canvas.freeze()
    return lambda: vars(canvas).pop("visual_at", None)


def _shown(node: Any) -> Iterator[Any]:
    """Yield a node and those in it that are visible, what is drawn last first."""
    if node.visible:
        for child in sorted(node.children, key=lambda one: one.order, reverse=True):
            yield from _shown(child)
        yield node


def _holds(canvas: SceneCanvas, view: ViewBox, place: Any) -> bool:
    x, y = canvas.scene.node_transform(view).map(place)[:2]
    return bool(view.rect.contains(x, y))
