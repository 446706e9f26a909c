"""FCFI on any timm backbone by name, as in ``fcfi:convnext_tiny``.

As in FCFI, the clicks are seen by the backbone and the previous mask is not: a
learned map of the click disks is added to the normalised image (its scale starts at
0.05, so a pretrained backbone is hardly disturbed), the backbone's maps are joined at
the finest of them (at most 1/4), and FFCM and CFFM work there. A refinement step
repeats those two and the decoder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfrseg.model.blocks.cffm import Fusion
from napari_cfrseg.model.blocks.clickmaps import disk_maps
from napari_cfrseg.model.blocks.convolutions import SplitInputConv2d
from napari_cfrseg.model.blocks.feedback import FeedbackNetwork, FeedbackState
from napari_cfrseg.model.blocks.ffcm import Affinity
from napari_cfrseg.model.network import NetworkOutput
from napari_cfrseg.model.published.deeplab import separable
from napari_cfrseg.model.published.inputs import ImageNetNormalize, feedback_and_gate


@dataclass(frozen=True, slots=True)
class TimmFcfiConfig:
    """Everything that shapes FCFI on a timm backbone.

    Attributes
    ----------
    backbone
        A timm model that supports ``features_only``.
    pretrained
        Fetch timm's weights when the network is built; needs the network once. Never
        written to a checkpoint, which brings its own weights.
    width
        Channels of the joined features and the decoder.
    feedback_width
        Channels inside FFCM and CFFM.
    ratio, affinity, fusion
        FFCM's box, FFCM's similarity and CFFM's fusion, by name.
    grid_size
        Side in pixels of the square grid.
    """

    backbone: str = "resnet50"
    pretrained: bool = False
    width: int = 128
    feedback_width: int = 32
    ratio: float = 0.3
    affinity: Affinity = "cosine"
    fusion: Fusion = "residual"
    grid_size: int = 384


class ClickFeatures(NamedTuple):
    """What image and clicks decide: all but the feedback modules and the decoder."""

    feedback: FeedbackState
    size: tuple[int, int]  # (H, W)


class TimmFcfi(FeedbackNetwork):
    """A timm backbone with clicks at its input, FFCM and CFFM on its joined maps.

    Parameters
    ----------
    config
        The network's shape.

    Raises
    ------
    ValueError
        If timm has no such backbone, or it gives no feature maps.
    """

    refines_cheaply = True

    def __init__(self, config: TimmFcfiConfig | None = None) -> None:
        super().__init__()
        self.config = config or TimmFcfiConfig()
        c = self.config
        self.grid_size = c.grid_size
        self.normalize = ImageNetNormalize()
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
        self.add_feedback(c.width, c)
        self.decode = nn.Sequential(
            separable(c.width, c.width),
            separable(c.width, c.width // 2),
            nn.Conv2d(c.width // 2, 1, 1),
        )

    def architecture(self) -> dict[str, Any]:
        """Return what ``model.registry.build`` needs to make this network again."""
        return {"family": "timm_fcfi", **asdict(self.config), "pretrained": False}

    def embed_image(self, image: Tensor) -> Tensor:
        """Normalise the pixels, (B, 3, H, W)."""
        normalized: Tensor = self.normalize(image)
        return normalized

    def embed_clicks(self, embedding: Tensor, points: Tensor) -> ClickFeatures:
        """Add the clicks to the image and run the backbone."""
        size = (embedding.shape[-2], embedding.shape[-1])
        maps = disk_maps(points, size).to(embedding.dtype)
        clicks = self.embed_maps(maps) * self.scale.abs()
        levels = self.backbone(embedding + clicks)
        deep = self._join([levels[i] for i in self._levels])
        state = self.prepare_feedback(deep, embedding, maps)
        return ClickFeatures(state, size)

    def _join(self, levels: list[Tensor]) -> Tensor:
        """1×1 over the concatenated levels, each reduced before it is enlarged."""
        joined = self.join.part(0, levels[0])
        for index, level in enumerate(levels[1:], start=1):
            joined = joined + F.interpolate(
                self.join.part(index, level),
                joined.shape[-2:],
                mode="bilinear",
                align_corners=False,
            )
        features: Tensor = self.joined(joined)
        return features

    def refine(
        self,
        features: ClickFeatures,
        feedback: Tensor | None,
        newest_click: Tensor,
        gate: Tensor | None = None,
    ) -> NetworkOutput:
        """Compute the mask once more; see ``FeedbackNetwork.refine``."""
        state, size = features
        deep = state.fusion.features
        feedback, gate = feedback_and_gate(feedback, gate, deep, size)
        fused = self.fuse_feedback(state, feedback, gate, newest_click, size)
        return fused.output(self.decode(fused.features), size)


def _backbone(config: TimmFcfiConfig) -> Any:
    try:
        return timm.create_model(
            config.backbone, pretrained=config.pretrained, features_only=True
        )
    except RuntimeError as error:  # what timm raises for a name it does not have
        msg = (
            f"timm cannot give feature maps of {config.backbone!r} ({error}); "
            "timm.list_models() lists the names it has"
        )
        raise ValueError(msg) from error
