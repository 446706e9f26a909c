"""RITM's and FCFI's click networks on HRNet + OCR.

RITM (Sofiiuk et al. 2021): clicks and previous mask are mixed by a small stem and
added to the image's first feature map; everything after it runs again with every new
mask. FCFI (Wei et al. 2023) puts FFCM and CFFM between backbone and OCR head; its
published HRNet also keeps the mask at the input, which the paper does not say.
``mask_at_input=False`` is the paper's network: its backbone runs once per click.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from napari_cfrseg.model.blocks.cffm import Fusion
from napari_cfrseg.model.blocks.clickmaps import disk_maps
from napari_cfrseg.model.blocks.convolutions import resize
from napari_cfrseg.model.blocks.feedback import FeedbackNetwork, FeedbackState
from napari_cfrseg.model.blocks.ffcm import Affinity
from napari_cfrseg.model.network import NetworkOutput
from napari_cfrseg.model.published.hrnet import HighResolutionNet
from napari_cfrseg.model.published.inputs import (
    ClickStem,
    ImageNetNormalize,
    feedback_and_gate,
)


@dataclass(frozen=True, slots=True)
class HRNetConfig:
    """Everything that shapes an HRNet click network.

    Attributes
    ----------
    width, small, ocr_width
        HRNet-18s: 18, True, 48. HRNet-18: 18, False, 64. HRNet-32: 32, False, 128.
        FCFI's published "HRNet-18s" is 18, False, 48: not small at all.
    mask_at_input
        The previous mask is a third click map (RITM's "itermask"; FCFI's code, not
        its paper).
    relu_after_exchange
        RITM: True. FCFI: False, an omission its weights depend on.
    feedback_width
        0: RITM. Else FCFI, with this many channels in FFCM and CFFM (published: 64).
    ratio, affinity, fusion
        FFCM's box, FFCM's similarity and CFFM's fusion, by name.
    grid_size
        Side in pixels of the square grid (published zoom-in target: 400).
    """

    width: int = 18
    small: bool = True
    ocr_width: int = 48
    mask_at_input: bool = True
    relu_after_exchange: bool = True
    feedback_width: int = 0
    ratio: float = 0.3
    affinity: Affinity = "cosine"
    fusion: Fusion = "residual"
    grid_size: int = 400


class ImageEmbedding(NamedTuple):
    """What the image alone decides."""

    image: Tensor  # (B, 3, H, W) normalised
    stem: Tensor  # (B, 64, H/2, W/2)


class ClickFeatures(NamedTuple):
    """What image and clicks decide; deep maps only where no mask is at the input."""

    embedding: ImageEmbedding
    maps: Tensor  # (B, 2, H, W) positive, negative disks
    deep: Tensor | None  # (B, 15w, H/4, W/4)
    feedback: FeedbackState | None  # with FCFI


class HRNetClicks(FeedbackNetwork):
    """HRNet + OCR with clicks, a previous mask and, for FCFI, FFCM and CFFM.

    Parameters
    ----------
    config
        The network's shape.
    """

    def __init__(self, config: HRNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or HRNetConfig()
        self.grid_size = self.config.grid_size
        maps = 3 if self.config.mask_at_input else 2
        self.normalize = ImageNetNormalize()
        self.click_stem = ClickStem(maps)
        self.backbone = HighResolutionNet(
            self.config.width,
            small=self.config.small,
            relu_after_exchange=self.config.relu_after_exchange,
        )
        channels = self.backbone.out_channels
        self.ffcm = self.cffm = None
        if self.config.feedback_width:
            self.add_feedback(channels, self.config, context_channels=3 + maps)
        self.ocr = OcrHead(channels, self.config.ocr_width)

    @property
    def refines_cheaply(self) -> bool:  # type: ignore[override] # depends on the config
        """True for FCFI without the mask at the input."""
        return not self.config.mask_at_input and self.ffcm is not None

    def architecture(self) -> dict[str, Any]:
        """Return what ``model.registry.build`` needs to make this network again."""
        return {"family": "hrnet", **asdict(self.config)}

    def embed_image(self, image: Tensor) -> ImageEmbedding:
        """Normalise the pixels and run the first convolution."""
        normalized = self.normalize(image)
        return ImageEmbedding(normalized, self.backbone.stem(normalized))

    def embed_clicks(self, embedding: ImageEmbedding, points: Tensor) -> ClickFeatures:
        """Draw the clicks; run the backbone where no mask is needed for it."""
        size = (embedding.image.shape[-2], embedding.image.shape[-1])
        maps = disk_maps(points, size).to(embedding.image.dtype)
        features = ClickFeatures(embedding, maps, None, None)
        return features if self.config.mask_at_input else self._deepen(features, maps)

    def _deepen(self, features: ClickFeatures, maps: Tensor) -> ClickFeatures:
        """Run the backbone on the image and these input maps."""
        embedding = features.embedding
        deep = self.backbone.body(embedding.stem + self.click_stem(maps))
        if self.ffcm is None:
            return features._replace(deep=deep)
        state = self.prepare_feedback(deep, embedding.image, maps)
        return features._replace(deep=deep, feedback=state)

    def refine(
        self,
        features: ClickFeatures,
        feedback: Tensor | None,
        newest_click: Tensor,
        gate: Tensor | None = None,
    ) -> NetworkOutput:
        """Compute the mask once more; see ``FeedbackNetwork.refine``."""
        image = features.embedding.image
        size = (image.shape[-2], image.shape[-1])
        feedback, gate = feedback_and_gate(feedback, gate, image, size)
        if self.config.mask_at_input:
            maps = torch.cat([feedback, features.maps], dim=1)
            features = self._deepen(features, maps)
        if self.ffcm is None:
            logits, coarse = self.ocr(features.deep)
            return NetworkOutput(
                resize(logits, size), auxiliary_logits=resize(coarse, size)
            )
        fused = self.fuse_feedback(
            features.feedback, feedback, gate, newest_click, size
        )
        logits, coarse = self.ocr(fused.features)
        return fused.output(logits, size, coarse)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class OcrHead(nn.Module):
    """Coarse mask → mean feature of the object → final mask.

    Parameters
    ----------
    in_channels
        Channels of the backbone's joined features.
    width
        OCR width: 48 (18s), 64 (18), 128 (32).
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
        self.down = _block(2 * width, width)
        self.up = _block(width, 2 * width)
        self.join = _block(4 * width, 2 * width)
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
