"""FFCM and CFFM in a network: the base that every published family shares.

Both read the deep features F and, at their size, the image and the click maps. What
no mask changes is prepared once per click; a refinement step corrects the feedback
(M^r), fuses it with F and hands the head F^u.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from napari_cfrseg.model.blocks.cffm import CFFM, Fusion, FusionState
from napari_cfrseg.model.blocks.convolutions import resize
from napari_cfrseg.model.blocks.ffcm import FFCM, Affinity
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput

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


class FeedbackConfig(Protocol):
    """What a network's configuration says of FFCM and CFFM."""

    @property
    def feedback_width(self) -> int:
        """Channels inside both."""

    @property
    def ratio(self) -> float:
        """Side of FFCM's box over the window's."""

    @property
    def affinity(self) -> Affinity:
        """FFCM's similarity."""

    @property
    def fusion(self) -> Fusion:
        """CFFM's fusion."""


class FeedbackNetwork(ClickNetwork):
    """A click network with FFCM and CFFM on its deep features.

    Attributes
    ----------
    ffcm, cffm
        The modules; None where the configuration has none.
    """

    ffcm: FFCM | None
    cffm: CFFM | None

    def add_feedback(
        self, channels: int, config: FeedbackConfig, context_channels: int = 5
    ) -> None:
        """Make both modules.

        Parameters
        ----------
        channels
            C of the deep features.
        config
            Their shape.
        context_channels
            Channels of image and click maps together.
        """
        self.ffcm = FFCM(
            channels,
            config.feedback_width,
            config.ratio,
            context_channels=context_channels,
            affinity=config.affinity,
        )
        self.cffm = CFFM(channels, config.feedback_width, fusion=config.fusion)

    @abstractmethod
    def refine(
        self,
        features: Any,
        feedback: Tensor | None,
        newest_click: Tensor,
        gate: Tensor | None = None,
    ) -> NetworkOutput:
        """Compute the mask once more; see ``ClickNetwork.refine``.

        Parameters
        ----------
        gate
            (B, 1, 1, 1) of 0 and 1, for batches in which only some samples have a
            mask yet (training). By default 0 without feedback, else 1. A network
            without FFCM and CFFM does not read it.
        """

    def prepare_feedback(
        self, deep: Tensor, image: Tensor, maps: Tensor
    ) -> FeedbackState:
        """Compute both modules' shares that no mask changes.

        Parameters
        ----------
        deep
            (B, C, h, w) float, F.
        image, maps
            (B, 3, H, W) and (B, M, H, W) float; resized to the features' size.

        Raises
        ------
        ValueError
            If the configuration has neither module.
        """
        if self.ffcm is None or self.cffm is None:
            msg = "this network has no FFCM and CFFM: nothing to prepare"
            raise ValueError(msg)
        size = (deep.shape[-2], deep.shape[-1])
        context = resize(torch.cat([image, maps], dim=1), size)
        return FeedbackState(self.ffcm.prepare(deep, context), self.cffm.prepare(deep))

    def fuse_feedback(
        self,
        state: FeedbackState | None,
        feedback: Tensor,
        gate: Tensor,
        newest_click: Tensor,
        size: tuple[int, int],
    ) -> Fused:
        """Correct the feedback around the newest click and fuse it with the features.

        Parameters
        ----------
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
        if state is None or self.ffcm is None or self.cffm is None:
            raise ValueError(FOREIGN_FEATURES)
        small = resize(feedback, state.size)
        corrected, region, affinity = self.ffcm.correct(
            state.correction, small, newest_click, size
        )
        features, updated = self.cffm.fuse(state.fusion, corrected, gate)
        return Fused(features, corrected, updated, region, affinity)
