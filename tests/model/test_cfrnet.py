"""The default network's stages on windows of any size."""

from __future__ import annotations

import pytest
import torch

from napari_cfrseg.model import registry
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

SMALL = CfrNetConfig(
    widths=(16, 24, 32, 32), feedback_width=8, head_width=16, grid_size=64
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(2)  # every other untrained network is blind to the mask
    return CfrNet(SMALL).eval()


def inputs(height, width):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, height, width, generator=generator)
    points = torch.full((2, 4, 3), -1.0)
    points[:, 0] = torch.tensor([20.0, 30.0, 0.0])
    newest = torch.tensor([[20.0, 30.0, 1.0]] * 2)
    return image, points, torch.rand(2, 1, height, width, generator=generator), newest


@pytest.mark.parametrize("size", [(64, 64), (70, 91), (33, 32)])
def test_logits_have_the_windows_size(network, size):
    with torch.inference_mode():
        out = network(*inputs(*size))
    assert out.logits.shape == (2, 1, *size)
    assert out.logits.isfinite().all()
    assert out.quality_logits.shape == (2,)


def test_the_mask_reaches_the_result_only_through_refine(network):
    image, points, feedback, newest = inputs(64, 64)
    with torch.inference_mode():
        features = network.embed_clicks(network.embed_image(image), points)
        none = network.refine(features, None, newest).logits
        some = network.refine(features, feedback, newest).logits
        again = network(image, points, feedback, newest).logits
    assert not torch.equal(none, some)
    torch.testing.assert_close(some, again, rtol=0, atol=0)


def test_a_gate_of_nought_hides_the_mask_of_that_sample_alone(network):
    image, points, feedback, newest = inputs(64, 64)
    gate = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    with torch.inference_mode():
        features = network.embed_clicks(network.embed_image(image), points)
        mixed = network.refine(features, feedback, newest, gate).logits
        open_ = network.refine(features, feedback, newest).logits
        none = network.refine(features, None, newest).logits
    torch.testing.assert_close(mixed[0], none[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[1], open_[1], rtol=1e-4, atol=1e-5)


def test_no_correction_where_the_newest_click_says_so(network):
    image, points, feedback, newest = inputs(64, 64)
    newest = newest.clone()
    newest[:, 2] = -1
    with torch.inference_mode():
        features = network.embed_clicks(network.embed_image(image), points)
        out = network.refine(features, feedback, newest)
    quarter = torch.nn.functional.avg_pool2d(feedback, 4)
    torch.testing.assert_close(out.corrected, quarter)
    assert out.region.max() == 0


@pytest.mark.parametrize("size", [(100, 100), (70, 91)])
def test_the_feedbacks_maps_cover_the_window_and_not_its_filling(network, size):
    image, points, feedback, newest = inputs(*size)
    newest[:, :2] = torch.tensor([size[0] - 1.0, size[1] - 1.0])
    with torch.inference_mode():
        out = network(image, points, feedback, newest)
    for maps in (out.corrected, out.updated, out.region, out.affinity):
        assert maps.shape[-2] / size[0] == pytest.approx(maps.shape[-1] / size[1])
        assert maps.isfinite().all()
    # the newest click, in the window's last corner, is like itself
    torch.testing.assert_close(out.affinity[..., -1, -1], torch.ones(2, 1))
    assert out.region[..., -1, -1].min() == 1


def test_a_file_that_is_older_than_an_option_means_it_off():
    described = registry.complete({"family": "cfrnet", "grid_size": 64})
    for option in ("second_backbone", "judge_width"):
        del described[option]
    network = registry.build(described)
    assert isinstance(network, CfrNet)
    assert (network.second, network.head.judge) == (None, None)


def test_default_is_light():
    assert sum(p.numel() for p in CfrNet().parameters()) <= 7_500_000
