"""The first click's other masks, and clicks on a mask cut elsewhere than at 1/2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from similarity import SimilarityNetwork
from torch import Tensor

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.model.network import NetworkOutput

CLICK = Click((100, 100))


class Nested(SimilarityNetwork):
    """In narrow windows it finds the bright core, in wide ones the whole cell."""

    def refine(
        self, features: object, feedback: Tensor | None, newest_click: Tensor
    ) -> NetworkOutput:
        self.calls["refine"] += 1
        image = features.image
        level = 0.8 if image.mean() > 0.35 else 0.3
        logits = 20 * (image - level)[:, None]
        if feedback is not None:
            logits = 0.5 * logits + 4 * (feedback - 0.5)
        return NetworkOutput(logits, quality_logits=torch.full((1,), 1.5))


def cell() -> np.ndarray:
    """A disk of radius 40 with a brighter one of radius 12 in it."""
    rows, columns = np.ogrid[:256, :256]
    distance = np.hypot(rows - 100, columns - 100)
    return (20 + 90 * (distance < 40) + 140 * (distance < 12)).astype(np.uint8)


def segmenter() -> Segmenter:
    made = Segmenter(Nested(64), device="cpu")
    made.set_image(cell())
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
    answer = segmenter().predict([CLICK], previous=cell() > 100)
    assert answer.candidates == (answer,)
    assert Prediction.empty((5, 5)).candidates[0].mask.sum() == 0


class Shown(SimilarityNetwork):
    """Keeps the feedback it is shown, and answers with it."""

    def refine(
        self, features: object, feedback: Tensor | None, newest_click: Tensor
    ) -> NetworkOutput:
        if feedback is None:
            return super().refine(features, feedback, newest_click)
        self.feedback = feedback
        return NetworkOutput(torch.logit(feedback.clamp(1e-4, 1 - 1e-4)))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_the_next_click_starts_from_the_mask_as_it_is_shown(threshold: float):
    made = Segmenter(Shown(64), device="cpu")
    made.set_image(cell())
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
