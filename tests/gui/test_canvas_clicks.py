"""Clicks on the canvas, whatever layer is selected and whatever covers the image."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import FloodNetwork
from engine_networks import NestedNetwork, nested_image
from gui_window import DOCK, PLUGIN, Window, flood_window, post, squares
from npe2 import PluginManifest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QMessageBox
from replayed import replay
from session_cases import flood_segmenter, record
from vispy.scene import SceneCanvas

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment import dock as dock_module
from napari_cfrseg.session.session import Session

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]

FIRST, SECOND = (60, 60), (60, 180)


@pytest.fixture
def window(make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch):
    with flood_window(
        make_napari_viewer, qtbot, npe2pm, monkeypatch, squares()
    ) as made:
        yield made


def test_click_counts_whichever_layer_of_the_image_is_selected(window):
    places = (FIRST, (60, 75)), (SECOND, (60, 195))
    layers = window.image, window.labels
    for number, (layer, (place, beside)) in enumerate(
        zip(layers, places, strict=True), 1
    ):
        window.viewer.layers.selection.active = layer
        window.press(Qt.Key.Key_N)
        window.click(*place)
        assert window.labels.data[place] == number
        window.viewer.layers.selection.active = layer
        window.click(*beside, Qt.MouseButton.RightButton)
        signs = ["positive", "negative"] * number
        assert list(window.points.features["polarity"]) == signs


def test_dragging_the_image_and_painting_are_no_clicks(window):
    window.viewer.layers.selection.active = window.image
    window.drag(FIRST, (90, 120))
    assert not window.labels.data.any()
    window.viewer.reset_view()
    window.click(*FIRST)
    window.viewer.layers.selection.active = window.labels
    window.labels.mode = "paint"
    window.click(120, 60)
    assert len(window.points.data) == 1


def test_click_on_an_image_that_covers_ours_asks(window):
    """Not computed on pixels that are not seen; one button goes over to the other."""
    other = window.viewer.add_image(squares()[:, ::-1], name="other", scale=(0.2, 0.2))
    other.translate = window.image.translate
    for active in (other, window.points):
        window.viewer.layers.selection.active = active
        window.click(*FIRST)
        assert not window.labels.data.any()
        assert len(window.points.data) == 0
        assert "other" in window.view.status
    assert window.dock.status.remedy.isVisible()
    assert window.dock.status.remedy.text() == "Segment “other”"
    window.dock.status.remedy.click()
    window.until(lambda: window.dock.controller is not None)
    assert window.dock.image_choice.value is other
    window.until(lambda: not window.view.loading)
    window.click(*FIRST)
    assert window.labels.data.any()
    other.visible = False
    first = window.viewer.layers["cells"]
    window.dock.image_choice.value = first
    window.click(*FIRST)
    window.dock.image_choice.value = other
    window.dock.image_choice.value = first
    assert window.view.status == "Clicks go to “cells” again."


def test_click_goes_through_a_channel_that_is_added_on_top(window):
    window.viewer.add_image(
        squares(), name="channel", blending="additive", scale=(0.2, 0.2)
    ).translate = window.image.translate
    window.click(*FIRST)
    assert window.labels.data[FIRST] == 1


def test_click_on_an_image_switched_off_says_so(window):
    window.image.visible = False
    window.click(*FIRST)
    assert not window.labels.data.any()
    assert "not shown" in window.view.status
    window.dock.status.remedy.click()
    assert window.image.visible
    assert not window.dock.status.remedy.isVisible()
    window.click(*FIRST)
    assert window.labels.data[FIRST] == 1


def test_middle_and_control_and_shift_clicks_say_why_they_do_nothing(window):
    modifiers = Qt.KeyboardModifier
    place = window.at(*FIRST)
    for layer in (window.points, window.image):
        window.viewer.layers.selection.active = layer
        for modifier in (modifiers.ControlModifier, modifiers.ShiftModifier):
            window.qtbot.mouseClick(
                window.canvas, Qt.MouseButton.LeftButton, modifier, place
            )
            assert "Click without Ctrl and Shift" in window.view.status
            window.dock.controller.say("")
        window.click(*FIRST, button=Qt.MouseButton.MiddleButton)
        assert len(window.points.data) == 0
        assert not window.labels.data.any()


def test_object_under_the_pointer_is_selected(window):
    """Alt+click, from the clicks and from the image; G picks the one pointed at."""
    window.click(*FIRST)
    window.press(Qt.Key.Key_N)
    window.click(*SECOND)
    assert window.view.selected == 2
    alt = Qt.KeyboardModifier.AltModifier
    window.qtbot.mouseClick(
        window.canvas, Qt.MouseButton.LeftButton, alt, window.at(*FIRST)
    )
    assert window.view.selected == 1
    assert len(window.points.data) == 2
    window.viewer.layers.selection.active = window.image
    window.qtbot.mouseClick(
        window.canvas, Qt.MouseButton.LeftButton, alt, window.at(*SECOND)
    )
    assert window.view.selected == 2
    assert window.viewer.layers.selection.active is window.points
    window.point(*FIRST)
    window.press(Qt.Key.Key_G)
    assert window.view.selected == 1


def test_choosing_a_row_makes_the_clicks_the_active_layer(window):
    window.click(*FIRST)
    window.press(Qt.Key.Key_N)
    window.click(*SECOND)
    window.viewer.layers.selection.active = window.image
    window.dock.objects.table.selectRow(0)
    assert window.view.selected == 1
    assert window.viewer.layers.selection.active is window.points
    assert window.points.mode == "add"


def test_click_apart_from_the_object_begins_another_unless_switched_off(window):
    window.click(*FIRST)
    window.click(60, 72)
    window.click(*SECOND)
    assert [row.clicks for row in window.view.objects] == [2, 1]
    assert window.view.selected == 2
    assert window.dock.status.text.text() == "Object 2 started. M joins it to Object 1."
    window.press(Qt.Key.Key_M)
    assert [row.object_id for row in window.view.objects] == [1]
    assert window.labels.data[SECOND] == 1
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert [row.clicks for row in window.view.objects] == [2]
    window.dock.settings.auto_next.setChecked(False)
    window.click(*SECOND)
    assert [row.clicks for row in window.view.objects] == [3]
    assert window.view.selected == 1


def test_renamed_image_stays_chosen(window):
    window.image.name = "another name"
    assert window.dock.image_choice.value is window.image
    assert window.dock.image_choice.current_choice == "another name"
    window.click(*FIRST)
    assert window.labels.data[FIRST] == 1


def test_imported_labels_are_hidden_and_the_next_click_corrects_them(window):
    labels = np.zeros((160, 240), np.uint8)
    labels[50:70, 50:70] = 3
    layer = window.viewer.add_labels(labels, scale=(0.2, 0.2), translate=(30, -12))
    window.dock.sessions._import(layer)
    window.until(lambda: len(window.view.objects) == 1)
    window.settle()
    assert not layer.visible
    assert window.viewer.layers.selection.active is window.points
    window.dock.objects.table.selectRow(0)
    window.click(60, 75)
    assert [row.clicks for row in window.view.objects] == [1]


def test_session_opened_in_an_empty_window_is_ready_for_clicks(
    make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch, tmp_path
):
    """No traceback, layers with plain names, and clicks and keys that work."""
    npe2pm.register(PluginManifest.from_distribution(PLUGIN))
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "user"))
    _, path = record(tmp_path)

    def load(name):
        return flood_segmenter()

    monkeypatch.setattr(dock_module.ClickDock.__init__, "__defaults__", (load, None))
    viewer = make_napari_viewer(show=True)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    viewer.open(str(path), plugin=PLUGIN)
    qtbot.waitUntil(lambda: dock.controller is not None)
    controller = dock.controller
    qtbot.waitUntil(lambda: bool(controller.view.objects))
    assert [layer.name for layer in viewer.layers] == [
        "work",
        "work objects",
        "work clicks",
    ]
    assert viewer.layers.selection.active is controller.clicks.layer
    assert "reopened" in controller.view.status
    assert controller.view.progress == (0, 0)
    dock.let_go()


def click_on_nested_rings(window) -> NestedNetwork:
    """Click where several masks are found."""
    network = NestedNetwork(64)
    nested = window.viewer.add_image(nested_image(), name="nested")
    window.image = nested
    window.dock.image_choice.value = nested
    window.until(lambda: window.dock.controller.image.layer is nested)
    window.viewer.reset_view()
    window.dock.controller.load_model(lambda: Segmenter(network, device="cpu"))
    window.until(lambda: not window.view.loading)
    window.click(100, 100)
    return network


def wheel(window, modifier, notches) -> None:
    place = QPointF(window.at(100, 100))
    event = QWheelEvent(
        place,
        QPointF(window.canvas.mapToGlobal(place.toPoint())),
        QPoint(0, 0),
        QPoint(0, 120 * notches),
        Qt.MouseButton.NoButton,
        modifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    post(window.canvas, event)
    window.settle()


def test_tab_takes_the_next_mask_and_back_while_the_canvas_has_the_focus(window):
    click_on_nested_rings(window)
    best = window.area(1)
    window.viewer.window.activate()
    window.canvas.setFocus()
    window.until(window.canvas.hasFocus)
    window.press(Qt.Key.Key_Tab)
    assert "mask 2 of" in window.view.status
    assert window.area(1) != best
    window.press(Qt.Key.Key_Backtab, Qt.KeyboardModifier.ShiftModifier)
    assert window.area(1) == best
    window.press(Qt.Key.Key_Question)
    assert window.dock.findChildren(QMessageBox)


def test_each_press_takes_the_next_mask_also_while_the_worker_is_busy(window):
    click_on_nested_rings(window)
    window.press(Qt.Key.Key_C)
    count = int(window.view.status.partition(" of ")[2].partition(",")[0])
    with window.busy():
        for _ in range(2):
            window.qtbot.keyClick(window.canvas, Qt.Key.Key_C)
    found = window.dock.controller.annotator.objects[1]
    assert [entry.candidate for _, entry in found.clicks()] == [3 % count]


def test_keys_of_the_canvas_are_those_of_the_preferences(
    make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch
):
    from napari.settings import get_plugin_settings

    npe2pm.register(PluginManifest.from_distribution(PLUGIN))
    keys = get_plugin_settings(PLUGIN).keys
    keys.other_mask_too, keys.help_too = "Shift-W", "ü"
    defaults = (lambda _: flood_segmenter(), None)
    monkeypatch.setattr(dock_module.ClickDock.__init__, "__defaults__", defaults)
    one = Window(make_napari_viewer(show=True), qtbot, squares())
    click_on_nested_rings(one)
    one.viewer.window.activate()
    one.canvas.setFocus()
    one.until(one.canvas.hasFocus)
    one.press(Qt.Key.Key_Tab)
    assert "mask 2 of" not in one.view.status
    one.canvas.setFocus()
    one.press(Qt.Key.Key_W, Qt.KeyboardModifier.ShiftModifier)
    assert "mask 2 of" in one.view.status
    assert "Shift+W" in one.dock.objects.other.toolTip()
    one.press(Qt.Key.Key_Question)
    assert not one.dock.findChildren(QMessageBox)
    one.dock.let_go()


def test_wheel_moves_the_outline_in_one_undo_step(window):
    click_on_nested_rings(window)
    zoom, depth = window.viewer.scene.camera.zoom, window.view.undo_depth
    control, shift = (
        Qt.KeyboardModifier.ControlModifier,
        Qt.KeyboardModifier.ShiftModifier,
    )
    for key in (control, shift):
        wheel(window, key, 1)
        wheel(window, key, 1)
        assert window.view.threshold == pytest.approx(0.46)
        assert window.view.undo_depth == depth + 1
        assert window.viewer.scene.camera.zoom == zoom
        wheel(window, key, -1)
        assert window.view.threshold == pytest.approx(0.48)
        window.press(Qt.Key.Key_Z, control)
        assert window.view.threshold == pytest.approx(0.5)


def test_wheel_with_ctrl_still_moves_through_a_stack(window):
    window.viewer.add_image(np.zeros((3, 160, 240), np.uint8), name="stack")
    window.viewer.dims.set_current_step(0, 1)
    wheel(window, Qt.KeyboardModifier.ControlModifier, 1)
    assert window.viewer.dims.current_step[0] != 1
    assert window.view.threshold == pytest.approx(0.5)


def test_a_key_takes_the_next_mask_and_brackets_move_the_outline(window):
    network = click_on_nested_rings(window)
    best = window.area(1)
    assert window.view.status == f"Object 1: 1 click, {best} px."
    calls = dict(network.calls)
    window.press(Qt.Key.Key_C)
    assert "mask 2 of" in window.view.status
    assert window.area(1) != best
    window.press(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    assert window.area(1) == best
    window.dock.objects.other.click()
    window.settle()
    assert window.area(1) != best
    assert network.calls == calls
    assert window.view.status.endswith(f", {window.area(1)} px.")
    # a mask that its own marker hides is said to be there
    camera = window.viewer.scene.camera
    camera.zoom /= 100
    window.settle()
    window.press(Qt.Key.Key_C)
    assert "under its marker: zoom in to see it" in window.view.status
    window.click(100, 100)
    assert "under its marker: zoom in to see it" in window.view.status
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    camera.zoom *= 100
    window.press(Qt.Key.Key_BracketRight)
    assert window.view.threshold == pytest.approx(0.55)
    window.press(Qt.Key.Key_BracketLeft)
    assert window.view.threshold == pytest.approx(0.5)


def replayed(window) -> np.ndarray:
    """Return the labels that the session's file gives without a window."""
    session = Session.open(window.dock.sessions.keeper.writer.path)
    events = session.content.events
    return replay(events, squares(), Segmenter(FloodNetwork(0.2), device="cpu"))


def test_dragged_box_limits_the_first_mask_and_begins_an_object(window):
    window.viewer.layers.selection.active = window.image
    centre = tuple(window.viewer.scene.camera.center)
    window.drag((35, 35), (85, 60), Qt.KeyboardModifier.ShiftModifier)
    assert tuple(window.viewer.scene.camera.center) == centre
    assert window.labels.data[60, 55] == 1
    assert not window.labels.data[:, 62:].any()
    assert len(window.points.data) == 1
    window.viewer.layers.selection.active = window.points
    window.drag((35, 155), (85, 205), Qt.KeyboardModifier.ShiftModifier)
    assert tuple(window.viewer.scene.camera.center) == centre
    assert [one.object_id for one in window.view.objects] == [1, 2]
    assert window.labels.data[SECOND] == 2
    window.dock.settings.auto_next.setChecked(False)
    window.click(60, 75)
    assert window.labels.data[60, 75] == 2
    assert np.array_equal(replayed(window), window.labels.data)
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert [one.object_id for one in window.view.objects] == [1]


def test_stroke_is_clicks_along_it_in_one_step(window):
    window.drag((45, 60), (75, 60), Qt.KeyboardModifier.ControlModifier)
    places = np.asarray(window.points.data)
    assert len(places) == 5
    assert np.allclose(places[:, 1], 60, atol=0.6)
    assert np.allclose(places[[0, -1], 0], (45, 75), atol=0.6)
    assert window.labels.data[FIRST] == 1
    window.click(60, 75)
    window.drag((100, 45), (100, 75), Qt.KeyboardModifier.ControlModifier)
    assert len(window.points.data) == 11
    assert np.array_equal(replayed(window), window.labels.data)
    for left in (6, 5, 0):
        window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
        assert len(window.points.data) == left


def test_lasso_with_naparis_polygon_tool_replaces_the_mask(window):
    window.click(*FIRST)
    before = window.labels.data.copy()
    window.viewer.layers.selection.active = window.labels
    window.labels.mode = "polygon"
    corners = [(100, 40), (100, 80), (130, 80), (130, 40)]
    for corner in corners:
        window.click(*corner)
    window.qtbot.mouseDClick(
        window.canvas, Qt.MouseButton.LeftButton, pos=window.at(*corners[0])
    )
    window.settle()
    assert window.labels.data[115, 60] == 1
    assert not window.labels.data[:95].any()
    assert np.array_equal(replayed(window), window.labels.data)
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(window.labels.data, before)


def test_a_press_finds_the_view_without_drawing_the_layers_once_more(
    window, monkeypatch
):
    drawn = []
    picking = SceneCanvas._render_picking

    def render(canvas, crop):
        drawn.append(crop)
        return picking(canvas, crop)

    monkeypatch.setattr(SceneCanvas, "_render_picking", render)
    window.click(*FIRST)
    window.click(50, 50, Qt.MouseButton.RightButton)
    assert list(window.points.features["polarity"]) == ["positive", "negative"]
    window.viewer.layers.selection.active = window.image
    centre = window.viewer.scene.camera.center
    window.drag(FIRST, (60, 90))
    assert window.viewer.scene.camera.center != centre  # napari still pans
    zoom = window.viewer.scene.camera.zoom
    wheel(window, Qt.KeyboardModifier.NoModifier, 1)
    assert window.viewer.scene.camera.zoom > zoom
    assert not drawn
    window.viewer.canvas.grid.enabled = True  # something else takes the mouse
    window.qtbot.wait(50)
    window.drag(FIRST, (60, 90))
    assert drawn
