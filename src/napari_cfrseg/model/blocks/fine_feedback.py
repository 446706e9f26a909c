r"""Fine feedback: the previous mask at its own resolution, for the default head.

FCFI's CFFM hands the head one channel at a quarter of the window's resolution (Φ₃ as
published). That settles *which* region is meant; an outline that is off by a cell or
two, the difference between an IoU of 85 % and 90 %, is below it. Fine feedback adds
the mask at its own resolution, and the size of the error that a click in its middle
implies: with

.. math::  d = \min_{M(x) = l} |x - c|

the distance from the newest click c, labelled l, to the nearest cell the mask already
labels l, an error whose middle was clicked reaches from the mask's outline 2d far.

Not part of either paper; its gate is CFFM's w_g.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cfrseg.model.blocks import SplitInputConv2d
from napari_cfrseg.model.blocks.clickmaps import click_distance, once_per_click

#: Greatest distance from the outline, in cells, that is distinguished.
FARTHEST = 16.0
#: Spreads in cells of the bells around the newest click.
NEAR, MIDDLE, WIDE = 4.0, 12.0, 30.0
_COARSE_STRIDE, _FINE_STRIDE = 4, 2
#: mask cells of one position, and the maps of the newest click
_COARSE_SHOWN = _COARSE_STRIDE**2 + 5
_FINE_SHOWN = _FINE_STRIDE**2 + 2


class FineShares(NamedTuple):
    """Additions to the head's inputs; zeros where the gate is closed."""

    coarse: Tensor  # (B, C, H/4, W/4), to the fused features
    fine: Tensor  # (B, D, H/2, W/2), to the head's detail


class FineFeedback(nn.Module):
    """Turn mask and newest click into additions to the head's two inputs.

    It starts as nothing (its last convolutions are zero), so a trained network can be
    given one. No normalisation: samples with the gate closed would spoil its
    statistics. ``width`` and ``detail`` are the channels C of the fused features
    (stride 4) and D of the head's detail map (stride 2), ``mid`` those inside.
    """

    def __init__(self, width: int, mid: int, detail: int) -> None:
        super().__init__()
        self.first = SplitInputConv2d((width, _COARSE_SHOWN), mid, 3)
        middle = nn.Conv2d(mid, mid, 3, padding=1)
        self.middle = nn.Sequential(nn.ReLU(), middle, nn.ReLU())
        self.coarse = nn.Conv2d(mid, width, 3, padding=1, bias=False)
        self.fine = nn.Conv2d(_FINE_SHOWN, detail, 3, padding=1, bias=False)
        nn.init.zeros_(self.coarse.weight)
        nn.init.zeros_(self.fine.weight)

    def prepare(self, features: Tensor) -> Tensor:
        """Return the share of (B, C, h, w) features, which no mask changes."""
        return self.first.part(0, features, with_bias=True)

    def forward(
        self,
        prepared: Tensor,
        feedback: Tensor,
        newest_click: Tensor,
        gate: Tensor | float,
    ) -> FineShares:
        """Return the additions, given what ``prepare`` returned.

        ``feedback`` is (B, 1, H, W) float in [0, 1], the previous mask, H and W whole
        strides; ``newest_click`` (B, 3) float rows ``[y, x, label]`` in cells, label
        −1: nothing is new; ``gate`` 0 without a mask, else 1: a number or (B, 1, 1, 1)
        float.
        """
        mask = feedback.float()
        around = _around(newest_click, (mask.shape[-2], mask.shape[-1]))
        reach = _reach(mask, around)
        centred = mask - 0.5  # zero, what padding adds, then means unknown
        coarse = torch.cat(
            [
                functional.pixel_unshuffle(centred, _COARSE_STRIDE),
                around.bells[:, :2],
                around.bells[:, 1:] * (reach / 8),
                around.sign * _disk(around.coarse, reach, _COARSE_STRIDE),
            ],
            dim=1,
        )
        bell = _bell(around.fine, 2 * reach + _FINE_STRIDE) * (reach > 0)
        fine = torch.cat(
            [
                functional.pixel_unshuffle(centred, _FINE_STRIDE),
                around.sign * _disk(around.fine, reach, _FINE_STRIDE),
                around.sign * bell,
            ],
            dim=1,
        )
        share = self.first.part(1, coarse.to(prepared.dtype))
        return FineShares(
            gate * self.coarse(self.middle(prepared + share)),
            gate * self.fine(fine.to(prepared.dtype)),
        )


class _Around(NamedTuple):
    """Maps of the newest click that no mask changes."""

    sign: Tensor  # (B, 1, 1, 1): 1, −1, or 0 where nothing is new
    full: Tensor  # (B, 1, H, W) distance in cells
    coarse: Tensor  # (B, 1, H/4, W/4) distance
    bells: Tensor  # (B, 3, H/4, W/4): near, middle and wide, signed
    fine: Tensor  # (B, 1, H/2, W/2) distance


@once_per_click
def _around(newest_click: Tensor, size: tuple[int, int]) -> _Around:
    click = newest_click.float()
    label = click[:, 2].view(-1, 1, 1, 1)
    sign = torch.where(label < 0, torch.zeros_like(label), 2 * label - 1)
    coarse = click_distance(click, size, _COARSE_STRIDE)
    bells = [sign * _bell(coarse, spread) for spread in (NEAR, MIDDLE, WIDE)]
    return _Around(
        sign,
        click_distance(click, size),
        coarse,
        torch.cat(bells, dim=1),
        click_distance(click, size, _FINE_STRIDE),
    )


def _reach(mask: Tensor, around: _Around) -> Tensor:
    """(B, 1, 1, 1) d in [0, 16] cells; 0 where the mask agrees or nothing is new."""
    agrees = (mask > 0.5) == (around.sign > 0)
    nearest = torch.where(agrees, around.full, FARTHEST).amin(dim=(2, 3), keepdim=True)
    # the cell under the click is up to 0.7 from a fractional one
    return (nearest - 0.71).clamp(min=0, max=FARTHEST) * around.sign.abs()


def _bell(distance: Tensor, spread: Tensor | float) -> Tensor:
    return torch.exp(-0.5 * (distance / spread) ** 2)


def _disk(distance: Tensor, reach: Tensor, soft: int) -> Tensor:
    """Draw a disk of radius d, its rim one position wide; nothing for d = 0."""
    return ((reach - distance) / soft + 0.5).clamp(0, 1) * (reach > 0)
