r"""Correct the previous mask around the newest click: FCFI's FFCM (paper, section 3.2).

.. math::

    W(i, j)   &= cos(E(i, j), E(y_{new}, x_{new}))                        (1) \\
    M^{r'}    &= l_{new} W + (1 - W) M                                    (2) \\
    M^r       &= M_{box} M^{r'} + (1 - M_{box}) M                         (3)

==========  ======================================================================
symbol      here
==========  ======================================================================
E           ``encoded``: a learned encoding of image, clicks, feedback and features
W           ``affinity``, in [0, 1] because the encoder ends in a ReLU
l_new       label of the newest click, 1 positive, 0 negative
M           ``feedback``, the previous mask's probability
M_box       ``region``: a box of ``ratio`` times the window about the newest click
M^r         ``corrected``
==========  ======================================================================

The paper computes W on the backbone's features themselves; the published code puts a
small learned encoder before it. Cropping and pasting (inference) and the box mask
(training) differ only in the box's edge: hard in evaluation, a product of sigmoids in
training, so that gradients cross it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfrseg.model.blocks import SeparableNormRelu, SplitInputConv2d
from napari_cfrseg.model.blocks.clickmaps import click_region, once_per_click

Affinity = Literal["cosine", "exponential"]

#: lower bound of a vector's length when normalised (published code)
NORM_EPS = 1e-12


class Correction(NamedTuple):
    """FFCM's maps, each (B, 1, h, w) float32 at feature resolution."""

    corrected: Tensor  # M^r, in [0, 1]
    region: Tensor  # M_box: 1 where it may have been corrected (soft in training)
    affinity: Tensor  # W over the whole window, in [0, 1]


#: thirty tiny operations, once for all steps of a click
_shared_region = once_per_click(click_region)


def click_affinity(
    encoded: Tensor,
    newest_click: Tensor,
    input_size: tuple[int, int],
    *,
    kind: Affinity = "cosine",
    sigma: float = 1.0,
) -> Tensor:
    """Compare every cell with the one under the newest click: (B, 1, h, w) float32.

    ``encoded`` is (B, M, h, w), non-negative for a cosine in [0, 1]; ``newest_click``
    holds (B, 3) float rows ``[y, x, label]`` in pixels of the (H, W) input. ``cosine``
    is equation 1, ``exponential`` exp(−‖E − E_new‖² / σ) (Table 4; the paper does not
    give its σ).
    """
    encoded = encoded.float()
    height, width = encoded.shape[-2:]
    row = (newest_click[:, 0].float() * height / input_size[0]).long()
    column = (newest_click[:, 1].float() * width / input_size[1]).long()
    sample = torch.arange(encoded.shape[0], device=encoded.device)
    at_click = encoded[sample, :, row.clamp(0, height - 1), column.clamp(0, width - 1)]
    at_click = at_click[:, :, None, None]
    if kind == "exponential":
        return torch.exp(-(encoded - at_click).square().sum(1, keepdim=True) / sigma)
    return (
        F.normalize(encoded, dim=1, eps=NORM_EPS)
        * F.normalize(at_click, dim=1, eps=NORM_EPS)
    ).sum(1, keepdim=True)


def blend(
    feedback: Tensor, affinity: Tensor, region: Tensor, newest_click: Tensor
) -> Tensor:
    """Return M^r, equations 2 and 3; all maps (B, 1, h, w), clicks (B, 3)."""
    label = newest_click[:, 2].float().view(-1, 1, 1, 1)
    refined = label * affinity + (1 - affinity) * feedback
    return region * refined + (1 - region) * feedback


class FFCM(nn.Module):
    """Correct the feedback around the newest click.

    ``in_channels`` (C) are those of the features, ``mid_channels`` the encoder's
    (published: 64 on HRNet, 32 on ResNet-101), ``context_channels`` (K) those of
    normalised RGB and click maps (published: 3 + 3, 3 + 2). ``ratio`` is the box's side
    over the window's (paper, Table 5: 0.3), ``affinity`` ``cosine`` or ``exponential``
    (Table 4) with ``mid_channels`` for σ.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        ratio: float = 0.3,
        *,
        context_channels: int = 6,
        affinity: Affinity = "cosine",
    ) -> None:
        super().__init__()
        if affinity not in (known := get_args(Affinity)):
            raise ValueError(f"affinity {affinity!r} is not one of {', '.join(known)}")
        self.ratio = ratio
        self.affinity: Affinity = affinity
        self.sigma = float(mid_channels)
        parts = (context_channels, 1, in_channels)
        self.first = SplitInputConv2d(parts, mid_channels, 3)
        self.rest = nn.Sequential(
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(),
            SeparableNormRelu(mid_channels),
            SeparableNormRelu(mid_channels),
        )

    def prepare(self, features: Tensor, context: Tensor) -> Tensor:
        """Return the encoder's share that no feedback can change, (B, mid, h, w) float.

        ``features`` are (B, C, h, w); ``context``, (B, K, h, w), are the normalised
        image and click maps at their resolution.
        """
        share = self.first.part(2, features, with_bias=True)
        return share + self.first.part(0, context)

    def encode(self, prepared: Tensor, feedback: Tensor) -> Tensor:
        """Return E, (B, mid, h, w) float, non-negative."""
        encoded: Tensor = self.rest(prepared + self.first.part(1, feedback))
        return encoded

    def correct(
        self,
        prepared: Tensor,
        feedback: Tensor,
        newest_click: Tensor,
        input_size: tuple[int, int],
    ) -> Correction:
        """Correct the feedback, given what ``prepare`` returned.

        ``feedback`` is (B, 1, h, w) float in [0, 1], the previous mask or zeros;
        ``newest_click`` (B, 3) float rows ``[y, x, label]`` in pixels of the (H, W)
        input. Label −1 leaves that sample's feedback as it is, and its region empty.
        """
        encoded = self.encode(prepared, feedback.to(prepared.dtype))
        feedback = feedback.float()
        at = newest_click, input_size
        affinity = click_affinity(encoded, *at, kind=self.affinity, sigma=self.sigma)
        size = (feedback.shape[-2], feedback.shape[-1])
        region = _shared_region(*at, size, self.ratio, soft=self.training)
        corrected = blend(feedback, affinity, region, newest_click)
        return Correction(corrected, region, affinity)

    def forward(
        self,
        features: Tensor,
        context: Tensor,
        feedback: Tensor,
        newest_click: Tensor,
        input_size: tuple[int, int],
    ) -> Correction:
        """Return ``correct ∘ prepare``; see both for the shapes."""
        prepared = self.prepare(features, context)
        return self.correct(prepared, feedback, newest_click, input_size)
