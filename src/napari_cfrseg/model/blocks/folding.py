r"""Batch normalisations folded into the convolutions before them, for inference.

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
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn

_NUMBERED = re.compile(r"bn(\d+)")


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give a convolution the normalisation that follows it, in place.

    Parameters
    ----------
    conv
        Any convolution; it gets a bias if it has none.
    norm
        In evaluation its running statistics and affine parameters are all it is.
    """
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
    """Fold the norms of timm's EfficientNets; the activation each one holds stays.

    There each belongs to the convolution that was registered last before it.
    """
    from timm.layers.norm_act import BatchNormAct2d

    for module in root.modules():
        conv: nn.Conv2d | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                conv = child
            elif isinstance(child, BatchNormAct2d) and conv is not None:
                fold(conv, child)
                setattr(module, name, child.act)
                conv = None


def fold_named(module: nn.Module, conv: str, norm: str) -> None:
    """Fold one normalisation into one convolution, both by their dotted names."""
    first, second = module.get_submodule(conv), module.get_submodule(norm)
    if not isinstance(first, nn.Conv2d) or not isinstance(second, nn.BatchNorm2d):
        msg = f"{conv} and {norm} are no convolution and its normalisation"
        raise TypeError(msg)
    fold(first, second)
    parent, _, name = norm.rpartition(".")
    setattr(module.get_submodule(parent), name, nn.Identity())


def norms_left(root: nn.Module) -> Iterator[str]:
    """Yield the names of the normalisations that are still there."""
    for name, module in root.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            yield name


def _last(module: object) -> nn.Conv2d | None:
    if isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module if isinstance(module, nn.Conv2d) else None
