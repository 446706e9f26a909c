"""Small convolution blocks that FFCM, CFFM and the heads share."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: whether this torch was built with oneDNN
_HAS_KERNEL = bool(
    torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's
)


class SplitInputConv2d(nn.Conv2d):
    """A convolution over a concatenation whose parts arrive at different times.

    ``conv(concat[a, b]) = conv_a(a) + conv_b(b)``: what does not change between two
    refinement steps (image, clicks, features) is convolved once, and a step only adds
    the feedback's share. Weights and keys are those of the one ordinary convolution.

    Parameters
    ----------
    parts
        Channels of each part, in the order of the concatenation.
    out_channels, kernel_size, bias
        As in ``torch.nn.Conv2d``; stride 1, padding keeps the size.
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

    def part(self, index: int, x: Tensor, *, with_bias: bool = False) -> Tensor:
        """Return part ``index``'s share of the output; one part adds the bias."""
        start = self._starts[index]
        weight = self.weight[:, start : start + self.parts[index]]
        bias = self.bias if with_bias else None
        return F.conv2d(x, weight, bias, padding=self.padding)


class DirectConv2d(nn.Conv2d):
    """A convolution computed by torch's vectorised kernel where it is small, too.

    On a CPU torch unfolds inputs of at most 20,480 values into a matrix; for the
    3 x 3 convolutions of a coarse map this takes nearly twice the time. Inference only:
    the kernel is called without its gradient.

    Parameters
    ----------
    conv
        Whose weights it shares; stride 1, one group, padding that keeps the size.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            padding=conv.kernel_size[0] // 2,
            bias=conv.bias is not None,
        )
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W) as ever."""
        if not self._has_kernel(x):
            return super().forward(x)
        return torch.mkldnn_convolution(
            x,
            self.weight,
            self.bias,
            (self.kernel_size[0] // 2,) * 2,
            self.stride,
            self.dilation,
            self.groups,
        )

    def _has_kernel(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and torch.is_inference_mode_enabled()
            and not torch.is_autocast_enabled("cpu")
            and _HAS_KERNEL
        )


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
