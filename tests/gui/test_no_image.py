"""The dock after layers it needs were removed: it says so, and goes on where it can."""

from __future__ import annotations

import numpy as np
import pytest
from gui_window import squares
from qtpy.QtCore import Qt

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]

FIRST, SECOND = (60, 60), (60, 180)


def test_a_click_after_the_last_image_was_removed_says_what_is_missing(window, said):
    window.click(*FIRST)
    place, kept = window.at(*FIRST), np.array(window.labels.data)
    labels = window.labels
    window.viewer.layers.remove(window.image)
    window.qtbot.wait(50)
    text = window.dock.status.text.text()
    assert "“cells” was removed: open an image to go on." in text
    assert "Session → Open" in text
    assert "1 unsaved session" in window.dock.sessions.label.text()
    said.clear()
    window.qtbot.mouseClick(window.canvas, Qt.MouseButton.LeftButton, pos=place)
    assert said == [text]
    assert np.array_equal(labels.data, kept)
    said.clear()
    labels.mode = "paint"
    window.viewer.layers.selection.active = labels
    window.qtbot.mouseClick(window.canvas, Qt.MouseButton.LeftButton, pos=place)
    assert not said  # it painted


def test_where_one_image_is_left_clicks_go_to_it(window, said):
    other = window.viewer.add_image(squares()[:, ::-1] // 2, name="other")
    other.scale, other.translate = window.image.scale, window.image.translate
    other.visible = False
    window.click(*FIRST)
    window.viewer.layers.remove(window.image)
    window.until(lambda: window.dock.controller is not None)
    assert any("“cells” was removed. What you did is kept" in text for text in said)
    other.visible, window.image = True, other
    window.until(lambda: not window.view.loading)
    window.click(*FIRST)
    assert window.labels.name == "other objects"
    assert window.labels.data[FIRST] == 1


@pytest.mark.parametrize("removed", ["labels", "points"])
def test_a_removed_layer_of_ours_comes_back_with_what_was_done(window, said, removed):
    window.click(*FIRST)
    labels = np.array(window.labels.data)
    window.viewer.layers.remove(getattr(window, removed))
    window.qtbot.wait(50)
    said.clear()
    place = window.at(*SECOND)
    window.qtbot.mouseClick(window.canvas, Qt.MouseButton.LeftButton, pos=place)
    assert "was removed, which clicks on “cells” need" in said[0]
    assert window.dock.status.remedy.text() == "Go on with “cells”"
    window.dock.status.remedy.click()
    window.until(lambda: bool(window.view.objects))
    window.settle()
    assert np.array_equal(window.labels.data, labels)
    assert len(window.points.data) == 1
    assert len(window.viewer.layers) == 3
    window.press(Qt.Key.Key_N)
    window.click(*SECOND)
    assert window.labels.data[SECOND] == 2


def test_what_was_done_does_not_come_back_on_other_pixels(window, said):
    window.click(*FIRST)
    window.viewer.layers.remove(window.labels)
    window.qtbot.wait(50)
    window.image.data = 255 - window.image.data
    window.dock.status.remedy.click()
    window.until(lambda: window.dock.controller is not None)
    window.until(lambda: not window.view.loading)
    window.settle()
    assert not window.view.objects
    assert "was not made on the pixels of “cells”" in said[-1]


def test_clicks_before_an_image_is_open_say_so(make_napari_viewer, qtbot, npe2pm, said):
    from gui_window import DOCK, PLUGIN
    from npe2 import PluginManifest

    npe2pm.register(PluginManifest.from_distribution(PLUGIN))
    viewer = make_napari_viewer(show=True)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    canvas = viewer.window._qt_viewer.canvas.native
    viewer.add_points([(1, 1)])
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())
    assert said == ["Open an image to begin."]
    dock.let_go()
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())
    assert len(said) == 1
