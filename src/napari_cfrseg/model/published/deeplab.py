"""FCFI on ResNet-101 + DeepLabV3+ (Wei et al. 2023).

The clicks join after the deep stem; the previous mask enters FFCM and CFFM only, at
1/4 of the input, so that a refinement step repeats those two and the decoder.

Where the published code shows M^r and M^u at full size, it enlarges M^u with aligned
corners and M^r without; here both are returned as they are, at 1/4.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from napari_cfrseg.model.blocks.cffm import Fusion
from napari_cfrseg.model.blocks.clickmaps import disk_maps
from napari_cfrseg.model.blocks.convolutions import resize
from napari_cfrseg.model.blocks.feedback import FeedbackNetwork, FeedbackState
from napari_cfrseg.model.blocks.ffcm import Affinity
from napari_cfrseg.model.network import NetworkOutput
from napari_cfrseg.model.published.inputs import (
    ClickStem,
    ImageNetNormalize,
    feedback_and_gate,
)


@dataclass(frozen=True, slots=True)
class DeepLabConfig:
    """Everything that shapes FCFI's DeepLabV3+.

    Attributes
    ----------
    layers
        Bottlenecks per stage; ResNet-101: (3, 4, 23, 3), ResNet-50: (3, 4, 6, 3).
    width
        Channels of ASPP and decoder (published: 256).
    feedback_width
        Channels inside FFCM and CFFM (published: 32).
    ratio, affinity, fusion
        FFCM's box, FFCM's similarity and CFFM's fusion, by name.
    grid_size
        Side in pixels of the square grid (published zoom-in target on SBD: 480).
    """

    layers: tuple[int, int, int, int] = (3, 4, 23, 3)
    width: int = 256
    feedback_width: int = 32
    ratio: float = 0.3
    affinity: Affinity = "cosine"
    fusion: Fusion = "residual"
    grid_size: int = 480


def _conv_norm_relu(in_channels: int, out_channels: int, rate: int = 0) -> nn.Module:
    """1×1 for rate 0, else 3×3 dilated by the rate."""
    return nn.Sequential(*_layers(in_channels, out_channels, rate))


def _layers(in_channels: int, out_channels: int, rate: int = 0) -> list[nn.Module]:
    return [
        nn.Conv2d(
            in_channels,
            out_channels,
            3 if rate else 1,
            padding=rate,
            dilation=max(rate, 1),
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


def separable(in_channels: int, out_channels: int) -> nn.Sequential:
    """Depthwise 3×3, pointwise 1×1 (no bias), batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False
        ),
        *_layers(in_channels, out_channels),
    )


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling with rates 12, 24, 36 (output stride 8)."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [_conv_norm_relu(in_channels, width, rate) for rate in (0, 12, 24, 36)]
        )
        self.pooled = nn.Sequential(*_layers(in_channels, width))
        self.project = nn.Sequential(*_layers(5 * width, width), nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) → (B, width, h, w)."""
        maps = [branch(x) for branch in self.branches]
        window = self.pooled(x.mean(dim=(2, 3), keepdim=True))
        maps.append(window.expand(-1, -1, *x.shape[-2:]))
        joined: Tensor = self.project(torch.cat(maps, dim=1))
        return joined


class ImageEmbedding(NamedTuple):
    """What the image alone decides."""

    image: Tensor  # (B, 3, H, W) normalised
    stem: Tensor  # (B, 128, H/2, W/2)


class ClickFeatures(NamedTuple):
    """What image and clicks decide: all but the feedback modules and the decoder."""

    feedback: FeedbackState
    skip: Tensor  # (B, 32, H/4, W/4)
    size: tuple[int, int]  # (H, W)


class DeepLabClicks(FeedbackNetwork):
    """ResNet (v1s) + DeepLabV3+ with clicks, FFCM and CFFM.

    Parameters
    ----------
    config
        The network's shape.
    """

    refines_cheaply = True

    def __init__(self, config: DeepLabConfig | None = None) -> None:
        super().__init__()
        self.config = config or DeepLabConfig()
        self.grid_size = self.config.grid_size
        width = self.config.width
        self.normalize = ImageNetNormalize()
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
        self.add_feedback(width, self.config)
        self.skip = _conv_norm_relu(256, 32)
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

    def architecture(self) -> dict[str, Any]:
        """Return what ``model.registry.build`` needs to make this network again."""
        return {"family": "deeplab", **asdict(self.config)}

    def embed_image(self, image: Tensor) -> ImageEmbedding:
        """Normalise the pixels and run the deep stem."""
        image = self.normalize(image)
        stem = F.relu(self.backbone.bn1(self.backbone.conv1(image)))
        return ImageEmbedding(image, stem)

    def embed_clicks(self, embedding: ImageEmbedding, points: Tensor) -> ClickFeatures:
        """Add the clicks to the stem; run backbone and ASPP."""
        image, stem = embedding
        size = (image.shape[-2], image.shape[-1])
        maps = disk_maps(points, size).to(image.dtype)
        clicks = self.click_stem(maps)
        # the 64 click channels meet the first 64 of the stem's 128
        padding = (0, 0, 0, 0, 0, stem.shape[1] - clicks.shape[1])
        x = self.backbone.maxpool(stem + F.pad(clicks, padding))
        fine = self.backbone.layer1(x)
        x = self.backbone.layer4(self.backbone.layer3(self.backbone.layer2(fine)))
        quarter = (fine.shape[-2], fine.shape[-1])
        deep = resize(self.aspp(x), quarter)
        state = self.prepare_feedback(deep, image, maps)
        return ClickFeatures(state, self.skip(fine), size)

    def refine(
        self,
        features: ClickFeatures,
        feedback: Tensor | None,
        newest_click: Tensor,
        gate: Tensor | None = None,
    ) -> NetworkOutput:
        """Compute the mask once more; see ``FeedbackNetwork.refine``."""
        skip, size = features.skip, features.size
        feedback, gate = feedback_and_gate(feedback, gate, skip, size)
        fused = self.fuse_feedback(
            features.feedback, feedback, gate, newest_click, size
        )
        logits = self.classify(self.decode(torch.cat([fused.features, skip], dim=1)))
        return fused.output(logits, size)
