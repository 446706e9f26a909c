"""RITM's and FCFI's click networks on HRNet + OCR.

RITM (Sofiiuk et al. 2021): clicks and previous mask are mixed by a small stem and
added to the image's first feature map; everything after it runs again with every new
mask. FCFI (Wei et al. 2023) puts FFCM and CFFM between backbone and OCR head; its
published HRNet also keeps the mask at the input, which the paper does not mention.
``mask_at_input=False`` is the paper's network: its backbone runs once per click.

HRNet (Wang et al. 2019) is built on timm's residual blocks, with the same names, so
that ImageNet weights load. timm's own HRNet upsamples by nearest neighbour; the click
networks resize bilinearly with aligned corners to the finer branch's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from napari_cfrseg.model.blocks import conv_norm, resize
from napari_cfrseg.model.blocks.clickmaps import disk_maps
from napari_cfrseg.model.network import NetworkOutput
from napari_cfrseg.model.published.family import (
    ClickFamily,
    ClickStem,
    FamilyConfig,
    FeedbackState,
    Step,
)

#: modules in stages 2, 3, 4 and blocks per branch, of the full and the small network
_MODULES = {False: (1, 4, 3), True: (1, 3, 2)}
_BLOCKS = {False: 4, True: 2}


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
            return conv_norm(widths[source], widths[target], 1, relu=False)
        width = widths[source]
        steps = [conv_norm(width, width, 3, 2) for _ in range(target - source - 1)]
        return nn.Sequential(*steps, conv_norm(width, widths[target], 3, 2, relu=False))

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Sum every branch, brought to its size, into every branch."""
        fused = []
        for target, paths in zip(branches, self.fuse_layers, strict=True):
            size = (target.shape[-2], target.shape[-1])
            pairs = zip(branches, paths.children(), strict=True)
            total = reduce(torch.add, (resize(path(x), size) for x, path in pairs))
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
    """Four parallel resolutions of w, 2w, 4w, 8w channels, joined at 1/4 of the input.

    ``small``: the "s" networks with fewer modules and blocks.
    ``relu_after_exchange=False`` drops the ReLU after each exchange between branches,
    as FCFI's code does (its weights give garbage with it, and RITM's without it).
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
        widen = conv_norm(64, 256, 1, relu=False)
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64, downsample=widen),
            *(Bottleneck(256, 64) for _ in range(blocks - 1)),
        )
        first = conv_norm(256, widths[0], 3)
        second = nn.Sequential(conv_norm(256, widths[1], 3, 2))
        self.transition1 = nn.ModuleList([first, second])
        self.transition2 = self._next_branch(widths, 2)
        self.transition3 = self._next_branch(widths, 3)

        def stage(branches: int, count: int) -> nn.Sequential:
            made = partial(_Module, widths[:branches], blocks, relu=relu_after_exchange)
            return nn.Sequential(*(made() for _ in range(count)))

        self.stage2, self.stage3, self.stage4 = map(stage, (2, 3, 4), modules)

    @staticmethod
    def _next_branch(widths: Sequence[int], index: int) -> nn.ModuleList:
        new = nn.Sequential(conv_norm(widths[index - 1], widths[index], 3, 2))
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


@dataclass(frozen=True, slots=True)
class HRNetConfig(FamilyConfig):
    """Everything that shapes an HRNet click network.

    HRNet-18s has the width 18, ``small`` and the OCR width 48; HRNet-18 18, False, 64;
    HRNet-32 32, False, 128. FCFI's published "HRNet-18s" is 18, False, 48 (not small at
    all) with a ``feedback_width`` of 64; RITM's networks have none.
    """

    width: int = 18
    small: bool = True
    ocr_width: int = 48
    #: whether the previous mask is a third click map (RITM's "itermask"; FCFI's code,
    #: not its paper)
    mask_at_input: bool = True
    #: RITM: True. FCFI: False, an omission its weights depend on.
    relu_after_exchange: bool = True


class ImageEmbedding(NamedTuple):
    """Features of the image alone."""

    image: Tensor  # (B, 3, H, W) normalised
    stem: Tensor  # (B, 64, H/2, W/2)


class ClickFeatures(NamedTuple):
    """Features of image and clicks; deep maps only without a mask at the input."""

    image: Tensor  # (B, 3, H, W) normalised
    stem: Tensor  # (B, 64, H/2, W/2)
    maps: Tensor  # (B, 2, H, W) positive, negative disks
    deep: Tensor | None  # (B, 15w, H/4, W/4)
    feedback: FeedbackState | None  # with FCFI


class HRNetClicks(ClickFamily[HRNetConfig]):
    """HRNet + OCR with clicks, a previous mask and, for FCFI, FFCM and CFFM."""

    family = "hrnet"

    def __init__(self, config: HRNetConfig | None = None) -> None:
        super().__init__(config or HRNetConfig())
        maps = 3 if self.config.mask_at_input else 2
        self.click_stem = ClickStem(maps)
        self.backbone = HighResolutionNet(
            self.config.width,
            small=self.config.small,
            relu_after_exchange=self.config.relu_after_exchange,
        )
        channels = self.backbone.out_channels
        self.add_feedback(channels, context_channels=3 + maps)
        self.ocr = OcrHead(channels, self.config.ocr_width)

    def embed_image(self, image: Tensor) -> ImageEmbedding:
        """Normalise the pixels and run the first convolution."""
        normalized = self.normalize(image)
        return ImageEmbedding(normalized, self.backbone.stem(normalized))

    def embed_clicks(self, embedding: ImageEmbedding, points: Tensor) -> ClickFeatures:
        """Draw the clicks; run the backbone where no mask is needed for it."""
        image, stem = embedding
        maps = disk_maps(points, (image.shape[-2], image.shape[-1])).to(image.dtype)
        features = ClickFeatures(image, stem, maps, None, None)
        return features if self.config.mask_at_input else self._deepen(features, maps)

    def _deepen(self, features: ClickFeatures, maps: Tensor) -> ClickFeatures:
        """Run the backbone on the image and these input maps."""
        deep = self.backbone.body(features.stem + self.click_stem(maps))
        state = self.prepare_feedback(deep, features.image, maps)
        return features._replace(deep=deep, feedback=state)

    def refine_from(self, features: ClickFeatures, step: Step) -> NetworkOutput:
        """Run what follows the mask: with the mask at the input, the backbone too."""
        if self.config.mask_at_input:
            maps = torch.cat([step.feedback, features.maps], dim=1)
            features = self._deepen(features, maps)
        if self.ffcm is None:
            logits, coarse = (resize(x, step.size) for x in self.ocr(features.deep))
            return NetworkOutput(logits, auxiliary_logits=coarse)
        fused = self.fuse_feedback(features.feedback, step)
        logits, coarse = self.ocr(fused.features)
        return fused.output(logits, step.size, coarse)


class OcrHead(nn.Module):
    """Coarse mask → mean feature of the object → final mask.

    The OCR width is 48 (HRNet-18s), 64 (18) or 128 (32).
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.aux_head = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 1),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, 1, 1),
        )
        self.conv3x3 = nn.Sequential(
            nn.Conv2d(in_channels, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(inplace=True),
        )
        self.down = conv_norm(2 * width, width, 1)
        self.up = conv_norm(width, 2 * width, 1)
        self.join = conv_norm(4 * width, 2 * width, 1)
        self.dropout = nn.Dropout2d(0.05)
        self.classify = nn.Conv2d(2 * width, 1, 1)

    def gather(self, pixels: Tensor, coarse_logits: Tensor) -> Tensor:
        """Mean of (B, C, h, w) pixels, weighted by a softmax of the coarse logits."""
        weight = coarse_logits.flatten(2).float().softmax(dim=2)
        mean = (pixels.flatten(2).float() * weight).sum(dim=2)
        return mean[:, :, None, None].to(pixels.dtype)

    def distribute(self, pixels: Tensor, gathered: Tensor) -> Tensor:
        """Show every pixel the object's feature: (B, 2·width, h, w)."""
        context = self.up(self.down(gathered)).expand_as(pixels)
        joined: Tensor = self.dropout(self.join(torch.cat([context, pixels], dim=1)))
        return joined

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mask logits and coarse logits, both (B, 1, h, w)."""
        coarse = self.aux_head(features)
        pixels = self.conv3x3(features)
        joined = self.distribute(pixels, self.gather(pixels, coarse))
        return self.classify(joined), coarse
