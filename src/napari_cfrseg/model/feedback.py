"""FFCM and CFFM in a network: the glue that every published family shares.

Both read the deep features F and, at their size, the image and the click maps. What
no mask changes is prepared once per click; a refinement step corrects the feedback
(M^r), fuses it with F and hands the head F^u.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from napari_cfrseg.model.cffm import CFFM, FusionState
from napari_cfrseg.model.convolutions import resize
from napari_cfrseg.model.ffcm import FFCM
from napari_cfrseg.model.network import NetworkOutput

#: what is said to features that lack what this network prepares
FOREIGN_FEATURES = "features were not made by this network's embed_clicks"


class FeedbackState(NamedTuple):
    """What no mask changes: FFCM's and CFFM's shares, F among them."""

    correction: Tensor
    fusion: FusionState

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the features."""
        deep = self.fusion.features
        return deep.shape[-2], deep.shape[-1]


class Fused(NamedTuple):
    """What a refinement step made of the feedback; maps are (B, 1, h, w)."""

    features: Tensor  # (B, C, h, w) F^u
    corrected: Tensor  # M^r
    updated: Tensor  # M^u
    region: Tensor
    affinity: Tensor

    def output(
        self, logits: Tensor, size: tuple[int, int], auxiliary: Tensor | None = None
    ) -> NetworkOutput:
        """Return the network's output; logits are enlarged to the grid, (H, W)."""
        return NetworkOutput(
            resize(logits, size),
            self.corrected,
            self.updated,
            self.region,
            auxiliary_logits=None if auxiliary is None else resize(auxiliary, size),
            affinity=self.affinity,
        )


def prepare_feedback(
    ffcm: FFCM, cffm: CFFM, deep: Tensor, image: Tensor, maps: Tensor
) -> FeedbackState:
    """Compute both modules' shares that no mask changes.

    Parameters
    ----------
    ffcm, cffm
        The network's.
    deep
        (B, C, h, w) float, F.
    image, maps
        (B, 3, H, W) and (B, M, H, W) float; resized to the features' size.
    """
    size = (deep.shape[-2], deep.shape[-1])
    context = resize(torch.cat([image, maps], dim=1), size)
    return FeedbackState(ffcm.prepare(deep, context), cffm.prepare(deep))


def fuse_feedback(
    ffcm: FFCM,
    cffm: CFFM,
    state: FeedbackState | None,
    feedback: Tensor,
    gate: Tensor,
    newest_click: Tensor,
    size: tuple[int, int],
) -> Fused:
    """Correct the feedback around the newest click and fuse it with the features.

    Parameters
    ----------
    ffcm, cffm
        The network's.
    state
        What ``prepare_feedback`` returned.
    feedback, gate
        What ``inputs.feedback_and_gate`` returned: (B, 1, H, W) and (B, 1, 1, 1).
    newest_click
        (B, 3) float rows ``[y, x, label]``.
    size
        (H, W) of the network's grid.

    Raises
    ------
    ValueError
        If there is no state: the features are another network's.
    """
    if state is None:
        raise ValueError(FOREIGN_FEATURES)
    small = resize(feedback, state.size)
    corrected, region, affinity = ffcm.correct(
        state.correction, small, newest_click, size
    )
    features, updated = cffm.fuse(state.fusion, corrected, gate)
    return Fused(features, corrected, updated, region, affinity)
