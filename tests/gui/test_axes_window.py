"""Axes named in a real window: channels, z and time, one layer or several."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from gui_window import PLUGIN, PlanesWindow, flood, flood_windows
from qtpy.QtCore import Qt

from napari_cfrseg.session.references import find_image, open_reference
from napari_cfrseg.session.session import Session

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]
SHAPE, CENTRE, RADIUS = (80, 120), (38, 66), 18
LEFT = (38, 57)
CONTROL = Qt.KeyboardModifier.ControlModifier


def halves() -> np.ndarray:
    """Return a disc, (2, Y, X): its left half in one channel, its right in another."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = (y - CENTRE[0]) ** 2 + (x - CENTRE[1]) ** 2 <= RADIUS**2
    left = x < CENTRE[1]
    return np.stack([inside & left, inside & ~left]).astype(np.uint16) * 900 + 100


def whole() -> np.ndarray:
    return (halves() > 500).any(axis=0)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


class AxesWindow(PlanesWindow):
    """Says what axes are and which channels are used."""

    def say(self, words: str) -> None:
        """Choose what the axes are with the keyboard."""
        box = self.dock.axes.axes
        wanted = [box.itemText(i) for i in range(box.count())].index(words)
        while box.currentIndex() != wanted:
            before = box.currentIndex()
            key = Qt.Key.Key_Down if before < wanted else Qt.Key.Key_Up
            self.qtbot.keyClick(box, key)
            self.until(lambda: not self.view.loading)
            if box.currentIndex() == before:
                return
        self.viewer.reset_view()
        self.settle()

    def tick(self, *names: str) -> None:
        """Tick or untick channels in the picker."""
        for name in names:
            actions = {a.text(): a for a in self.dock.axes.menu.actions()}
            actions[name].trigger()
            self.until(lambda: not self.view.loading)


@pytest.fixture
def opened(make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch):
    with flood_windows(
        make_napari_viewer, qtbot, npe2pm, monkeypatch, AxesWindow
    ) as open_window:
        yield open_window


def replayed(path) -> np.ndarray:
    session = Session.open(path)
    image = open_reference(session.image, find_image(session.image, path.parent))
    return np.asarray(session.apply(image.array, flood()))


def test_planes_are_said_to_be_channels(opened, tmp_path):
    window = opened(lambda v: v.add_image(halves(), name="two", scale=(1, 0.5, 0.5)))
    assert window.dock.axes.axes.currentText() == "2 z planes"
    assert window.dock.sections["stack"].isVisible()
    window.say("2 channels")
    image = window.dock.controller.image
    assert (image.names, image.shape) == (("c", "y", "x"), SHAPE)
    assert window.labels.data.shape == SHAPE
    assert tuple(window.labels.scale) == (0.5, 0.5)
    assert not window.dock.sections["stack"].isVisible()
    assert window.dock.axes.channels.text() == "2 of 2"

    # both halves belong to the object, whichever channel is looked at
    window.viewer.dims.set_current_step(0, 1)
    window.click(*LEFT)
    assert iou(window.mask(), whole()) > 0.95
    events = window.dock.controller.annotator.objects[1]
    assert [plane for plane, _ in events.clicks()] == [()]
    colour = np.asarray(window.labels.get_color(1))
    for channel in (0, 1):
        window.viewer.dims.set_current_step(0, channel)
        window.settle()
        picture = window.viewer.screenshot(canvas_only=True, flash=False)
        place = window.at(CENTRE[0], CENTRE[1] + 8)
        seen = picture[place.y(), place.x(), :3].astype(int)
        assert seen.argmax() == colour[:3].argmax(), channel

    # undone, redone, saved, replayed and reopened
    window.press(Qt.Key.Key_Z, CONTROL)
    assert not window.mask().any()
    window.press(Qt.Key.Key_Z, CONTROL | Qt.KeyboardModifier.ShiftModifier)
    keeper = window.dock._keepers[window.dock.controller]
    path = tmp_path / "two.cfrseg.json"
    keeper.save(path, keep_pixels=True)
    said = json.loads(path.read_text())["image"]
    assert (said["axes"], said["channels"]) == (["y", "x", "c"], [0, 1])
    labels = replayed(path)
    np.testing.assert_array_equal(labels, window.labels.data)
    window.viewer.layers.clear()
    keeper.close()
    window.viewer.open(str(path), plugin=PLUGIN)
    window.until(lambda: len(window.view.objects) == 1)
    assert window.dock.controller.image.names == ("c", "y", "x")
    np.testing.assert_array_equal(window.labels.data, labels)


def test_objects_are_not_given_up_for_other_axes(opened):
    window = opened(lambda v: v.add_image(halves(), name="two"))
    window.click(*LEFT)
    assert iou(window.mask(), halves()[0] > 500) > 0.9
    window.say("2 channels")
    assert window.dock.controller.image.shape == (2, *SHAPE)
    assert "with these axes" in window.view.status
    assert window.dock.axes.axes.currentText() == "2 z planes"
    button = window.dock.status.remedy
    window.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    window.until(lambda: not window.view.loading)
    assert window.labels.data.shape == SHAPE
    names = [layer.name for layer in window.viewer.layers]
    assert names[:3] == ["two", "two objects (before)", "two clicks (before)"]
    window.viewer.layers["two objects (before)"].visible = False
    window.click(*LEFT)
    assert iou(window.mask(), whole()) > 0.95


def test_z_planes_are_said_to_be_time_points(opened, tmp_path):
    movie = np.stack([halves()[0]] * 3)
    window = opened(lambda v: v.add_image(movie, name="movie", scale=(5, 1, 1)))
    controller = window.dock.controller
    assert window.dock.stack.axis.currentText() == "Along z"
    assert controller.stack.spacing() == (5, 1, 1)
    window.click(*LEFT)
    window.say("3 time points")
    assert window.dock.controller is controller
    assert window.dock.stack.axis.currentText() == "Over time"
    assert controller.stack.spacing() == (1, 1, 1)
    assert window.dock._keepers[controller].writer.content.image.axes[0] == "t"
    window.press(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
    assert all((plane == 1).any() for plane in window.labels.data)
    target = window.dock._keepers[controller].export(tmp_path / "a.geojson")
    features = json.loads(target.read_text())["features"]
    assert {
        f["properties"].get("t", f["geometry"].get("plane", {}).get("t"))
        for f in features
    } == {0, 1, 2}


def test_channels_between_planes_stay_out_of_the_planes(opened):
    stack = np.stack([halves()] * 3)  # z c y x
    window = opened(
        lambda v: v.add_image(stack, axis_labels=("z", "channel", "y", "x"))
    )
    image = window.dock.controller.image
    assert (image.shape, image.plane_names) == ((3, *SHAPE), ("z", "y", "x"))
    assert window.labels.data.shape == (3, 1, *SHAPE)
    window.viewer.dims.set_current_step(0, 2)
    for channel in (0, 1):
        window.viewer.dims.set_current_step(1, channel)
        window.settle()
        window.click(*(LEFT if channel == 0 else (CENTRE[0], CENTRE[1] + 9)))
        assert window.view.stack.here == 2
        assert iou(window.mask(), whole()) > 0.95
        assert len(window.points._view_data) == channel + 1
    assert len(window.view.objects) == 1
    window.press(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
    assert all(iou(plane[0] > 0, whole()) > 0.9 for plane in window.labels.data)


@pytest.mark.parametrize(
    ("axes", "array", "words"),
    [
        ("CYX", halves(), "2 channels"),
        ("TYX", np.stack([halves()[0]] * 3), "3 time points"),
        ("ZYX", np.stack([halves()[0]] * 3), "3 z planes"),
        ("TCYX", np.stack([halves()] * 3), "3 times × 2 channels"),
    ],
)
def test_axes_come_from_the_file(opened, tmp_path, axes, array, words):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": axes})
    window = opened(lambda v: v.open(str(path), plugin="napari"))
    assert window.dock.axes.axes.currentText() == words
    window.click(*LEFT)
    assert iou(window.mask(), whole() if "C" in axes else array[0] > 500) > 0.9
    keeper = window.dock._keepers[window.dock.controller]
    saved = tmp_path / "a.cfrseg.json"
    keeper.save(saved)
    assert keeper.writer.content.image.path == "a.tif"
    np.testing.assert_array_equal(
        replayed(saved), window.dock.controller.image.of_own_array(window.labels.data)
    )


def test_layers_that_are_channels_are_used_together(opened, tmp_path):
    path = tmp_path / "a.tif"
    three = np.stack([halves()[0] // 2, *halves()])
    tifffile.imwrite(path, three, imagej=True, metadata={"axes": "CYX"})
    window = opened(lambda v: v.open(str(path), plugin="napari", channel_axis=0))
    names = [layer.name for layer in window.viewer.layers][:3]
    assert window.dock.axes.channels.text() == "3 of 3"
    assert not window.dock.axes.axes.isVisible()

    # a channel that is hidden is not used; then a person's choice counts
    window.viewer.layers[names[0]].visible = False
    window.until(lambda: window.dock.axes.channels.text() == "2 of 3")
    window.tick(names[0], names[1])
    assert window.dock.controller.image.channels == (0, 2)
    window.tick(names[1], names[0])
    window.click(*LEFT)
    assert iou(window.mask(), whole()) > 0.95
    window.tick(names[0])
    assert window.dock.controller.image.channels == (1, 2)
    assert "channels" in window.view.status
    keeper = window.dock._keepers[window.dock.controller]
    saved = tmp_path / "a.cfrseg.json"
    keeper.save(saved)
    image = keeper.writer.content.image
    assert (image.path, image.channel_axis, image.channels) == ("a.tif", 0, (1, 2))
    np.testing.assert_array_equal(replayed(saved), window.labels.data)
