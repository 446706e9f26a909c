"""Lists of clicks that grow one by one."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cfrseg.clicks import Click, ClickList, effective_clicks


def same(first: ClickList, second: ClickList) -> bool:
    return first == second and all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("yx", "pixels", "positive")
    )


@pytest.mark.parametrize("wrong", [(1,), (1, 2, 3), "ab", 7, (float("nan"), 1)])
def test_what_is_no_place_is_said(wrong):
    with pytest.raises(ValueError, match="click at "):
        Click(wrong)


@pytest.mark.parametrize("side", [3, 40])
def test_a_list_that_grew_equals_one_made_at_once(side):
    """Also where clicks fall on one pixel again and again."""
    rng = np.random.default_rng(side)
    clicks = [
        Click((y, x), bool(rng.integers(2)))
        for y, x in rng.uniform(-0.5, side, (300, 2)).tolist()
    ]
    grown = ClickList()
    for count, click in enumerate(clicks, 1):
        grown = grown.followed_by(click)
        if count % 7 == 0 or count < 10:
            at_once = ClickList(clicks[:count])
            assert same(grown, at_once)
            assert same(grown.effective, at_once.effective)
            assert len({c.pixel for c in grown.effective}) == len(grown.effective)


def test_two_lists_may_continue_one():
    """After undo, for example: neither changes the other."""
    start = ClickList([Click((1, 2)), Click((3, 4), False)]).followed_by(Click((5, 6)))
    one = start.followed_by(Click((7, 8)))
    other = start.followed_by(Click((9, 9), False))
    assert one.yx.tolist()[3:] == [[7, 8]]
    assert other.yx.tolist()[3:] == [[9, 9]]
    assert (one.positive[3], other.positive[3]) == (True, False)
    assert same(start, ClickList(tuple(start)))


def test_the_latest_of_the_clicks_on_a_pixel_counts():
    clicks = [Click((5, 5)), Click((1, 1)), Click((5.2, 4.9), False)]
    assert effective_clicks(clicks) == (clicks[1], clicks[2])
