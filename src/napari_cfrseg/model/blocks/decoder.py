"""The default network after its encoder: pyramid, click decoder and head."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cfrseg.model.blocks import SplitInputConv2d, conv_norm


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, like.shape[-2:], mode="bilinear")


def _interleave(x: Tensor) -> Tensor:
    """``pixel_shuffle`` by 2 from four channels to one, of which torch makes a loop."""
    batch, _, height, width = x.shape
    quads = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2)
    return quads.permute(0, 1, 3, 2, 4).reshape(batch, 1, 2 * height, 2 * width)


class Residual(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv_norm(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape, (B, C, H, W)."""
        return functional.relu(x + self.norm(self.second(self.first(x))))


class Pyramid(nn.Module):
    """Top-down neck: each level sees all coarser ones."""

    def __init__(self, inputs: Sequence[int], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            conv_norm(i, w, kernel=1) for i, w in zip(inputs, widths, strict=True)
        )
        self.descend = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1, bias=False)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.smooth = nn.ModuleList(conv_norm(w, w) for w in widths[:-1])

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
            conv_norm(2, 16, stride=2), nn.Conv2d(16, w4, 3, stride=2, padding=1)
        )
        self.join = conv_norm(w4, w4, kernel=1)
        self.down8 = conv_norm(w4, w8, stride=2)
        self.down16 = conv_norm(w8, w16, stride=2)
        self.down32 = conv_norm(w16, w32, stride=2)
        self.block32 = nn.Sequential(Residual(w32), Residual(w32))
        self.up16 = nn.Conv2d(w32, w16, 1, bias=False)
        self.block16 = Residual(w16)
        self.up8 = nn.Conv2d(w16, w8, 1, bias=False)
        self.block8 = conv_norm(w8, w8)
        self.up4 = nn.Conv2d(w8, w4, 1, bias=False)
        self.block4 = conv_norm(w4, w4)

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

    def __init__(
        self,
        width: int,
        coarse: int,
        detail: int,
        *,
        fine: int = 16,
        deepened: bool = False,
        judge: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.down = conv_norm(width, coarse, stride=2)
        self.middle = Residual(coarse)
        self.up = nn.Conv2d(coarse, width, 1, bias=False)
        self.fuse = conv_norm(width, width)
        # stride 4 → 2 and 2 → 1 by rearranging channels: dearer upsampling of wide
        # maps would be most of this stage's cost
        self.split = nn.Conv2d(width, 4 * fine, 1)
        self.sharpen = SplitInputConv2d((fine, detail), fine, 3, bias=False)
        self.sharpen_norm = nn.BatchNorm2d(fine)
        self.full = nn.Conv2d(fine, 4, 3, padding=1)
        self.deepen = nn.Conv2d(fine, fine, 3, padding=1) if deepened else None
        for parameter in self.deepen.parameters() if self.deepen else ():
            nn.init.zeros_(parameter)  # starts as nothing
        self.judge = judge
        if judge is None:
            self.quality = nn.Sequential(
                nn.Linear(2 * width + 3, 64), nn.ReLU(inplace=True), nn.Linear(64, 1)
            )

    def prepare(self, detail: Tensor) -> Tensor:
        """Return the detail map's share of ``sharpen``, which no click changes.

        It has the bias, where the normalisation after ``sharpen`` is folded.
        """
        return self.sharpen.part(1, detail, with_bias=True)

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
        if self.deepen is not None:
            half = functional.relu(half + self.deepen(half))
        return _interleave(self.full(half)), x

    def expect(self, hidden: Tensor, logits: Tensor) -> Tensor:
        """(B,) logit of the IoU; reads the mask but does not shape it."""
        if self.judge is not None:
            judged: Tensor = self.judge(hidden, logits)
            return judged
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
