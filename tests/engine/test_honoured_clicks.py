from __future__ import annotations

import time

import numpy as np
import pytest

from napari_cfrseg.clicks import Click, effective_clicks
from napari_cfrseg.engine import corrections
from napari_cfrseg.engine.corrections import Affinity, honour, violated
from napari_cfrseg.engine.probability_patch import Patch
from napari_cfrseg.geometry.windows import Window


def plane_of(value: float, side: int = 80) -> Patch:
    return Patch((side, side), 0, 0, np.full((side, side), value, dtype=np.float32))


def test_a_satisfied_click_changes_nothing():
    patch = plane_of(0.9)
    got, corrected = honour(patch, [Click((5, 5))], threshold=0.5, px_per_cell=1)
    assert got is patch
    assert corrected == ()


def test_an_ignored_negative_click_clears_its_disk():
    click = Click((40, 30), is_positive=False)
    got, corrected = honour(plane_of(0.9), [click], threshold=0.5, px_per_cell=2)
    plane = got.read((0, 0, 80, 80))
    yy, xx = np.mgrid[:80, :80]
    disk = (yy - 40) ** 2 + (xx - 30) ** 2 <= 10**2  # 5 cells of 2 pixels
    assert corrected == (click,)
    assert np.all(plane[disk] == 0)
    assert np.all(plane[~disk] == np.float32(0.9))


def test_an_ignored_positive_click_is_certain_at_any_threshold():
    got, _ = honour(plane_of(0.1), [Click((3, 3))], threshold=0.5, px_per_cell=1)
    assert got.read((3, 3, 4, 4)).item() == 1


def test_the_similar_region_connected_to_the_newest_click_follows_it():
    window = Window(0, 0, 80, 80)
    values = np.zeros((80, 80), dtype=np.float32)
    values[30:36, 20:60] = 0.9  # connected, reaches beyond the box on both sides
    values[44:50, 35:45] = 0.95  # as similar, within the box, but apart
    click = Click((33, 40))
    got, _ = honour(
        plane_of(0.2),
        [click],
        threshold=0.5,
        px_per_cell=1,
        affinity=Affinity(window, values),
    )
    plane = got.read((0, 0, 80, 80))
    # FFCM: M' = 1 · 0.9 + (1 − 0.9) · 0.2, inside the box of 0.3 · 80 around (33, 40)
    np.testing.assert_allclose(plane[30, 28:34], 0.92, rtol=1e-5)
    np.testing.assert_allclose(plane[30, 20:28], 0.2, rtol=1e-5)
    np.testing.assert_allclose(plane[44:50, 35:45], 0.2, rtol=1e-5)
    assert plane[33, 40] == 1


def test_a_correction_stops_halfway_to_a_click_of_the_other_sign():
    clicks = [Click((40, 40)), Click((40, 44), is_positive=False)]
    got, corrected = honour(plane_of(0.9), clicks, threshold=0.5, px_per_cell=2)
    assert corrected == (clicks[1],)
    row = got.read((40, 30, 41, 60))[0]
    assert np.all(row[: 43 - 30] == np.float32(0.9))
    assert np.all(row[43 - 30 : 55 - 30] == 0)


def test_neighbouring_pixels_of_opposite_sign_are_both_honoured():
    clicks = [Click((40, 40)), Click((40, 41), False), Click((41, 40), False)]
    for value in (0.0, 0.4, 1.0):
        got, _ = honour(plane_of(value), clicks, threshold=0.5, px_per_cell=32)
        assert violated(got, clicks, 0.5) == []


def test_a_click_at_the_plane_corner_is_honoured():
    got, _ = honour(
        Patch.empty((20, 20)), [Click((0, 19))], threshold=0.5, px_per_cell=1
    )
    assert got.box == (0, 14, 6, 20)


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.95])
def test_violation_is_measured_at_the_threshold(threshold):
    clicks = [Click((1, 1)), Click((2, 2), is_positive=False)]
    wrong = violated(plane_of(0.5), clicks, threshold)
    assert wrong == [clicks[0] if threshold >= 0.5 else clicks[1]]


@pytest.mark.parametrize("px_per_cell", [0.2, 1.3, 4])
def test_many_ignored_clicks_are_corrected_as_one_after_the_other(
    monkeypatch, px_per_cell
):
    rng = np.random.default_rng(0)
    places = rng.permutation(80 * 80)[:300]
    clicks = [Click(divmod(int(p), 80), bool(rng.random() < 0.4)) for p in places]
    start = Patch((80, 80), 0, 0, rng.random((80, 80), dtype=np.float32))
    together, first = honour(start, clicks, threshold=0.5, px_per_cell=px_per_cell)
    monkeypatch.setattr(corrections, "ONE_BY_ONE", len(clicks))
    one_by_one, second = honour(start, clicks, threshold=0.5, px_per_cell=px_per_cell)
    assert first == second
    assert len(first) > 100
    assert violated(together, clicks, 0.5) == []
    whole = (0, 0, 80, 80)
    np.testing.assert_array_equal(together.read(whole), one_by_one.read(whole))


def test_a_click_among_thousands_costs_as_much_as_among_few():
    """The clicks far away are not looked at one by one."""
    rng = np.random.default_rng(1)

    def seconds(count: int) -> float:
        places = np.unique(rng.integers(0, 2000, (count, 2)), axis=0).astype(float)
        clicks = effective_clicks(Click(tuple(place)) for place in places)
        patch = Patch((2000, 2000), 0, 0, np.ones((2000, 2000), np.float32))
        newest = Click((1000.0, 1000.0), is_positive=False)
        clicks = effective_clicks((*clicks, newest))
        start = time.process_time()
        for _ in range(3):
            honour(patch, clicks, threshold=0.5, px_per_cell=1)
        return time.process_time() - start

    few = min(seconds(50) for _ in range(3))
    assert min(seconds(3000) for _ in range(3)) < 3 * few
