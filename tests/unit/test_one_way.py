from __future__ import annotations

import numpy as np

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.one_way import one_way
from napari_cfrseg.engine.patch import Patch

PLANE = (20, 30)


def patch(*boxes: tuple[int, int, int, int]) -> Patch:
    mask = np.zeros(PLANE, dtype=bool)
    for y0, x0, y1, x1 in boxes:
        mask[y0:y1, x0:x1] = True
    return Patch.from_mask(mask)


def test_a_positive_click_takes_nothing_away():
    before, after = patch((2, 2, 8, 8)), patch((4, 4, 12, 12))
    got = one_way(before, after, Click((10, 10)), 0.5)
    want = patch((2, 2, 8, 8), (4, 4, 12, 12))
    whole = (0, 0, *PLANE)
    np.testing.assert_array_equal(got.read(whole), want.read(whole))


def test_a_negative_click_adds_nothing():
    before, after = patch((2, 2, 12, 12)), patch((0, 0, 8, 20))
    got = one_way(before, after, Click((10, 10), is_positive=False), 0.5)
    whole = (0, 0, *PLANE)
    np.testing.assert_array_equal(got.read(whole), patch((2, 2, 8, 12)).read(whole))


def test_a_click_that_corrects_nothing_may_change_all():
    before, after = patch((2, 2, 8, 8)), patch((4, 4, 12, 12))
    assert one_way(before, after, Click((5, 5)), 0.5) is after
    assert one_way(before, after, Click((15, 15), is_positive=False), 0.5) is after


def test_nothing_before_a_first_mask_is_kept_from_growing():
    after = patch((4, 4, 12, 12))
    got = one_way(Patch.empty(PLANE), after, Click((5, 5)), 0.5)
    whole = (0, 0, *PLANE)
    np.testing.assert_array_equal(got.read(whole), after.read(whole))
