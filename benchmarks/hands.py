"""A real window with the dock, and a mouse, for measurements."""

from __future__ import annotations

import sys
import time

import napari
import numpy as np
from gui_gap import Ticker, run_until
from numpy.typing import ArrayLike
from qtpy.QtCore import QEvent, QObject, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_cfrseg.gui.manifest import DOCK, PLUGIN, layer_of
from napari_cfrseg.gui.segment.dock import ClickDock
from napari_cfrseg.samples import load_sample


class Composing(QObject):
    """Times how long Qt takes to compose a window of which a canvas was drawn.

    That is from the request that Qt answers to the swap of its buffers, in one turn of
    the event loop; it is counted apart from the other gaps of ``ticker``.
    """

    def __init__(self, window: QWidget, canvas: QWidget, ticker: Ticker) -> None:
        super().__init__(window)
        self._ticker, self._asked_s = ticker, 0.0
        self.seconds: list[float] = []
        window.installEventFilter(self)
        canvas.frameSwapped.connect(self._swapped)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Remember when it was asked for."""
        if event.type() == QEvent.Type.UpdateRequest:
            self._asked_s = time.perf_counter()
        return False

    def _swapped(self) -> None:
        self.seconds.append(time.perf_counter() - self._asked_s)
        self._ticker.apart_s += self.seconds[-1]


class Pointer:
    """A mouse over the canvas of the viewer that ``dock`` is in."""

    def __init__(self, viewer: napari.Viewer, dock: QWidget) -> None:
        self.viewer = viewer
        viewer.window.resize(1280, 720)
        QApplication.processEvents()
        self.ticker = Ticker()
        self.canvas = next(
            widget
            for widget in dock.window().findChildren(QWidget)
            if type(widget).__module__.startswith("vispy.")
        )
        self.composing = Composing(dock.window(), self.canvas, self.ticker)

    def over(self, world: ArrayLike) -> QPoint:
        """Return where a world position, (…, y, x), is on the canvas."""
        camera = self.viewer.scene.camera
        middle = np.array([self.canvas.height(), self.canvas.width()]) / 2
        shift = np.asarray(world)[-2:] - np.asarray(camera.center[-2:])
        row, column = shift * camera.zoom + middle
        return QPoint(round(column), round(row))

    def move_to(self, place: QPoint) -> None:
        """Move the pointer on the canvas; QTest's own moves may come late."""
        kind, button = QEvent.Type.MouseMove, Qt.MouseButton.NoButton
        no_key, at = Qt.KeyboardModifier.NoModifier, QPointF(place)
        event = QMouseEvent(kind, at, at, button, button, no_key)
        QApplication.sendEvent(self.canvas, event)


class Hands(Pointer):
    """A window with the dock, and a mouse; ``problems`` is what went wrong."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        sys.excepthook = lambda *error: self.problems.append(f"traceback: {error[1]!r}")
        viewer = napari.Viewer()
        self.dock: ClickDock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)[1]
        super().__init__(viewer, self.dock)

    def open(self, name: str) -> None:
        """Show a micrograph and choose it."""
        data, kwargs, _ = layer_of(load_sample(name))
        layer = self.viewer.add_image(data, **kwargs)
        self.dock.image_choice.value = layer
        self.wait()
        self.viewer.reset_view()

    def wait(self) -> None:
        """Wait until the model is loaded and no click is on its way."""

        def is_ready() -> bool:
            found = self.dock.controller
            waits = found is None or found.view.loading or found.view.pending
            return not (waits or found.view.progress[1])

        run_until(is_ready)

    def place(self, y: float, x: float) -> QPoint:
        """Return where a pixel is on the canvas."""
        controller = self.dock.controller
        index = controller.image.to_layer((*controller.current_plane, y, x))
        return self.over(controller.image.layer.data_to_world(index))

    def move(self, y: float, x: float) -> None:
        """Move the pointer to a pixel."""
        self.move_to(self.place(y, x))

    def click(self, y: float, x: float, *, right: bool = False) -> None:
        """Click on a pixel; it must become a point, or the dock must say why not."""
        controller = self.dock.controller
        before, status = len(controller.clicks.rows), controller.view.status
        button = Qt.MouseButton.RightButton if right else Qt.MouseButton.LeftButton
        place = self.place(y, x)
        self.move(y, x)
        QTest.mousePress(self.canvas, button, pos=place)
        QTest.mouseRelease(self.canvas, button, pos=place)
        self.wait()
        if len(controller.clicks.rows) == before and controller.view.status == status:
            self.problems.append(f"dead click at {y:.0f}, {x:.0f}")
