"""SimpleClick's pyramid and head: four resolutions from one token map, then a mask."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfrseg.model.convolutions import SplitInputConv2d


class SimplePyramid(nn.Module):
    """Four resolutions from one token map; GroupNorm(1) is LayerNorm over C, H, W."""

    def __init__(self, dim: int, out: tuple[int, int, int, int]) -> None:
        super().__init__()
        fine, half = max(2 * out[0], dim // 2), max(out[1], dim // 2)
        deep = max(out[3], 2 * dim)
        self.down_4 = nn.Sequential(
            nn.ConvTranspose2d(dim, fine, 2, stride=2),
            nn.GroupNorm(1, fine),
            nn.GELU(),
            nn.ConvTranspose2d(fine, fine // 2, 2, stride=2),
            nn.GroupNorm(1, fine // 2),
            nn.Conv2d(fine // 2, out[0], 1),
            nn.GroupNorm(1, out[0]),
            nn.GELU(),
        )
        self.down_8 = nn.Sequential(
            nn.ConvTranspose2d(dim, half, 2, stride=2),
            nn.GroupNorm(1, half),
            nn.Conv2d(half, out[1], 1),
            nn.GroupNorm(1, out[1]),
            nn.GELU(),
        )
        self.down_16 = nn.Sequential(
            nn.Conv2d(dim, out[2], 1), nn.GroupNorm(1, out[2]), nn.GELU()
        )
        self.down_32 = nn.Sequential(
            nn.Conv2d(dim, deep, 2, stride=2),
            nn.GroupNorm(1, deep),
            nn.Conv2d(deep, out[3], 1),
            nn.GroupNorm(1, out[3]),
            nn.GELU(),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Turn (B, D, h, w) into maps of 4, 2, 1 and 1/2 times its sides."""
        return self.down_4(x), self.down_8(x), self.down_16(x), self.down_32(x)


class MlpHead(nn.Module):
    """1×1 per level, resize to the finest, 1×1 over all, dropout, 1×1 to the mask.

    The coarse levels' share of the second 1×1 does not change with the finest level,
    so ``coarse`` may be computed once and ``finish`` many times.
    """

    def __init__(self, channels: tuple[int, int, int, int], width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.join = SplitInputConv2d((width,) * 4, width, 1)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, 1, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        if self.classify.bias is not None:
            nn.init.zeros_(self.classify.bias)

    def coarse(self, pyramid: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Levels 1 to 3 → their share of the joined map, (B, width, h, w).

        A 1×1 convolution and a bilinear resize commute; the resize is done last, on
        the sum's parts, as it is dearer on the wider map.
        """
        size = pyramid[0].shape[-2:]
        total: Tensor | None = None
        for index in (1, 2, 3):
            level = F.relu(self.levels[index](pyramid[index]))
            share = self.join.part(index, level, with_bias=index == 1)
            share = F.interpolate(share, size, mode="bilinear", align_corners=False)
            total = share if total is None else total + share
        if total is None:
            msg = "the pyramid has four levels"
            raise ValueError(msg)
        return total

    def finish(self, coarse: Tensor, finest: Tensor) -> Tensor:
        """Add level 0, (B, C0, h, w), and return the logits, (B, 1, h, w)."""
        share = self.join.part(0, F.relu(self.levels[0](finest)))
        logits: Tensor = self.classify(self.dropout(F.relu(coarse + share)))
        return logits
