"""The window's work for a click does not grow with the clicks before it."""

from __future__ import annotations

import numpy as np
from counted_steps import SIDE, DiscNetwork, steps_of
from napari.components import ViewerModel
from sync_runner import SyncRunner

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment.click_layer import COLOURS, Gesture
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.gui.segment.layers import to_rgba


def test_the_window_takes_no_more_steps_for_a_click_among_hundreds():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((SIDE, SIDE), np.uint8))
    segmenter = Segmenter(DiscNetwork())
    controller = Controller(viewer, layer, SyncRunner(), lambda: segmenter, print)
    places = np.random.default_rng(0).permutation(SIDE * SIDE)
    counted = {}
    for number in range(260):
        y, x = divmod(int(places[number]), SIDE) if number else (SIDE / 2, SIDE / 2)
        is_inside = (y - SIDE / 2) ** 2 + (x - SIDE / 2) ** 2 < (SIDE / 3) ** 2

        def click(yx=(y, x), is_inside=is_inside) -> None:
            gesture = Gesture.CLICK if is_inside else Gesture.OTHER
            controller.clicked(yx, gesture)

        if number in (50, 259):
            counted[number] = steps_of(click)
        else:
            click()
    assert counted[259] < 1.2 * counted[50]
    points = controller.clicks.layer
    signs = np.array([row.is_positive for row in controller.clicks.rows])
    assert 50 < signs.sum() < 210
    assert [str(symbol) for symbol in points.symbol] == [
        "disc" if sign else "x" for sign in signs
    ]
    colours = np.where(signs[:, None], *(to_rgba(COLOURS[s]) for s in (True, False)))
    np.testing.assert_allclose(points.face_color, colours, atol=1e-6)
    found = points.features["click"].astype(int).tolist()
    assert found == [row.click_id for row in controller.clicks.rows]
    controller.close()
