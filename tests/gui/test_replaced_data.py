"""Changes of the layers by other plugins: recorded, converted, or a new session."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import FloodNetwork
from gui_window import Window, squares
from sync_runner import imported

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.session.layer_imports import read_layer
from napari_cfrseg.session.session import Session

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]

FIRST, SECOND = (60, 60), (60, 180)


def replayed(window: Window) -> np.ndarray:
    """Replay what was recorded, with the window's network."""
    keeper = window.dock._keepers[window.dock.controller]
    session = Session(keeper.writer.path, keeper.writer.content)
    segmenter = Segmenter(FloodNetwork(0.2), device="cpu")
    return np.asarray(session.apply(np.asarray(window.image.data), segmenter))


def test_labels_that_a_plugin_puts_in_are_recorded(window):
    window.click(*FIRST)
    mine = window.labels.data.astype(np.int64)
    mine[100:120, 100:130] = 5
    mine[mine == 1] = 0
    window.labels.data = mine
    window.settle()
    assert np.array_equal(window.labels.data, mine)
    window.click(*SECOND)
    labels = np.asarray(window.labels.data)
    assert (labels[100:120, 100:130] == 5).all()
    assert not labels[40:80, 40:80].any()
    assert labels[SECOND] > 0
    assert np.array_equal(replayed(window), labels)
    assert mine[SECOND] == 0  # the plugin's own array is never written to


def test_labels_written_without_an_event_are_recorded_at_the_next_click(window):
    window.click(*FIRST)
    window.labels.data[100:120, 100:130] = 7
    window.labels.refresh()
    window.click(*SECOND)
    labels = np.asarray(window.labels.data)
    assert (labels[100:120, 100:130] == 7).all()
    assert np.array_equal(replayed(window), labels)


@pytest.mark.parametrize(
    "misfit", [np.zeros((20, 30), int), np.full((160, 240), 70_000)]
)
def test_labels_that_do_not_fit_are_refused(window, misfit):
    window.click(*FIRST)
    before = np.array(window.labels.data)
    window.labels.data = misfit
    window.settle()
    assert np.array_equal(window.labels.data, before)
    assert "do not fit the image" in window.view.status
    window.click(*SECOND)
    assert window.labels.data[SECOND] > 0
    assert np.array_equal(replayed(window), window.labels.data)


def test_new_pixels_begin_afresh(window, said):
    window.click(*FIRST)
    before, kept = window.labels, np.array(window.labels.data)
    path = window.dock._keepers[window.dock.controller].writer.path
    window.image.data = squares()[:, ::-1] // 2
    window.until(lambda: not window.view.loading)
    window.settle()
    assert any("pixels of “cells” were replaced" in text for text in said)
    assert window.labels is not before
    assert before.name == "cells objects (before)"
    assert np.array_equal(before.data, kept)
    assert not window.view.objects
    assert [o.click_count for o in Session.open(path).objects()] == [1]
    window.click(60, 60)  # the new pixels: a square from column 160 on is at 40 now
    found = window.labels.data == 1
    assert np.array_equal(found, (squares()[:, ::-1] > 0) & found)
    assert np.array_equal(replayed(window), window.labels.data)


def test_new_pixels_of_another_shape_before_any_click(window, said):
    window.image.data = np.pad(squares(), 30)
    window.until(lambda: not window.view.loading)
    window.settle()
    assert not said
    assert len(window.viewer.layers) == 3
    window.click(90, 90)
    assert window.labels.data.shape == (220, 300)
    assert window.labels.data[90, 90] == 1
    assert window.labels.data[69, 90] == 0


def test_new_pixels_with_one_more_axis_begin_afresh(window, said):
    window.click(*FIRST)
    window.image.data = np.stack([squares()] * 3)
    window.until(lambda: not window.view.loading)
    window.settle()
    assert any("pixels of “cells” were replaced" in text for text in said)
    assert window.labels.data.shape == (3, 160, 240)
    window.viewer.reset_view()
    window.dock.controller.clicked(window.image.data_to_world((1, *SECOND)))
    window.settle()
    assert window.labels.data[1][SECOND] == 1


@pytest.mark.parametrize("moved", ["image", "labels", "points"])
def test_our_layers_stay_on_the_image(window, moved):
    window.click(*FIRST)
    layer = getattr(window, moved)
    layer.translate = np.add(layer.translate, (4, 6))
    layer.scale = np.asarray(layer.scale) * 1.5
    for own in (window.labels, window.points):
        assert np.allclose(own.scale, window.image.scale)
        assert np.allclose(own.translate, window.image.translate)
    window.viewer.reset_view()
    window.click(*SECOND)
    assert window.labels.data[SECOND] > 0
    assert np.allclose(window.points.data[-1], SECOND, atol=1)


def test_labels_that_lie_otherwise_are_imported_where_they_are_seen(window):
    labels = np.zeros((60, 80), np.uint8)
    labels[20:30, 20:30] = 3
    shift = np.asarray(window.image.data_to_world((30, 50)))
    layer = window.viewer.add_labels(labels, scale=(0.2, 0.2), translate=shift)
    imported(read_layer, window.dock.controller, layer)
    window.settle()
    expected = np.zeros((160, 240), bool)
    expected[50:60, 70:80] = True
    assert np.array_equal(window.labels.data > 0, expected)


def test_a_layer_put_in_another_s_place_ends_the_work_on_it(window):
    window.click(*FIRST)
    viewer = window.viewer
    viewer.layers.remove(window.image)
    assert window.dock.controller is None
    viewer.add_image(squares() // 2, name="cells")
    window.dock.image_choice.value = viewer.layers["cells"]
    window.until(lambda: window.dock.controller is not None)
    assert window.dock.controller.image.layer is viewer.layers["cells"]
