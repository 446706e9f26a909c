"""Planes across Y and X in a real viewer: clicked, propagated, painted, undone."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import FloodNetwork
from gui_window import PLUGIN, Window
from npe2 import PluginManifest
from qtpy.QtCore import QPoint, Qt
from replayed import replay

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment import dock as dock_module
from napari_cfrseg.io.axes import back

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]
SHAPE, SCALE = (20, 40, 56), (2.0, 0.5, 0.5)


def stack():
    """A ball in the specimen: four times as long in pixels as it is in planes."""
    z, y, x = np.mgrid[tuple(slice(0, n) for n in SHAPE)]
    inside = ((z - 9) / 4) ** 2 + ((y - 20) / 16) ** 2 + ((x - 26) / 16) ** 2 < 1
    return np.where(inside, 150, 20).astype(np.uint8), inside


class TurnedWindow(Window):
    """Knows where a voxel is on the canvas, whichever axes are displayed."""

    def at(self, *index: float) -> QPoint:
        world = np.asarray(self.image.data_to_world(index))
        shown = world[list(self.viewer.dims.displayed)]
        centre = np.asarray(self.viewer.scene.camera.center[-2:])
        size = np.array([self.canvas.height(), self.canvas.width()])
        row, column = (shown - centre) * self.viewer.scene.camera.zoom + size / 2
        return QPoint(round(column), round(row))

    def click_voxel(self, *index: float, right=False) -> None:
        button = Qt.MouseButton.RightButton if right else Qt.MouseButton.LeftButton
        place = self.at(*index)
        self.point(*index)
        self.qtbot.mousePress(self.canvas, button, pos=place)
        self.qtbot.mouseRelease(self.canvas, button, pos=place)
        self.settle()

    def turn(self, *order: int) -> None:
        self.viewer.dims.order = order
        self.viewer.reset_view()
        self.until(lambda: not self.view.loading)
        self.settle()

    def go_to(self, axis: int, index: int) -> None:
        self.viewer.dims.set_current_step(axis, index)
        self.settle()


@pytest.fixture
def window(make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch):
    npe2pm.register(PluginManifest.from_distribution(PLUGIN))
    told = []
    monkeypatch.setattr(dock_module, "notify", lambda _, text: told.append(text))
    monkeypatch.setattr(
        dock_module.ClickDock.__init__,
        "__defaults__",
        (lambda _: Segmenter(FloodNetwork(0.2), device="cpu"), None),
    )
    viewer = make_napari_viewer(show=True)
    viewer.add_image(
        stack()[0],
        name="ball",
        scale=SCALE,
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
    )
    made = TurnedWindow(viewer, qtbot)
    made.told = told
    yield made
    made.dock.let_go()


@pytest.mark.parametrize(
    ("shown", "order", "spacing"),
    [
        ((1, 0, 2), (1, 0, 2), (0.5, 2.0, 0.5)),  # along y: planes of z and x
        ((2, 0, 1), (2, 0, 1), (0.5, 2.0, 0.5)),  # along x: planes of z and y
        ((2, 1, 0), (2, 0, 1), (0.5, 2.0, 0.5)),  # the same with z running right
    ],
)
def test_clicked_propagated_painted_undone(window, shown, order, spacing):
    image, inside = stack()
    axis = order[0]
    middle = {1: 20, 2: 26}[axis]
    window.turn(*shown)
    controller = window.dock.controller
    events = []
    controller.applied.connect(events.append)
    assert controller.image.order == order
    assert window.view.stack.axes == ("zyx"[axis],)
    assert window.dock.stack.axis.currentText() == f"Along {'zyx'[axis]}"
    assert len(window.view.stack.cells) == SHAPE[axis]
    assert controller.stack.spacing() == spacing
    assert window.labels.data.shape == SHAPE
    assert [layer.name for layer in window.viewer.layers] == [
        "ball",
        "ball objects",
        "ball clicks",
    ]

    # a click with the mouse on one plane: that voxel, that plane and no other
    window.go_to(axis, middle)
    place = [9, 20, 26]
    window.click_voxel(*place)
    assert np.abs(window.points.data[0] - place).max() < 1
    labels, truth = (
        np.moveaxis(window.labels.data, axis, 0),
        np.moveaxis(inside, axis, 0),
    )
    assert {i for i in range(SHAPE[axis]) if labels[i].any()} == {middle}
    assert (labels[middle] == 1)[truth[middle]].mean() > 0.9
    assert (labels[middle] == 1)[~truth[middle]].mean() < 0.05

    # along that axis, to where the ball ends
    window.press(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
    labels = np.moveaxis(window.labels.data, axis, 0)
    for index in range(middle - 10, middle + 11):
        both = ((labels[index] == 1) & truth[index]).sum()
        assert both / ((labels[index] == 1) | truth[index]).sum() > 0.7
    assert not labels[0].any()
    assert window.view.stack.here == middle
    window.qtbot.mouseClick(window.dock.stack.worst, Qt.MouseButton.LeftButton)
    assert window.viewer.dims.current_step[axis] == window.view.stack.worst

    # a stroke by hand there is read from that plane
    here = window.view.stack.worst
    voxel = [np.array([v]) for v in place]
    voxel[axis] = np.array([here])
    voxel[0] = np.array([1])
    window.labels.data_setitem(tuple(voxel), 1)
    window.settle()
    assert isinstance(events[-1], ev.Painted)
    assert events[-1].plane == (here,)
    assert controller.annotator.objects[1].on((here,)).is_anchor

    # the window shows what a replay on the turned stack gives, and so does an undo
    again = replay(
        events, image.transpose(order), Segmenter(FloodNetwork(0.2), device="cpu")
    )
    assert np.array_equal(again.transpose(back(order)), window.labels.data)
    after = window.labels.data.copy()
    for _ in range(3):
        window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not window.labels.data.any()
    control_shift = (
        Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    )
    for _ in range(3):
        window.press(Qt.Key.Key_Z, control_shift)
    assert np.array_equal(window.labels.data, after)
    assert not window.told


def test_objects_stay_on_their_planes_and_other_views_say_so(window):
    window.go_to(0, 9)
    window.click_voxel(9, 20, 26)
    controller, labels = window.dock.controller, window.labels.data.copy()
    assert labels[9].any()
    window.turn(1, 0, 2)
    assert window.dock.controller is controller
    window.go_to(1, 30)
    window.click_voxel(9, 30, 26)
    assert np.array_equal(window.labels.data, labels)
    assert len(window.points.data) == 1
    (said,) = window.told
    assert "annotated on yx planes" in said
    assert "Ctrl+E" in said

    # as it says: another image of the same pixels for another axis; and back
    again = window.viewer.add_image(stack()[0], name="again", scale=SCALE)
    window.dock.image_choice.value = again
    window.until(lambda: not window.view.loading)
    assert window.dock.controller.image.order == (1, 0, 2)
    window.click_voxel(9, 30, 26)
    assert window.labels.data[:, 30].any()
    window.dock.image_choice.value = window.image
    assert window.dock.controller is controller
    assert window.viewer.dims.displayed == (1, 2)
    window.viewer.reset_view()
    window.go_to(0, 9)
    window.click_voxel(9, 34, 26, right=True)
    assert "covers" in window.view.status
    again.visible = False
    window.click_voxel(9, 34, 26, right=True)
    assert len(window.points.data) == 2


def test_turned_back_and_forth_before_anything_is_done(window):
    for order in ((1, 0, 2), (0, 1, 2), (2, 0, 1), (0, 2, 1)):
        window.turn(*order)
    assert window.dock.controller.image.order == ()
    names = [layer.name for layer in window.viewer.layers]
    assert names == ["ball", "ball objects", "ball clicks"]
    window.go_to(0, 9)
    window.click_voxel(9, 20, 26)
    assert window.labels.data[9].any()


def test_the_3d_view_says_that_it_takes_no_clicks(window):
    window.viewer.dims.ndisplay = 3
    window.settle()
    window.points.add((9, 20, 26))
    window.settle()
    assert len(window.points.data) == 0
    assert window.told == ["Clicks count in the 2-D view: leave the 3-D one (Ctrl+Y)."]
