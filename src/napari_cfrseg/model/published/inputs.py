"""What every published network does to its inputs before its first layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: ImageNet mean and standard deviation of R, G, B in [0, 1]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    """RITM's ``maps_transform`` (Conv1S): click maps → 64 channels at half size.

    Conv1×1 to 16, LeakyReLU 0.2, Conv3×3 stride 2 to 64, times |scale|. The learned
    scale starts at 0.05, so that a pretrained stem is hardly disturbed at first.

    Parameters
    ----------
    in_channels
        2 (clicks), or 3 (previous mask, clicks).
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


def feedback_and_gate(
    feedback: Tensor | None, gate: Tensor | None, like: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Fill in what the first interaction does not have.

    Parameters
    ----------
    feedback
        (B, 1, H, W) float in [0, 1], or None: no mask yet.
    gate
        (B, 1, 1, 1) of 0 and 1, or None: 0 without feedback, else 1.
    like
        Whose batch, device and dtype to use.
    size
        (H, W) of the grid.

    Returns
    -------
    feedback (B, 1, H, W), zeros where there was none, and gate (B, 1, 1, 1).
    """
    batch = like.shape[0]
    if feedback is None:
        nothing = like.new_zeros(batch, 1, *size)
        return nothing, like.new_zeros(batch, 1, 1, 1)
    if gate is None:
        gate = like.new_ones(batch, 1, 1, 1)
    return feedback.to(like.dtype), gate
