"""Fixtures of tests in a real window."""

from __future__ import annotations

import pytest
from gui_window import flood_window, squares

from napari_cfrseg.gui import dock_widget


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """Return the notifications that the dock shows, as they come."""
    found: list[str] = []
    monkeypatch.setattr(
        dock_widget, "_TELL", dict.fromkeys(dock_widget._TELL, found.append)
    )
    return found


@pytest.fixture
def window(make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch, said):
    with flood_window(
        make_napari_viewer, qtbot, npe2pm, monkeypatch, squares()
    ) as made:
        yield made
