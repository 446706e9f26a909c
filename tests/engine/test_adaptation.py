"""Lessons of finished objects, for a network that draws all of them too small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from similarity import CONES as PLACES
from similarity import ShyNetwork, SimilarityNetwork, cones

from napari_cfrseg.engine.adaptation import (
    Finished,
    adapted,
    fingerprint,
    light_numbers,
    save_model,
)
from napari_cfrseg.engine.adapted import Adaptation
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.model import weights_file
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

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


@pytest.fixture(scope="module")
def small() -> CfrNet:
    torch.manual_seed(0)
    config = CfrNetConfig(
        widths=(8, 8, 8, 8), feedback_width=8, head_width=8, grid_size=64
    )
    return CfrNet(config).eval()


def test_no_embedding_depends_on_the_light_parameters(small):
    count = sum(p.numel() for p in small.light_parameters())
    other = adapted(small, Adaptation(fingerprint(small), (0.1,) * count))
    image, points = torch.rand(1, 3, 64, 64), torch.full((1, 2, 3), 20.0)
    newest = torch.tensor([[20.0, 20.0, 1.0]])
    found = []
    for network in (small.for_inference(), other.for_inference()):
        with torch.no_grad():
            embedding = network.embed_image(image)
            features = network.embed_clicks(embedding, points)
            logits = network.refine(features, None, newest).logits
        found.append(
            (embedding.detail, *embedding.pyramid, features.correction, logits)
        )
    for one, changed in zip(*(f[:-1] for f in found), strict=True):
        assert torch.equal(one, changed)
    assert not torch.equal(found[0][-1], found[1][-1])


def test_what_was_learnt_is_saved_as_a_model(small, tmp_path):
    count = sum(p.numel() for p in small.light_parameters())
    learnt_here = Adaptation(fingerprint(small), (0.01,) * count, gain=0.04)
    path = tmp_path / "mine.safetensors"
    save_model(path, small, learnt_here, "")
    network, metadata = weights_file.load(path)
    assert metadata.name == "mine"
    assert metadata.provenance["adapted"] == {"gain": 0.04}
    changed = light_numbers(network) - light_numbers(small)
    torch.testing.assert_close(changed, torch.full((count,), 0.01), atol=1e-3, rtol=0)
    with pytest.raises(CheckpointError, match="nothing was learnt"):
        save_model(path, network, learnt_here, "")
