"""The table of objects in a real viewer: sort, merge, split, classes, go to one."""

from __future__ import annotations

import numpy as np
import pytest
from gui_window import flood_window
from napari.qt import get_stylesheet
from qtpy.QtCore import QItemSelectionModel, QPoint, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QInputDialog, QLineEdit, QWidget

from napari_cfrseg.gui.segment.dock_view import DockView, ObjectRow
from napari_cfrseg.gui.segment.object_panel import ObjectTable

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]

#: by object number: small, large, medium
PLACES = {1: (50, 50), 2: (50, 150), 3: (120, 60)}


def cells() -> np.ndarray:
    pixels = np.zeros((160, 240), np.uint8)
    pixels[42:58, 42:58] = 200
    pixels[30:70, 130:170] = 200
    pixels[108:132, 48:72] = 200
    return pixels


@pytest.fixture
def window(make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch):
    with flood_window(make_napari_viewer, qtbot, npe2pm, monkeypatch, cells()) as made:
        for place in PLACES.values():
            made.click(*place)
            made.dock.objects.new.click()
        yield made


def shown(window, column: int) -> list[str]:
    table = window.dock.objects.table
    return [table.item(y, column).text() for y in range(table.rowCount())]


def select(window, *rows: int) -> None:
    table = window.dock.objects.table
    table.clearSelection()
    flags = QItemSelectionModel.SelectionFlag
    for row in rows:
        index = table.model().index(row, 1)
        table.selectionModel().select(index, flags.Select | flags.Rows)


def choose(window, text: str) -> None:
    actions = window.dock.objects.table.menu().actions()
    next(a for a in actions if a.text() == text).trigger()
    window.settle()


def test_header_sorts_and_the_area_is_that_of_the_labels(window):
    table = window.dock.objects.table
    header = table.horizontalHeader()
    place = header.sectionViewportPosition(3) + 5
    rising = ["Object 1", "Object 3", "Object 2"]
    for expected in (rising, rising[::-1]):
        left = Qt.MouseButton.LeftButton
        window.qtbot.mouseClick(header.viewport(), left, pos=QPoint(place, 5))
        assert shown(window, 1) == expected
    area = window.area(2) * 0.2 * 0.2
    assert shown(window, 3)[0] == f"{area:.3g} µm²"
    select(window, 0)
    assert window.view.selected == 2


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_boxes_that_lock_are_seen_in_both_themes(qtbot, theme):
    around = QWidget()
    qtbot.addWidget(around)
    around.setStyleSheet(get_stylesheet(theme))
    table = ObjectTable(around)
    table.show_view(DockView(objects=(ObjectRow(1, "one", "#ff0000", 1, False),)))
    table.resize(370, 100)
    around.show()
    picture = table.viewport().grab(table.visualItemRect(table.item(0, 5))).toImage()
    light = [
        picture.pixelColor(x, y).lightness()
        for y in range(2, picture.height() - 2)
        for x in range(2, picture.width() - 2)
    ]
    assert np.abs(np.array(light) - np.median(light)).max() > 60


def test_rows_merge_and_undo_parts_them(window):
    before = window.labels.data.copy()
    select(window, 0, 2)
    choose(window, "Merge into one")
    assert [one.object_id for one in window.view.objects] == [1, 2]
    assert window.area(1) == (before == 1).sum() + (before == 3).sum()
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(window.labels.data, before)
    assert len(window.view.objects) == 3


def test_keys_merge_what_is_pointed_at_and_split_it_off_again(window):
    select(window, 0)
    window.dock.controller.ready_to_click()
    window.point(*PLACES[3])
    window.press(Qt.Key.Key_M)
    assert window.labels.data[PLACES[3]] == 1
    window.press(Qt.Key.Key_X)
    assert window.labels.data[PLACES[3]] == 3
    assert window.labels.data[PLACES[1]] == 1
    assert "split off" in window.view.status
    window.press(Qt.Key.Key_X)
    assert "no part of its own" in window.view.status
    assert window.view.next_id == 4


def test_a_class_gives_its_colour_to_all_of_it(window):
    table = window.dock.objects.table
    table.item(0, 2).setText("nucleus")
    window.settle()
    table.item(1, 2).setText("nucleus")
    window.settle()
    first, second, third = window.view.objects
    assert first.colour == second.colour != third.colour
    window.dock.controller.edits.recolour(2, "#123456")
    window.settle()
    assert [o.colour == "#123456" for o in window.view.objects] == [True, True, False]


def test_what_is_done_to_several_rows_is_one_undo_step(window):
    def undo():
        window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)

    before, depth = window.view.objects, window.view.undo_depth
    window.dock.controller.edits.classify([1, 2, 3], "nucleus")
    window.settle()
    assert {one.object_class for one in window.view.objects} == {"nucleus"}
    assert window.view.undo_depth == depth + 1
    select(window, 0, 1)
    choose(window, "Lock")
    select(window, 0, 1, 2)
    choose(window, "Delete")
    assert [one.object_id for one in window.view.objects] == [1, 2]
    undo()
    undo()
    assert not any(one.locked for one in window.view.objects)
    select(window, 0, 1, 2)
    choose(window, "Delete")
    assert not window.view.objects
    undo()
    undo()
    assert window.view.objects == before


def test_double_click_on_the_area_goes_to_the_object(window):
    window.viewer.scene.camera.center = (0, 0)
    window.dock.objects.table.cellDoubleClicked.emit(1, 3)
    middle = window.image.data_to_world((49.5, 149.5))
    assert np.allclose(window.viewer.scene.camera.center[-2:], middle, atol=0.5)


def test_measurements_are_in_a_table_and_in_the_layer_s_features(window, tmp_path):
    target = tmp_path / "a.measurements.csv"
    window.dock.sessions.keeper.export(target)
    assert len(target.read_text().splitlines()) == 1 + 3
    features = window.labels.features
    assert list(features["area_px"]) == [window.area(i) for i in (1, 2, 3)]
    assert np.allclose(features["mean"], 200, atol=40)


def test_an_area_that_rounds_to_a_thousand_is_written_out(qapp):
    table = ObjectTable()
    for px, said in ((9994, "999 µm²"), (9997, "1000 µm²"), (12, "1.2 µm²")):
        one = ObjectRow(1, "Object 1", "red", 1, False, area_px=px, planes=1)
        table.show_view(DockView(objects=(one,), pixel_size=(0.1, "µm²")))
        assert table.item(0, 3).text() == said


def undo(window) -> None:
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)


def test_a_name_goes_to_its_object_when_the_order_changes_meanwhile(window):
    table = window.dock.objects.table
    table._sort_by(3)
    assert shown(window, 1)[0] == "Object 1"
    window.qtbot.wait(50)
    table.edit(table.model().index(0, 1))
    editor = table.findChild(QLineEdit)
    editor.setText("small")
    window.labels.brush_size = 60  # object 1 becomes the largest
    window.labels.paint((130, 190), 1)
    window.settle()
    window.qtbot.keyClick(editor, Qt.Key.Key_Return)
    window.settle()
    assert [one.name for one in window.view.objects] == [
        "small",
        "Object 2",
        "Object 3",
    ]
    assert shown(window, 1)[-1] == "small"


def test_what_is_chosen_for_an_object_that_went_meanwhile_does_nothing(
    window, monkeypatch
):
    """It went while a menu or a dialog was open."""
    table = window.dock.objects.table
    select(window, 2)
    actions = table.menu().actions()
    undo(window)
    before = list(window.view.objects)
    assert len(before) == 2
    for action in actions:
        if not action.text().endswith("…"):
            action.trigger()
    window.settle()
    assert list(window.view.objects) == before
    for chooser, name, found in (
        (QInputDialog, "getItem", ("kind", True)),
        (QColorDialog, "getColor", QColor("#123456")),
    ):
        monkeypatch.setattr(chooser, name, lambda *_, f=found: undo(window) or f)
    select(window, 1)
    choose(window, "Class…")
    assert [one.object_class for one in window.view.objects] == [""]
    table.cellDoubleClicked.emit(0, 0)
    window.settle()
    assert not window.view.objects
