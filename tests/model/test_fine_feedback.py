"""The path that shows the head the previous mask at its own resolution."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from napari_cfrseg.model.blocks.fine_feedback import FARTHEST, _around, _reach
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

SIZE = 64


def small(fine: int) -> CfrNet:
    config = CfrNetConfig(
        widths=(8, 16, 16, 16), feedback_width=8, grid_size=SIZE, fine_feedback=0
    )
    torch.manual_seed(0)
    network = CfrNet(config).eval()
    if not fine:
        return network
    mine = CfrNet(replace(config, fine_feedback=fine)).eval()
    missing = mine.load_state_dict(network.state_dict(), strict=False)
    assert {key.split(".")[0] for key in missing.missing_keys} == {"fine"}
    return mine


def awake(network: CfrNet) -> CfrNet:
    """Give the path's last convolutions, zero at first, something to add."""
    assert network.fine is not None
    torch.manual_seed(1)
    for conv in (network.fine.coarse, network.fine.fine):
        nn.init.normal_(conv.weight, std=0.1)
    return network


def disk(radius: float, centre: tuple[float, float] = (32, 32)) -> Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2).float()[
        None, None
    ]


def inputs(batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    image = torch.rand(batch, 3, SIZE, SIZE)
    points = torch.full((batch, 4, 3), -1.0)
    points[:, 0] = torch.tensor([32.0, 45.0, 0.0])
    newest = torch.tensor([[32.0, 45.0, 1.0]]).repeat(batch, 1)
    return image, points, newest


@pytest.mark.parametrize(
    ("click", "expected"),
    [
        ((32, 50, 1), 18 - 10),  # outside a disk of 10: what is missing begins there
        ((32, 35, 1), 0),  # in it already
        ((32, 32, 0), 10),  # in its middle, and not wanted
        ((32, 50, 0), 0),
        ((32, 50, -1), 0),  # nothing is new
        ((32, 63, 1), FARTHEST),
    ],
)
def test_the_distance_to_the_outline_is_that_to_the_nearest_agreeing_cell(
    click: tuple[int, int, int], expected: float
) -> None:
    newest = torch.tensor([click], dtype=torch.float32)
    found = _reach(disk(10), _around(newest, (SIZE, SIZE)))
    assert found.shape == (1, 1, 1, 1)
    assert float(found) == pytest.approx(expected, abs=1.0)


def test_a_mask_that_agrees_nowhere_is_far() -> None:
    click = torch.tensor([[5.0, 5.0, 1.0]])
    nothing = torch.zeros(1, 1, SIZE, SIZE)
    found = _reach(nothing, _around(click, (SIZE, SIZE)))
    assert float(found) == pytest.approx(FARTHEST, abs=1)


def test_a_new_path_changes_nothing_before_it_is_trained() -> None:
    image, points, newest = inputs()
    with torch.no_grad():
        without = small(0)(image, points, disk(9), newest).logits
        with_path = small(8)(image, points, disk(9), newest).logits
    assert torch.equal(without, with_path)


def test_the_gate_closes_the_path_sample_by_sample() -> None:
    network = awake(small(8))
    image, points, newest = inputs(2)
    features = network.embed_clicks(network.embed_image(image), points)
    masks = disk(9).repeat(2, 1, 1, 1)
    masks[0] = 0
    gate = torch.tensor([0.0, 1.0]).view(-1, 1, 1, 1)
    with torch.no_grad():
        mixed = network.refine(features, masks, newest, gate=gate).logits
        none = network.refine(features, None, newest).logits
        some = network.refine(features, masks, newest).logits
    assert torch.allclose(mixed[0], none[0], atol=1e-5)
    assert torch.allclose(mixed[1], some[1], atol=1e-5)
    assert not torch.allclose(some[0], none[0], atol=1e-3)


def test_single_cells_of_the_mask_reach_the_answer() -> None:
    """Two masks of equal means over each position of stride 4 differ for the path."""
    stripes = torch.zeros(1, 1, SIZE, SIZE)
    stripes[..., ::2] = 1
    image, points, newest = inputs()
    newest[:, 2] = -1  # no click whose distance could tell them apart
    with torch.no_grad():
        for network, differs in ((small(0), False), (awake(small(8)), True)):
            odd = network(image, points, stripes, newest).logits
            even = network(image, points, stripes.flip(-1), newest).logits
            assert torch.allclose(odd, even, atol=1e-5) != differs


def test_the_copy_for_inference_computes_the_same() -> None:
    network = awake(small(8))
    image, points, newest = inputs()
    with torch.no_grad():
        slow = network(image, points, disk(9), newest).logits
        fast = network.for_inference()(image, points, disk(9), newest).logits
    assert torch.allclose(slow, fast, atol=1e-4)


def test_every_weight_of_the_path_learns() -> None:
    network = awake(small(8)).train()
    image, points, newest = inputs(2)
    network(image, points, disk(9).repeat(2, 1, 1, 1), newest).logits.sum().backward()
    assert network.fine is not None
    for name, parameter in network.fine.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
