"""SimpleClick / CFR-ICL on a plain ViT, and FCFI on the same backbone.

SimpleClick (Liu et al. 2023): patches of the image and patches of [previous mask,
positive disks, negative disks] are embedded and added; windowed and a few global
blocks follow, then a pyramid made from the last map alone and an all-MLP head. CFR-ICL
(Sun et al. 2024) trains the very same network.

``feedback_width > 0`` is ours: the mask leaves the patch embedding and enters the
finest pyramid level through FFCM and CFFM, so that a refinement step repeats those
and the last layers of the head, and no block of the ViT.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from napari_cfrseg.model.blocks import SplitInputConv2d, resize
from napari_cfrseg.model.blocks.clickmaps import disk_maps
from napari_cfrseg.model.network import NetworkOutput
from napari_cfrseg.model.published.family import (
    ClickFamily,
    FamilyConfig,
    FeedbackState,
    Step,
)

#: side in pixels of the squares that windowed blocks attend within
WINDOW_PX = 224


@dataclass(frozen=True, slots=True)
class PlainViTConfig(FamilyConfig):
    """Everything that shapes a plain-ViT click network; the defaults are ViT-B's.

    With a ``feedback_width`` of 0 it is SimpleClick, mask at the input; else FCFI at
    the pyramid.
    """

    #: Large 16, 1024, 24, 16; Huge 14, 1280, 32, 16; xTiny 16, 160, 8, 4
    patch: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12
    #: channels at (nominally) 1/4, 1/8, 1/16 and 1/32
    pyramid: tuple[int, int, int, int] = (128, 256, 512, 1024)
    head_width: int = 256  #: channels of the head
    #: a multiple of 224 (published: 448, and 672 for DAVIS); the position embedding is
    #: stored for this size
    grid_size: int = 448

    @property
    def global_every(self) -> int:
        """Every how-manieth block attends to the whole grid (6 in Base)."""
        return 6 if self.depth == 12 else self.depth // 4


class ImageEmbedding(NamedTuple):
    """Features of the image alone."""

    tokens: Tensor  # (B, D, h, w) image patches, position added
    image: Tensor  # (B, 3, H, W) normalised


class ClickFeatures(NamedTuple):
    """Features of image and clicks; the last two only with FCFI."""

    image: Tensor  # (B, 3, H, W) normalised
    tokens: Tensor  # (B, D, h, w)
    maps: Tensor  # (B, 2, H, W) positive, negative disks
    coarse: Tensor | None  # the head's share of the coarse levels
    feedback: FeedbackState | None


class PlainViTClicks(ClickFamily[PlainViTConfig]):
    """Plain ViT with clicks; mask at the input, or FCFI at the pyramid.

    ``embed_image`` raises ValueError if the image's sides are not multiples of 224.
    """

    family = "plain_vit"

    def __init__(self, config: PlainViTConfig | None = None) -> None:
        super().__init__(config or PlainViTConfig())
        c = self.config
        self._window = WINDOW_PX // c.patch
        self._grid = c.grid_size // c.patch
        self.embed_pixels = nn.Conv2d(3, c.dim, c.patch, stride=c.patch)
        maps = 2 if c.feedback_width else 3
        self.embed_maps = nn.Conv2d(maps, c.dim, c.patch, stride=c.patch)
        self.position = nn.Parameter(torch.empty(1, self._grid**2, c.dim))
        nn.init.trunc_normal_(self.position, std=0.02)
        norm = partial(nn.LayerNorm, eps=1e-6)
        block = partial(Block, c.dim, c.heads, qkv_bias=True, norm_layer=norm)
        self.blocks = nn.ModuleList(block() for _ in range(c.depth))
        self.pyramid = SimplePyramid(c.dim, c.pyramid)
        self.head = MlpHead(c.pyramid, c.head_width)
        self.add_feedback(c.pyramid[0])

    def position_map(self, height: int, width: int) -> Tensor:
        """Return the position embedding of a grid of patches, (1, D, height, width).

        Bicubic (align_corners=False) from the stored grid, as published.
        """
        grid = self.position.transpose(1, 2)
        grid = grid.reshape(1, -1, self._grid, self._grid)
        if (height, width) == (self._grid, self._grid):
            return grid
        resized: Tensor = F.interpolate(grid.float(), (height, width), mode="bicubic")
        return resized.to(grid.dtype)

    def embed_image(self, image: Tensor) -> ImageEmbedding:
        """Embed the image's patches and add their positions."""
        height, width = image.shape[-2:]
        if height % WINDOW_PX or width % WINDOW_PX:
            raise ValueError(
                f"a plain-ViT network reads grids whose sides are multiples of "
                f"{WINDOW_PX} px, got {height}×{width}; choose a grid of "
                f"{WINDOW_PX}, {2 * WINDOW_PX} or {3 * WINDOW_PX}"
            )
        image = self.normalize(image)
        patches = self.embed_pixels(image)
        # positions and patches are added before the clicks are: addition commutes
        position = self.position_map(patches.shape[-2], patches.shape[-1])
        return ImageEmbedding(patches + position, image)

    def embed_clicks(self, embedding: ImageEmbedding, points: Tensor) -> ClickFeatures:
        """Draw the clicks; with FCFI also run the ViT, pyramid and coarse head."""
        tokens, image = embedding
        maps = disk_maps(points, (image.shape[-2], image.shape[-1])).to(image.dtype)
        features = ClickFeatures(image, tokens, maps, None, None)
        if self.ffcm is None:
            return features
        pyramid = self.pyramid(self.encode(tokens + self.embed_maps(maps)))
        state = self.prepare_feedback(pyramid[0], image, maps)
        return features._replace(coarse=self.head.coarse(pyramid), feedback=state)

    def encode(self, tokens: Tensor) -> Tensor:
        """Run the blocks on a (B, D, h, w) token map; no norm after the last one."""
        every, side = self.config.global_every, self._window
        rows, columns = tokens.shape[-2] // side, tokens.shape[-1] // side
        x = _split(tokens.permute(0, 2, 3, 1), rows, columns)
        for index, block in enumerate(self.blocks, start=1):
            if index % every:
                x = block(x)
            else:
                whole = _merge(x, rows, columns, side)
                whole = block(whole.flatten(1, 2)).view(whole.shape)
                x = _split(whole, rows, columns)
        return _merge(x, rows, columns, side).permute(0, 3, 1, 2)

    def refine_from(self, features: ClickFeatures, step: Step) -> NetworkOutput:
        """Run what follows the mask: every block, or FCFI's last layers."""
        if self.ffcm is None:
            maps = torch.cat([step.feedback, features.maps], dim=1)
            tokens = features.tokens + self.embed_maps(maps)
            pyramid = self.pyramid(self.encode(tokens))
            logits = self.head.finish(self.head.coarse(pyramid), pyramid[0])
            return NetworkOutput(resize(logits, step.size))
        fused = self.fuse_feedback(features.feedback, step)
        coarse = cast("Tensor", features.coarse)  # there with the feedback's state
        logits = self.head.finish(coarse, fused.features)
        return fused.output(logits, step.size)


def _split(x: Tensor, rows: int, columns: int) -> Tensor:
    """(B, rows·s, columns·s, D) → (B·rows·columns, s², D): contiguous windows."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, rows, height // rows, columns, width // columns, dim)
    return x.transpose(2, 3).reshape(batch * rows * columns, -1, dim)


def _merge(x: Tensor, rows: int, columns: int, side: int) -> Tensor:
    """Undo ``_split``: → (B, rows·s, columns·s, D)."""
    x = x.view(-1, rows, columns, side, side, x.shape[-1])
    x = x.transpose(2, 3)
    return x.reshape(x.shape[0], rows * side, columns * side, x.shape[-1])


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
        """Levels 1 to 3 → their share of the joined map, (B, width, h, w)."""
        # a 1×1 convolution and a resize commute, and a narrower map is resized faster
        size, shares = pyramid[0].shape[-2:], []
        for index in (1, 2, 3):
            level = F.relu(self.levels[index](pyramid[index]))
            share = self.join.part(index, level, with_bias=index == 1)
            shares.append(F.interpolate(share, size, mode="bilinear"))
        return shares[0] + shares[1] + shares[2]

    def finish(self, coarse: Tensor, finest: Tensor) -> Tensor:
        """Add level 0, (B, C0, h, w), and return the logits, (B, 1, h, w)."""
        share = self.join.part(0, F.relu(self.levels[0](finest)))
        logits: Tensor = self.classify(self.dropout(F.relu(coarse + share)))
        return logits
