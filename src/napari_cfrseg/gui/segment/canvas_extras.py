"""Extras on napari's canvases: keys it does not get, a box, presses and frames.

Two of them spare a person waiting: a press is answered without drawing all layers, and
a new frame leaves room for the mouse and the keys while it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QCoreApplication, QEvent, QObject, QPoint, QRect, Qt, QTimer
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QRubberBand, QWidget
from vispy.scene import SceneCanvas, ViewBox, VisualNode

from napari_cfrseg.gui.dock_widget import on_current
from napari_cfrseg.gui.preferences import ACTIONS, shown_key

if TYPE_CHECKING:
    from napari_cfrseg.gui.dock_widget import Current


class CanvasExtras:
    """Extras on the canvases of one window; ``current`` is what the keys act on.

    ``keys`` are by the name of their action.
    """

    def __init__(self, current: Current, keys: dict[str, str]) -> None:
        self._current, self._keys = current, keys
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
            frames = FramesInTurns.on(canvas)
            if frames is not None:
                self._undo.append(frames.close)
        for action in (a for a in ACTIONS if not a.layers):
            key = QKeySequence(shown_key(self._keys, action.name))
            for canvas in canvases:
                shortcut = QShortcut(key, canvas)
                shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
                does = on_current(self._current, action.run, at_once=action.at_once)
                shortcut.activated.connect(does)
                self._shortcuts.append(shortcut)

    def close(self) -> None:
        """Give the keys back; find what is pressed, and draw, as before."""
        while self._undo:
            self._undo.pop()()
        for made in (*self._shortcuts, *filter(None, [self._band])):
            made.deleteLater()
        self._shortcuts.clear()
        self._band = None

    def show_band(self, start: tuple[float, ...], end: tuple[float, ...]) -> None:
        """Show a box between two places of the canvas; () for none."""
        if self._band is None:
            return
        self._band.setVisible(bool(start))
        if start:
            corners = (QPoint(round(x), round(y)) for x, y in (start, end))
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


class FramesInTurns(QObject):  # type: ignore[misc]  # qtpy is untyped
    """Draws a canvas in one turn of the event loop, and shows the window in the next.

    SPEED: Qt draws the canvas and then composes the whole window, in the turn that
    changed the layers. Without a graphics card that is some 10 + 10 ms more, in which
    no key and no movement of the mouse is answered. Here the window's request to be
    repainted waits for the next turn, and until layers that changed are drawn, in a
    turn of its own; between turns Qt answers what came meanwhile. What Qt asks for at
    once (a resized or uncovered window, a screenshot) is drawn as before.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__()
        # the window itself would be held, and so leaked, by whatever holds this
        self._widget, self._paint = widget, widget.paintGL
        self._behaviour = widget.updateBehavior()
        #: the layers changed since they were drawn; what is drawn waits for Qt
        self._stale, self._drawn = False, False
        self._passes = False  #: the next request to repaint is answered
        self._timer = QTimer(widget, singleShot=True, interval=0)
        self._timer.timeout.connect(self._next_turn)
        vars(widget).update(_vispy_update=self._on_update, paintGL=self._on_paint)
        # Qt would empty what is drawn before it asks for it
        widget.setUpdateBehavior(type(widget).UpdateBehavior.PartialUpdate)
        for watched in (widget, widget.window()):
            watched.installEventFilter(self)

    @classmethod
    def on(cls, widget: QWidget) -> FramesInTurns | None:
        """Begin on a canvas; None where it is not drawn the way this needs."""
        needed = ("_vispy_update", "paintGL", "makeCurrent", "updateBehavior")
        return cls(widget) if all(hasattr(widget, name) for name in needed) else None

    def close(self) -> None:
        """Let Qt draw as before."""
        for watched in (self._widget, self._widget.window()):
            watched.removeEventFilter(self)
        for name in ("_vispy_update", "paintGL"):
            vars(self._widget).pop(name, None)
        self._widget.setUpdateBehavior(self._behaviour)
        if self._timer.isActive():
            self._timer.stop()
            self._request()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let a window that is to be repainted wait for its canvas."""
        kind = event.type()
        if watched is self._widget:
            self._drawn &= kind not in (QEvent.Type.Hide, QEvent.Type.Resize)
            return False
        if kind != QEvent.Type.UpdateRequest:
            return False
        # layers may have changed since it was asked for
        passes, self._passes = self._passes and not self._is_due, False
        if not passes:
            self._timer.start()
        return not passes

    @property
    def _is_due(self) -> bool:
        """Whether the canvas is to be drawn in a turn of its own."""
        return self._stale and not self._drawn and bool(self._widget.isVisible())

    def _next_turn(self) -> None:
        if self._is_due:
            try:
                self._widget.makeCurrent()
                self._draw()
                self._widget.doneCurrent()
            finally:
                self._drawn = True
                self._timer.start()
            return
        self._passes = True
        self._request()

    def _request(self) -> None:
        # Qt sends no second request before the one that waits is answered
        request = QEvent(QEvent.Type.UpdateRequest)
        QCoreApplication.postEvent(self._widget.window(), request)

    def _on_update(self) -> None:
        self._stale = True
        self._widget.update()

    def _on_paint(self) -> None:
        """Draw for Qt, unless that is done."""
        if self._stale or not self._drawn:
            self._draw()
        self._drawn = False

    def _draw(self) -> None:
        self._stale = False
        self._paint()


def _shown(node: Any) -> Iterator[Any]:
    """Yield a node and those in it that are visible, what is drawn last first."""
    if node.visible:
        for child in sorted(node.children, key=lambda one: one.order, reverse=True):
            yield from _shown(child)
        yield node


def _holds(canvas: SceneCanvas, view: ViewBox, place: Any) -> bool:
    x, y = canvas.scene.node_transform(view).map(place)[:2]
    return bool(view.rect.contains(x, y))
