"""The three stages every click network is written in.

``mask = f(image, clicks, previous mask)``; what changed since the last evaluation
decides what must be computed again:

=================  ==========================  =========================
stage              depends on                  runs
=================  ==========================  =========================
``embed_image``    pixels of the focus window  once per window
``embed_clicks``   + the clicks                once per click
``refine``         + the previous mask         once per refinement step
=================  ==========================  =========================

``forward`` is their composition and nothing else, so no network has a second
implementation of itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from napari_cfrseg.model.blocks.extensions import ChangeOdds

#: Logits added, in the newest click's direction, at the first, second and any further
#: late correction of one sign in a row. Chosen on validation images
#: (``benchmarks/default_model.md``).
LATE_PUSH = (0.1, 0.4, 0.6)


@dataclass(frozen=True, slots=True)
class NetworkOutput:
    """The result of one refinement step."""

    logits: Tensor  #: (B, 1, H, W) float, the mask's logits on the window's grid
    #: (B, 1, h, w) float in [0, 1] or None: FFCM's corrected feedback M^r
    corrected: Tensor | None = None
    #: (B, 1, h, w) float in [0, 1] or None: CFFM's updated feedback M^u
    updated: Tensor | None = None
    #: (B, 1, h, w) float in [0, 1] or None: the box in which M^r was corrected (soft in
    #: training)
    region: Tensor | None = None
    #: (B,) float or None: logit of the IoU the network expects of its own mask
    quality_logits: Tensor | None = None
    #: (B, 1, H, W) float or None: a training-only second output
    auxiliary_logits: Tensor | None = None
    #: (B, 1, h, w) float in [0, 1] or None: FFCM's similarity to the newest click
    affinity: Tensor | None = None
    #: tensors or None: the input of ``judge`` where it computes ``quality_logits``
    unjudged: tuple[Tensor, ...] | None = None


class ClickNetwork(nn.Module, ABC):
    """A network in three stages; ``forward`` composes them.

    The embeddings' types belong to each network (a tensor, a tuple, a NamedTuple of
    tensors): callers only pass them on.
    """

    #: side in pixels of the square grid the network was trained on
    grid_size: int
    #: see ``LATE_PUSH``; zeros while a network is trained with the product's rounds
    late_push: tuple[float, ...] = LATE_PUSH

    def __init__(self) -> None:
        super().__init__()
        #: what weighs the changes of late clicks; None: the network's own answer
        self.change_odds: ChangeOdds | None = None

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Return the description that ``model.registry.build`` makes it again from."""

    @abstractmethod
    def embed_image(self, image: Tensor) -> Any:
        """Embed the window's pixels, (B, 3, H, W) float in [0, 1]; normalise them."""

    @abstractmethod
    def embed_clicks(self, embedding: Any, points: Tensor) -> Any:
        """Fuse the clicks with what ``embed_image`` returned for the same B.

        ``points`` are (B, 2N, 3) float rows ``[y, x, order]`` on the grid: N positive
        slots, then N negative ones, unused slots −1.
        """

    @abstractmethod
    def refine(
        self, features: Any, feedback: Tensor | None, newest_click: Tensor
    ) -> NetworkOutput:
        """Compute the mask once more from what ``embed_clicks`` returned.

        ``feedback`` is (B, 1, H, W) float in [0, 1], the previous mask's probability on
        the grid; None where there is no mask yet (gate 0). Any mask opens the gate.
        ``newest_click`` holds (B, 3) float rows ``[y, x, label]``, label 1 positive, 0
        negative.
        """

    def light_parameters(self) -> list[nn.Parameter]:
        """Return the few parameters that finished objects may adapt; by default none.

        They act in :meth:`draw` only, so no embedding depends on them.
        """
        return []

    def approach(
        self, features: Any, feedback: Tensor | None, newest_click: Tensor
    ) -> Any:
        """Compute the part of ``refine`` that no light parameter changes."""
        return features, feedback, newest_click

    def draw(self, approached: Any) -> NetworkOutput:
        """Compute the rest of ``refine`` from what :meth:`approach` returned."""
        return self.refine(*approached)

    def judge(self, output: NetworkOutput) -> Tensor | None:
        """Return the (B,) logit of the IoU it expects of an output; None without one.

        Asked of the last step of a cascade only, so a network may leave the work to
        this method.
        """
        return output.quality_logits

    def for_inference(self) -> ClickNetwork:
        """Return a faster network with the same results in evaluation, up to rounding.

        Either the network itself or a copy that later training does not reach.
        """
        return self

    def forward(
        self,
        image: Tensor,
        points: Tensor,
        feedback: Tensor | None,
        newest_click: Tensor,
    ) -> NetworkOutput:
        """Return ``refine ∘ embed_clicks ∘ embed_image``."""
        features = self.embed_clicks(self.embed_image(image), points)
        return self.refine(features, feedback, newest_click)

    @property
    def device(self) -> torch.device:
        """The device its parameters live on."""
        return next(self.parameters()).device
