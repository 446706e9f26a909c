"""Parts that a wider default network may have; a trained network can be given each.

``SecondEncoder``: a pretrained encoder beside the first, which was trained on
micrographs alone. Its maps join the pyramid's levels and the detail at half resolution,
once per window; its joins start at zero.

``Judge``: says how good a mask is, so that the automatic focus finds the window whose
mask is meant; a few pooled numbers cannot tell, so it looks cell by cell.

``ChangeOdds``: says of each cell that a late click may change whether the change would
be right, from what the click, its distance and the clicks before it tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cfrseg.model.blocks import conv_norm
from napari_cfrseg.model.blocks.encoders import encoder

#: strides of the maps a second encoder gives: the detail's, then the pyramid's. Coarser
#: ones cost most, and a window has few cells of them.
STRIDES = (2, 4, 8, 16)


class Additions(NamedTuple):
    """Additions to the first encoder's features."""

    detail: Tensor  # (B, D, H/2, W/2)
    pyramid: tuple[Tensor, ...]  # (B, C_i, h_i, w_i), strides 4 to 16


class SecondEncoder(nn.Module):
    """A timm encoder whose maps join the pyramid and the detail.

    ``name`` is a timm model with ``features_only`` maps at strides 2 to 16. Channels:
    ``widths`` of the first encoder's maps at strides 4 to 16, ``stem`` of the first
    detail map (stride 2), ``detail``, D, of what is added to the head's detail.
    """

    def __init__(
        self, name: str, widths: Sequence[int], stem: int, detail: int
    ) -> None:
        super().__init__()
        self.backbone, self._levels, channels = encoder(name, STRIDES)
        self.joins = nn.ModuleList(
            nn.Conv2d(c, w, 1, bias=False)
            for c, w in zip(channels[1:], widths, strict=True)
        )
        self.mix = conv_norm(stem + channels[0], detail)
        self.deep = nn.Sequential(
            nn.Conv2d(channels[1], detail, 1, bias=False), nn.BatchNorm2d(detail)
        )
        self.sharpen = conv_norm(detail, detail)
        self.detail = nn.Conv2d(detail, detail, 3, padding=1, bias=False)
        for layer in (*self.joins, self.detail):
            nn.init.zeros_(layer.weight)

    def forward(self, pixels: Tensor, stem: Tensor) -> Additions:
        """Return the additions.

        ``pixels`` are (B, 3, H, W), standardised, H and W whole strides; ``stem`` is
        the first detail map, (B, S, H/2, W/2).
        """
        maps = self.backbone(pixels)
        fine, *levels = (maps[i] for i in self._levels)
        x = self.mix(torch.cat([stem, fine], dim=1))
        deep = self.deep(levels[0])
        deep = functional.interpolate(deep, x.shape[-2:], mode="bilinear")
        x = functional.relu(x + deep)
        joined = tuple(j(level) for j, level in zip(self.joins, levels, strict=True))
        return Additions(self.detail(x + self.sharpen(x)), joined)


#: Share of the judgement's gradient that reaches the features it reads: they may learn
#: to tell a doubtful mask, but are there to draw masks.
GRADIENT_SHARE = 0.2


def _on_cells(values: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(values, size=like.shape[-2:], mode="area")


class Judge(nn.Module):
    """(B, C, h, w) features and (B, 1, H, W) logits → (B,) logit of the IoU to expect.

    ``width`` is C, ``mid`` the channels inside.
    """

    def __init__(self, width: int, mid: int) -> None:
        super().__init__()
        joined = conv_norm(width + 3, mid, stride=2)
        self.look = nn.Sequential(*joined, *conv_norm(mid, mid))
        self.decide = nn.Sequential(
            nn.Linear(3 * mid + 4, 64), nn.ReLU(inplace=True), nn.Linear(64, 1)
        )

    def forward(self, hidden: Tensor, logits: Tensor) -> Tensor:
        """Judge; no gradient reaches the mask's logits."""
        with torch.autocast(hidden.device.type, enabled=False):
            x = hidden.float()
            x = x.detach() + GRADIENT_SHARE * (x - x.detach())
            prob = torch.sigmoid(logits.detach().float())
            small, doubt = _on_cells(prob, x), _on_cells(prob * (1 - prob), x)
            rim = torch.zeros_like(small)
            rim[..., 0, :] = rim[..., -1, :] = 1
            rim[..., :, 0] = rim[..., :, -1] = 1
            seen = self.look(torch.cat([x, small, 4 * doubt, rim], dim=1))
            dims = (2, 3)
            mask = _on_cells(small, seen)
            inside = (seen * mask).mean(dims) / (mask.mean(dims) + 1e-2)
            area = small.mean(dims)
            edges = (small * rim).amax(dims)
            crossed = (small * rim).mean(dims) / rim.mean(dims)
            unsure = doubt.mean(dims) / (area + 1e-3)
            pooled = [seen.mean(dims), seen.amax(dims), inside]
            summary = torch.cat([*pooled, area, unsure, edges, crossed], dim=1)
            judged: Tensor = self.decide(summary)[:, 0]
            return judged


#: numbers that ``engine.one_way.measure`` takes of each cell
MEASURED = 14


class ChangeOdds(nn.Module):
    """(N, 14) float numbers of cells → (N,) logits that changing them is right.

    ``mid`` are the numbers inside. Trained by ``benchmarks/train_change_odds.py``,
    apart from the network's other weights.
    """

    def __init__(self, mid: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Linear(MEASURED, mid),
            nn.SiLU(),
            nn.Linear(mid, mid),
            nn.SiLU(),
            nn.Linear(mid, 1),
        )

    def forward(self, numbers: Tensor) -> Tensor:
        """Weigh the cells."""
        weighed: Tensor = self.weigh(numbers)[:, 0]
        return weighed
