"""Convolutions for inference on a CPU: weights reordered once, activation fused.

torch reorders a convolution's weights into oneDNN's layout at every call, and converts
them to bfloat16 where that is asked for: for small maps that takes longer than the
convolution. Here the reordered weights are kept, and a ReLU that follows is fused.

In bfloat16 the results are torch's own, bit by bit; in float32 they differ by rounding
(about 1e-6 of a logit), because torch computes small inputs by another kernel. Where
oneDNN cannot be used (gradients, other devices, other types), torch convolves.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["none", "relu", "hardtanh"]


def _find_kernels() -> tuple[Any, Any]:
    """Return torch's reordering and its convolution, None where it has no oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's
        return None, None
    # a later torch may rename them
    names = "_reorder_convolution_weight", "_convolution_pointwise"
    reorder, convolve = (getattr(torch.ops.mkldnn, name, None) for name in names)
    if reorder is None or convolve is None:
        return None, None
    return reorder.default, convolve.default


_REORDER, _CONVOLVE = _find_kernels()


_SUPPORTED = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
_HAS_HALF = _CONVOLVE is not None and bool(_SUPPORTED())
_LIMITS = {"none": [], "relu": [], "hardtanh": [0.0, 6.0]}


class ReorderedWeights:
    """A convolution's weights as oneDNN wants them, by data type; made when needed."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Tensor, Tensor | None]] = {}

    def __reduce__(self) -> tuple[type[ReorderedWeights], tuple[()]]:
        # a copy may go to another device or get other weights
        return ReorderedWeights, ()

    def forget(self) -> None:
        """Free the reordered weights until they are needed again."""
        self._kept = {}

    def convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        how: tuple[Any, Any, Any, int],
        *,
        activation: Activation = "none",
        part: Hashable = 0,
    ) -> Tensor | None:
        """Convolve (B, C, H, W); None where oneDNN cannot.

        ``how`` is padding, stride, dilation and groups; ``part`` names these weights
        among several that are kept here.
        """
        dtype = _wanted(x)
        if dtype is None or weight.dtype is not torch.float32:
            return None
        x = x.to(dtype)
        known = self._kept.get((part, dtype))
        if known is None:
            known = (
                _REORDER(weight.to(dtype), *how, list(x.shape)),
                None if bias is None else bias.to(dtype),
            )
            self._kept[part, dtype] = known
        result: Tensor = _CONVOLVE(x, *known, *how, activation, _LIMITS[activation], "")
        return result


def _wanted(x: Tensor) -> torch.dtype | None:
    """Return the type to compute in, None if that is torch's own business."""
    if (
        _CONVOLVE is None
        or x.device.type != "cpu"
        or not torch.is_inference_mode_enabled()
        or torch.compiler.is_compiling()
    ):
        return None
    wanted = x.dtype
    if torch.is_autocast_enabled("cpu"):
        wanted = torch.get_autocast_dtype("cpu")
    if wanted is torch.float32 or (wanted is torch.bfloat16 and _HAS_HALF):
        return wanted
    return None


class Conv2dSame(nn.Conv2d):
    """A convolution with TensorFlow's padding, as timm's of this name."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve (B, C, H, W)."""
        return super().forward(_padded_as_needed(x, self))


def _pads_as_needed(conv: nn.Module) -> bool:
    """Whether a convolution is a ``Conv2dSame``, ours or timm's (not imported here)."""
    return type(conv).__name__ == Conv2dSame.__name__


def _padded_as_needed(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Pad (B, C, H, W) so that a convolution gives ⌈H / stride⌉ by ⌈W / stride⌉."""
    sides = []
    lengths = map(int, x.shape[-2:])  # tensors while the network is traced
    axes = zip(lengths, conv.kernel_size, conv.stride, strict=True)
    for length, kernel, stride in axes:
        missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        sides.append((missing // 2, missing - missing // 2))
    (above, below), (left, right) = sides
    return functional.pad(x, (left, right, above, below))


class PackedConv2d(nn.Conv2d):
    """A convolution that keeps its weights reordered; it shares ``conv``'s weights.

    ``conv`` is torch's convolution or timm's with TensorFlow's padding; ``activation``
    is what follows it.
    """

    def __init__(self, conv: nn.Conv2d, activation: Activation = "none") -> None:
        with torch.device("meta"):  # its own weights are not wanted
            super().__init__(
                conv.in_channels,
                conv.out_channels,
                conv.kernel_size,  # type: ignore[arg-type]  # a pair, as torch keeps it
                stride=conv.stride,  # type: ignore[arg-type]
                padding=conv.padding,  # type: ignore[arg-type]
                dilation=conv.dilation,  # type: ignore[arg-type]
                groups=conv.groups,
                bias=conv.bias is not None,
            )
        self.weight, self.bias = conv.weight, conv.bias
        self.activation = activation
        self._pads_as_needed = _pads_as_needed(conv)
        self._reordered = ReorderedWeights()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W), and activate."""
        if self._pads_as_needed:
            x = _padded_as_needed(x, self)
        how = (self.padding, self.stride, self.dilation, self.groups)
        own = self.weight, self.bias, how
        result = self._reordered.convolve(x, *own, activation=self.activation)
        if result is not None:
            return result
        result = super().forward(x)
        if self.activation == "relu":
            return functional.relu(result)
        return functional.relu6(result) if self.activation == "hardtanh" else result


def activation_of(module: nn.Module) -> Activation | None:
    """Return the name of an activation that can be fused, None for other modules."""
    if type(module) is nn.ReLU:
        return "relu"
    return "hardtanh" if type(module) is nn.ReLU6 else None


def pack(root: nn.Module) -> None:
    """Pack every convolution below a module; in sequences, with what follows it.

    A module with a method ``keep_reordered`` packs itself.
    """
    for module in list(root.modules()):
        keep_reordered = getattr(module, "keep_reordered", None)
        if keep_reordered is not None:
            keep_reordered()
        children = list(module.named_children())
        for number, (name, child) in enumerate(children):
            # not what is packed already, nor convolutions of other kinds
            if type(child) is not nn.Conv2d and not _pads_as_needed(child):
                continue
            conv = cast("nn.Conv2d", child)
            activation: Activation | None = None
            if isinstance(module, nn.Sequential):
                rest = children[number + 1 :]
                after = next((c for c in rest if type(c[1]) is not nn.Identity), None)
                activation = None if after is None else activation_of(after[1])
                if after is not None and activation is not None:
                    setattr(module, after[0], nn.Identity())
            setattr(module, name, PackedConv2d(conv, activation or "none"))


def forget_reordered(root: nn.Module) -> None:
    """Free the reordered weights below a module that computes seldom."""
    for module in root.modules():
        kept = getattr(module, "_reordered", None)
        if isinstance(kept, ReorderedWeights):
            kept.forget()
