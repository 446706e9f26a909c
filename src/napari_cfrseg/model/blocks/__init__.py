r"""Convolution blocks, and batch normalisations folded into them for inference.

In evaluation a batch normalisation is an affine map per channel, and so is a
convolution's output in its weights:

.. math::

    γ (W x + b - μ) / σ + β = (γ W / σ) x + (γ (b - μ) / σ + β)

That is a good tenth of a refinement step of the default network. Only copies made for
inference are folded: training and weights files keep the network as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfrseg.model.blocks.packed import (
    PackedConv2d,
    ReorderedWeights,
    activation_of,
)


class SplitInputConv2d(nn.Conv2d):
    """A convolution over a concatenation whose parts arrive at different times.

    ``conv(concat[a, b]) = conv_a(a) + conv_b(b)``: what does not change between two
    refinement steps (image, clicks, features) is convolved once, and a step only adds
    the feedback's share. Weights and keys are those of the one ordinary convolution
    over all ``parts`` (their channels, in order); stride 1, padding keeps the size.
    """

    def __init__(
        self,
        parts: Iterable[int],
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
    ) -> None:
        self.parts = tuple(parts)
        super().__init__(
            sum(self.parts),
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            bias=bias,
        )
        self._starts = (0, *accumulate(self.parts))
        self._reordered: ReorderedWeights | None = None

    def keep_reordered(self) -> None:
        """Keep each part's weights reordered from now on: they change no more."""
        self._reordered = ReorderedWeights()

    def part(self, index: int, x: Tensor, *, with_bias: bool = False) -> Tensor:
        """Return part ``index``'s share of the output; one part adds the bias."""
        start = self._starts[index]
        weight = self.weight[:, start : start + self.parts[index]]
        bias = self.bias if with_bias else None
        how = (self.padding, self.stride, self.dilation, self.groups)
        if self._reordered is not None:
            part = (index, with_bias)
            share = self._reordered.convolve(x, weight, bias, how, part=part)
            if share is not None:
                return share
        return F.conv2d(x, weight, bias, padding=self.padding)


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    *,
    dilation: int = 1,
    relu: bool = True,
) -> nn.Sequential:
    """Convolution (no bias; the padding keeps the size), normalisation, ReLU."""
    padding = dilation * (kernel // 2)
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class ConvNormRelu(nn.Sequential):
    """Convolution (bias, as in FCFI), batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU()


class SeparableNormRelu(nn.Sequential):
    """Depthwise 3×3, pointwise 1×1 (both with bias), batch normalisation, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv3x3 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.conv1x1 = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly with aligned corners, as every RITM-type network does."""
    if x.shape[-2:] == torch.Size(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give a convolution the normalisation that follows it, in place."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        msg = "a batch normalisation without running statistics cannot be folded"
        raise ValueError(msg)
    with torch.no_grad():
        scale = torch.rsqrt(variance.double() + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        shift = -mean.double() * scale
        if norm.bias is not None:
            shift = shift + norm.bias.double()
        if conv.bias is not None:
            shift = shift + conv.bias.double() * scale
        weight = conv.weight.double() * scale[:, None, None, None]
        conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
        conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)


Place = tuple[nn.Module, str]
"""A module and the name of its part."""


def fold_norms(root: nn.Module, foreign: Iterable[nn.Module] = ()) -> None:
    """Fold every normalisation into the convolution that is registered just before it.

    So they follow each other in sequences, in all blocks here and in timm's ResNets and
    EfficientNets; of ``foreign`` networks only sequences are folded. An activation that
    a normalisation holds stays.
    """
    left_alone = {
        part
        for network in foreign
        for part in network.modules()
        if not isinstance(part, nn.Sequential)
    }
    for module in root.modules():
        if module in left_alone:
            continue
        before: Place | None = None
        for name, child in list(module.named_children()):
            first, last = _ends(module, name, child)
            if before is not None:
                _fold_at(before, first)
            before = last


def _ends(module: nn.Module, name: str, child: nn.Module) -> tuple[Place, Place]:
    """Return where a child's first and last part are: in a sequence, or itself."""
    inside = [own for own, _ in child.named_children()]
    if isinstance(child, nn.Sequential) and inside:
        return (child, inside[0]), (child, inside[-1])
    return (module, name), (module, name)


def _fold_at(first: Place, second: Place) -> None:
    """Fold what is at the second place, if they are convolution and normalisation."""
    conv, norm = getattr(*first), getattr(*second)
    if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
        return
    fold(conv, norm)
    act: nn.Module = getattr(norm, "act", nn.Identity())
    activation = activation_of(act)
    if activation is not None:
        setattr(*first, PackedConv2d(conv, activation))
        act = nn.Identity()
    setattr(*second, act)
