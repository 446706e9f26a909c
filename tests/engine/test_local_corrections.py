"""Stray islands go at a click on them, and no mask is cut along its window."""

from __future__ import annotations

import numpy as np
import pytest
from similarity import SimilarityNetwork

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.focus import FocusHint, FocusSettings
from napari_cfrseg.engine.one_way import drop_island
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.probability_patch import Patch
from napari_cfrseg.engine.segmenter import Segmenter


def two_parts() -> Patch:
    mask = np.zeros((60, 80), dtype=bool)
    mask[10:30, 10:30] = True
    mask[40:55, 50:75] = True
    return Patch.from_mask(mask)


BODY, ISLAND = Click((20, 20)), Click((50, 70), is_positive=False)


def test_a_negative_click_removes_the_island_it_is_on_whole():
    before = two_parts()
    after = drop_island(before, before, [BODY, ISLAND], 0.5)
    plane = after.read((0, 0, 60, 80)) > 0.5
    assert plane[10:30, 10:30].all()
    assert not plane[35:].any()


@pytest.mark.parametrize(
    "clicks",
    [
        [BODY, Click((45, 55)), ISLAND],  # a positive click is in the island, too
        [ISLAND],  # no part is known to belong to the object
        [BODY, Click((5, 5), is_positive=False)],  # beside the mask
        [BODY, Click((25, 25), is_positive=False)],  # in the part that is meant
        [BODY, Click((50, 70))],
    ],
)
def test_any_other_click_removes_no_part(clicks):
    before = two_parts()
    assert drop_island(before, before, clicks, 0.5) is before


def test_a_click_on_an_island_leaves_the_rest_of_the_mask():
    plane = np.full((200, 240), 20, dtype=np.uint8)
    plane[60:100, 80:120] = plane[60:100, 140:160] = 220
    made = Segmenter(SimilarityNetwork(reach=2.0), device="cpu")
    made.set_image(plane)
    start = Prediction.from_mask(plane > 100, (Click((80, 100)),))
    second = made.predict([(80, 100), (62, 142)], [1, 0], previous=start)
    assert not second.mask[58:102, 138:162].any()
    assert second.mask[65:95, 85:115].all()


class Counted(SimilarityNetwork):
    """A mask as large as whatever is bright."""

    def __init__(self) -> None:
        super().__init__(reach=9.0, inertia=0.0)


def bar() -> np.ndarray:
    plane = np.zeros((400, 400), dtype=np.uint8)
    plane[150:250, 40:360] = 255
    return plane


def segment_twice(focus: FocusSettings, shift: int = 0) -> tuple[Segmenter, object]:
    made = Segmenter(Counted(), device="cpu", focus=focus)
    made.set_image(bar())
    first = made.predict([(200, 200)], hint=FocusHint(60, spread=1))
    assert first.touches_border
    clicks = [(200, 200), (200, 205)]
    return made, made.predict(clicks, previous=first, focus_shift=shift)


def test_a_mask_that_reaches_its_window_is_looked_at_wider_by_the_same_click():
    made, second = segment_twice(FocusSettings())
    assert not second.touches_border
    assert second.mask[155:245, 50:350].mean() > 0.95
    assert made.network.calls["refine"] > 2


def test_widening_ends():
    once = segment_twice(FocusSettings(most_widenings=1))[1]
    never = segment_twice(FocusSettings(most_widenings=0))[1]
    assert never.window.side < once.window.side < 400
    assert never.touches_border


def test_a_click_that_is_to_look_closer_does_not_look_wider():
    closer = segment_twice(FocusSettings(), shift=-1)[1]
    never = segment_twice(FocusSettings(most_widenings=0), shift=-1)[1]
    assert closer.window == never.window


def test_a_negative_click_far_from_its_object_changes_nothing():
    plane = np.full((300, 900), 20, dtype=np.uint8)
    plane[60:100, 80:120] = 220
    made = Segmenter(SimilarityNetwork(inertia=0.0), device="cpu")
    made.set_image(plane)
    first = made.predict([(80, 100)])
    runs = made.network.calls["refine"]
    far = made.predict([(80, 100), (250, 850)], [1, 0], previous=first)
    assert made.network.calls["refine"] == runs
    assert np.array_equal(far.mask, first.mask)
    # the next click is seen as if it had not been there
    with_it = made.predict([(80, 100), (250, 850), (70, 90)], [1, 0, 1], previous=far)
    without = made.predict([(80, 100), (70, 90)], [1, 1], previous=first)
    assert with_it.window == without.window
    assert np.array_equal(with_it.mask, without.mask)
    near = made.predict([(80, 100), (80, 130)], [1, 0], previous=first)
    assert near.steps == 1  # beside the object it may tell where that ends
