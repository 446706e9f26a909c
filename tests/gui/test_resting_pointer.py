"""A pointer at rest in a real viewer: the click computed ahead, and its outline."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import FloodNetwork
from gui_window import flood_window, mouse_move, post, squares
from qtpy.QtCore import QPoint, Qt

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment import resting_pointer
from napari_cfrseg.gui.segment.layers import to_rgba
from napari_cfrseg.gui.segment.resting_pointer import Resting
from napari_cfrseg.overlay import PURPLE, hex_of

pytestmark = pytest.mark.gui


class CountingNetwork(FloodNetwork):
    """Counts the windows that were embedded."""

    embedded = 0

    def embed_image(self, *args, **kwargs):
        type(self).embedded += 1
        return super().embed_image(*args, **kwargs)


@pytest.fixture
def window(make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch):
    with flood_window(make_napari_viewer, qtbot, npe2pm, monkeypatch, squares()) as w:
        network = CountingNetwork(0.2)
        network.for_inference = lambda: network
        w.dock.controller.load_model(lambda: Segmenter(network, device="cpu"))
        w.until(lambda: not w.view.loading)
        yield w


def rest(window, y, x) -> None:
    """Move the pointer to a pixel and wait until what follows is computed."""
    window.point(y, x)
    resting = window.dock.resting
    window.until(lambda: not resting._timer.isActive())
    if resting._job is not None:
        window.until(resting._job.ended.is_set)
    window.settle()


def outlines(window) -> list:
    return [x for x in window.viewer.layers if x.name.endswith("next click")]


def test_the_click_after_a_rest_embeds_nothing_and_gives_the_same(window) -> None:
    rest(window, 60, 60)
    before = CountingNetwork.embedded
    assert not window.view.objects
    window.click(60, 60)
    assert CountingNetwork.embedded == before
    assert window.area(1) == 1600
    window.viewer.layers.selection.active = window.image  # another way of the click
    window.press("N")
    rest(window, 60, 180)
    before = CountingNetwork.embedded
    window.click(60, 180)
    assert CountingNetwork.embedded == before
    assert window.area(2) == 1600


def test_the_object_that_a_click_apart_begins_is_computed_ahead_too(window) -> None:
    window.click(60, 60)
    rest(window, 60, 180)
    before = CountingNetwork.embedded
    window.click(60, 180)
    assert CountingNetwork.embedded == before
    assert window.view.selected == 2
    assert window.area(2) == 1600


def test_a_click_is_computed_from_the_press_on(window) -> None:
    """Whichever layer is active; the release runs no network."""
    window.dock.settings.resting.value = Resting.NOTHING
    places = {window.points: (60, 60), window.image: (60, 180)}
    for number, (layer, (y, x)) in enumerate(places.items(), 1):
        window.press("N")
        window.viewer.layers.selection.active = layer
        before, place = CountingNetwork.embedded, window.at(y, x)
        window.qtbot.mousePress(window.canvas, Qt.MouseButton.LeftButton, pos=place)
        window.until(lambda before=before: CountingNetwork.embedded > before)
        window.until(window.dock.resting._job.ended.is_set)
        before = CountingNetwork.embedded
        assert number not in [one.object_id for one in window.view.objects]
        # a hand trembles: the click is where the button was pressed
        post(window.canvas, mouse_move(place + QPoint(2, 1), Qt.MouseButton.LeftButton))
        window.qtbot.mouseRelease(
            window.canvas, Qt.MouseButton.LeftButton, pos=place + QPoint(2, 1)
        )
        window.settle()
        assert CountingNetwork.embedded == before
        assert window.area(number) == 1600
        pressed = window.dock.controller.clicks.rows[-1].yx
        assert np.allclose(
            pressed, (y, x), atol=0.5 / window.viewer.scene.camera.zoom / 0.2
        )
        assert np.allclose(window.points.data[-1], pressed)


def test_a_click_released_at_once_waits_for_what_its_press_began(window) -> None:
    button, place = Qt.MouseButton.LeftButton, window.at(60, 60)
    window.qtbot.mousePress(window.canvas, button, pos=place)
    begun = window.dock.resting._job
    window.qtbot.mouseRelease(window.canvas, button, pos=place)
    window.point(20, 20)
    assert not begun.is_cancelled
    window.settle()
    assert window.area(1) == 1600


def test_a_press_that_becomes_a_drag_is_no_click(window) -> None:
    window.viewer.layers.selection.active = window.image
    window.drag((60, 60), (60, 120))
    assert not window.view.objects
    assert window.dock.resting._job is None
    window.drag((30, 150), (90, 210), Qt.KeyboardModifier.ShiftModifier)
    assert window.view.objects


def test_by_a_switch_nothing_is_computed_ahead(window) -> None:
    window.dock.settings.resting.value = Resting.NOTHING
    before = CountingNetwork.embedded
    rest(window, 60, 60)
    assert CountingNetwork.embedded == before


def test_on_battery_nothing_is_computed_ahead(window, monkeypatch) -> None:
    monkeypatch.setattr(resting_pointer, "on_battery", lambda: True)
    before = CountingNetwork.embedded
    rest(window, 60, 60)
    assert CountingNetwork.embedded == before


def test_the_outline_shows_what_the_click_gives_and_goes_with_the_pointer(window):
    assert not outlines(window)
    window.dock.settings.resting.value = Resting.OUTLINE
    rest(window, 60, 60)
    window.until(lambda: bool(outlines(window)))
    (layer,) = outlines(window)
    assert layer.visible
    assert layer.data.shape == (42, 42)
    corner = window.image.world_to_data(layer.data_to_world((0, 0)))
    assert np.allclose(corner, (39, 39))
    shown = window.viewer.screenshot(flash=False)[..., :3] / 255
    outline = np.abs(shown - to_rgba(hex_of(PURPLE))[:3]).max(axis=-1) < 0.06
    assert outline.sum() > 100  # on all four sides of the square
    assert window.viewer.layers.selection.active == window.points
    window.point(20, 20)
    assert not layer.visible
    window.click(60, 60)
    assert not layer.visible
    assert window.area(1) == 1600
    window.dock.settings.resting.value = Resting.PREPARE
    assert not outlines(window)


def test_where_clicks_are_slow_no_outline_is_drawn_and_the_dock_says_so(window):
    window.dock.controller.first_click_s = 3.0
    window.dock.settings.resting.value = Resting.OUTLINE
    assert "3.0 s" in window.view.status
    rest(window, 60, 60)
    assert not outlines(window)
