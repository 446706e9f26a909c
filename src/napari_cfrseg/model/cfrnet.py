"""The default network: FCFI's feedback on a light encoder, in three stages.

``embed_image``   timm encoder → pyramid (strides 4, 8, 16, 32) + a stride-2 detail map
``embed_clicks``  disk maps join the pyramid at stride 4 and travel down and up it
``refine``        FFCM → CFFM (FCFI, Eqs. 1–5) → head with full window resolution

The previous mask enters in ``refine`` only, so that the cascade of CFR-ICL repeats the
lightest stage and nothing else. The clicks join after the encoder, so that a further
click in the same window costs no second encoding of the image.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cfrseg.model import blocks
from napari_cfrseg.model.blocks import extensions
from napari_cfrseg.model.blocks.clickmaps import disk_maps
from napari_cfrseg.model.blocks.decoder import ClickDecoder, Head, Pyramid
from napari_cfrseg.model.blocks.encoders import encoder
from napari_cfrseg.model.blocks.feedback_correction import FFCM
from napari_cfrseg.model.blocks.feedback_fusion import CFFM, FusionState
from napari_cfrseg.model.blocks.fine_feedback import FineFeedback
from napari_cfrseg.model.blocks.packed import pack
from napari_cfrseg.model.network import LATE_PUSH, ClickNetwork, NetworkOutput

#: coarsest stride of the pyramid: other sizes are filled up to a multiple of it
STRIDE = 32


@dataclass(frozen=True, slots=True)
class CfrNetConfig:
    """Everything that shapes the default network."""

    #: name of a timm model with ``features_only`` maps at strides 4, 8, 16, 32
    backbone: str = "resnet10t"
    #: channels of the pyramid at strides 4, 8, 16, 32
    widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    feedback_width: int = 24  #: channels inside FFCM and CFFM (the papers' ``mid``)
    head_width: int = 48  #: channels of the head's coarse (stride 8) branch
    #: FCFI's r: side of FFCM's box relative to the window (paper: 0.3)
    ratio: float = 0.3
    #: side in pixels of the window's grid. The network is trained on grids of 96 to
    #: 192; on the validation split 128 needs the fewest clicks and half the time of
    #: 192.
    grid_size: int = 128
    #: channels inside the path that shows the head the previous mask at its own
    #: resolution; 0: FCFI's feedback alone
    fine_feedback: int = 32
    #: a timm model that runs beside the first encoder (``extensions``); "": none
    second_backbone: str = ""
    fine_width: int = 16  #: channels of the head at half the window's resolution
    deepened: bool = False  #: whether the head looks at its finest features once more
    #: channels inside the head that judges a mask (``extensions``); 0: pooled numbers
    judge_width: int = 0
    late_push: tuple[float, ...] = LATE_PUSH  #: see ``ClickNetwork.late_push``
    #: numbers inside what weighs late clicks' changes (``extensions``); 0: none
    change_width: int = 0


class ImageEmbedding(NamedTuple):
    """Features of a window's pixels."""

    # H and W here are filled up to whole strides
    image: Tensor  # (B, 3, H/4, W/4) standardised pixels, for FFCM's encoder
    detail: Tensor  # (B, 16, H/2, W/2) the head's share that only pixels change
    pyramid: tuple[Tensor, Tensor, Tensor, Tensor]  # strides 4, 8, 16, 32
    size: tuple[int, int]  # (H, W) of the window itself


class ClickFeatures(NamedTuple):
    """Features of pixels and clicks, for the refinement steps."""

    correction: Tensor  # (B, mid, H/4, W/4) FFCM's share that no mask changes
    fusion: FusionState  # CFFM's share that no mask changes, the features among it
    fine: Tensor | None  # (B, mid, H/4, W/4) the fine feedback's share
    detail: Tensor  # (B, 16, H/2, W/2), the image embedding's
    padded: tuple[int, int]  # (H, W) filled up to whole strides
    size: tuple[int, int]  # (H, W) of the window


class Approached(NamedTuple):
    """The input of the head, and what ``refine`` returns besides the mask."""

    fused: Tensor  # (B, C, H/4, W/4)
    detail: Tensor  # (B, 16, H/2, W/2)
    fine: Tensor | None  # (B, 16, H/2, W/2) the fine feedback's addition
    feedback: tuple[Tensor, ...]  # M^r, M^u, box, affinity
    size: tuple[int, int]  # (H, W) of the window


def _without_filling(
    maps: Tensor, padded: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return maps over the filled window as maps over the window alone."""
    if padded == size:
        return maps
    return functional.interpolate(maps, padded)[..., : size[0], : size[1]]


def _fill_stride(x: Tensor) -> Tensor:
    """Repeat the last rows and columns up to a multiple of the coarsest stride."""
    height, width = x.shape[-2:]
    below, right = -height % STRIDE, -width % STRIDE
    if not (below or right):
        return x
    return functional.pad(x, (0, right, 0, below), mode="replicate")


class CfrNet(ClickNetwork):
    """FCFI's correction and fusion on a light encoder (see the module docstring)."""

    def __init__(self, config: CfrNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or CfrNetConfig()
        self.grid_size = self.config.grid_size
        self.late_push = self.config.late_push
        widths = self.config.widths
        found = encoder(self.config.backbone, (4, 8, 16, 32))
        self.backbone, self._levels = found.network, found.levels
        self.detail = blocks.conv_norm(3, 24, stride=2)
        self.pyramid = Pyramid(found.channels, widths)
        self.clicks = ClickDecoder(widths)
        mid, ratio = self.config.feedback_width, self.config.ratio
        self.ffcm = FFCM(widths[0], mid, ratio, context_channels=5)
        self.cffm = CFFM(widths[0], mid)
        fine, mid = self.config.fine_width, self.config.judge_width
        self.head = Head(
            widths[0],
            self.config.head_width,
            detail=24,
            fine=fine,
            deepened=self.config.deepened,
            judge=extensions.Judge(widths[0], mid) if mid else None,
        )
        self.second: extensions.SecondEncoder | None = None
        if self.config.second_backbone:
            name, joined = self.config.second_backbone, found.channels[:3]
            self.second = extensions.SecondEncoder(name, joined, stem=24, detail=fine)
        mid = self.config.fine_feedback
        self.fine = FineFeedback(widths[0], mid, fine) if mid else None
        mid = self.config.change_width
        self.change_odds = extensions.ChangeOdds(mid) if mid else None
        #: whether this is a copy that ``for_inference`` made
        self.is_folded = False

    def architecture(self) -> dict[str, Any]:
        """Return the description that ``model.registry.build`` takes."""
        return {"family": "cfrnet", **asdict(self.config)}

    def embed_image(self, image: Tensor) -> ImageEmbedding:
        """Embed the window's pixels; see ``ClickNetwork.embed_image``.

        Each window is brought to zero mean and unit spread over all its channels: a dim
        cell then looks like any. A floor keeps the noise of an empty window small.
        """
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        spread = image.std(dim=(1, 2, 3), keepdim=True)
        size = (image.shape[-2], image.shape[-1])
        pixels = _fill_stride((image - mean) / (spread + 0.02))
        maps = self.backbone(pixels)
        levels = [maps[i] for i in self._levels]
        stem = self.detail(pixels)
        detail = self.head.prepare(stem)
        if self.second is not None:
            more = self.second(pixels, stem)
            for i, addition in enumerate(more.pyramid):
                levels[i] = levels[i] + addition
            detail = detail + more.detail
        pyramid = self.pyramid(levels)
        small = functional.interpolate(pixels, size=pyramid[0].shape[-2:], mode="area")
        return ImageEmbedding(small, detail, pyramid, size)

    def embed_clicks(self, embedding: ImageEmbedding, points: Tensor) -> ClickFeatures:
        """Fuse the clicks with the pyramid; see ``ClickNetwork.embed_clicks``."""
        return self.join(embedding, self.click_maps(embedding, points))

    def click_maps(self, embedding: ImageEmbedding, points: Tensor) -> Tensor:
        """Draw the clicks: (B, 2, H, W), H and W whole strides."""
        return _fill_stride(disk_maps(points, embedding.size))

    def join(self, embedding: ImageEmbedding, maps: Tensor) -> ClickFeatures:
        """Fuse the clicks of ``click_maps`` with the pyramid."""
        features = self.clicks(maps, embedding.pyramid)
        small = functional.adaptive_max_pool2d(maps, features.shape[-2:])
        context = torch.cat([embedding.image, small.to(features.dtype)], dim=1)
        shares = self.ffcm.prepare(features, context), self.cffm.prepare(features)
        fine = None if self.fine is None else self.fine.prepare(features)
        padded = maps.shape[-2], maps.shape[-1]
        return ClickFeatures(*shares, fine, embedding.detail, padded, embedding.size)

    def refine(
        self,
        features: ClickFeatures,
        feedback: Tensor | None,
        newest_click: Tensor,
        gate: Tensor | float | None = None,
    ) -> NetworkOutput:
        """Compute the mask once more; see ``ClickNetwork.refine``.

        ``gate`` is (B, 1, 1, 1) of 0 and 1, for training batches in which only some
        samples have a mask yet; by default 0 without feedback, else 1.
        """
        return self.draw(self.approach(features, feedback, newest_click, gate))

    def approach(
        self,
        features: ClickFeatures,
        feedback: Tensor | None,
        newest_click: Tensor,
        gate: Tensor | float | None = None,
    ) -> Approached:
        """Correct and fuse the feedback; see ``ClickNetwork.approach``."""
        deep = features.fusion.features
        batch = deep.shape[0]
        if feedback is None:
            small = deep.new_zeros(batch, 1, *deep.shape[-2:])
            filled, gate = None, 0.0
        else:
            filled = _fill_stride(feedback).to(deep.dtype)
            small = functional.avg_pool2d(filled, filled.shape[-1] // deep.shape[-1])
            gate = 1.0 if gate is None else gate
        corrected, region, affinity = self.ffcm.correct(
            features.correction, small, newest_click, features.padded
        )
        fused, updated = self.cffm.fuse(features.fusion, corrected, gate)
        fine = None
        if self.fine is not None and features.fine is not None and filled is not None:
            coarse, fine = self.fine(features.fine, filled, newest_click, gate)
            fused = fused + coarse
        shown = tuple(
            _without_filling(maps, features.padded, features.size)
            for maps in (corrected, updated, region, affinity)
        )
        return Approached(fused, features.detail, fine, shown, features.size)

    def draw(self, approached: Approached) -> NetworkOutput:
        """Draw the mask and judge it; see ``ClickNetwork.draw``."""
        given = approached
        logits, hidden = self.head.draw(given.fused, given.detail, given.fine)
        # a step of a cascade that another one follows is never judged
        quality = None if self.is_folded else self.head.expect(hidden, logits)
        corrected, updated, region, affinity = given.feedback
        return NetworkOutput(
            logits[..., : given.size[0], : given.size[1]],
            corrected,
            updated,
            region,
            quality,
            affinity=affinity,
            unjudged=(hidden, logits) if self.is_folded else None,
        )

    def light_parameters(self) -> list[nn.Parameter]:
        """Return the head's scales and biases, and its last convolution.

        Not those of ``sharpen``, a part of which is in the image's embedding.
        """
        left_out = ("sharpen", "quality", "judge")
        return [
            parameter
            for name, parameter in self.head.named_parameters()
            if not name.startswith(left_out)
            and (parameter.ndim == 1 or name.startswith("full"))
        ]

    def judge(self, output: NetworkOutput) -> Tensor | None:
        """Return the expected IoU's logit; see ``ClickNetwork.judge``."""
        if output.unjudged is None:
            return output.quality_logits
        return self.head.expect(*output.unjudged)

    def for_inference(self) -> CfrNet:
        """Return a copy with folded normalisations and packed convolutions."""
        copy = deepcopy(self).eval().requires_grad_(False)
        if self.is_folded:
            return copy
        encoders = [(self.config.backbone, copy.backbone)]
        if copy.second is not None:
            encoders.append((self.config.second_backbone, copy.second.backbone))
        foreign = [
            network
            for name, network in encoders
            if not name.startswith("resnet") and "efficientnet" not in name
        ]
        blocks.fold_norms(copy, foreign)
        pack(copy)
        copy.is_folded = True
        return copy
