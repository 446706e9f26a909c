"""Windows cut and varied as a recipe says: the published pipelines' augmentation.

The published pipelines cut a crop of fixed size anywhere in an image that was resized,
flipped, turned and shifted, and then choose one of the objects in it: one affine map::

    crop pixel → + offset → undo shift and small turn → undo quarter turns, flip
               → ÷ resize → image pixel
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cfrseg_training.loop.atlas import Sample, WindowBatch
from cfrseg_training.papers.recipe import AugmentationPart, Recipe

#: crops drawn at most until one contains an object
_TRIES = 40


@dataclass(frozen=True, slots=True)
class _Scene:
    """An image and its instance ids, as sampled."""

    image: Tensor  # (3, Y, X) uint8
    labels: Tensor  # (Y, X) int32; −1 where nothing is known
    is_sparse: bool


class RecipeWindows:
    """Draws batches by a recipe's ``[data]``, ``[augmentation]`` and ``[clicks]``.

    Raises ValueError without an image, or if no object is ever large enough.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        recipe: Recipe,
        device: torch.device | str = "cpu",
    ) -> None:
        if not samples:
            raise ValueError("no labelled image to train on")
        self.recipe = recipe
        self.device = torch.device(device)
        self._scenes = [self._scene(sample) for sample in samples]

    def _scene(self, sample: Sample) -> _Scene:
        labels = sample.labels.astype(np.int32)
        if sample.ignore is not None:
            labels = np.where(sample.ignore, -1, labels)
        return _Scene(
            torch.from_numpy(sample.image).permute(2, 0, 1).to(self.device),
            torch.from_numpy(labels).to(self.device),
            sample.is_sparse,
        )

    def draw(self, count: int, generator: torch.Generator) -> WindowBatch:
        """Draw windows, their colours varied; the generator is the CPU's."""
        drawn = [self._one(generator) for _ in range(count)]
        image, mask, others, valid = (torch.stack(p) for p in zip(*drawn, strict=True))
        image = jitter(image, self.recipe.augmentation, generator)
        nowhere = torch.full((count, 2), -1.0, device=self.device)
        return WindowBatch(image, mask, others, valid, nowhere)

    def _one(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One window: image (3, H, W), mask, others and valid (1, H, W)."""
        part = self.recipe.data
        for _ in range(_TRIES):
            scene = self._scenes[_below(len(self._scenes), generator)]
            image, labels = _cut(scene, self.recipe.augmentation, generator)
            areas = torch.bincount(labels.flatten().clamp(min=0))
            areas[0] = 0
            large = (areas >= part.smallest_object).nonzero()[:, 0]
            if len(large) or _chance(generator) < part.empty_share:
                mask = self._choose(labels, large, generator)
                others = (labels > 0) & ~mask
                # what pads an image is background, as published
                known = labels > 0 if scene.is_sparse else labels >= 0
                return image, mask[None].float(), others[None], known[None]
        raise ValueError(
            f"in {_TRIES} crops no object of {part.smallest_object} pixels was met; "
            "lower smallest_object in [data]"
        )

    def _choose(
        self, labels: Tensor, large: Tensor, generator: torch.Generator
    ) -> Tensor:
        """(H, W) bool: one object, sometimes two taken as one, or nothing."""
        if not len(large):
            return torch.zeros_like(labels, dtype=torch.bool)
        order = torch.randperm(len(large), generator=generator)
        merged = _chance(generator) < self.recipe.clicks.merge_two_objects
        chosen = large[order[: 2 if merged else 1].to(large.device)]
        return torch.isin(labels, chosen)


def jitter(image: Tensor, part: AugmentationPart, generator: torch.Generator) -> Tensor:
    """Vary (B, 3, H, W) images: x·(1 + c) + b, then + the channel's shift."""
    batch, share = image.shape[0], part.jitter_share

    def happens() -> Tensor:
        return torch.rand(batch, 1, 1, 1, generator=generator) < share

    def between(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = torch.rand(batch, channels, 1, 1, generator=generator)
        return low + (high - low) * drawn

    # one draw decides on contrast and brightness together, as published
    both = happens()
    gain, offset = between(*part.contrast) * both, between(*part.brightness) * both
    varied = image * (1 + gain.to(image.device)) + offset.to(image.device)
    step = part.rgb_shift / 255
    shift = between(-step, step, 3) * happens()
    return (varied.clamp(0, 1) + shift.to(image.device)).clamp(0, 1)


def _cut(
    scene: _Scene, part: AugmentationPart, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return image (3, H, W) and ids (H, W), 0 beyond the image."""
    height, width = scene.labels.shape
    matrix, centre = crop_map((height, width), part, generator)
    matrix, centre = matrix.to(scene.labels.device), centre.to(scene.labels.device)
    rows, columns = (
        torch.arange(n, device=matrix.device) - (n - 1) / 2 for n in part.crop
    )
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    yx = grid @ matrix.T + centre
    size = torch.tensor([height, width], device=yx.device)
    # grid_sample wants (x, y) in [−1, 1] from edge to edge
    normalised = ((2 * yx + 1) / size - 1).flip(-1)[None]
    image = functional.grid_sample(
        scene.image[None].float() / 255, normalised, align_corners=False
    )[0]
    nearest = yx.round().long()
    inside = ((nearest >= 0) & (nearest < size)).all(-1)
    rows, columns = nearest.clamp(min=0).minimum(size - 1).unbind(-1)
    return image, torch.where(inside, scene.labels[rows, columns], 0)


def crop_map(
    shape: tuple[int, int], part: AugmentationPart, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw where a crop lies in an image of (Y, X) ``shape``.

    (2, 2) matrix and (2,) centre: image yx = matrix · (crop yx − crop centre) + centre.
    """
    scale = part.resize[0] + (part.resize[1] - part.resize[0]) * _chance(generator)
    # image → resized, flipped, turned: v = turn · flip · scale · (image − its middle)
    forward = torch.eye(2) * scale
    if part.flip_axes and _chance(generator) < part.flip_share:
        axes = part.flip_axes[_below(len(part.flip_axes), generator)]
        signs = [-1.0 if axis in axes else 1.0 for axis in "yx"]
        forward = torch.diag(torch.tensor(signs)) @ forward
    if _chance(generator) < part.rotate_90:
        forward = _turn(90.0 * _below(4, generator)) @ forward
    extent = forward.abs() @ torch.tensor([float(n) for n in shape])
    shift = torch.zeros(2)
    if (part.shift or part.rotate_degrees) and _chance(generator) < 0.75:
        forward = _turn(part.rotate_degrees * (2 * _chance(generator) - 1)) @ forward
        shift = part.shift * (2 * torch.rand(2, generator=generator) - 1) * extent
    # whole pixels between crop and resized image, so that nothing is resampled twice
    lead = (extent - torch.tensor([float(n) for n in part.crop])) / 2
    room = (2 * lead).clamp(min=0).floor()
    offset = (torch.rand(2, generator=generator) * (room + 1)).floor()
    at = torch.where(lead > 0, offset - lead, lead.round() - lead) - shift
    backward = torch.linalg.inv(forward)
    middle = (torch.tensor([float(n) for n in shape]) - 1) / 2
    return backward, middle + backward @ at


def _turn(degrees: float) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cos, -sin], [sin, cos]])


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
