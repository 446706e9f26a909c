"""HRNet (Wang et al. 2019) as RITM and FCFI use it, on timm's residual blocks.

timm's own HRNet differs where it matters: it upsamples by nearest neighbour and only
on sides divisible by 32; the click networks resize bilinearly with aligned corners
to whatever size the finer branch has. The blocks and all layer names are the same,
so ImageNet weights of either kind load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from napari_cfrseg.model.blocks.convolutions import resize

#: modules in stages 2, 3, 4 and blocks per branch, of the full and the small network
_MODULES = {False: (1, 4, 3), True: (1, 3, 2)}
_BLOCKS = {False: 4, True: 2}


def _conv_norm(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, relu: bool
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class _Fusion(nn.Module):
    """Exchange between branches of one module."""

    def __init__(self, widths: Sequence[int], *, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(widths, j, i) for j in range(len(widths)))
            for i in range(len(widths))
        )

    @staticmethod
    def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            return _conv_norm(widths[source], widths[target], 1, relu=False)
        steps = [
            _conv_norm(
                widths[source],
                widths[target] if last else widths[source],
                3,
                2,
                relu=not last,
            )
            for last in [False] * (target - source - 1) + [True]
        ]
        return nn.Sequential(*steps)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Sum every branch, brought to its size, into every branch."""
        fused = []
        for target, paths in zip(branches, self.fuse_layers, strict=True):
            size = (target.shape[-2], target.shape[-1])
            total: Tensor | None = None
            for source, path in zip(branches, paths.children(), strict=True):
                part = resize(path(source), size)
                total = part if total is None else total + part
            if total is not None:
                fused.append(F.relu(total) if self.relu else total)
        return fused


class _Module(_Fusion):
    """Residual blocks on every branch, then the exchange."""

    def __init__(self, widths: Sequence[int], blocks: int, *, relu: bool) -> None:
        super().__init__(widths, relu=relu)
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(w, w) for _ in range(blocks))) for w in widths
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Run the blocks, then the exchange, on 2 to 4 branches."""
        through = [blocks(x) for blocks, x in zip(self.branches, branches, strict=True)]
        return super().forward(through)


class HighResolutionNet(nn.Module):
    """Four parallel resolutions, joined at 1/4 of the input.

    Parameters
    ----------
    width
        w; the branches have w, 2w, 4w, 8w channels.
    small
        The "s" networks: fewer modules and blocks.
    relu_after_exchange
        False drops the ReLU after each exchange between branches, as FCFI's code
        does (its weights give garbage with it, and RITM's without it).
    """

    def __init__(
        self, width: int, *, small: bool = False, relu_after_exchange: bool = True
    ) -> None:
        super().__init__()
        modules, blocks = _MODULES[small], _BLOCKS[small]
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.out_channels = sum(widths)
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        widen = _conv_norm(64, 256, 1, relu=False)
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64, downsample=widen),
            *(Bottleneck(256, 64) for _ in range(blocks - 1)),
        )
        self.transition1 = nn.ModuleList(
            [
                _conv_norm(256, widths[0], 3, relu=True),
                nn.Sequential(_conv_norm(256, widths[1], 3, 2, relu=True)),
            ]
        )
        self.transition2 = self._next_branch(widths, 2)
        self.transition3 = self._next_branch(widths, 3)
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(
                *(
                    _Module(widths[:branches], blocks, relu=relu_after_exchange)
                    for _ in range(count)
                )
            )
            for branches, count in zip((2, 3, 4), modules, strict=True)
        )

    @staticmethod
    def _next_branch(widths: Sequence[int], index: int) -> nn.ModuleList:
        new = nn.Sequential(
            _conv_norm(widths[index - 1], widths[index], 3, 2, relu=True)
        )
        return nn.ModuleList([*(nn.Identity() for _ in range(index)), new])

    def stem(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) normalised → (B, 64, H/2, W/2): all that precedes the clicks."""
        return F.relu(self.bn1(self.conv1(image)))

    def body(self, stem: Tensor) -> Tensor:
        """(B, 64, H/2, W/2), clicks added → (B, 15w, H/4, W/4)."""
        x = self.layer1(F.relu(self.bn2(self.conv2(stem))))
        branches = [layer(x) for layer in self.transition1]
        branches = self.stage2(branches)
        branches = self.stage3([*branches, self.transition2[2](branches[-1])])
        branches = self.stage4([*branches, self.transition3[3](branches[-1])])
        size = (branches[0].shape[-2], branches[0].shape[-1])
        return torch.cat([resize(x, size) for x in branches], dim=1)
