"""FCFI (Wei et al. 2023) on ResNet-101 + DeepLabV3+, and on any timm backbone.

The previous mask enters FFCM and CFFM only, at 1/4 of the input, so that a refinement
step repeats those two and the decoder. In the published network the clicks join after
the deep stem. On a timm backbone (``fcfi:convnext_tiny``) a learned map of the click
disks is added to the normalised image; its scale starts at 0.05, so that a pretrained
backbone is hardly disturbed.

Where the published code shows M^r and M^u at full size, it enlarges M^u with aligned
corners and M^r without; here both are returned as they are, at 1/4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from napari_cfrseg.model.blocks import SplitInputConv2d, conv_norm, resize
from napari_cfrseg.model.blocks.clickmaps import disk_maps
from napari_cfrseg.model.network import NetworkOutput
from napari_cfrseg.model.published.family import (
    ClickFamily,
    ClickStem,
    FamilyConfig,
    FeedbackState,
    Step,
)


@dataclass(frozen=True, slots=True)
class DeepLabConfig(FamilyConfig):
    """Everything that shapes FCFI's DeepLabV3+."""

    #: bottlenecks per stage; ResNet-101: (3, 4, 23, 3), ResNet-50: (3, 4, 6, 3)
    layers: tuple[int, int, int, int] = (3, 4, 23, 3)
    width: int = 256  #: channels of ASPP and decoder (published: 256)
    #: published: 32, and on SBD a zoom-in target of 480
    feedback_width: int = 32
    grid_size: int = 480


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """Depthwise 3×3, pointwise 1×1 (no bias), batch normalisation, ReLU."""
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, *conv_norm(inputs, outputs, 1))


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling with rates 12, 24, 36 (output stride 8)."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_norm(in_channels, width, 1),
                *(conv_norm(in_channels, width, dilation=r) for r in (12, 24, 36)),
            ]
        )
        self.pooled = conv_norm(in_channels, width, 1)
        self.project = nn.Sequential(*conv_norm(5 * width, width, 1), nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) → (B, width, h, w)."""
        maps = [branch(x) for branch in self.branches]
        window = self.pooled(x.mean(dim=(2, 3), keepdim=True))
        maps.append(window.expand(-1, -1, *x.shape[-2:]))
        joined: Tensor = self.project(torch.cat(maps, dim=1))
        return joined


class ImageEmbedding(NamedTuple):
    """Features of the image alone."""

    image: Tensor  # (B, 3, H, W) normalised
    stem: Tensor  # (B, 128, H/2, W/2)


class ClickFeatures(NamedTuple):
    """Features of image and clicks, before the feedback modules."""

    image: Tensor  # (B, 3, H, W) normalised
    skip: Tensor  # (B, 32, H/4, W/4)
    feedback: FeedbackState | None


class DeepLabClicks(ClickFamily[DeepLabConfig]):
    """ResNet (v1s) + DeepLabV3+ with clicks, FFCM and CFFM."""

    family = "deeplab"

    def __init__(self, config: DeepLabConfig | None = None) -> None:
        super().__init__(config or DeepLabConfig())
        width = self.config.width
        self.click_stem = ClickStem(2)
        self.backbone = ResNet(
            Bottleneck,
            tuple(self.config.layers),
            num_classes=0,
            stem_width=64,
            stem_type="deep",
            output_stride=8,
        )
        self.aspp = Aspp(2048, width)
        self.add_feedback(width)
        self.skip = conv_norm(256, 32, 1)
        self.decode = nn.Sequential(
            separable(width + 32, width),
            separable(width, width),
            nn.Conv2d(width, width, 1),
        )
        self.classify = nn.Sequential(
            separable(width, width // 2),
            separable(width // 2, width // 2),
            nn.Conv2d(width // 2, 1, 1),
        )

    def embed_image(self, image: Tensor) -> ImageEmbedding:
        """Normalise the pixels and run the deep stem."""
        image = self.normalize(image)
        stem = F.relu(self.backbone.bn1(self.backbone.conv1(image)))
        return ImageEmbedding(image, stem)

    def embed_clicks(self, embedding: ImageEmbedding, points: Tensor) -> ClickFeatures:
        """Add the clicks to the stem; run backbone and ASPP."""
        image, stem = embedding
        maps = disk_maps(points, (image.shape[-2], image.shape[-1])).to(image.dtype)
        clicks = self.click_stem(maps)
        # the 64 click channels meet the first 64 of the stem's 128
        padding = (0, 0, 0, 0, 0, stem.shape[1] - clicks.shape[1])
        x = self.backbone.maxpool(stem + F.pad(clicks, padding))
        fine = self.backbone.layer1(x)
        x = self.backbone.layer4(self.backbone.layer3(self.backbone.layer2(fine)))
        deep = resize(self.aspp(x), (fine.shape[-2], fine.shape[-1]))
        state = self.prepare_feedback(deep, image, maps)
        return ClickFeatures(image, self.skip(fine), state)

    def refine_from(self, features: ClickFeatures, step: Step) -> NetworkOutput:
        """Correct and fuse the mask, then run the decoder."""
        fused = self.fuse_feedback(features.feedback, step)
        joined = torch.cat([fused.features, features.skip], dim=1)
        return fused.output(self.classify(self.decode(joined)), step.size)


@dataclass(frozen=True, slots=True)
class TimmFcfiConfig(FamilyConfig):
    """Everything that shapes FCFI on a timm backbone."""

    backbone: str = "resnet50"  #: a timm model that supports ``features_only``
    #: fetch timm's weights when the network is built; needs the network once. Never
    #: written to a checkpoint, which brings its own weights.
    pretrained: bool = False
    width: int = 128  #: channels of the joined features and the decoder
    feedback_width: int = 32
    grid_size: int = 384


class JoinedFeatures(NamedTuple):
    """Features of image and clicks, before the feedback modules."""

    image: Tensor  # (B, 3, H, W) normalised
    feedback: FeedbackState | None


class TimmFcfi(ClickFamily[TimmFcfiConfig]):
    """A timm backbone with clicks at its input, FFCM and CFFM on its joined maps.

    Raises ValueError if timm has no such backbone, or it gives no feature maps.
    """

    family = "timm_fcfi"

    def __init__(self, config: TimmFcfiConfig | None = None) -> None:
        super().__init__(config or TimmFcfiConfig())
        c = self.config
        self.backbone = _backbone(c)
        reductions: list[int] = self.backbone.feature_info.reduction()
        # maps finer than 1/4 cost more than a mask's edge gains from them
        self._levels = [i for i, r in enumerate(reductions) if r >= 4]
        channels = [self.backbone.feature_info.channels()[i] for i in self._levels]
        self.embed_maps = nn.Sequential(
            nn.Conv2d(2, 16, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 3, 3, padding=1)
        )
        self.scale = nn.Parameter(torch.tensor([0.05]))
        self.join = SplitInputConv2d(channels, c.width, 1, bias=False)
        self.joined = nn.Sequential(nn.BatchNorm2d(c.width), nn.ReLU(inplace=True))
        self.add_feedback(c.width)
        self.decode = nn.Sequential(
            separable(c.width, c.width),
            separable(c.width, c.width // 2),
            nn.Conv2d(c.width // 2, 1, 1),
        )

    def architecture(self) -> dict[str, Any]:
        """Return the description that ``model.registry.build`` takes."""
        return {**super().architecture(), "pretrained": False}

    def embed_image(self, image: Tensor) -> Tensor:
        """Normalise the pixels, (B, 3, H, W)."""
        normalized: Tensor = self.normalize(image)
        return normalized

    def embed_clicks(self, embedding: Tensor, points: Tensor) -> JoinedFeatures:
        """Add the clicks to the image and run the backbone."""
        size = (embedding.shape[-2], embedding.shape[-1])
        maps = disk_maps(points, size).to(embedding.dtype)
        clicks = self.embed_maps(maps) * self.scale.abs()
        levels = self.backbone(embedding + clicks)
        deep = self._join([levels[i] for i in self._levels])
        return JoinedFeatures(embedding, self.prepare_feedback(deep, embedding, maps))

    def _join(self, levels: list[Tensor]) -> Tensor:
        """1×1 over the concatenated levels, each reduced before it is enlarged."""
        joined = self.join.part(0, levels[0])
        for index, level in enumerate(levels[1:], start=1):
            share = self.join.part(index, level)
            joined = joined + F.interpolate(share, joined.shape[-2:], mode="bilinear")
        features: Tensor = self.joined(joined)
        return features

    def refine_from(self, features: JoinedFeatures, step: Step) -> NetworkOutput:
        """Correct and fuse the mask, then run the decoder."""
        fused = self.fuse_feedback(features.feedback, step)
        return fused.output(self.decode(fused.features), step.size)


def _backbone(config: TimmFcfiConfig) -> Any:
    try:
        return timm.create_model(
            config.backbone, pretrained=config.pretrained, features_only=True
        )
    except RuntimeError as error:  # timm has no such model
        raise ValueError(
            f"timm cannot give feature maps of {config.backbone!r} ({error}); "
            "timm.list_models() lists the names it has"
        ) from error
