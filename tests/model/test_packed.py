"""Convolutions packed for inference are the convolutions, also where they cannot be."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from napari_cfrseg.model.blocks import SplitInputConv2d
from napari_cfrseg.model.blocks.packed import PackedConv2d, ReorderedWeights, pack

CONVOLUTIONS = [
    nn.Conv2d(8, 6, 3, padding=1),
    nn.Conv2d(8, 6, 3, padding=1, bias=False),
    nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
    nn.Conv2d(8, 6, 1),
    Conv2dSame(8, 6, 3, stride=2),
]


def an_input(side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    x = torch.randn(1, 8, side, side, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("conv", CONVOLUTIONS)
@pytest.mark.parametrize("act", [None, nn.ReLU(), nn.ReLU6()])
def test_a_packed_convolution_is_the_convolution(
    conv: nn.Conv2d, act: nn.Module | None
) -> None:
    plain = nn.Sequential(conv, *([] if act is None else [nn.Identity(), act]))
    plain.requires_grad_(False)
    packed = copy.deepcopy(plain)
    pack(packed)
    assert type(packed[0]) is PackedConv2d
    for side in (16, 7, 16):  # other sizes after the one it was packed for, too
        with torch.inference_mode():
            torch.testing.assert_close(
                packed(an_input(side)), plain(an_input(side)), rtol=1e-5, atol=1e-5
            )
        with torch.no_grad():  # torch's own convolution
            assert torch.equal(packed(an_input(side)), plain(an_input(side)))


@pytest.mark.parametrize("conv", CONVOLUTIONS)
def test_bfloat16_gives_torchs_own_result(conv: nn.Conv2d) -> None:
    packed = PackedConv2d(conv)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        got, expected = packed(an_input()), conv(an_input())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-2)


def test_gradients_are_torchs() -> None:
    x = an_input().clone().requires_grad_()
    PackedConv2d(nn.Conv2d(8, 6, 3, padding=1))(x).sum().backward()
    assert x.grad is not None


def test_a_copy_with_other_weights_uses_them() -> None:
    packed = PackedConv2d(nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False))
    with torch.inference_mode():
        before = packed(an_input())
        other = copy.deepcopy(packed)
        other.weight.zero_()
        assert other.bias is not None
        other.bias.zero_()
        assert not other(an_input()).any()
        assert torch.equal(packed(an_input()), before)


def test_a_relu_after_something_else_stays() -> None:
    blocks = nn.Sequential(
        nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    )
    pack(blocks)
    assert type(blocks[2]) is nn.ReLU


def test_shares_of_a_split_convolution_add_up() -> None:
    conv = SplitInputConv2d((3, 5), 4, 3)
    x = an_input()
    with torch.inference_mode():
        for _ in range(2):
            share = conv.part(0, x[:, :3], with_bias=True) + conv.part(1, x[:, 3:])
            torch.testing.assert_close(share, conv(x), rtol=1e-5, atol=1e-5)
            pack(conv)


def test_a_network_in_training_is_not_packed() -> None:
    conv = SplitInputConv2d((3, 5), 4, 3)
    with torch.inference_mode():
        before = conv.part(1, an_input()[:, 3:])
    with torch.no_grad():  # an optimiser's step
        conv.weight.zero_()
    with torch.inference_mode():
        assert before.any()
        assert not conv.part(1, an_input()[:, 3:]).any()


def test_what_onednn_cannot_compute_is_left_to_torch() -> None:
    weight, how = torch.randn(6, 8, 3, 3), ((1, 1), (1, 1), (1, 1), 1)
    kept = ReorderedWeights()
    assert kept.convolve(an_input(), weight, None, how) is None  # not inference
    with torch.inference_mode():
        double = kept.convolve(an_input().double(), weight.double(), None, how)
    assert double is None
