"""The copy a network makes for inference: same answers, no normalisation left."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_cfrseg.model.blocks import fold, fold_norms
from napari_cfrseg.model.blocks.clickmaps import click_region
from napari_cfrseg.model.blocks.decoder import Head
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig


def unsettle(network: nn.Module) -> nn.Module:
    """Give every normalisation statistics and an affine map worth folding."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in (
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
                (module.weight.data, 0.7),
                (module.bias.data, -0.3),
            ):
                values.copy_(low + torch.rand(values.shape, generator=generator))
    return network.eval()


@pytest.fixture(scope="module", params=["resnet10t", "tf_efficientnet_lite0"])
def network(request: pytest.FixtureRequest) -> CfrNet:
    torch.manual_seed(0)
    network = CfrNet(CfrNetConfig(request.param, (16, 16, 16, 16), feedback_width=8))
    return unsettle(network)  # type: ignore[return-value]  # the very same object


def test_fold_is_the_convolution_and_its_normalisation() -> None:
    torch.manual_seed(1)
    for bias in (False, True):
        pair = unsettle(nn.Sequential(nn.Conv2d(3, 5, 3, bias=bias), nn.BatchNorm2d(5)))
        x = torch.randn(2, 3, 8, 8)
        with torch.inference_mode():
            expected = pair(x)
            fold(pair[0], pair[1])
            torch.testing.assert_close(pair[0](x), expected, rtol=1e-4, atol=1e-5)


def test_fold_needs_statistics() -> None:
    norm = nn.BatchNorm2d(5, track_running_stats=False)
    with pytest.raises(ValueError, match="running statistics"):
        fold(nn.Conv2d(3, 5, 3), norm)


@pytest.mark.parametrize("side", [64, 80])  # 80: filled up to whole strides
@pytest.mark.parametrize("has_mask", [False, True])
def test_copy_for_inference_answers_alike(
    network: CfrNet, side: int, has_mask: bool
) -> None:
    fast = network.for_inference()
    generator = torch.Generator().manual_seed(side)
    image = torch.rand(1, 3, side, side, generator=generator)
    mask = torch.rand(1, 1, side, side, generator=generator) if has_mask else None
    points = torch.tensor([[[30.0, 41.0, 0.0], [9.0, 9.0, 1.0]]])
    newest = torch.tensor([[9.0, 9.0, 0.0]])
    with torch.inference_mode():
        expected = network(image, points, mask, newest)
        got = fast(image, points, mask, newest)
        assert got.quality_logits is None
        quality = fast.judge(got)
    for name in ("logits", "corrected", "updated", "region", "affinity"):
        torch.testing.assert_close(
            getattr(got, name), getattr(expected, name), rtol=1e-3, atol=1e-4
        )
    torch.testing.assert_close(quality, expected.quality_logits, rtol=1e-3, atol=1e-4)


def norms(root: nn.Module) -> list[str]:
    """Names of the normalisations that are left."""
    return [n for n, m in root.named_modules() if isinstance(m, nn.BatchNorm2d)]


def test_copy_has_no_normalisation_and_leaves_the_network_alone(
    network: CfrNet,
) -> None:
    before = copy.deepcopy(network.state_dict())
    fast = network.for_inference()
    assert norms(fast) == []
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert network.ffcm.first.weight.requires_grad
    again = fast.for_inference()
    assert torch.equal(again.head.full.weight, fast.head.full.weight)


def test_normalisations_that_follow_no_convolution_are_kept() -> None:
    class Preactivated(nn.Module):
        """Normalisation before the convolution, or after an activation."""

        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
            self.act, self.norm2 = nn.ReLU(), nn.BatchNorm2d(4)

    module = Preactivated()
    fold_norms(module)
    assert norms(module) == ["norm1", "norm2"]


def test_of_a_foreign_network_only_sequences_are_folded() -> None:
    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
            self.rest = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    module = Foreign().eval()
    fold_norms(module, [module])
    assert norms(module) == ["norm"]
    fold_norms(module)
    assert norms(module) == []


def test_head_interleaves_its_four_channels_as_pixel_shuffle() -> None:
    torch.manual_seed(2)
    head = unsettle(Head(8, 6, detail=4))
    fused, detail = torch.randn(2, 8, 16, 16), torch.randn(2, 16, 32, 32)
    seen: list[torch.Tensor] = []
    head.full.register_forward_hook(lambda *args: seen.append(args[-1]))
    with torch.inference_mode():
        logits, _ = head.draw(fused, detail)
        assert torch.equal(logits, functional.pixel_shuffle(seen[0], 2))


def test_ffcm_keeps_the_region_of_a_click(network: CfrNet) -> None:
    prepared = torch.randn(1, 8, 20, 20)
    feedback = torch.rand(1, 1, 20, 20)
    for click in ([30.0, 41.0, 1.0], [30.0, 41.0, 0.0], [30.0, 41.0, -1.0]):
        newest = torch.tensor([click])
        expected = click_region(newest, (80, 80), (20, 20), 0.3, soft=False)
        slow = network.ffcm.correct(prepared, feedback, newest, (80, 80))
        with torch.inference_mode():
            for _ in range(2):  # the second time it is known
                fast = network.ffcm.correct(prepared, feedback, newest, (80, 80))
                assert torch.equal(fast.region, expected)
                assert torch.equal(fast.corrected, slow.corrected)
