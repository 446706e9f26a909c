"""The base of the published families: inputs, FFCM and CFFM, and a refinement step.

Every family normalises the image and draws the clicks as disks. RITM and SimpleClick
read the previous mask at the input; FCFI corrects it (FFCM: M^r) and fuses it with the
deep features F (CFFM: F^u). What no mask changes is prepared once per click.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfrseg.model.blocks import resize
from napari_cfrseg.model.blocks.feedback_correction import FFCM, Affinity
from napari_cfrseg.model.blocks.feedback_fusion import CFFM, Fusion, FusionState
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput

#: ImageNet mean and standard deviation of R, G, B in [0, 1]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyConfig:
    """The settings that every family has."""

    #: channels inside FFCM and CFFM; 0: the network has neither
    feedback_width: int = 0
    #: FFCM's box, FFCM's similarity and CFFM's fusion, by name
    ratio: float = 0.3
    affinity: Affinity = "cosine"
    fusion: Fusion = "residual"
    grid_size: int = 400  #: side in pixels of the square grid


ConfigT = TypeVar("ConfigT", bound=FamilyConfig)


class ImageNetNormalize(nn.Module):
    """(x − mean) / std per RGB channel; its constants are not part of the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            # real even where weights are still to come (torch.device("meta"))
            constant = torch.tensor(values, device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Normalise (B, 3, H, W) float in [0, 1]."""
        return (image - self.mean) / self.std


class ClickStem(nn.Module):
    """RITM's ``maps_transform`` (Conv1S): 2 or 3 click maps → 64 channels at half size.

    The learned scale starts at 0.05, so that a pretrained stem is hardly disturbed.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels, 16, 1)
        self.down = nn.Conv2d(16, 64, 3, stride=2, padding=1)
        self.scale = nn.Parameter(torch.tensor([0.05]))

    def forward(self, maps: Tensor) -> Tensor:
        """Turn (B, 2 or 3, H, W) float maps into (B, 64, ⌈H/2⌉, ⌈W/2⌉)."""
        hidden = F.leaky_relu(self.mix(maps), 0.2)
        features: Tensor = self.down(hidden) * self.scale.abs()
        return features


class FeedbackState(NamedTuple):
    """FFCM's and CFFM's shares that no mask changes, F among them."""

    correction: Tensor
    fusion: FusionState


class Step(NamedTuple):
    """The input of a refinement step, besides the features."""

    feedback: Tensor  # (B, 1, H, W) float in [0, 1], zeros where there is no mask
    gate: Tensor  # (B, 1, 1, 1) of 0 and 1
    newest_click: Tensor  # (B, 3)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the grid."""
        return self.feedback.shape[-2], self.feedback.shape[-1]


class Fused(NamedTuple):
    """A refinement step's feedback; maps are (B, 1, h, w)."""

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


class ClickFamily(ClickNetwork, Generic[ConfigT]):
    """A published click network; ``ffcm``, ``cffm``: None without a feedback width."""

    #: the name in ``model.registry``
    family: ClassVar[str]

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config = config
        self.grid_size = config.grid_size
        self.normalize = ImageNetNormalize()
        self.ffcm: FFCM | None = None
        self.cffm: CFFM | None = None

    def add_feedback(self, channels: int, context_channels: int = 5) -> None:
        """Make FFCM and CFFM, where the configuration has them, for C ``channels``.

        ``context_channels`` are those of image and click maps together.
        """
        c = self.config
        if not c.feedback_width:
            return
        self.ffcm = FFCM(
            channels,
            c.feedback_width,
            c.ratio,
            context_channels=context_channels,
            affinity=c.affinity,
        )
        self.cffm = CFFM(channels, c.feedback_width, fusion=c.fusion)

    def architecture(self) -> dict[str, Any]:
        """Return the description that ``model.registry.build`` takes."""
        return {"family": self.family, **asdict(self.config)}

    def refine(
        self,
        features: Any,
        feedback: Tensor | None,
        newest_click: Tensor,
        gate: Tensor | None = None,
    ) -> NetworkOutput:
        """Compute the mask once more; see ``ClickNetwork.refine``.

        ``gate`` as for ``CfrNet.refine``; read by FFCM and CFFM only.
        """
        image = features.image
        batch, size = image.shape[0], (image.shape[-2], image.shape[-1])
        if feedback is None:
            feedback = image.new_zeros(batch, 1, *size)
            gate = image.new_zeros(batch, 1, 1, 1)
        elif gate is None:
            gate = image.new_ones(batch, 1, 1, 1)
        step = Step(feedback.to(image.dtype), gate, newest_click)
        return self.refine_from(features, step)

    @abstractmethod
    def refine_from(self, features: Any, step: Step) -> NetworkOutput:
        """Compute the mask of a step."""

    def prepare_feedback(
        self, deep: Tensor, image: Tensor, maps: Tensor
    ) -> FeedbackState | None:
        """Compute both modules' shares that no mask changes; None without them.

        ``deep`` is F, (B, C, h, w); the (B, 3, H, W) image and (B, M, H, W) maps are
        resized to its size.
        """
        if self.ffcm is None or self.cffm is None:
            return None
        size = (deep.shape[-2], deep.shape[-1])
        context = resize(torch.cat([image, maps], dim=1), size)
        return FeedbackState(self.ffcm.prepare(deep, context), self.cffm.prepare(deep))

    def fuse_feedback(self, state: FeedbackState | None, step: Step) -> Fused:
        """Correct the feedback around the newest click and fuse it with the features.

        Raises ValueError without a state: the features are another network's.
        """
        if state is None or self.ffcm is None or self.cffm is None:
            raise ValueError("features were not made by this network's embed_clicks")
        deep = state.fusion.features
        small = resize(step.feedback, (deep.shape[-2], deep.shape[-1]))
        given = state.correction, small, step.newest_click, step.size
        corrected, region, affinity = self.ffcm.correct(*given)
        features, updated = self.cffm.fuse(state.fusion, corrected, step.gate)
        return Fused(features, corrected, updated, region, affinity)
