"""An imported network is offered in the dock and draws there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from published_case import write_xtiny

from napari_cfrseg.cli.models import install
from napari_cfrseg.gui.segment.dock import ClickDock

NAME = "simpleclick_vit_xtiny"


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFRSEG_MODELS", str(tmp_path / "models"))
    install(write_xtiny(tmp_path), None)


@pytest.mark.usefixtures("imported")
def test_an_imported_network_is_chosen_and_clicked(make_napari_viewer, qtbot) -> None:
    viewer = make_napari_viewer()
    image = np.full((60, 70), 20, np.uint8)
    image[10:40, 20:50] = 200
    viewer.add_image(image, name="cells")
    dock = ClickDock(viewer)
    viewer.window.add_dock_widget(dock)

    until = qtbot.waitUntil
    until(lambda: dock.controller is not None and not dock.controller.view.loading)
    until(lambda: NAME in dock.model_choice.choices)
    dock.model_choice.value = NAME
    until(lambda: not dock.controller.view.loading)
    dock.controller.clicks.layer.add((25, 35))
    labels = dock.controller.labels.layer
    until(lambda: labels.data[25, 35] == 1)
    assert NAME in dock.model_choice.choices
    dock.let_go()
