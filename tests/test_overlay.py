"""The overlay shows outlines and clicks over the image."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cfrseg.clicks import Click
from napari_cfrseg.overlay import COLOURS, draw_overlay


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 2), (40, 50, 3), (40, 50, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_image_becomes_rgb(shape: tuple[int, ...], dtype: type) -> None:
    image = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    picture = draw_overlay(image, np.zeros((40, 50), int))
    assert picture.shape == (40, 50, 3)
    assert picture.dtype == np.uint8
    assert np.ptp(picture) > 200


def test_outline_is_inside_its_object_and_in_its_colour() -> None:
    labels = np.zeros((30, 30), int)
    labels[5:15, 5:15] = 2
    picture = draw_overlay(np.zeros((30, 30)), labels)
    assert tuple(picture[5, 5]) == COLOURS[1]
    assert tuple(picture[10, 10]) == (0, 0, 0)
    assert not picture[labels == 0].any()


def test_clicks_at_the_corner_are_drawn_as_far_as_they_fit() -> None:
    clicks = [[Click((0, 0)), Click((29, 29), is_positive=False)]]
    picture = draw_overlay(np.zeros((30, 30)), np.zeros((30, 30), int), clicks)
    assert tuple(picture[0, 5]) == (255, 255, 255)
    assert tuple(picture[5, 0]) == (255, 255, 255)
    assert tuple(picture[24, 24]) == (255, 60, 60)


def test_the_image_itself_is_not_drawn_on() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    draw_overlay(image, np.ones((10, 10), int), [[Click((5, 5))]])
    assert not image.any()
