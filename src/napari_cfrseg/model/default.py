"""The default network: FCFI's feedback on a light encoder, in three stages.

``embed_image``   timm encoder → pyramid (strides 4, 8, 16, 32) + a stride-2 detail map
``embed_clicks``  disk maps join the pyramid at stride 4 and travel down and up it
``refine``        FFCM → CFFM (FCFI, Eqs. 1–5) → head with full window resolution

The previous mask enters in ``refine`` only, so that the cascade of CFR-ICL (feed the
mask back until it stops changing) repeats the lightest stage and nothing else. The
clicks join after the encoder, so that a further click in the same window costs no
second encoding of the image.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cfrseg.model.cffm import CFFM, FusionState
from napari_cfrseg.model.clickmaps import disk_maps
from napari_cfrseg.model.convolutions import SplitInputConv2d
from napari_cfrseg.model.ffcm import FFCM
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput


@dataclass(frozen=True, slots=True)
class CfrNetConfig:
    """Everything that shapes the default network.

    Attributes
    ----------
    backbone
        Name of a timm model with ``features_only`` maps at strides 4, 8, 16, 32.
    widths
        Channels of the pyramid at strides 4, 8, 16, 32.
    feedback_width
        Channels inside FFCM and CFFM (the papers' ``mid``).
    head_width
        Channels of the head's coarse (stride 8) branch.
    ratio
        FCFI's r: side of FFCM's box relative to the window (paper: 0.3).
    grid_size
        Side in pixels of the window's grid. The network is trained on grids of 96 to
        192; on the validation split 128 needs the fewest clicks and half the time
        of 192.
    """

    backbone: str = "resnet10t"
    widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    feedback_width: int = 24
    head_width: int = 48
    ratio: float = 0.3
    grid_size: int = 128


class ImageEmbedding(NamedTuple):
    """What ``embed_image`` keeps of a window."""

    image: Tensor  # (B, 3, H/4, W/4) standardised pixels, for FFCM's encoder
    detail: Tensor  # (B, 16, H/2, W/2) the head's share that only pixels change
    pyramid: tuple[Tensor, Tensor, Tensor, Tensor]  # strides 4, 8, 16, 32
    size: tuple[int, int]  # (H, W)


class ClickFeatures(NamedTuple):
    """What ``embed_clicks`` keeps for the refinement steps."""

    correction: Tensor  # (B, mid, H/4, W/4) FFCM's share that no mask changes
    fusion: FusionState  # CFFM's share that no mask changes, the features among it
    detail: Tensor  # (B, 16, H/2, W/2), the image embedding's
    size: tuple[int, int]


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(
        x, size=like.shape[-2:], mode="bilinear", align_corners=False
    )


class _Residual(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.norm(self.second(self.first(x))))


class _Pyramid(nn.Module):
    """Top-down neck: each level sees all coarser ones."""

    def __init__(self, inputs: list[int], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            _conv(i, w, kernel=1) for i, w in zip(inputs, widths, strict=True)
        )
        self.descend = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1, bias=False)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.smooth = nn.ModuleList(_conv(w, w) for w in widths[:-1])

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        levels = [layer(x) for layer, x in zip(self.lateral, maps, strict=True)]
        for i in (2, 1, 0):
            above = _upsample(self.descend[i](levels[i + 1]), levels[i])
            levels[i] = self.smooth[i](levels[i] + above)
        return levels[0], levels[1], levels[2], levels[3]


class _ClickDecoder(nn.Module):
    """Carry the clicks from stride 4 down to stride 32 and back up."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        w4, w8, w16, w32 = widths
        self.encode = nn.Sequential(
            _conv(2, 16, stride=2), nn.Conv2d(16, w4, 3, stride=2, padding=1)
        )
        self.join = _conv(w4, w4, kernel=1)
        self.down8 = _conv(w4, w8, stride=2)
        self.down16 = _conv(w8, w16, stride=2)
        self.down32 = _conv(w16, w32, stride=2)
        self.block32 = nn.Sequential(_Residual(w32), _Residual(w32))
        self.up16 = nn.Conv2d(w32, w16, 1, bias=False)
        self.block16 = _Residual(w16)
        self.up8 = nn.Conv2d(w16, w8, 1, bias=False)
        self.block8 = _conv(w8, w8)
        self.up4 = nn.Conv2d(w8, w4, 1, bias=False)
        self.block4 = _conv(w4, w4)

    def forward(self, maps: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
        p4, p8, p16, p32 = pyramid
        x4 = self.join(p4 + self.encode(maps))
        x8 = p8 + self.down8(x4)
        x16 = p16 + self.down16(x8)
        x32 = self.block32(p32 + self.down32(x16))
        x16 = self.block16(x16 + _upsample(self.up16(x32), x16))
        x8 = self.block8(x8 + _upsample(self.up8(x16), x8))
        features: Tensor = self.block4(x4 + _upsample(self.up4(x8), x4))
        return features


class _Head(nn.Module):
    """Fused features → logits at full window resolution, and their expected IoU."""

    def __init__(self, width: int, coarse: int, detail: int) -> None:
        super().__init__()
        self.down = _conv(width, coarse, stride=2)
        self.middle = _Residual(coarse)
        self.up = nn.Conv2d(coarse, width, 1, bias=False)
        self.fuse = _conv(width, width)
        # stride 4 → 2 and 2 → 1 by rearranging channels: dearer upsampling of wide
        # maps would be most of this stage's cost
        self.split = nn.Conv2d(width, 64, 1)
        self.sharpen = SplitInputConv2d((16, detail), 16, 3, bias=False)
        self.sharpen_norm = nn.BatchNorm2d(16)
        self.full = nn.Conv2d(16, 4, 3, padding=1)
        self.quality = nn.Sequential(
            nn.Linear(2 * width + 3, 64), nn.ReLU(inplace=True), nn.Linear(64, 1)
        )

    def prepare(self, detail: Tensor) -> Tensor:
        """Return the detail map's share of ``sharpen``, which no click changes."""
        return self.sharpen.part(1, detail)

    def forward(self, fused: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
        coarse = self.middle(self.down(fused))
        x = self.fuse(fused + _upsample(self.up(coarse), fused))
        half = functional.pixel_shuffle(self.split(x), 2)
        half = self.sharpen_norm(self.sharpen.part(0, half) + detail)
        half = functional.relu(half)
        logits = functional.pixel_shuffle(self.full(half), 2)
        return logits, self._expected_quality(x, logits)

    def _expected_quality(self, x: Tensor, logits: Tensor) -> Tensor:
        """(B,) logit of the IoU; reads the mask but does not shape it."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.detach().float()
            prob = torch.sigmoid(logits.detach().float())
            small = functional.interpolate(prob, size=x.shape[-2:], mode="area")
            area = small.mean(dim=(2, 3))
            inside = (x * small).mean(dim=(2, 3)) / (area + 1e-3)
            doubt = (prob * (1 - prob)).mean(dim=(2, 3)) / (area + 1e-3)
            edge = torch.cat(
                [small[..., 0, :], small[..., -1, :], small[..., 0], small[..., -1]],
                dim=-1,
            ).amax(dim=-1)
            summary = [inside, x.mean(dim=(2, 3)), area, doubt, edge]
            quality: Tensor = self.quality(torch.cat(summary, dim=1))[:, 0]
            return quality


class CfrNet(ClickNetwork):
    """FCFI's correction and fusion on a light encoder (see the module docstring).

    Parameters
    ----------
    config
        The network's shape.
    """

    refines_cheaply = True

    def __init__(self, config: CfrNetConfig | None = None) -> None:
        super().__init__()
        import timm

        self.config = config or CfrNetConfig()
        self.grid_size = self.config.grid_size
        widths = self.config.widths
        self.backbone = timm.create_model(
            self.config.backbone, pretrained=False, features_only=True
        )
        reductions = self.backbone.feature_info.reduction()
        channels = self.backbone.feature_info.channels()
        self._levels = [reductions.index(r) for r in (4, 8, 16, 32)]
        self.detail = _conv(3, 24, stride=2)
        self.pyramid = _Pyramid([channels[i] for i in self._levels], widths)
        self.clicks = _ClickDecoder(widths)
        self.ffcm = FFCM(
            widths[0],
            self.config.feedback_width,
            context_channels=5,
            ratio=self.config.ratio,
        )
        self.cffm = CFFM(widths[0], self.config.feedback_width)
        self.head = _Head(widths[0], self.config.head_width, detail=24)

    def architecture(self) -> dict[str, Any]:
        """Return what ``model.registry.build`` needs to make this network again."""
        return {"family": "cfrnet", **asdict(self.config)}

    def embed_image(self, image: Tensor) -> ImageEmbedding:
        """Embed the window's pixels; see ``ClickNetwork.embed_image``.

        Each window is brought to zero mean and unit spread over all its channels:
        a dim cell beside a bright one then looks like any cell. The floor on the
        spread keeps the noise of an empty window small.
        """
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        spread = image.std(dim=(1, 2, 3), keepdim=True)
        pixels = (image - mean) / (spread + 0.02)
        maps = self.backbone(pixels)
        pyramid = self.pyramid([maps[i] for i in self._levels])
        small = functional.interpolate(pixels, size=pyramid[0].shape[-2:], mode="area")
        size = (image.shape[-2], image.shape[-1])
        detail = self.head.prepare(self.detail(pixels))
        return ImageEmbedding(small, detail, pyramid, size)

    def embed_clicks(self, embedding: ImageEmbedding, points: Tensor) -> ClickFeatures:
        """Fuse the clicks with the pyramid; see ``ClickNetwork.embed_clicks``."""
        maps = disk_maps(points, embedding.size)
        features = self.clicks(maps, embedding.pyramid)
        small = functional.adaptive_max_pool2d(maps, features.shape[-2:])
        context = torch.cat([embedding.image, small.to(features.dtype)], dim=1)
        return ClickFeatures(
            self.ffcm.prepare(features, context),
            self.cffm.prepare(features),
            embedding.detail,
            embedding.size,
        )

    def refine(
        self,
        features: ClickFeatures,
        feedback: Tensor | None,
        newest_click: Tensor,
        gate: Tensor | None = None,
    ) -> NetworkOutput:
        """Compute the mask once more; see ``ClickNetwork.refine``.

        Parameters
        ----------
        gate
            (B, 1, 1, 1) of 0 and 1, for batches in which only some samples have a
            mask yet (training). By default 0 without feedback, else 1.
        """
        deep = features.fusion.features
        batch = deep.shape[0]
        if feedback is None:
            small = deep.new_zeros(batch, 1, *deep.shape[-2:])
            gate = deep.new_zeros(batch, 1, 1, 1)
        else:
            small = functional.interpolate(
                feedback.to(deep.dtype), size=deep.shape[-2:], mode="area"
            )
            if gate is None:
                gate = deep.new_ones(batch, 1, 1, 1)
        corrected, region, affinity = self.ffcm.correct(
            features.correction, small, newest_click, features.size
        )
        fused, updated = self.cffm.fuse(features.fusion, corrected, gate)
        logits, quality = self.head(fused, features.detail)
        return NetworkOutput(
            logits, corrected, updated, region, quality, affinity=affinity
        )
