"""The first click's other masks, and clicks on a mask cut elsewhere than at 1/2."""

from __future__ import annotations

import numpy as np
import pytest
from engine_networks import NestedNetwork, ShownNetwork, nested_image

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.segmenter import Segmenter

CLICK = Click((100, 100))


def segmenter() -> Segmenter:
    made = Segmenter(NestedNetwork(64), device="cpu")
    made.set_image(nested_image())
    return made


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_the_candidates_are_different_masks_and_the_first_is_the_answer():
    made = segmenter()
    answer = made.predict([CLICK])
    calls = dict(made.network.calls)
    found = answer.candidates
    assert made.network.calls == calls  # no network
    assert len(found) >= 2
    assert found[0] is answer
    masks = [p.mask for p in found]
    assert all(mask[100, 100] for mask in masks)
    for i, one in enumerate(masks):
        assert all(iou(one, other) < 0.85 for other in masks[:i])
    areas = sorted(int(mask.sum()) for mask in masks)
    assert areas[0] < 700 < 4000 < areas[-1]  # the core and the cell
    assert [p.choice for p in found] == list(range(len(found)))
    assert all(p.quality is not None and p.clicks == (CLICK,) for p in found)


def test_going_on_and_back_gives_the_same_masks():
    answer = segmenter().predict([CLICK])
    second = answer.choose(1)
    assert second.choose(1) is second
    assert np.array_equal(second.choose(0).mask, answer.mask)
    assert second.choose(99).choice == len(answer.choices) - 1
    assert len(second.candidates) == len(answer.candidates)
    with pytest.raises(ValueError, match=r"0 .the best. or more"):
        answer.choose(-1)


def test_the_next_click_goes_on_from_the_candidate_chosen():
    made = segmenter()
    answer = made.predict([CLICK])
    further = [CLICK, Click((104, 104))]
    ends = [
        made.predict(further, previous=candidate).mask.sum()
        for candidate in answer.candidates[:2]
    ]
    assert ends[0] != ends[1]
    assert made.predict(further, previous=answer).candidates[0].choices == ()


def test_a_refined_answer_is_the_first_candidate():
    answer = segmenter().predict([CLICK], refinement=Refinement.cfr(2))
    again = answer.choose(1).choose(0)
    assert answer.steps == 3
    assert np.array_equal(again.mask, answer.mask)


def test_without_a_search_there_is_one_candidate():
    answer = segmenter().predict([CLICK], previous=nested_image() > 100)
    assert answer.candidates == (answer,)
    assert Prediction.empty((5, 5)).candidates[0].mask.sum() == 0


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_the_next_click_starts_from_the_mask_as_it_is_shown(threshold: float):
    made = Segmenter(ShownNetwork(64), device="cpu")
    made.set_image(nested_image())
    first = made.predict([CLICK])
    shown = first.with_threshold(threshold)
    second = made.predict([CLICK, Click((101, 101))], previous=shown)
    assert second.threshold == threshold
    window = second.window
    seen = (made.network.feedback[0, 0] > 0.5).numpy()
    y0, x0, y1, x1 = window.box
    part = np.zeros((window.side, window.side), bool)
    inside = shown.mask[max(y0, 0) : y1, max(x0, 0) : x1]
    part[: inside.shape[0], : inside.shape[1]] = inside
    # the cells shown as the object are those of the mask as it was cut
    assert seen.sum() * window.px_per_cell**2 == pytest.approx(part.sum(), rel=0.1)


def test_a_click_keeps_the_threshold_it_is_given():
    made = segmenter()
    clicks = [CLICK, Click((100, 120), is_positive=False)]
    for threshold in (0.1, 0.9):
        answer = made.predict(clicks, threshold=threshold)
        assert answer.threshold == threshold
        assert answer.mask[100, 100]
        assert not answer.mask[100, 120]
    nothing = made.predict([Click((5, 5), is_positive=False)], threshold=0.3)
    assert nothing.threshold == 0.3
    with pytest.raises(ValueError, match="between 0 and 1"):
        made.predict([CLICK], threshold=1.0)
