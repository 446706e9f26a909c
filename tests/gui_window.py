"""The dock in a real viewer, and hands that click on its canvas."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
from closed_form import FloodNetwork
from npe2 import PluginManifest
from qtpy.QtCore import QPoint, Qt

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment import dock as dock_module
from napari_cfrseg.gui.segment.layers import camera_of
from napari_cfrseg.gui.segment.worker import Job

PLUGIN, DOCK = "napari-cfrseg", "Segment with clicks"
PLACEMENT = {"scale": (0.2, 0.2), "translate": (30, -12), "units": ("um", "um")}


def flood() -> Segmenter:
    """Return a segmenter with a closed-form network."""
    return Segmenter(FloodNetwork(0.2), device="cpu")


def squares() -> np.ndarray:
    """Return two bright squares of 40 px on black, around (60, 60) and (60, 180)."""
    pixels = np.zeros((160, 240), np.uint8)
    pixels[40:80, 40:80] = 200
    pixels[40:80, 160:200] = 200
    return pixels


@contextmanager
def flood_window(make_napari_viewer, qtbot, npe2pm, monkeypatch, pixels):
    """Open a window on pixels, with a closed-form network behind the dock."""
    npe2pm.register(PluginManifest.from_distribution(PLUGIN))

    defaults = (lambda _: flood(), None)
    monkeypatch.setattr(dock_module.ClickDock.__init__, "__defaults__", defaults)
    made = Window(make_napari_viewer(show=True), qtbot, pixels)
    yield made
    made.dock.let_go()


@contextmanager
def flood_windows(make_napari_viewer, qtbot, npe2pm, monkeypatch, kind):
    """Give a function that opens a window of a kind on the layers to add."""
    for distribution in (PLUGIN, "napari"):
        npe2pm.register(PluginManifest.from_distribution(distribution))

    defaults = (lambda _: flood(), None)
    monkeypatch.setattr(dock_module.ClickDock.__init__, "__defaults__", defaults)
    windows = []

    def open_window(add):
        viewer = make_napari_viewer(show=True)
        add(viewer)
        windows.append(kind(viewer, qtbot))
        return windows[-1]

    yield open_window
    for window in windows:
        window.dock.let_go()


class Window:
    """A viewer with the dock open, and hands that click on its canvas."""

    def __init__(self, viewer, qtbot, image=None) -> None:
        """Open the dock, on an image to be added or on what the viewer has."""
        self.viewer, self.qtbot = viewer, qtbot
        if image is None:
            self.image = viewer.layers[0]
        else:
            self.image = viewer.add_image(image, name="cells", **PLACEMENT)
        _, self.dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
        self.until(lambda: self.dock.controller is not None)
        self.until(lambda: not self.view.loading)
        self.canvas = viewer.window._qt_viewer.canvas.native
        viewer.reset_view()
        self.settle()

    @property
    def view(self):
        return self.dock.controller.view

    @property
    def points(self):
        return self.dock.controller.clicks.layer

    @property
    def labels(self):
        return self.dock.controller.labels.layer

    def until(self, condition) -> None:
        self.qtbot.waitUntil(condition)

    def settle(self) -> None:
        self.until(lambda: self.view.pending == 0)
        self.qtbot.wait(20)

    @contextmanager
    def busy(self):
        """Keep the worker from what is asked for meanwhile."""
        go, none = threading.Event(), lambda _: None
        self.dock.controller.runner.submit(Job(lambda _: go.wait(20), none, none))
        try:
            yield
        finally:
            go.set()
        self.settle()

    def at(self, y: float, x: float) -> QPoint:
        """Where pixel (y, x) of the image is on the canvas."""
        world = np.asarray(self.image.data_to_world((y, x)))
        centre = np.asarray(camera_of(self.viewer).center[-2:])
        size = np.array([self.canvas.height(), self.canvas.width()])
        row, column = (world - centre) * camera_of(self.viewer).zoom + size / 2
        return QPoint(round(column), round(row))

    def point(self, *place: float) -> None:
        """Move the pointer to a pixel: at once, unlike a display's own pointer."""
        post(self.canvas, mouse_move(self.at(*place), Qt.MouseButton.NoButton))

    def click(self, y, x, button=Qt.MouseButton.LeftButton, settle=True) -> None:
        place = self.at(y, x)
        self.point(y, x)
        self.qtbot.mousePress(self.canvas, button, pos=place)
        self.qtbot.mouseRelease(self.canvas, button, pos=place)
        if settle:
            self.settle()

    def drag(
        self,
        start,
        end,
        modifier=Qt.KeyboardModifier.NoModifier,
        button=Qt.MouseButton.LeftButton,
    ) -> None:
        a, b = self.at(*start), self.at(*end)
        self.point(*start)
        self.qtbot.mousePress(self.canvas, button, modifier, pos=a)
        for share in (0.3, 0.6, 1.0):
            post(self.canvas, mouse_move(a + (b - a) * share, button, modifier))
        self.qtbot.mouseRelease(self.canvas, button, modifier, pos=b)
        self.settle()

    def press(self, key, modifier=Qt.KeyboardModifier.NoModifier) -> None:
        self.qtbot.keyClick(self.canvas, key, modifier)
        self.settle()

    def area(self, label: int) -> int:
        return int((self.labels.data == label).sum())


class PlanesWindow(Window):
    """Knows where (row, column) of the planes worked on is, whatever is displayed."""

    def at(self, y: float, x: float) -> QPoint:
        image = self.dock.controller.image
        place = image.to_layer((*(0 for _ in image.shape[:-2]), y, x))
        world = np.asarray(image.layer.data_to_world(place))
        missing = self.viewer.dims.ndim - image.layer.ndim
        shown = world[[axis - missing for axis in self.viewer.dims.displayed]]
        centre = np.asarray(camera_of(self.viewer).center[-2:])
        size = np.array([self.canvas.height(), self.canvas.width()])
        row, column = (shown - centre) * camera_of(self.viewer).zoom + size / 2
        return QPoint(round(column), round(row))

    def mask(self) -> np.ndarray:
        """Return what is labelled on the plane shown."""
        controller = self.dock.controller
        own = controller.image.of_own_array(controller.labels.layer.data)
        return np.asarray(own[controller.current_plane]) > 0


def mouse_move(place: QPoint, button, modifier=Qt.KeyboardModifier.NoModifier):
    from qtpy.QtCore import QEvent, QPointF
    from qtpy.QtGui import QMouseEvent

    return QMouseEvent(
        QEvent.Type.MouseMove,
        QPointF(place),
        QPointF(place),
        Qt.MouseButton.NoButton,
        button,
        modifier,
    )


def post(widget, event) -> None:
    """Send an event; vispy ignores moves within 10 ms of another."""
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    QApplication.sendEvent(widget, event)
    QTest.qWait(15)
