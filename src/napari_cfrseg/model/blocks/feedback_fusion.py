r"""Fuse the previous mask with the features: FCFI's CFFM (paper, section 3.3).

.. math::

    M^u &= Φ_2(concat(Φ_1(F), M^r))                                       (4) \\
    F^u &= w_g Φ_3(concat(F, M^u)) + F                                    (5)

==========  ======================================================================
symbol      here
==========  ======================================================================
M^r         ``corrected``: the feedback, corrected around the newest click (FFCM)
F           ``features``, the backbone's
M^u         ``updated``, the feedback after its look at the features
w_g         ``gate``: 0 in the first interaction, 1 afterwards
F^u         ``fused``, what the head sees
==========  ======================================================================

Φ₃ of the published code returns one channel, added to every channel of F; the paper
does not mention it. Both are here by name (``residual``, ``residual_full``).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from napari_cfrseg.model.blocks import ConvNormRelu, SeparableNormRelu, SplitInputConv2d

Fusion = Literal["residual", "residual_full", "no_residual", "no_gate", "concat"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)


class FusionState(NamedTuple):
    """The part that no feedback changes: computed once per click."""

    features: Tensor  # (B, C, h, w) float, F
    guide: Tensor  # (B, mid, h, w) Φ₂'s first convolution, without the feedback
    residual: Tensor  # (B, 1 or C, h, w) Φ₃'s convolution, without the feedback


class CFFM(nn.Module):
    """Let feedback and features update each other.

    ``in_channels`` is C of the features, ``mid_channels`` those of Φ₁ and Φ₂
    (published: 64 on HRNet, 32 on ResNet-101). ``fusion``:

    ``residual``: published, equation 5 with a one-channel Φ₃.
    ``residual_full``: equation 5 with a Φ₃ of C channels.
    ``no_residual``: F^u = Φ₃ alone, C channels, no gate (paper, section 4.3).
    ``no_gate``: ``residual`` with w_g = 1 always (paper, section 4.3).
    ``concat``: F^u = Φ₃(concat(F, M^r)) with C channels, no feedback pathway, so M^u =
    M^r (the paper's "+ FFC" row).
    """

    def __init__(
        self, in_channels: int, mid_channels: int, *, fusion: Fusion = "residual"
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion {fusion!r} is not one of {', '.join(FUSIONS)}")
        self.fusion: Fusion = fusion
        out_channels = 1 if fusion in ("residual", "no_gate") else in_channels
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
