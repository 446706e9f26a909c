r"""Convolution blocks, and batch normalisations folded into them for inference.

In evaluation a batch normalisation is an affine map per channel, and so is a
convolution's output in its weights:

.. math::

    γ (W x + b - μ) / σ + β = (γ W / σ) x + (γ (b - μ) / σ + β)

A refinement step of the default network is a dozen small convolutions; their
normalisations would be a good tenth of it. Only copies made for inference are folded:
training and weights files keep the network as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfrseg.model.blocks.packed import (
    PackedConv2d,
    ReorderedWeights,
    activation_of,
)

_NUMBERED = re.compile(r"bn(\d+)")


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


def fold_sequences(root: nn.Module) -> None:
    """Fold every normalisation that directly follows a convolution in a sequence."""
    for module in root.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for (_, first), (name, second) in pairwise(list(module.named_children())):
            if isinstance(first, nn.Conv2d) and type(second) is nn.BatchNorm2d:
                fold(first, second)
                setattr(module, name, nn.Identity())


def fold_numbered(root: nn.Module) -> None:
    """Fold ``bn1`` into ``conv1``, ``bn2`` into ``conv2`` …: names of timm's ResNets.

    There each ``conv`` is followed by the ``bn`` of its number; a ``conv`` that is a
    sequence ends in the convolution that counts.
    """
    for module in root.modules():
        for name, norm in list(module.named_children()):
            number = _NUMBERED.fullmatch(name)
            if number is None or type(norm) is not nn.BatchNorm2d:
                continue
            conv = _last(getattr(module, f"conv{number[1]}", None))
            if conv is not None:
                fold(conv, norm)
                setattr(module, name, nn.Identity())


def fold_acting(root: nn.Module) -> None:
    """Fold the norms of timm's EfficientNets with the activation that each one holds.

    There each belongs to the convolution that was registered last before it.
    """
    for module in root.modules():
        last: tuple[str, nn.Conv2d] | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                last = name, child
            elif isinstance(child, nn.BatchNorm2d) and last is not None:
                at, conv = last
                fold(conv, child)
                act: nn.Module = getattr(child, "act", nn.Identity())
                activation = activation_of(act)
                if activation is None:
                    setattr(module, name, act)
                else:
                    setattr(module, at, PackedConv2d(conv, activation))
                    setattr(module, name, nn.Identity())
                last = None


def fold_named(module: nn.Module, conv: str, norm: str) -> None:
    """Fold one normalisation into one convolution, both by their dotted names."""
    first, second = module.get_submodule(conv), module.get_submodule(norm)
    if not isinstance(first, nn.Conv2d) or not isinstance(second, nn.BatchNorm2d):
        raise TypeError(f"{conv} and {norm} are no convolution and its normalisation")
    fold(first, second)
    parent, _, name = norm.rpartition(".")
    setattr(module.get_submodule(parent), name, nn.Identity())


def _last(module: object) -> nn.Conv2d | None:
    if isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module if isinstance(module, nn.Conv2d) else None
