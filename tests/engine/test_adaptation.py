"""What finished objects teach, with a network that draws all of them too small."""

from __future__ import annotations

import numpy as np
import pytest
from similarity import CONES as PLACES
from similarity import ShyNetwork, SimilarityNetwork, cones

from napari_cfrseg.engine.adaptation import Finished, adapted
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.geometry.masks import MaskPatch

RADIUS = 10


def disc(place: tuple[int, int]) -> MaskPatch:
    rows, columns = np.indices((136, 180))
    inside = np.hypot(rows - place[0], columns - place[1]) <= RADIUS
    return MaskPatch.from_mask(inside)


def shy(shyness: float = 2.0) -> Segmenter:
    found = Segmenter(ShyNetwork(shyness), device="cpu")
    found.set_image(cones())
    return found


@pytest.fixture
def segmenter() -> Segmenter:
    return shy()


def ious(segmenter: Segmenter, places) -> list[float]:
    found = []
    for place in places:
        mask, truth = (
            segmenter.predict([place]).mask,
            disc(place).window((0, 0, 136, 180)),
        )
        found.append(np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth))
    return found


def learnt(segmenter: Segmenter, places):
    lesson = segmenter.lesson([Finished(disc(p), tuple(map(float, p))) for p in places])
    for _ in lesson.run():
        pass
    return lesson.result


@pytest.fixture(scope="module")
def found():
    return learnt(shy(), PLACES[:4])


def test_first_clicks_on_other_objects_become_better_and_all_of_it_is_forgotten(
    segmenter, found
):
    before = ious(segmenter, PLACES[5:])
    assert found.gain > 0.01
    segmenter.adapt(found)
    assert np.mean(ious(segmenter, PLACES[5:])) > np.mean(before) + 0.02
    segmenter.adapt(None)
    assert ious(segmenter, PLACES[5:]) == before


def test_a_click_that_corrects_a_mask_is_computed_as_without(segmenter, found):
    mask = disc(PLACES[6]).window((0, 0, 136, 180))
    clicks = [(PLACES[6][0], PLACES[6][1] + 6)]
    before = segmenter.predict(clicks, previous=mask).mask
    segmenter.adapt(found)
    np.testing.assert_array_equal(segmenter.predict(clicks, previous=mask).mask, before)


def test_masks_that_agree_with_the_network_teach_nothing(segmenter):
    finished = [
        Finished(MaskPatch.from_mask(segmenter.predict([p]).mask)) for p in PLACES[:4]
    ]
    lesson = segmenter.lesson(finished)
    assert sum(1 for _ in lesson.run()) > 0
    assert lesson.result is None


def test_too_few_objects_and_networks_without_light_parameters_teach_nothing(segmenter):
    assert learnt(segmenter, PLACES[:3]) is None
    plain = Segmenter(SimilarityNetwork(), device="cpu")
    plain.set_image(cones())
    assert learnt(plain, PLACES[:4]) is None


def test_another_network_is_not_changed(segmenter, found):
    assert adapted(segmenter.network, found) is not None
    other = shy(1.0)
    before = ious(other, PLACES[5:])
    other.adapt(found)
    assert ious(other, PLACES[5:]) == before
