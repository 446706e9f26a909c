"""Click counts, curves and regressions on runs small enough to check by hand."""

import math

import numpy as np
import pytest

from napari_cfrseg.evaluation import scores

STOPPED = [0.5, 0.86, 0.91]
STUCK = [0.2] * 20
LAST_GASP = [0.1] * 19 + [0.95]


@pytest.mark.parametrize(
    ("ious", "target", "expected"),
    [
        (STOPPED, 0.85, 2),
        (STOPPED, 0.5, 1),
        (STOPPED, 0.95, 20),
        (STUCK, 0.9, 20),
        ([0.8999999999], 0.9, 1),  # float32, as published
        ([], 0.9, 20),
    ],
)
def test_clicks_to(ious, target, expected):
    assert scores.clicks_to(ious, target) == expected


def test_success_at_the_last_click_is_a_failure_only_as_published():
    runs = [STOPPED, STUCK, LAST_GASP]
    assert scores.count_failures(runs, 0.9) == 1
    assert scores.count_failures(runs, 0.9, published=True) == 2


def test_a_stopped_run_keeps_its_last_iou():
    assert scores.iou_at(STOPPED, 2) == 0.86
    assert scores.iou_at(STOPPED, 20) == 0.91
    curve = scores.mean_iou_curve([STOPPED, STUCK])
    np.testing.assert_allclose(curve[:4], [0.35, 0.53, 0.555, 0.555])
    assert curve.shape == (20,)


def test_iou_at_needs_a_click():
    with pytest.raises(ValueError, match="IoU@1"):
        scores.iou_at([], 1)
    with pytest.raises(ValueError, match="IoU@0"):
        scores.iou_at(STOPPED, 0)


def test_area_under_the_curve_is_the_mean_height():
    assert scores.area_under_curve([[0.7]]) == pytest.approx(0.7)
    assert scores.area_under_curve([[0.0, 1.0]], max_clicks=2) == 0.5
    assert scores.area_under_curve([[0.0, 1.0, 1.0]], max_clicks=3) == 0.75


def test_seconds_are_split_into_first_and_later_clicks():
    first, later = scores.seconds_per_click([[0.4, 0.1, 0.2], [0.6]])
    assert first == pytest.approx(0.5)
    assert later == pytest.approx(0.15)
    assert math.isnan(scores.seconds_per_click([[0.4]])[1])


@pytest.mark.parametrize(
    ("ious", "error_px", "expected"),
    [
        ([0.5, 0.6, 0.7], [50, 40, 30], 0),
        ([0.5, 0.4, 0.7], [50, 60, 30], 1),
        ([0.5, 0.496, 0.7], [50, 60, 30], 0),  # less than half a point
        ([0.5, 0.4, 0.7], [5, 7, 3], 0),  # two pixels of a tiny object
        ([0.5, 0.4, 0.3], [5, 8, 11], 2),
        ([0.5], [5], 0),
    ],
)
def test_regressions(ious, error_px, expected):
    assert scores.count_regressions(ious, error_px) == expected


def test_regressions_are_per_100_clicks_after_the_first():
    runs = [[0.5, 0.4, 0.7], [0.5]]
    assert scores.regressions_per_100(runs, [[50, 60, 30], [9]]) == 50
    assert math.isnan(scores.regressions_per_100([[0.5]], [[9]]))
    with pytest.raises(ValueError, match="not one run"):
        scores.count_regressions([0.5], [])


def test_no_objects_have_no_mean():
    assert math.isnan(scores.mean_clicks_to([], 0.9))
    assert math.isnan(scores.mean_iou_at([], 1))


def row(ious, dices=(), **changed):
    effects = dict.fromkeys(("mended_px", "spoilt_px", "spoilt_far_px"), ())
    return scores.ResultRow(
        key="s/i#1",
        set_name="s",
        image_name="i",
        plane=None,
        area_px=50,
        shape=(9, 9),
        clicks=((1, 1, 1),) * len(ious),
        ious=tuple(ious),
        error_px=(1,) * len(ious),
        seconds=(0.1,) * len(ious),
        surface_dices=tuple(dices),
        **effects | changed,
    )


@pytest.mark.parametrize(
    ("ious", "dices", "expected"),
    [
        ([0.5, 0.8, 0.9], [0.5, 0.9, 0.9], 3),
        ([0.5, 0.8, 0.9], [0.5, 0.95, 0.9], 2),
        ([0.7], [1.0], 20),
    ],
)
def test_clicks_until_the_outline_is_acceptable(ious, dices, expected):
    assert scores.clicks_to_ok(row(ious, dices)) == expected
    assert scores.is_ok_within(row(ious, dices)) == (expected < 20)


def test_a_click_that_costs_more_than_a_hundredth_is_a_drop():
    assert scores.drops([0.5, 0.6, 0.585, 0.58]) == [False, True, False]
    assert scores.drops([0.5]) == []


def test_effects_are_shares_of_the_area_by_click():
    rows = [
        row(
            [0.5] * 5,
            mended_px=(40, 5, 5, 5, 10),
            spoilt_px=(10, 0, 0, 5, 0),
            spoilt_far_px=(0, 0, 0, 5, 0),
        ),
        row([0.5], mended_px=(30,), spoilt_px=(0,), spoilt_far_px=(0,)),
    ]
    found = scores.mean_effects(rows)
    assert found["1"].mended == pytest.approx(0.7)
    assert found["1"].spoilt == pytest.approx(0.1)
    assert found["2"] == scores.ClickShares(0.1, 0, 0)
    assert found["4+"].mended == pytest.approx(0.15)
    assert found["4+"].spoilt_far == pytest.approx(0.05)
