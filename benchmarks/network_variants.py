"""The default network with its feedback wired otherwise, for ablations in kind.

==========================  ======================================================
FCFI's table and row        here
==========================  ======================================================
3  baseline                 ``feedback="input"``
3  + FFC                    ``fusion="concat"``: M^r beside the features
3  + CFFM                   ``feedback="uncorrected"``: M^r = M
3  + both; 6  CFFM          the default network
4  exponential              ``affinity="exponential"``
5  r                        ``ratio``
6  no feedback              ``feedback="none"``
6  at the input             ``feedback="input"``
6  without residual, gate   ``fusion="no_residual"``, ``"no_gate"``
==========================  ======================================================

At the input means here: the mask joins where the clicks do, at stride 4 before the
decoder, so that the click stage runs again with each mask.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cfrseg.model.blocks.feedback_correction import FFCM, Affinity, Correction
from napari_cfrseg.model.blocks.feedback_fusion import CFFM, Fusion
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig, ImageEmbedding
from napari_cfrseg.model.network import NetworkOutput

Feedback = Literal["ffcm", "uncorrected", "none", "input"]


@dataclass(frozen=True, slots=True)
class VariantConfig:
    """How the feedback is wired.

    Attributes
    ----------
    feedback
        "ffcm": the default. "uncorrected": CFFM sees the mask as it is. "none": no
        mask anywhere. "input": the mask joins with the clicks, and no FFCM or CFFM.
    fusion, affinity, ratio
        Of CFFM and FFCM.
    network
        The rest of the shape.
    """

    feedback: Feedback = "ffcm"
    fusion: Fusion = "residual"
    affinity: Affinity = "cosine"
    ratio: float = 0.3
    network: CfrNetConfig = field(default_factory=lambda: CfrNetConfig(fine_feedback=0))


class _Pending(NamedTuple):
    """The click stage, put off until the mask is known."""

    embedding: ImageEmbedding
    points: Tensor


class _Uncorrected(FFCM):
    """FFCM that leaves the feedback as it is."""

    def correct(
        self,
        prepared: Tensor,
        feedback: Tensor,
        newest_click: Tensor,
        input_size: tuple[int, int],
    ) -> Correction:
        """Return the feedback, with an empty region."""
        feedback = feedback.float()
        nothing = torch.zeros_like(feedback)
        return Correction(feedback, nothing, nothing)


class VariantNet(CfrNet):
    """The default network, wired otherwise; it cannot be loaded from a checkpoint.

    Parameters
    ----------
    variant
        The wiring.
    """

    def __init__(self, variant: VariantConfig | None = None) -> None:
        self.variant = variant or VariantConfig()
        super().__init__(self.variant.network)
        width, mid = self.config.widths[0], self.config.feedback_width
        kind = _Uncorrected if self.variant.feedback == "uncorrected" else FFCM
        self.ffcm = kind(
            width,
            mid,
            self.variant.ratio,
            context_channels=5,
            affinity=self.variant.affinity,
        )
        self.cffm = CFFM(width, mid, fusion=self.variant.fusion)
        self.at_input: nn.Module | None = None
        if self.variant.feedback == "input":
            self.at_input = nn.Conv2d(1, width, 3, padding=1)

    def architecture(self) -> dict[str, Any]:
        """Return the wiring; no registry knows it."""
        return {"family": "cfrnet-variant", **asdict(self.variant)}

    def for_inference(self) -> CfrNet:
        """Return the network as it is: a variant is measured, not shipped."""
        return self

    def embed_clicks(self, embedding: ImageEmbedding, points: Tensor) -> Any:
        """Fuse the clicks; with the mask at the input this waits for ``refine``."""
        if self.at_input is None:
            return super().embed_clicks(embedding, points)
        return _Pending(embedding, points)

    def refine(
        self,
        features: Any,
        feedback: Tensor | None,
        newest_click: Tensor,
        gate: Tensor | float | None = None,
    ) -> NetworkOutput:
        """Compute the mask once more; the mask goes where the variant says."""
        if self.variant.feedback == "none":
            return _only_logits(super().refine(features, None, newest_click))
        if self.at_input is None:
            return super().refine(features, feedback, newest_click, gate)
        embedding, points = features
        first = embedding.pyramid[0]
        if feedback is None:
            mask = first.new_zeros(first.shape[0], 1, *first.shape[-2:])
        else:
            mask = functional.interpolate(
                feedback.to(first.dtype), size=first.shape[-2:], mode="area"
            )
        pyramid = (first + self.at_input(mask), *embedding.pyramid[1:])
        fused = super().embed_clicks(embedding._replace(pyramid=pyramid), points)
        return _only_logits(super().refine(fused, None, newest_click))


def _only_logits(out: NetworkOutput) -> NetworkOutput:
    """Leave M^r and M^u out: they have no part in these variants."""
    return NetworkOutput(out.logits, quality_logits=out.quality_logits)
