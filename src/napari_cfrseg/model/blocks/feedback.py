r"""FCFI's two feedback modules: correct the previous mask (FFCM), then fuse it (CFFM).

Focused feedback correction (FFCM, section 3.2):

.. math::

    W(i, j)   &= cos(E(i, j), E(y_{new}, x_{new}))                        (1) \\
    M^{r'}    &= l_{new} W + (1 - W) M                                    (2) \\
    M^r       &= M_{box} M^{r'} + (1 - M_{box}) M                         (3)

Collaborative feedback fusion (CFFM, section 3.3):

.. math::

    M^u &= Φ_2(concat(Φ_1(F), M^r))                                       (4) \\
    F^u &= w_g Φ_3(concat(F, M^u)) + F                                    (5)

==========  ======================================================================
symbol      here
==========  ======================================================================
E           ``encoded``: a learned encoding of image, clicks, feedback and features
W           ``affinity``, in [0, 1] because the encoder ends in a ReLU
l_new       label of the newest click, 1 positive, 0 negative
M           ``feedback``, the previous mask's probability
M_box       ``region``: a box of ``ratio`` times the window about the newest click
M^r         ``corrected``
F           ``features``, the backbone's
M^u         ``updated``, the feedback after its look at the features
w_g         ``gate``: 0 in the first interaction, 1 afterwards
F^u         ``fused``, what the head sees
==========  ======================================================================

The paper computes W on the backbone's features themselves; the published code puts a
small learned encoder before it. Cropping and pasting (inference) and the box mask
(training) differ only in the box's edge: hard in evaluation, a product of sigmoids in
training, so that gradients cross it. Φ₃ of the published code returns one channel,
added to every channel of F; the paper does not mention it. Both are here by name
(``residual``, ``residual_full``).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfrseg.model.blocks import (
    ConvNormRelu,
    SeparableNormRelu,
    SplitInputConv2d,
)
from napari_cfrseg.model.blocks.clickmaps import once_per_click

Affinity = Literal["cosine", "exponential"]
AFFINITIES: tuple[Affinity, ...] = ("cosine", "exponential")
Fusion = Literal["residual", "residual_full", "no_residual", "no_gate", "concat"]
FUSIONS: tuple[Fusion, ...] = (
    "residual",
    "residual_full",
    "no_residual",
    "no_gate",
    "concat",
)

#: steepness of the soft box's edges in 1 / feature cell (published code)
EDGE_STEEPNESS = 10.0
#: lower bound of a vector's length when normalised (published code)
NORM_EPS = 1e-12


class Correction(NamedTuple):
    """FFCM's maps, each (B, 1, h, w) float32 at feature resolution."""

    corrected: Tensor  # M^r, in [0, 1]
    region: Tensor  # M_box: 1 where it may have been corrected (soft in training)
    affinity: Tensor  # W over the whole window, in [0, 1]


def correction_box(
    newest_click: Tensor,
    input_size: tuple[int, int],
    feature_size: tuple[int, int],
    ratio: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the box about each newest click in cells of the feature map.

    Half sides are ``int(ratio · side / 2 + 0.5)`` input pixels about the click's pixel;
    the box is clamped to the window and then grown to whole cells. ``input_size`` is
    the (H, W) of the network's input, ``feature_size`` the (h, w) of the features,
    ``ratio`` the box's side over the window's (paper: 0.3). Returns four (B,) float
    tensors: first row, row after the last, first column, column after the last.
    """
    edges = []
    for axis in (0, 1):
        side, cells = input_size[axis], feature_size[axis]
        half = int(ratio * side / 2 + 0.5)
        pixel = newest_click[:, axis].float().floor()
        start = (pixel - half).clamp(0, side)
        end = (pixel + half).clamp(0, side)
        edges += [(start * cells / side).floor(), (end * cells / side).ceil()]
    return edges[0], edges[1], edges[2], edges[3]


def region_mask(
    box: tuple[Tensor, Tensor, Tensor, Tensor],
    feature_size: tuple[int, int],
    *,
    soft: bool,
) -> Tensor:
    """Return M_box, (B, 1, h, w) float32.

    Soft: (σ₁₀(y−y0) − σ₁₀(y−y1)) · (σ₁₀(x−x0) − σ₁₀(x−x1)), which is 0.5 on the first
    row; hard: 1 on rows y0 ≤ y < y1 and columns x0 ≤ x < x1.
    """
    device = box[0].device
    sides = []
    for axis in (0, 1):
        start, end = (edge.view(-1, 1) for edge in box[2 * axis : 2 * axis + 2])
        cell = torch.arange(feature_size[axis], device=device, dtype=torch.float32)
        if soft:
            rise = torch.sigmoid(EDGE_STEEPNESS * (cell - start))
            sides.append(rise - torch.sigmoid(EDGE_STEEPNESS * (cell - end)))
        else:
            sides.append(((cell >= start) & (cell < end)).float())
    return (sides[0].unsqueeze(2) * sides[1].unsqueeze(1)).unsqueeze(1)


def click_region(
    newest_click: Tensor,
    input_size: tuple[int, int],
    feature_size: tuple[int, int],
    ratio: float,
    *,
    soft: bool,
) -> Tensor:
    """Return M_box of each sample, empty where the click's label is −1.

    The parameters are those of ``correction_box`` and ``region_mask``.
    """
    box = correction_box(newest_click, input_size, feature_size, ratio)
    region = region_mask(box, feature_size, soft=soft)
    has_click = newest_click[:, 2].view(-1, 1, 1, 1) >= 0
    return torch.where(has_click, region, torch.zeros_like(region))


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
    row = (newest_click[:, 0].float() * height / input_size[0]).trunc().long()
    column = (newest_click[:, 1].float() * width / input_size[1]).trunc().long()
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

    Parameters
    ----------
    in_channels
        C, channels of the features.
    mid_channels
        Channels of the encoder (published: 64 on HRNet, 32 on ResNet-101).
    context_channels
        K, channels of the further input maps; published:
        normalised RGB and the click maps, 3 + 3 on HRNet, 3 + 2 on ResNet-101.
    ratio
        The box's side over the window's side (paper, Table 5: 0.3).
    affinity
        ``cosine`` or ``exponential`` (paper, Table 4).
    sigma
        σ of the exponential; by default ``mid_channels``, so that the mean squared
        difference counts.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        ratio: float = 0.3,
        *,
        context_channels: int = 6,
        affinity: Affinity = "cosine",
        sigma: float | None = None,
    ) -> None:
        super().__init__()
        if affinity not in AFFINITIES:
            msg = f"affinity {affinity!r} is not one of {', '.join(AFFINITIES)}"
            raise ValueError(msg)
        self.ratio = ratio
        self.affinity: Affinity = affinity
        self.sigma = float(mid_channels) if sigma is None else sigma
        self.first = SplitInputConv2d(
            (context_channels, 1, in_channels), mid_channels, 3
        )
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
        return self.first.part(2, features, with_bias=True) + self.first.part(
            0, context
        )

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
        affinity = click_affinity(
            encoded, newest_click, input_size, kind=self.affinity, sigma=self.sigma
        )
        size = (feedback.shape[-2], feedback.shape[-1])
        region = _shared_region(
            newest_click, input_size, size, self.ratio, soft=self.training
        )
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


class FusionState(NamedTuple):
    """The part that no feedback changes: computed once per click."""

    features: Tensor  # (B, C, h, w) float, F
    guide: Tensor  # (B, mid, h, w) Φ₂'s first convolution, without the feedback
    residual: Tensor  # (B, 1 or C, h, w) Φ₃'s convolution, without the feedback


class CFFM(nn.Module):
    """Let feedback and features update each other.

    Parameters
    ----------
    in_channels
        C, channels of the features.
    mid_channels
        Channels of Φ₁ and Φ₂ (published: 64 on HRNet, 32 on ResNet-101).
    fusion
        ``residual``: published, equation 5 with a one-channel Φ₃.
        ``residual_full``: equation 5 with a Φ₃ of C channels.
        ``no_residual``: F^u = Φ₃ alone, C channels, no gate (paper, section 4.3).
        ``no_gate``: ``residual`` with w_g = 1 always (paper, section 4.3).
        ``concat``: F^u = Φ₃(concat(F, M^r)) with C channels, no feedback pathway, so
        M^u = M^r (the paper's "+ FFC" row).
    """

    def __init__(
        self, in_channels: int, mid_channels: int, *, fusion: Fusion = "residual"
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            msg = f"fusion {fusion!r} is not one of {', '.join(FUSIONS)}"
            raise ValueError(msg)
        self.fusion: Fusion = fusion
        one_channel = fusion in ("residual", "no_gate")
        out_channels = 1 if one_channel else in_channels
        if fusion != "concat":
            self.phi1 = ConvNormRelu(in_channels, mid_channels, 1)
            self.phi2_first = SplitInputConv2d((1, mid_channels), mid_channels, 3)
            self.phi2_rest = nn.Sequential(
                nn.BatchNorm2d(mid_channels),
                nn.ReLU(),
                SeparableNormRelu(mid_channels),
                SeparableNormRelu(mid_channels),
                nn.Conv2d(mid_channels, 1, 3, padding=1),
            )
        self.phi3_first = SplitInputConv2d((in_channels, 1), out_channels, 1)
        self.phi3_rest = nn.Sequential(nn.BatchNorm2d(out_channels), nn.ReLU())

    def prepare(self, features: Tensor) -> FusionState:
        """Compute the part that depends on the features alone, (B, C, h, w)."""
        residual = self.phi3_first.part(0, features, with_bias=True)
        if self.fusion == "concat":
            return FusionState(features, features, residual)
        guide = self.phi2_first.part(1, self.phi1(features), with_bias=True)
        return FusionState(features, guide, residual)

    def update(self, state: FusionState, corrected: Tensor) -> Tensor:
        """Return M^u (equation 4), (B, 1, h, w) float32 in [0, 1]."""
        if self.fusion == "concat":
            return corrected
        share = self.phi2_first.part(0, corrected.to(state.guide.dtype))
        return torch.sigmoid(self.phi2_rest(state.guide + share).float())

    def fuse(
        self, state: FusionState, corrected: Tensor, gate: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """Fuse, given what ``prepare`` returned: F^u, (B, C, h, w) float, and M^u.

        ``corrected`` is M^r, (B, 1, h, w) float in [0, 1], as M^u is; ``gate`` w_g, a
        number or (B, 1, 1, 1) float: 0 in the first interaction, else 1.
        """
        updated = self.update(state, corrected)
        residual = self.residual(state, updated)
        if self.fusion in ("no_residual", "concat"):
            return residual, updated
        if self.fusion == "no_gate":
            gate = 1.0
        elif isinstance(gate, Tensor):
            gate = gate.to(residual.dtype)
        return state.features + gate * residual, updated

    def residual(self, state: FusionState, updated: Tensor) -> Tensor:
        """Return Φ₃, (B, 1 or C, h, w) float, non-negative."""
        share = self.phi3_first.part(1, updated.to(state.residual.dtype))
        residual: Tensor = self.phi3_rest(state.residual + share)
        return residual

    def forward(
        self, features: Tensor, corrected: Tensor, gate: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """Return ``fuse ∘ prepare``; see both for the shapes."""
        return self.fuse(self.prepare(features), corrected, gate)
