r"""The default network after its encoder: pyramid, click decoder, fine feedback, head.

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

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cfrseg.model.blocks import (
    DirectConv2d,
    SplitInputConv2d,
    fold_named,
)
from napari_cfrseg.model.blocks.clickmaps import click_distance, once_per_click

#: Greatest distance from the outline, in cells, that is distinguished.
FARTHEST = 16.0
#: Spreads in cells of the bells around the newest click.
NEAR, MIDDLE, WIDE = 4.0, 12.0, 30.0
_COARSE_STRIDE, _FINE_STRIDE = 4, 2
#: mask cells of one position, and the maps of the newest click
_COARSE_SHOWN = _COARSE_STRIDE**2 + 5
_FINE_SHOWN = _FINE_STRIDE**2 + 2


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1
) -> nn.Sequential:
    """Convolution (no bias), batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(
        x, size=like.shape[-2:], mode="bilinear", align_corners=False
    )


def _interleave(x: Tensor) -> Tensor:
    """``pixel_shuffle`` by 2 from four channels to one, of which torch makes a loop."""
    batch, _, height, width = x.shape
    quads = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2)
    return quads.permute(0, 1, 3, 2, 4).reshape(batch, 1, 2 * height, 2 * width)


class Residual(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv_norm_relu(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape, (B, C, H, W)."""
        return functional.relu(x + self.norm(self.second(self.first(x))))

    def fold(self) -> None:
        """Fold the second normalisation (the first is in a sequence)."""
        fold_named(self, "second", "norm")

    def make_direct(self) -> None:
        """Let both convolutions skip torch's path for small inputs (inference)."""
        first = self.first[0]
        if isinstance(first, nn.Conv2d):
            self.first[0] = DirectConv2d(first)
        self.second = DirectConv2d(self.second)


class Pyramid(nn.Module):
    """Top-down neck: each level sees all coarser ones."""

    def __init__(self, inputs: list[int], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            conv_norm_relu(i, w, kernel=1) for i, w in zip(inputs, widths, strict=True)
        )
        self.descend = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1, bias=False)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.smooth = nn.ModuleList(conv_norm_relu(w, w) for w in widths[:-1])

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Turn the encoder's maps into levels of strides 4, 8, 16 and 32."""
        levels = [layer(x) for layer, x in zip(self.lateral, maps, strict=True)]
        for i in (2, 1, 0):
            above = _upsample(self.descend[i](levels[i + 1]), levels[i])
            levels[i] = self.smooth[i](levels[i] + above)
        return levels[0], levels[1], levels[2], levels[3]


class ClickDecoder(nn.Module):
    """Carry the clicks from stride 4 down to stride 32 and back up."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        w4, w8, w16, w32 = widths
        self.encode = nn.Sequential(
            conv_norm_relu(2, 16, stride=2), nn.Conv2d(16, w4, 3, stride=2, padding=1)
        )
        self.join = conv_norm_relu(w4, w4, kernel=1)
        self.down8 = conv_norm_relu(w4, w8, stride=2)
        self.down16 = conv_norm_relu(w8, w16, stride=2)
        self.down32 = conv_norm_relu(w16, w32, stride=2)
        self.block32 = nn.Sequential(Residual(w32), Residual(w32))
        self.up16 = nn.Conv2d(w32, w16, 1, bias=False)
        self.block16 = Residual(w16)
        self.up8 = nn.Conv2d(w16, w8, 1, bias=False)
        self.block8 = conv_norm_relu(w8, w8)
        self.up4 = nn.Conv2d(w8, w4, 1, bias=False)
        self.block4 = conv_norm_relu(w4, w4)

    def forward(self, maps: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Fuse (B, 2, H, W) disk maps with the pyramid: (B, C, H/4, W/4)."""
        p4, p8, p16, p32 = pyramid
        x4 = self.join(p4 + self.encode(maps))
        x8 = p8 + self.down8(x4)
        x16 = p16 + self.down16(x8)
        x32 = self.block32(p32 + self.down32(x16))
        x16 = self.block16(x16 + _upsample(self.up16(x32), x16))
        x8 = self.block8(x8 + _upsample(self.up8(x16), x8))
        features: Tensor = self.block4(x4 + _upsample(self.up4(x8), x4))
        return features


class Head(nn.Module):
    """Fused features → logits at full window resolution, and their expected IoU."""

    #: channels of what ``prepare`` returns
    detail_width = 16

    def __init__(self, width: int, coarse: int, detail: int) -> None:
        super().__init__()
        self.down = conv_norm_relu(width, coarse, stride=2)
        self.middle = Residual(coarse)
        self.up = nn.Conv2d(coarse, width, 1, bias=False)
        self.fuse = conv_norm_relu(width, width)
        # stride 4 → 2 and 2 → 1 by rearranging channels: dearer upsampling of wide
        # maps would be most of this stage's cost
        fine = self.detail_width
        self.split = nn.Conv2d(width, 4 * fine, 1)
        self.sharpen = SplitInputConv2d((fine, detail), fine, 3, bias=False)
        self.sharpen_norm = nn.BatchNorm2d(fine)
        self.full = nn.Conv2d(fine, 4, 3, padding=1)
        self.quality = nn.Sequential(
            nn.Linear(2 * width + 3, 64), nn.ReLU(inplace=True), nn.Linear(64, 1)
        )

    def fold(self) -> None:
        """Fold the normalisation after ``sharpen``; its bias is then ``prepare``'s."""
        fold_named(self, "sharpen", "sharpen_norm")
        self.middle.make_direct()

    def prepare(self, detail: Tensor) -> Tensor:
        """Return the detail map's share of ``sharpen``, which no click changes."""
        return self.sharpen.part(1, detail, with_bias=True)

    def forward(self, fused: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, 1, H, W) and the logit of their expected IoU (B,)."""
        logits, hidden = self.draw(fused, detail)
        return logits, self.expect(hidden, logits)

    def draw(
        self, fused: Tensor, detail: Tensor, fine: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (B, 1, H, W) and what ``expect`` reads, (B, C, h, w).

        ``fine`` (B, D, H/2, W/2) is the fine feedback's addition, if there is one.
        """
        coarse = self.middle(self.down(fused))
        x = self.fuse(fused + _upsample(self.up(coarse), fused))
        half = functional.pixel_shuffle(self.split(x), 2)
        half = self.sharpen_norm(self.sharpen.part(0, half) + detail)
        half = functional.relu(half if fine is None else half + fine)
        return _interleave(self.full(half)), x

    def expect(self, hidden: Tensor, logits: Tensor) -> Tensor:
        """(B,) logit of the IoU; reads the mask but does not shape it."""
        with torch.autocast(hidden.device.type, enabled=False):
            x = hidden.detach().float()
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
        self.middle = nn.Sequential(
            nn.ReLU(), nn.Conv2d(mid, mid, 3, padding=1), nn.ReLU()
        )
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
    """Return d of the module docstring, (B, 1, 1, 1) float in [0, 16] cells.

    0 where the mask already agrees with the click, and where nothing is new.
    """
    agrees = (mask > 0.5) == (around.sign > 0)
    nearest = torch.where(agrees, around.full, FARTHEST).amin(dim=(2, 3), keepdim=True)
    # the cell under the click is up to 0.7 from a fractional one
    return (nearest - 0.71).clamp(min=0, max=FARTHEST) * around.sign.abs()


def _bell(distance: Tensor, spread: Tensor | float) -> Tensor:
    return torch.exp(-0.5 * (distance / spread) ** 2)


def _disk(distance: Tensor, reach: Tensor, soft: int) -> Tensor:
    """Draw a disk of radius d, its rim one position wide; nothing for d = 0."""
    return ((reach - distance) / soft + 0.5).clamp(0, 1) * (reach > 0)
