"""The engine on the default network itself, small and untrained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig
from napari_cfrseg.model.network import NetworkOutput

TINY = CfrNetConfig(
    backbone="test_resnet",
    widths=(8, 8, 8, 8),
    feedback_width=4,
    head_width=8,
    grid_size=64,
)
CLICKS = [Click((60, 70)), Click((62, 75)), Click((40, 40), is_positive=False)]


class Counting(CfrNet):
    """The default network; counts how often each stage runs."""

    def __init__(self) -> None:
        super().__init__(TINY)
        self.calls = {"embed_image": 0, "embed_clicks": 0, "refine": 0}

    def for_inference(self) -> CfrNet:
        fast = super().for_inference()
        fast.calls = self.calls
        return fast

    def embed_image(self, image: Tensor):
        self.calls["embed_image"] += 1
        return super().embed_image(image)

    def embed_clicks(self, embedding, points: Tensor):
        self.calls["embed_clicks"] += 1
        return super().embed_clicks(embedding, points)

    def refine(self, features, feedback, newest_click, gate=None) -> NetworkOutput:
        self.calls["refine"] += 1
        return super().refine(features, feedback, newest_click, gate)


@pytest.fixture(scope="module")
def network() -> Counting:
    torch.manual_seed(1)
    return Counting()


def segmenter(network: Counting) -> Segmenter:
    made = Segmenter(network, device="cpu")
    rng = np.random.default_rng(0)
    made.set_image(np.kron(rng.integers(0, 255, (12, 15)), np.ones((10, 10))))
    network.calls.update(embed_image=0, embed_clicks=0, refine=0)
    return made


def test_a_cascade_repeats_refine_and_nothing_else(network):
    made = segmenter(network)
    first = made.predict(CLICKS[:1])
    tried = network.calls["embed_image"]
    assert 1 <= tried <= 6
    assert network.calls == {
        "embed_image": tried,
        "embed_clicks": tried,
        "refine": tried,
    }
    for refinement in (Refinement.standard(), Refinement.cfr(4), Refinement.cfr(9)):
        network.calls.update(embed_image=0, embed_clicks=0, refine=0)
        made.set_image(np.zeros((120, 150)))
        made.predict(CLICKS[:2], previous=first, refinement=refinement)
        assert network.calls == {
            "embed_image": 1,
            "embed_clicks": 1,
            "refine": 1 + refinement.extra_steps,
        }


def test_kept_embeddings_never_change_a_result(network):
    fresh = [segmenter(network).predict(CLICKS[:n]) for n in (1, 2, 3)]
    made = segmenter(network)
    previous = None
    for n, expected in zip((1, 2, 3), fresh, strict=True):
        previous = made.predict(CLICKS[:n], previous=previous)
        assert previous.window == expected.window
        assert np.array_equal(
            previous.probability_plane(), expected.probability_plane()
        )


def test_clicks_are_honoured_by_an_untrained_network(network):
    got = segmenter(network).predict(CLICKS, refinement=Refinement.adaptive(4))
    for click in CLICKS:
        assert got.mask[click.pixel] == click.is_positive
    assert got.quality is not None
    assert 0 <= got.quality <= 1
