"""The OCR head (Yuan et al. 2020) for one class, as RITM and FCFI use it.

With one class the object-attention softmax is over a single key and is always 1, so
the published ``f_pixel`` and ``f_object`` never influence the output: they are
left out here, and the import drops their weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
