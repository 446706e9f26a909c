from __future__ import annotations

import numpy as np
import pytest
from similarity import SimilarityNetwork

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation.click_times import run_bench, tiled, trials


def picture() -> tuple[np.ndarray, np.ndarray]:
    image = np.full((60, 80), 30, dtype=np.uint8)
    labels = np.zeros((60, 80), dtype=np.uint16)
    for index, (y, x) in enumerate([(5, 5), (30, 50)], 1):
        labels[y : y + 20, x : x + 20] = index
    image[labels > 0] = 200
    return image, labels


def test_tiles_are_mirrored_at_the_seams():
    assert tiled(np.array([[1, 2], [3, 4]]), 5).tolist() == [
        [1, 2, 2, 1, 1],
        [3, 4, 4, 3, 3],
        [3, 4, 4, 3, 3],
        [1, 2, 2, 1, 1],
        [1, 2, 2, 1, 1],
    ]


@pytest.mark.parametrize("side", [40, 80, 300, 700])
def test_trial_clicks_lie_on_objects(side):
    _, labels = picture()
    field = tiled(labels, side)
    found = list(trials(labels, side, 20, seed=1))
    for first, following in found:
        assert field[first.pixel] == field[following.pixel] != 0
    assert found == list(trials(labels, side, 20, seed=1))
    if side == 700:
        assert len({first.pixel for first, _ in found}) > 4


def test_labels_without_objects_are_refused():
    with pytest.raises(ValueError, match="no object"):
        list(trials(np.zeros((5, 5), dtype=int), 10, 1, 0))


def test_the_table_has_a_row_per_click_and_refinement():
    image, labels = picture()
    segmenter = Segmenter(SimilarityNetwork(), device="cpu")
    rows = run_bench(segmenter, image, labels, 100, clicks=3)
    refinements = ["standard", "CFR-4", "A-CFR-4"]
    assert [(r.side_px, r.click, r.refinement) for r in rows] == [
        (100, click, refinement)
        for click in ("first", "next")
        for refinement in refinements
    ]
    for row in rows:
        assert row.clicks == 3
        assert 0 < row.median_ms <= row.p95_ms
        assert sum(row.stages_ms.values()) <= 1.5 * row.p95_ms
    standard, fixed, adaptive = rows[3:6]
    assert standard.ratio_to_standard == 1
    assert (standard.mean_steps, fixed.mean_steps) == (1, 5)
    assert 1 < adaptive.mean_steps <= 5
