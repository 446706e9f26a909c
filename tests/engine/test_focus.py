from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.focus import (
    FocusHint,
    FocusSettings,
    WindowEvidence,
    agreement,
    border_cells,
    candidate_windows,
    clicked_component,
    next_window,
    score,
    shifted,
    weigh,
)
from napari_cfrseg.geometry.windows import Window

SETTINGS = FocusSettings()
PLANE = (1000, 1200)


def sides(plane, hint=None, yx=(200, 300)):
    windows = candidate_windows(yx, plane, 64, SETTINGS, hint)
    return [w.side for w in windows]


def test_candidates_climb_until_the_plane_is_covered():
    assert sides((300, 384)) == [32, 64, 128, 256, 384]
    assert sides((270, 280)) == [32, 64, 128, 280]  # 256 and 280 would tell the same
    assert sides((40, 30), yx=(5, 5)) == [40]


def test_an_object_is_looked_at_alike_in_a_small_and_a_wide_field():
    small, wide = sides((512, 512)), sides((8192, 8192))
    assert small == [32, 64, 128, 256, 512]
    assert wide[:3] == small[:3]
    assert len(wide) == SETTINGS.most_candidates
    assert SETTINGS.ladder < SETTINGS.fill_high / SETTINGS.fill_low


def test_candidates_hold_the_click():
    for yx in [(0, 0), (999, 1199), (500, 3)]:
        for window in candidate_windows(yx, PLANE, 64, SETTINGS):
            assert window.holds((*yx, yx[0] + 1, yx[1] + 1))


def test_a_hint_narrows_the_search():
    got = sides((4096, 4096), FocusHint(200))
    assert got[0] == 100
    assert got[-1] == 400
    assert len(got) == 3
    assert sides((150, 150), FocusHint(9000), (9, 9)) == [75, 150]
    assert sides((4096, 4096), FocusHint(200, spread=1)) == [200]
    assert FocusHint.from_extents([30, 40, 500]) == FocusHint(80)
    assert FocusHint.from_extents([]) is None
    with pytest.raises(ValueError, match="side_px"):
        FocusHint(0)


def evidence(**changes: float) -> WindowEvidence:
    values = {
        "quality": 0.9,
        "fill": 0.45,
        "border": 0.0,
        "confidence": 0.9,
        "purity": 1.0,
    }
    return WindowEvidence(**(values | changes))


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"quality": 0.5}, {}),
        ({"confidence": 0.4}, {}),
        ({"border": 0.2}, {}),
        ({"purity": 0.5}, {}),
        ({"fill": 0.05}, {}),
        ({"fill": 1.0}, {}),
        ({"fill": 0.05}, {"fill": 0.1}),
        ({"fill": 0.95}, {"fill": 0.8}),
    ],
)
def test_what_a_better_window_scores(worse, better):
    # every part counts here; the tuned constants may leave one out
    settings = replace(SETTINGS, quality_power=1.0, fill_high=0.7)
    assert score(evidence(**worse), settings) < score(evidence(**better), settings)


def test_scores_between_the_bounds_of_the_fill_do_not_depend_on_it():
    assert score(evidence(fill=0.3), SETTINGS) == score(evidence(fill=0.69), SETTINGS)


def test_a_mask_that_misses_the_click_scores_nothing():
    window = Window(0, 0, 16, 16)
    probability = np.zeros((16, 16), dtype=np.float32)
    probability[:4, :4] = 0.9
    assert weigh(probability, window, (16, 16), [Click((10, 10))]) is None
    assert score(None, SETTINGS) == 0


def test_evidence_of_the_clicked_component():
    window = Window(100, 100, 16, 16)
    probability = np.full((16, 16), 0.25, dtype=np.float32)
    probability[4:8, 2:10] = 0.75  # clicked: 4 × 8
    probability[12:14, 0:16] = 1.0  # another object, on the border
    got = weigh(probability, window, PLANE, [Click((105, 105))], quality=0.7)
    assert got == WindowEvidence(0.7, 0.5, 0.0, 0.5, 32 / 64)
    other = weigh(probability, window, PLANE, [Click((112, 100))])
    assert other is not None
    assert other.border == pytest.approx(4 / 64)
    assert other.quality == 1


def test_the_planes_own_border_does_not_count():
    mask = np.ones((4, 4), dtype=bool)
    assert border_cells(mask, Window(0, 0, 8, 4), (8, 8)).size == 0
    assert border_cells(mask, Window(0, 0, 8, 4), (20, 8)).size == 4
    assert border_cells(mask, Window(3, 3, 8, 4), (20, 20)).size == 16


def test_the_clicked_component_joins_all_positive_clicks():
    mask = np.zeros((8, 8), dtype=bool)
    mask[1, 1:3] = mask[5, 5] = mask[7, 0] = True
    window = Window(0, 0, 8, 8)
    clicks = [Click((1, 1)), Click((5, 5)), Click((7, 0), is_positive=False)]
    got = clicked_component(mask, window, clicks)
    assert got is not None
    assert np.argwhere(got).tolist() == [[1, 1], [1, 2], [5, 5]]
    assert clicked_component(mask, window, clicks[2:]) is None


def zoom(area, clicks, **options):
    return next_window(area, clicks, PLANE, 64, SETTINGS, **options)


def test_zoom_in_expands_the_box_of_mask_and_clicks():
    window = zoom((400, 500, 450, 600), [Click((420, 550))])
    assert window.side == 160
    assert window == Window.centred((424.5, 549.5), 160, 64, PLANE)
    wider = zoom((400, 500, 450, 600), [Click((420, 550)), Click((420, 699))])
    assert wider.side == 320


def test_zoom_in_has_a_smallest_and_a_largest_window():
    assert zoom((5, 5, 8, 8), [Click((6, 6))]).side == SETTINGS.min_side
    assert zoom((0, 0, 1000, 1200), [Click((6, 6))]).side == 1200


def test_an_old_window_that_fits_is_kept():
    old = Window(350, 480, 200, 64)
    assert zoom((400, 520, 450, 600), [Click((420, 550))], old=old) is old
    # too small in it, out of it, or the newest click at its rim: a new one
    assert zoom((400, 520, 420, 540), [Click((410, 530))], old=old) != old
    assert zoom((400, 620, 450, 690), [Click((420, 650))], old=old) != old
    at_rim = [Click((420, 550)), Click((352, 550), is_positive=False)]
    assert zoom((400, 520, 450, 600), at_rim, old=old) != old


def test_a_mask_at_the_windows_border_widens_it():
    old = Window(350, 480, 200, 64)
    area, clicks = (400, 500, 450, 600), [Click((420, 550))]
    widened = zoom(area, clicks, old=old, old_touched=True)
    assert widened.side == 320
    assert widened.holds(area)


def test_object_and_clicks_beyond_the_largest_window_centre_on_the_newest():
    settings = FocusSettings(max_side=100)
    clicks = [Click((100, 100)), Click((700, 800))]
    window = next_window((90, 90, 300, 300), clicks, PLANE, 64, settings)
    assert window == Window.centred((700, 800), 100, 64, PLANE)


def test_an_empty_mask_keeps_looking_where_it_looked():
    old = Window(350, 480, 200, 64)
    assert zoom(None, [Click((450, 580))], old=old) is old


@pytest.mark.parametrize("shift", [-2, -1, 1, 2])
def test_focus_keys_change_the_side_by_root_two(shift):
    window = Window(400, 400, 100, 64)
    got = shifted(window, (450, 450), shift, PLANE, SETTINGS)
    assert got.side == round(100 * math.sqrt(2) ** shift)
    assert got.holds((450, 450, 451, 451))
    base = zoom((400, 500, 500, 600), [Click((450, 550))])
    moved = zoom((400, 500, 500, 600), [Click((450, 550))], focus_shift=shift)
    assert moved.side == pytest.approx(base.side * math.sqrt(2) ** shift, abs=1)


def test_no_shift_keeps_the_window():
    window = Window(400, 400, 100, 64)
    assert shifted(window, (450, 450), 0, PLANE, SETTINGS) is window


def test_agreement_is_the_iou_of_two_windows_masks_in_the_plane():
    narrow, wide = Window(32, 32, 64, 64), Window(0, 0, 128, 64)
    fine = np.zeros((64, 64), np.float32)
    fine[16:48, 16:48] = 1  # plane 48 … 80
    coarse = np.zeros((64, 64), np.float32)
    coarse[24:40, 24:40] = 1  # the same pixels, two by two
    assert agreement((fine, narrow), (coarse, wide)) == 1
    assert agreement((coarse, wide), (fine, narrow)) == 1
    coarse[24:40, 40:56] = 1  # as much again beside it, half of it out of sight
    assert agreement((fine, narrow), (coarse, wide)) == pytest.approx(0.5)
    assert agreement((fine, narrow), (0 * coarse, wide)) == 0
    assert agreement((0 * fine, narrow), (0 * coarse, wide)) == 0


@pytest.mark.parametrize("worse", [{"octaves": 3.0}, {"agreement": 0.2}])
def test_wide_windows_and_lonely_masks_score_less(worse):
    assert score(evidence(**worse), SETTINGS) < score(evidence(), SETTINGS)
    free = replace(SETTINGS, octave_cost=0.0, agreement_weight=0.0)
    assert score(evidence(**worse), free) == score(evidence(), free)
