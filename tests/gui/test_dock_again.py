"""The dock closed and opened again in one viewer: it goes on with what was done."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from gui_window import DOCK, PLUGIN, Window, flood
from qtpy.QtCore import Qt

from napari_cfrseg.gui.segment import dock as dock_module
from napari_cfrseg.gui.segment.layers import camera_of

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]
CONTROL = Qt.KeyboardModifier.ControlModifier


@pytest.fixture(autouse=True)
def sessions(tmp_path, monkeypatch):
    """Give a person without sessions so far."""
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "user"))


def close(window: Window) -> None:
    """Close the dock with napari's × button."""
    dock, _ = window.viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    dock.title.close_button.click()
    assert window.dock.closed


def open_again(window: Window) -> None:
    """Open the dock from the menu, on what there is."""
    _, window.dock = window.viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    window.until(lambda: window.dock.controller is not None)
    window.until(lambda: not window.view.loading)
    window.settle()


def names(window: Window) -> list[str]:
    return [layer.name for layer in window.viewer.layers]


def coloured(window: Window) -> int:
    """Count the canvas's pixels that are not grey."""
    window.qtbot.wait(200)
    shown = window.viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    return int((np.ptp(shown.astype(int), axis=-1) > 30).sum())


def two_objects(window: Window) -> np.ndarray:
    window.click(60, 60)
    window.press(Qt.Key.Key_N)
    window.click(60, 180)
    return window.labels.data.copy()


@pytest.mark.parametrize("is_saved", [False, True])
def test_it_goes_on_with_the_session(window, said, tmp_path, is_saved):
    done = two_objects(window)
    if is_saved:
        window.dock.sessions.keeper.save(tmp_path / "saved.cfrseg.json")
    there, drawn = names(window), coloured(window)
    for _ in range(2):
        close(window)
        open_again(window)
        window.until(lambda: len(window.view.objects) == 2)
        assert names(window) == there == ["cells", "cells objects", "cells clicks"]
        assert np.array_equal(window.labels.data, done)
        assert len(window.points.data) == 2
        assert coloured(window) == drawn > 1000
    window.press(Qt.Key.Key_Z, CONTROL)
    assert window.area(2) == 0
    assert window.area(1) == (done == 1).sum()
    window.press(Qt.Key.Key_Z, CONTROL | Qt.KeyboardModifier.ShiftModifier)
    assert np.array_equal(window.labels.data, done)
    assert window.dock.sessions.keeper.is_saved == is_saved
    assert not said


def test_a_click_on_its_way_is_not_lost(window, said):
    window.click(60, 60)
    window.press(Qt.Key.Key_N)
    window.click(60, 180, settle=False)
    close(window)
    open_again(window)
    window.until(lambda: len(window.view.objects) == 2)
    assert names(window) == ["cells", "cells objects", "cells clicks"]
    assert window.area(2) > 0
    assert not said


def test_nothing_stays_behind_where_nothing_was_done(window):
    for _ in range(2):
        close(window)
        assert names(window) == ["cells"]
        open_again(window)
        assert names(window) == ["cells", "cells objects", "cells clicks"]


def test_what_was_painted_meanwhile_belongs_to_it(window):
    two_objects(window)
    labels = window.labels
    close(window)
    labels.data_setitem(tuple(np.mgrid[100:110, 20:30].reshape(2, -1)), 2)
    painted = labels.data.copy()
    open_again(window)
    window.until(lambda: window.area(2) > 0)
    window.settle()
    assert np.array_equal(window.labels.data, painted)
    window.press(Qt.Key.Key_Z, CONTROL)
    assert not window.labels.data[100:110, 20:30].any()


def test_once_it_is_closed_a_polygon_adds_to_its_label_as_everywhere(window):
    two_objects(window)
    labels, area = window.labels, window.area(1)
    close(window)
    labels.mode = "polygon"
    labels.paint_polygon([(100, 10), (100, 30), (120, 30), (120, 10)], 1)
    assert np.count_nonzero(labels.data[40:80, 40:80] == 1) == area
    assert np.count_nonzero(labels.data == 1) > area


def test_points_dragged_meanwhile_move_their_clicks(window, said):
    done = two_objects(window)
    points, labels = window.points, window.labels
    close(window)
    points.opacity, labels.opacity, points.visible = 0.8, 0.3, False
    place = points.data[1] + (1, 1)
    points.data = np.array([points.data[0], place])
    open_again(window)
    window.until(lambda: window.area(1) > 0)
    window.settle()
    assert names(window) == ["cells", "cells objects", "cells clicks"]
    assert np.allclose(window.points.data[1], place, atol=1e-3)
    assert window.labels.data[tuple(np.round(place).astype(int))] == 2
    look = window.points.opacity, window.labels.opacity, window.points.visible
    assert look == (0.8, 0.3, False)
    window.press(Qt.Key.Key_Z, CONTROL)
    assert np.array_equal(window.labels.data, done)
    assert np.allclose(window.points.data[1], place - (1, 1), atol=1e-3)
    assert not said


def test_outlines_and_the_size_of_points_are_kept(window):
    two_objects(window)
    zoom = camera_of(window.viewer).zoom * 0.2
    window.labels.contour = 1
    window.points.current_size = 20 / zoom
    box = window.dock.settings.outlines
    assert box.isChecked()
    for _ in range(2):
        close(window)
        open_again(window)
        window.until(lambda: len(window.view.objects) == 2)
        assert window.labels.contour == 1
        assert window.dock.settings.outlines.isChecked()
        assert np.allclose(window.points.size * zoom, 20, rtol=0.11)
    window.dock.settings.own_clicks.click()
    assert window.labels.contour == 1
    window.dock.settings.outlines.click()
    assert window.labels.contour == 0


@pytest.mark.parametrize("is_closed", [False, True])
def test_pixels_replaced_while_the_model_loads_leave_the_layers(
    window, said, monkeypatch, is_closed
):
    done, answers = two_objects(window), threading.Event()
    close(window)
    slow = (lambda _: answers.wait(300) and flood(), None)
    monkeypatch.setattr(dock_module.ClickDock.__init__, "__defaults__", slow)
    _, window.dock = window.viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    window.until(lambda: window.view.progress[1] > 0)
    if is_closed:
        close(window)
        answers.set()
        assert names(window) == ["cells", "cells objects", "cells clicks"]
        return
    window.image.data = 255 - window.image.data
    answers.set()
    window.until(lambda: not window.view.loading)
    window.settle()
    assert not window.view.objects
    assert np.array_equal(window.viewer.layers["cells objects"].data, done)
    assert len(window.viewer.layers["cells clicks"].data) == 2
    assert window.labels.name == "cells objects [1]"
    assert len(names(window)) == 5
    assert "pixels of “cells” were replaced" in said[-1]


def test_points_set_meanwhile_stay(window, said):
    two_objects(window)
    close(window)
    window.viewer.layers["cells clicks"].add((100.0, 100.0))
    open_again(window)
    window.until(lambda: len(window.view.objects) == 2)
    assert len(window.points.data) == 2
    assert len(window.viewer.layers["cells clicks (before)"].data) == 3
    assert "“cells clicks (before)”" in said[-1]


def test_other_pixels_begin_a_session(window, said):
    done = two_objects(window)
    close(window)
    window.image.data = 255 - window.image.data
    open_again(window)
    assert not window.view.objects
    assert not window.labels.data.any()
    assert np.array_equal(window.viewer.layers["cells objects"].data, done)
    assert "pixels" in said[-1]


def test_clicks_deleted_meanwhile_are_removed(window, said):
    done = two_objects(window)
    points = window.points
    close(window)
    points.selected_data = {1}
    points.remove_selected()
    open_again(window)
    window.until(lambda: window.area(1) > 0)
    window.settle()
    assert window.area(2) == 0
    assert len(window.points.data) == 1
    assert names(window) == ["cells", "cells objects", "cells clicks"]
    window.press(Qt.Key.Key_Z, CONTROL)
    assert np.array_equal(window.labels.data, done)
    assert len(window.points.data) == 2
    assert not said


def test_what_is_taken_away_after_closing_within_a_click_stays_in_sight(window, said):
    window.click(60, 60)
    window.press(Qt.Key.Key_N)
    window.click(60, 180, settle=False)
    points, labels = window.points, window.labels
    close(window)
    points.selected_data = {0}
    points.remove_selected()
    labels.data_setitem(tuple(np.argwhere(labels.data == 1).T), 0)
    for _ in range(2):
        open_again(window)
        window.until(lambda: len(window.view.objects) == 2)
        assert window.area(1) > 0
        assert len(window.points.data) == 2
        assert len(names(window)) == 5
        close(window)
    assert window.viewer.layers["cells clicks (before)"] is points
    assert window.viewer.layers["cells objects (before)"] is labels
    assert len(said) == 2
