"""The default network wired as in FCFI's tables: each row differs where it should."""

from __future__ import annotations

import pytest
import torch
from network_variants import VariantConfig, VariantNet

from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

SMALL = CfrNetConfig(
    widths=(16, 16, 16, 16), feedback_width=8, head_width=8, grid_size=64
)
VARIANTS = {
    "default": VariantConfig(network=SMALL),
    "none": VariantConfig("none", network=SMALL),
    "input": VariantConfig("input", network=SMALL),
    "uncorrected": VariantConfig("uncorrected", network=SMALL),
    "concat": VariantConfig(fusion="concat", network=SMALL),
    "no_residual": VariantConfig(fusion="no_residual", network=SMALL),
    "no_gate": VariantConfig(fusion="no_gate", network=SMALL),
    "exponential": VariantConfig(affinity="exponential", network=SMALL),
    "r 0.1": VariantConfig(ratio=0.1, network=SMALL),
}


def inputs():
    torch.manual_seed(1)
    image = torch.rand(2, 3, 64, 64)
    points = torch.full((2, 4, 3), -1.0)
    points[:, 0] = torch.tensor([30.0, 31.0, 0.0])
    mask = torch.zeros(2, 1, 64, 64)
    mask[:, :, 20:50, 10:40] = 1
    return image, points, mask, torch.tensor([[30.0, 31.0, 1.0]] * 2)


def variant(name):
    torch.manual_seed(0)
    network = VariantNet(VARIANTS[name])
    # a fresh Φ₃ may be silent: give every normalisation something to say
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.bias, 0.1)
    return network.eval()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_with_and_without_a_mask(name):
    image, points, mask, newest = inputs()
    network = variant(name).train()
    for feedback in (None, mask):
        out = network(image, points, feedback, newest)
        assert out.logits.shape == (2, 1, 64, 64)
        out.logits.square().mean().backward()
    assert all(
        torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None
    )


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_the_mask_counts_unless_there_is_no_feedback(name):
    image, points, mask, newest = inputs()
    network = variant(name)
    first, second = (network(image, points, m, newest).logits for m in (mask, 1 - mask))
    assert torch.equal(first, second) == (name == "none")


@torch.no_grad()
def test_the_default_wiring_is_the_default_network():
    image, points, mask, newest = inputs()
    network = variant("default")
    same = CfrNet(SMALL).eval()
    same.load_state_dict(network.state_dict())
    for feedback in (None, mask):
        torch.testing.assert_close(
            network(image, points, feedback, newest).logits,
            same(image, points, feedback, newest).logits,
        )


@torch.no_grad()
def test_the_corrected_region_is_empty_where_nothing_is_corrected():
    image, points, mask, newest = inputs()
    out = variant("uncorrected")(image, points, mask, newest)
    assert not out.region.any()
    assert variant("input")(image, points, mask, newest).corrected is None
    areas = [
        variant(n)(image, points, mask, newest).region.sum()
        for n in ("r 0.1", "default")
    ]
    assert areas[0] < areas[1]
