"""Networks side by side: what is counted, and what a process of its own reports."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from similarity import SimilarityNetwork
from torch import nn

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.evaluation.click_times import (
    all_networks,
    arithmetics,
    record,
    recorded,
)
from napari_cfrseg.evaluation.network_times import (
    Arithmetic,
    ClickTimer,
    NetworkCost,
    measure,
)
from napari_cfrseg.model import registry
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput

SMALL = {"family": "hrnet", "width": 8, "ocr_width": 8, "grid_size": 64}


def timer(network, side: int = 64) -> ClickTimer:
    pixels = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    return ClickTimer(network, Arithmetic(), pixels, Click((20, 20)), Click((40, 40)))


def test_every_network_is_benched_and_large_ones_come_last() -> None:
    found = all_networks()
    assert set(registry.names()) < set(found)
    assert found[-1] == "simpleclick_vit_huge"
    assert "default" in found
    assert len(set(found)) == len(found)


def test_a_click_is_its_embedding_and_its_steps() -> None:
    torch.manual_seed(0)
    clicks = timer(registry.build(SMALL)).run(Refinement.cfr(4))
    assert [len(seconds) for seconds in clicks] == [1 + 5, 1 + 5]
    assert all(spent > 0 for seconds in clicks for spent in seconds)


def test_refinements_share_their_first_steps_and_the_reference_stands_beside() -> None:
    torch.manual_seed(0)
    ours = timer(registry.build(SMALL))
    cost = measure(ours, lambda: timer(SimilarityNetwork(), 64), repeats=2)
    assert [(c.click, c.refinement) for c in cost.clicks] == [
        (click, refinement)
        for click in ("first", "next")
        for refinement in ("standard", "CFR-1", "A-CFR-4")
    ]
    for click in ("first", "next"):
        standard = cost.cost(click, "standard")
        fixed = cost.cost(click, "CFR-1")
        adaptive = cost.cost(click, "A-CFR-4")
        assert 0 < standard.ms < fixed.ms <= adaptive.ms
        assert 0 < standard.ratio < fixed.ratio <= adaptive.ratio
        assert (standard.steps, fixed.steps) == (1, 2)
        assert 2 <= adaptive.steps <= 5
    assert cost.grid_px == 64
    assert cost.parameters == sum(p.numel() for p in ours.network.parameters())
    assert cost.gmac > 0


class TwoConvolutions(ClickNetwork):
    """3×3 from 3 to 4 channels for the image, 1×1 from 4 to 1 for each refinement."""

    grid_size = 64

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 4, 3, padding=1)
        self.mask = nn.Conv2d(4, 1, 1)

    def architecture(self):
        return {"family": "two convolutions"}

    def embed_image(self, image):
        return self.image(image)

    def embed_clicks(self, embedding, points):
        return embedding

    def refine(self, features, feedback, newest_click):
        return NetworkOutput(self.mask(features))


def test_operations_of_a_first_and_a_next_click_are_counted() -> None:
    ours = timer(TwoConvolutions())
    cost = measure(ours, lambda: timer(SimilarityNetwork()), repeats=1)
    assert cost.gmac == pytest.approx((3 * 4 * 9 + 2 * 4) * 64**2 / 1e9)


def test_processor_seconds_need_one_thread_of_the_cpu() -> None:
    with pytest.raises(ValueError, match="--threads 1"):
        Arithmetic("cpu", threads=2, cpu_time=True)
    (only,) = arithmetics("cpu", 1, cpu_time=True)
    assert str(only) == "cpu float32 1 threads processor time"


def test_timings_are_kept_by_machine(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("CFRSEG_MODELS", str(tmp_path))
    assert recorded() == {}
    torch.manual_seed(0)
    cost = measure(
        timer(registry.build(SMALL)), lambda: timer(SimilarityNetwork()), repeats=1
    )
    failed = NetworkCost("huge", error="no memory")
    record([replace(cost, network="small"), failed])
    assert recorded().keys() == {"small"}
    assert recorded()["small"]["cpu float32"]["first"] > 0
    (tmp_path / "timings.json").write_text("{")
    assert recorded() == {}
