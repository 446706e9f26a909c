"""The contract of every network, of any family: one inherited list of tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model import registry
from napari_cfrseg.model.network import ClickNetwork

# small relatives of every family and quirk; sides are those of the family's grid
SMALL: dict[str, tuple[int, dict[str, Any]]] = {
    "ritm": (64, {"family": "hrnet", "width": 8, "ocr_width": 8}),
    "ritm baseline": (
        64,
        {"family": "hrnet", "width": 8, "ocr_width": 8, "mask_at_input": False},
    ),
    "fcfi hrnet": (
        64,
        {"family": "hrnet", "width": 8, "ocr_width": 8, "feedback_width": 8}
        | {"relu_after_exchange": False},
    ),
    "fcfi hrnet, paper": (
        64,
        {"family": "hrnet", "width": 8, "ocr_width": 8, "feedback_width": 8}
        | {"mask_at_input": False},
    ),
    "fcfi deeplab": (
        64,
        {"family": "deeplab", "layers": (1, 1, 1, 1), "width": 16}
        | {"feedback_width": 8},
    ),
    "simpleclick": (
        224,
        {"family": "plain_vit", "dim": 32, "depth": 4, "heads": 2, "head_width": 8}
        | {"pyramid": (8, 8, 8, 8)},
    ),
    "vit fcfi": (
        224,
        {"family": "plain_vit", "dim": 32, "depth": 4, "heads": 2, "head_width": 8}
        | {"pyramid": (8, 8, 8, 8), "feedback_width": 8},
    ),
    "timm fcfi": (64, {"family": "timm_fcfi", "backbone": "resnet10t", "width": 16}),
}
FCFI = [name for name in SMALL if "fcfi" in name]


@pytest.fixture(scope="module", params=list(SMALL))
def network(request: pytest.FixtureRequest) -> ClickNetwork:
    torch.manual_seed(0)
    network = registry.build(SMALL[request.param][1]).eval()
    network.name = request.param
    return network


def inputs(network: ClickNetwork) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    side = SMALL[str(network.name)][0]
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, side, side, generator=generator)
    points = torch.full((2, 4, 3), -1.0)
    points[:, 0] = torch.tensor([20.0, 30.5, 0])
    points[1, 2] = torch.tensor([40.0, 11.0, 1])
    mask = torch.rand(2, 1, side, side, generator=generator)
    newest = torch.tensor([[20.0, 30.5, 1.0], [40.0, 11.0, 0.0]])
    return image, points, mask, newest


def test_forward_is_the_composition_and_shapes_fit(network: ClickNetwork) -> None:
    image, points, mask, newest = inputs(network)
    with torch.no_grad():
        whole = network(image, points, mask, newest)
        features = network.embed_clicks(network.embed_image(image), points)
        staged = network.refine(features, mask, newest)
        again = network.refine(features, mask, newest)
    assert whole.logits.shape == mask.shape
    assert torch.equal(whole.logits, staged.logits)
    assert torch.equal(staged.logits, again.logits)
    for name in ("corrected", "updated", "region", "affinity"):
        value = getattr(whole, name)
        assert (value is not None) is (network.name in FCFI)
        if value is not None:
            assert (
                -1e-6 <= value.min() <= value.max() <= 1 + 1e-6
            )  # unclamped, as published


def test_a_batch_is_its_samples(network: ClickNetwork) -> None:
    image, points, mask, newest = inputs(network)
    with torch.no_grad():
        together = network(image, points, mask, newest).logits
        for b in range(2):
            row = slice(b, b + 1)
            alone = network(image[row], points[row], mask[row], newest[row]).logits
            atol = 1e-4 * float(together.abs().max())
            torch.testing.assert_close(alone, together[row], rtol=0, atol=atol)


def test_the_mask_reaches_the_output_and_the_gate_shuts_it_out(
    network: ClickNetwork,
) -> None:
    image, points, mask, newest = inputs(network)
    with torch.no_grad():
        # ReLU residuals of random weights may be all zero: open them
        if getattr(network, "cffm", None) is not None:
            network.cffm.phi3_rest[0].bias.fill_(3.0)
        features = network.embed_clicks(network.embed_image(image), points)
        first = network.refine(features, None, newest).logits
        later = network.refine(features, mask, newest).logits
        empty = network.refine(features, torch.zeros_like(mask), newest).logits
    if network.name == "ritm baseline":
        assert torch.equal(first, later)
        return
    assert not torch.equal(first, later)
    # an empty mask is a mask: it opens FCFI's gate, and is no news to the others
    assert torch.equal(first, empty) is (network.name not in FCFI)


def test_where_the_mask_enters_deep_a_step_repeats_no_backbone(
    network: ClickNetwork,
) -> None:
    image, points, mask, newest = inputs(network)
    deep = getattr(network, "backbone", None)
    module = network.blocks[0] if deep is None else deep
    if hasattr(module, "body"):
        module = module.layer1
    elif hasattr(module, "layer2"):
        module = module.layer2
    calls: list[int] = []
    handle = module.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        features = network.embed_clicks(network.embed_image(image), points)
        before = len(calls)
        network.refine(features, mask, newest)
    handle.remove()
    if network.name in FCFI and network.name != "fcfi hrnet":
        assert len(calls) == before == 1
    else:
        assert len(calls) > before or network.name == "ritm baseline"


def test_every_parameter_learns(network: ClickNetwork) -> None:
    image, points, mask, newest = inputs(network)
    torch.manual_seed(0)
    training = registry.build(SMALL[str(network.name)][1]).train()
    side = SMALL[str(network.name)][0]
    output = training(image, points, mask, newest)
    loss = output.logits.square().mean()
    for extra in (output.corrected, output.updated, output.auxiliary_logits):
        if extra is not None:
            loss = loss + extra.square().mean()
    loss.backward()
    silent = [
        name
        for name, parameter in training.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert side
    assert silent == []


def test_a_description_makes_the_same_network_again(network: ClickNetwork) -> None:
    again = registry.build(network.architecture())
    ours = {k: v.shape for k, v in network.state_dict().items()}
    assert {k: v.shape for k, v in again.state_dict().items()} == ours
    assert registry.complete(network.architecture()) == again.architecture()


@pytest.mark.parametrize("name", registry.names())
def test_named_networks_have_the_stated_size_and_find_their_name(name: str) -> None:
    entry = registry.named(name)
    with torch.device("meta"):
        network = registry.build(entry.architecture)
    assert sum(p.numel() for p in network.parameters()) == entry.parameters
    assert registry.name_of(network.architecture()) == name


def test_any_timm_backbone_by_name() -> None:
    entry = registry.named("fcfi:mobilenetv4_conv_small")
    network = registry.build(entry.architecture).eval()
    assert registry.name_of(network.architecture()) == entry.name
    with torch.no_grad():
        output = network(
            torch.rand(1, 3, 96, 64),
            torch.tensor([[[9.0, 9, 0], [-1, -1, -1]]]),
            None,
            torch.tensor([[9.0, 9, 1]]),
        )
    assert output.logits.shape == (1, 1, 96, 64)
    assert output.updated.shape == (1, 1, 24, 16)
    with pytest.raises(ValueError, match="feature maps of 'no_such_net'"):
        registry.build(registry.named("fcfi:no_such_net").architecture)


def test_plain_vits_say_which_grids_they_read() -> None:
    network = registry.build(SMALL["simpleclick"][1])
    with pytest.raises(ValueError, match=r"multiples of 224 px, got 200×224"):
        network.embed_image(torch.rand(1, 3, 200, 224))
    assert network.embed_image(torch.rand(1, 3, 224, 448)).tokens.shape[-2:] == (14, 28)


def test_unknown_names_families_and_settings() -> None:
    with pytest.raises(ValueError, match="no network 'sam'; there are ritm_hrnet18s"):
        registry.named("sam")
    with pytest.raises(CheckpointError, match="unknown network family 'sam'"):
        registry.build({"family": "sam"})
    with pytest.raises(CheckpointError, match="'hrnet' has no setting depth"):
        registry.build({"family": "hrnet", "depth": 3})
