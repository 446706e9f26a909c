"""A real window: what is done while the worker is busy counts, too."""

from __future__ import annotations

import pytest
from gui_window import Window
from qtpy.QtCore import Qt

pytestmark = pytest.mark.gui


def focus_shifts(window: Window) -> list[int]:
    annotator = window.dock.controller.annotator
    return [e.focus_shift for o in annotator.objects.values() for _, e in o.clicks()]


def test_each_press_of_the_focus_keys_counts(window, said) -> None:
    window.click(60, 60)
    with window.busy():
        for _ in range(2):
            window.qtbot.keyClick(window.canvas, Qt.Key.Key_E)
    assert focus_shifts(window) == [2]
    # it is the newest click that looks wider, also while that is on its way
    with window.busy():
        window.click(60, 70, settle=False)
        window.qtbot.keyClick(window.canvas, Qt.Key.Key_E)
    assert focus_shifts(window) == [2, 1]
    with window.busy():
        window.qtbot.keyClick(window.canvas, Qt.Key.Key_N)
        window.click(60, 180, settle=False)
        window.qtbot.keyClick(window.canvas, Qt.Key.Key_Q)
    assert focus_shifts(window) == [2, 1, -1]
    assert not said


def test_a_click_after_a_stroke_that_makes_an_object_makes_the_next(
    window, said
) -> None:
    window.click(60, 60)
    window.press(Qt.Key.Key_N)
    with window.busy():
        window.labels.paint((120, 20), window.labels.selected_label)
        window.click(60, 180, settle=False)
    assert window.labels.data[120, 20] == 2
    assert window.labels.data[60, 180] == 3
    assert len(window.view.objects) == 3
    assert not said
