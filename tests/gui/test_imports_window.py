"""Imports in a real window, which answers while they are read."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from gui_window import Window
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_cfrseg.io.object_exports import write_geojson
from napari_cfrseg.io.tiled_labels import MANY_PX

pytestmark = [
    pytest.mark.gui,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name"),
]
CONTROL = Qt.KeyboardModifier.ControlModifier


@pytest.fixture
def outlines(tmp_path, monkeypatch):
    """Give the file chosen in the dialog, which nobody has written yet, and content."""
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "user"))
    drawn, pipe = tmp_path / "drawn.geojson", tmp_path / "slow.geojson"
    labels = np.zeros((160, 240), np.int32)
    labels[100:110, 100:120], labels[50:60, 50:60] = 1, 2
    write_geojson(drawn, labels)
    os.mkfifo(pipe)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(pipe), ""))
    return pipe, drawn.read_bytes()


def begin_import(window: Window, pipe: Path) -> IO[bytes]:
    """Import from a pipe; return its other end once it is being read."""
    panel = window.dock.sessions
    panel.fill_import_menu()
    actions = panel.import_menu.actions()
    (action,) = [a for a in actions if a.text().startswith("Objects of another")]
    action.trigger()
    ends: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):  # nobody reads it yet
            ends.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(ends)

    window.until(is_read)
    assert window.view.status.startswith("Importing slow.geojson")
    return os.fdopen(ends[0], "wb")


def test_what_is_done_while_a_file_is_read_follows_its_objects(window, outlines, said):
    pipe, content = outlines
    window.click(60, 60)
    end = begin_import(window, pipe)
    window.qtbot.keyClick(window.canvas, Qt.Key.Key_N)
    window.click(60, 180, settle=False)
    window.qtbot.wait(100)
    assert "is kept until then" in window.view.status
    assert window.dock.status.cancel.isEnabled()
    with end:
        end.write(content)
    window.until(lambda: len(window.view.objects) == 3)
    window.settle()
    assert [window.area(i) for i in (1, 2, 3)] == [1600, 200, 1600]
    assert said == [
        "1 of 2 outlines have no pixel of the image that no object and no smaller "
        "outline has: left out.",
        "1 object imported: click to correct.",
    ]
    window.press(Qt.Key.Key_Z, CONTROL)
    window.press(Qt.Key.Key_Z, CONTROL)
    assert [row.object_id for row in window.view.objects] == [1]


def test_esc_ends_an_import(window, outlines, said):
    pipe, content = outlines
    window.click(60, 60)
    end = begin_import(window, pipe)
    window.press(Qt.Key.Key_Escape)
    assert window.view.status == "Given up."
    with end:
        end.write(content)
    window.until(lambda: window.view.status == "slow.geojson was not imported.")
    window.press(Qt.Key.Key_N)
    window.click(60, 180)
    assert [row.object_id for row in window.view.objects] == [1, 2]
    assert window.area(2) == 1600
    assert not said


@pytest.mark.parametrize("way", ["other pixels", "other image"])
def test_work_on_another_image_goes_on_when_an_import_ends(window, outlines, said, way):
    pipe, content = outlines
    window.click(60, 60)
    first, end = window.dock.controller, begin_import(window, pipe)
    pixels, place = window.image.data.copy(), window.image.scale
    if way == "other pixels":
        window.image.data, ending = pixels, "slow.geojson was not imported."
    else:
        other = window.viewer.add_image(pixels, name="other", scale=place)
        other.translate = window.image.translate
        window.dock.choose(other)
        ending = "1 object imported: click to correct."
    with end:
        end.write(content)
    window.until(lambda: ending in said)
    window.settle()
    window.click(60, 180)
    assert [(row.object_id, row.area_px) for row in window.view.objects] == [(1, 1600)]
    assert len(first.view.objects) == (1 if way == "other pixels" else 2)


def test_what_is_said_of_acts_kept_names_what_goes_on(window, outlines):
    pipe, content = outlines
    window.click(60, 60)
    end = begin_import(window, pipe)
    window.click(60, 180, settle=False)
    window.dock.status.cancel.click()
    assert window.view.status == "Click cancelled."
    window.click(60, 180, settle=False)
    assert window.view.status.startswith("Importing slow.geojson")
    assert window.view.status.endswith("is kept until then.")
    with end:
        end.write(content)
    window.until(lambda: len(window.view.objects) == 3)


def test_a_huge_object_is_shown_and_undone(window, tmp_path, monkeypatch):
    side = 64 + int(MANY_PX**0.5)
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "user"))
    image = window.viewer.add_image(np.zeros((side, side), np.uint8), name="large")
    window.dock.image_choice.value = image
    window.until(lambda: window.dock.controller.image.layer is image)
    window.until(lambda: not window.view.loading)
    labels = np.zeros((side, side), np.int32)
    labels[5:-5, 5:-5], labels[90:95, 90:95] = 1, 2
    path = tmp_path / "tissue.geojson"
    write_geojson(path, labels)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    panel = window.dock.sessions
    panel.fill_import_menu()
    panel.import_menu.actions()[-2].trigger()
    window.until(lambda: len(window.view.objects) == 2)
    window.settle()
    assert (labels > 0).sum() >= MANY_PX
    assert np.array_equal(window.labels.data, labels)
    areas = [row.area_px for row in window.view.objects]
    assert areas == np.bincount(labels.ravel())[1:].tolist()
    window.press(Qt.Key.Key_Z, CONTROL)
    assert not window.labels.data.any()
    window.press(Qt.Key.Key_Z, CONTROL | Qt.KeyboardModifier.ShiftModifier)
    assert np.array_equal(window.labels.data, labels)
