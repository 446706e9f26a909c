"""Fixtures of tests in a real window."""

from __future__ import annotations

import pytest
from gui_window import flood_window, squares
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_cfrseg.gui import dock_widget


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """Return the notifications that the dock shows, as they come."""
    found: list[str] = []
    monkeypatch.setattr(
        dock_widget, "_TELL", dict.fromkeys(dock_widget._TELL, found.append)
    )
    return found


@pytest.fixture(autouse=True)
def _answered_dialogs(monkeypatch) -> None:
    """Let a dialog that a test does not answer fail: it would wait for a person."""

    def opened(*said, **_) -> None:
        raise AssertionError(f"a dialog was opened: {said[1:3]}")

    for name in ("getOpenFileName", "getSaveFileName", "getExistingDirectory"):
        monkeypatch.setattr(QFileDialog, name, opened)
    monkeypatch.setattr(QMessageBox, "question", opened)


@pytest.fixture
def window(make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch, said):
    with flood_window(
        make_napari_viewer, qtbot, npe2pm, monkeypatch, squares()
    ) as made:
        yield made
