from __future__ import annotations

import numpy as np

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.one_way import in_a_row, one_way
from napari_cfrseg.engine.probability_patch import Patch
from napari_cfrseg.model.network import LATE_PUSH

PLANE = (20, 30)


def patch(*boxes: tuple[int, int, int, int]) -> Patch:
    mask = np.zeros(PLANE, dtype=bool)
    for y0, x0, y1, x1 in boxes:
        mask[y0:y1, x0:x1] = True
    return Patch.from_mask(mask)


def test_a_positive_click_takes_nothing_away():
    before, after = patch((2, 2, 8, 8)), patch((4, 4, 12, 12))
    got = one_way(before, after, [Click((10, 10))], 0.5)
    want = patch((2, 2, 8, 8), (4, 4, 12, 12))
    whole = (0, 0, *PLANE)
    np.testing.assert_array_equal(got.read(whole), want.read(whole))


def test_a_negative_click_adds_nothing():
    before, after = patch((2, 2, 12, 12)), patch((0, 0, 8, 20))
    got = one_way(before, after, [Click((10, 10), is_positive=False)], 0.5)
    whole = (0, 0, *PLANE)
    np.testing.assert_array_equal(got.read(whole), patch((2, 2, 8, 12)).read(whole))


def test_a_click_that_corrects_nothing_may_change_all():
    before, after = patch((2, 2, 8, 8)), patch((4, 4, 12, 12))
    assert one_way(before, after, [Click((5, 5))], 0.5) is after
    assert one_way(before, after, [Click((15, 15), is_positive=False)], 0.5) is after


def test_nothing_before_a_first_mask_is_kept_from_growing():
    after = patch((4, 4, 12, 12))
    got = one_way(Patch.empty(PLANE), after, [Click((5, 5))], 0.5)
    whole = (0, 0, *PLANE)
    np.testing.assert_array_equal(got.read(whole), after.read(whole))


def test_clicks_of_one_sign_in_a_row_reach_wider():
    plane = np.full(PLANE, 0.3, dtype=np.float32)
    before = Patch(PLANE, 0, 0, plane.copy())
    plane[4:8, 4:8] = 0.9
    plane[:, 20:] = 0.48  # 0.08 in logits below the threshold
    plane[:, 25:] = 0.38  # 0.49 below it
    after = Patch(PLANE, 0, 0, plane)
    first, other = Click((2, 2)), Click((1, 1), is_positive=False)
    clicks = [first, other, Click((6, 6))]
    reached = []
    for count in (1, 2, 3):
        assert in_a_row(clicks) == count
        got = one_way(before, after, clicks, 0.5).read((0, 0, *PLANE)) > 0.5
        assert got[4:8, 4:8].all()
        reached.append((bool(got[10, 22]), bool(got[10, 28])))
        clicks.append(Click((6, 3 + count)))
    assert reached == [(True, False), (True, False), (True, True)]
    assert list(LATE_PUSH) == sorted(LATE_PUSH)
    alone = one_way(before, after, clicks[:-1], 0.5, push=(0.0,))
    assert (alone.read((0, 0, *PLANE)) > 0.5).sum() == 16


def test_the_first_click_does_not_count_as_a_correction():
    assert in_a_row([Click((2, 2))]) == 1
    assert in_a_row([Click((2, 2)), Click((3, 3))]) == 1


def test_the_push_does_not_run_over_a_click_of_the_other_sign():
    before = Patch(PLANE, 0, 0, np.full(PLANE, 0.3, dtype=np.float32))
    after = Patch(PLANE, 0, 0, np.full(PLANE, 0.49, dtype=np.float32))
    kept = Click((10, 10), is_positive=False)
    got = one_way(before, after, [Click((2, 2)), kept, Click((6, 6))], 0.5)
    plane = got.read((0, 0, *PLANE)) > 0.5
    assert not plane[10, 10]
    assert plane.sum() == plane.size - 1
