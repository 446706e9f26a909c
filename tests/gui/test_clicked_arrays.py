"""Fifty kinds of arrays, each clicked with the mouse in a real window."""

from __future__ import annotations

import numpy as np
import pytest
from array_kinds import CENTRE, DEFAULT, KINDS, PLANE, ArrayKind, disc
from gui_window import PlanesWindow, flood_windows

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


@pytest.fixture
def opened(make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch):
    with flood_windows(
        make_napari_viewer, qtbot, npe2pm, monkeypatch, PlanesWindow
    ) as open_window:
        yield open_window


def check_clicked(opened, folder, kind: ArrayKind) -> None:
    """Click the disc on one plane: it is found there, whole, and nowhere else."""
    window = opened(lambda viewer: kind.add(viewer, folder))
    controller = window.dock.controller
    image = controller.image
    assert "".join(image.plane_names) == f"{kind.leading}yx"
    wanted = min(kind.channels, 4 if kind.channels <= 4 else 3)
    assert len(image.channels) == (wanted if "c" in kind.axes else 1)
    controller.planes.show((PLANE,) * len(kind.leading))
    window.viewer.reset_view()
    window.settle()
    window.click(*CENTRE)
    mask = window.mask()
    assert (mask & disc()).sum() / (mask | disc()).sum() > 0.9
    labels = np.asarray(image.of_own_array(window.labels.data))
    assert labels.astype(bool).sum() == mask.sum()
    assert labels[(PLANE,) * len(kind.leading)].any()
    # our layer's pixels lie where the image's do
    plane = (PLANE,) * len(kind.leading)
    theirs = image.layer.data_to_world(image.to_layer((*plane, *CENTRE)))
    ours = window.labels.data_to_world(image.to_own((*plane, *CENTRE)))
    last = image.layer.ndim - image.own_ndim
    kept = [i - last for i in range(last, image.layer.ndim) if i != image.channel_axis]
    np.testing.assert_allclose(np.array(ours)[kept], np.array(theirs[last:])[kept])


@pytest.mark.parametrize("kind", KINDS[:DEFAULT], ids=lambda kind: kind.name)
def test_an_array_is_clicked(opened, tmp_path, kind):
    check_clicked(opened, tmp_path, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[DEFAULT:], ids=lambda kind: kind.name)
def test_a_further_array_is_clicked(opened, tmp_path, kind):
    check_clicked(opened, tmp_path, kind)
