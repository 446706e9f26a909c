"""A real window with the dock, and a mouse, for measurements."""

from __future__ import annotations

import sys

import napari
import numpy as np
from gui_gap import Ticker, run_until
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_cfrseg.gui.manifest import DOCK, PLUGIN, layer_of
from napari_cfrseg.gui.segment.dock import ClickDock
from napari_cfrseg.samples import load_sample


class Hands:
    """A window with the dock, and a mouse; ``problems`` is what went wrong."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        sys.excepthook = lambda *error: self.problems.append(f"traceback: {error[1]!r}")
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 720)
        _, dock = self.viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
        self.dock: ClickDock = dock
        QApplication.processEvents()
        self.ticker = Ticker()
        self.canvas = next(
            widget
            for widget in dock.window().findChildren(QWidget)
            if type(widget).__module__.startswith("vispy.")
        )

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
        controller, camera = self.dock.controller, self.viewer.scene.camera
        index = controller.image.to_layer((*controller.current_plane, y, x))
        world = np.asarray(controller.image.layer.data_to_world(index))[-2:]
        middle = np.array([self.canvas.height(), self.canvas.width()]) / 2
        row, column = (world - np.asarray(camera.center[-2:])) * camera.zoom + middle
        return QPoint(round(column), round(row))

    def move(self, y: float, x: float) -> None:
        """Move the pointer to a pixel; QTest's own moves may come late."""
        place, button = QPointF(self.place(y, x)), Qt.MouseButton.NoButton
        kind, no_key = QEvent.Type.MouseMove, Qt.KeyboardModifier.NoModifier
        QApplication.sendEvent(
            self.canvas, QMouseEvent(kind, place, place, button, button, no_key)
        )

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
