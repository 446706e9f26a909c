"""Encoders of a window's pixels: timm's, and the two of the default without timm.

Importing timm takes 200 MB and several seconds, for two small networks. They are
written out here, with timm's names of weights, and compute the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from napari_cfrseg.model.blocks import conv_norm
from napari_cfrseg.model.blocks.packed import Conv2dSame


class Encoder(NamedTuple):
    """A network that returns feature maps, and which of them are wanted."""

    network: nn.Module  #: (B, 3, H, W) → a list of maps
    levels: tuple[int, ...]  #: index of the map at each stride asked for
    channels: tuple[int, ...]  #: their channels


def encoder(name: str, strides: Sequence[int]) -> Encoder:
    """Build an untrained encoder by timm's name of it, with maps at these strides.

    RuntimeError where timm has no such model, ValueError where it has no such maps.
    """
    if name in _OWN:
        kind, reductions, widths = _OWN[name]
        if set(strides) <= set(reductions):
            own: nn.Module = kind()
            levels = tuple(reductions.index(stride) for stride in strides)
            return Encoder(own, levels, tuple(widths[i] for i in levels))
    import timm

    which = {} if max(strides) > 16 else {"out_indices": (0, 1, 2, 3)}
    network = timm.create_model(name, pretrained=False, features_only=True, **which)
    info = network.feature_info
    levels = tuple(info.reduction().index(stride) for stride in strides)
    if which and hasattr(network, "blocks"):  # timm would run the rest, too
        last = int(info.module_name()[levels[-1]].split(".")[1])
        network.blocks = network.blocks[: last + 1]
    return Encoder(network, levels, tuple(info.channels()[i] for i in levels))


def _draw_weights(network: nn.Module) -> None:
    """Draw convolutions' weights by He et al.'s rule, as timm does."""
    for module in network.modules():
        # for a weight without memory torch would import its compiler
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            rows, columns = module.kernel_size
            fan_out = rows * columns * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0.0, (2 / fan_out) ** 0.5)


class BatchNormAct2d(nn.BatchNorm2d):
    """A batch normalisation followed by ReLU6, or by nothing."""

    def __init__(self, channels: int, *, acts: bool = True) -> None:
        super().__init__(channels, eps=1e-3)
        self.act: nn.Module = nn.ReLU6(inplace=True) if acts else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and activate."""
        activated: Tensor = self.act(super().forward(x))
        return activated


class _BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, ResNet-D's where the stride is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(2, stride),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        result: Tensor = self.act2(y)
        return result


class ResNet10t(nn.Module):
    """timm's resnet10t: a ResNet-D of four blocks after three convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            *conv_norm(3, 24, stride=2),
            *conv_norm(24, 32),
            nn.Conv2d(32, 64, 3, 1, 1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(_BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(_BasicBlock(64, 128, 2))
        self.layer3 = nn.Sequential(_BasicBlock(128, 256, 2))
        self.layer4 = nn.Sequential(_BasicBlock(256, 512, 2))
        _draw_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps at strides 2, 4, 8, 16 and 32."""
        maps = [self.act1(self.bn1(self.conv1(x)))]
        x = self.maxpool(maps[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    how: dict[str, Any] = {"groups": channels, "bias": False}
    if stride > 1:
        return Conv2dSame(channels, channels, kernel, stride, **how)
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, **how)


class _Separable(nn.Module):
    """EfficientNet's first block: a depthwise convolution and a pointwise one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_dw = _depthwise(inputs, 3, 1)
        self.bn1 = BatchNormAct2d(inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = BatchNormAct2d(outputs, acts=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        result: Tensor = self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))
        return result


class _Inverted(nn.Module):
    """EfficientNet's block: six times as many channels inside as at its ends."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        inside = 6 * inputs
        self.conv_pw = nn.Conv2d(inputs, inside, 1, bias=False)
        self.bn1 = BatchNormAct2d(inside)
        self.conv_dw = _depthwise(inside, kernel, stride)
        self.bn2 = BatchNormAct2d(inside)
        self.conv_pwl = nn.Conv2d(inside, outputs, 1, bias=False)
        self.bn3 = BatchNormAct2d(outputs, acts=False)
        self._has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        y = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        result: Tensor = self.bn3(self.conv_pwl(y))
        return result + x if self._has_shortcut else result


#: EfficientNet-Lite0's blocks after the first: channels, kernel, stride, how many
_LITE0 = ((24, 3, 2, 2), (40, 5, 2, 2), (80, 3, 2, 3), (112, 5, 1, 3))


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to stride 16, padded as TensorFlow does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = Conv2dSame(3, 32, 3, 2, bias=False)
        self.bn1 = BatchNormAct2d(32)
        stages, inputs = [nn.Sequential(_Separable(32, 16))], 16
        for outputs, kernel, stride, count in _LITE0:
            blocks = [_Inverted(inputs, outputs, kernel, stride)]
            blocks += [_Inverted(outputs, outputs, kernel, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.blocks = nn.Sequential(*stages)
        _draw_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps at strides 2, 4, 8 and 16."""
        x = self.bn1(self.conv_stem(x))
        maps = []
        for stage in self.blocks:
            x = stage(x)
            maps.append(x)
        return [maps[0], maps[1], maps[2], maps[4]]


_OWN: dict[
    str, tuple[type[ResNet10t | EfficientNetLite0], tuple[int, ...], tuple[int, ...]]
] = {
    "resnet10t": (ResNet10t, (2, 4, 8, 16, 32), (64, 64, 128, 256, 512)),
    "tf_efficientnet_lite0": (EfficientNetLite0, (2, 4, 8, 16), (16, 24, 40, 112)),
}
