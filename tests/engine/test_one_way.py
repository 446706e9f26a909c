from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logit

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.one_way import in_a_row, measure, one_way, settle
from napari_cfrseg.engine.probability_patch import Patch
from napari_cfrseg.geometry.windows import Window
from napari_cfrseg.model.blocks.extensions import ChangeOdds
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


WINDOW = Window(0, 0, 32, 32)


def constant_odds(logits: float) -> ChangeOdds:
    """Return odds that give every cell the same chance."""
    odds = ChangeOdds(4)
    with torch.no_grad():
        for parameter in odds.parameters():
            parameter.zero_()
        odds.weigh[-1].bias.fill_(logits)
    return odds


def test_cells_are_measured_towards_the_click():
    before = np.full((32, 32), 0.1, np.float32)
    before[8:16, 8:16] = 0.9
    answer = np.full((32, 32), 0.4, np.float32)
    answer[20:, :] = 0.01  # hopeless for a positive click
    clicks = [Click((12, 12)), Click((30, 30), is_positive=False), Click((12, 19))]
    numbers, cells = measure(answer, before, WINDOW, clicks)
    assert cells.sum() == 20 * 32 - 64  # what is not in the mask, nor hopeless
    rows, columns = np.nonzero(cells)
    here = (rows == 12) & (columns == 19)
    got = numbers[here][0]
    np.testing.assert_allclose(got[:2], [logit(0.4), logit(0.1)], rtol=1e-5)
    # at the click, four cells from the mask, which 64 cells have
    want = [0, np.log1p(4), np.log1p(4), 1, 1, np.log1p(8)]
    np.testing.assert_allclose(got[2:8], want, atol=1e-6)
    assert got[9] == 3
    negative = [*clicks[:2], Click((12, 12), is_positive=False)]
    numbers, cells = measure(answer, before, WINDOW, negative)
    assert cells.sum() == 64
    np.testing.assert_allclose(numbers[:, 0], -logit(0.4), rtol=1e-5)
    assert set(numbers[:, 6]) == {2.0}  # the second negative one in a row


def test_a_click_off_the_window_is_measured_at_its_border():
    before = np.zeros((32, 32), np.float32)
    numbers, cells = measure(before + 0.5, before, WINDOW, [Click((12, 45))])
    assert cells.all()
    assert np.isfinite(numbers).all()


@pytest.mark.parametrize("is_positive", [True, False])
def test_late_changes_follow_the_odds(is_positive):
    before = Patch.from_mask(np.pad(np.ones((12, 12), bool), 10))
    answer = np.full((32, 32), 0.5 + 0.1 * is_positive, np.float32)
    newest = Click((4, 4) if is_positive else (11, 11), is_positive=is_positive)
    clicks = [Click((19, 19)), Click((20, 20)), Click((19, 20)), newest]

    def area(count: int, logits: float) -> int:
        patch, _ = settle(
            before,
            answer,
            WINDOW,
            [*clicks[4 - count :]],
            push=(0.0,),
            odds=constant_odds(logits),
        )
        return int((patch.read((0, 0, 32, 32)) > 0.5).sum())

    around = 81  # at most what honouring one place corrects
    assert abs(area(4, -2.0) - 144) <= around
    assert area(4, 2.0) == 32 * 32 if is_positive else area(4, 2.0) <= around
    assert area(3, -2.0) == area(3, 2.0)  # early clicks: the network's own answer
