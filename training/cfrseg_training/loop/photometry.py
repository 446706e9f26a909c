"""Change how a micrograph looks without moving anything, per sample, on the device."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class PhotometricRecipe:
    """Probabilities and ranges of each change.

    Attributes
    ----------
    contrast, brightness
        Contrast exp(±c) about the middle and offset ±b, always applied.
    gamma
        Exponent exp(±g), applied with probability 0.5.
    invert, grey, shuffle, mix, drop
        Probabilities: invert intensities; average the channels; permute them; mix
        them linearly; silence one.
    blur, noise, shading
        Probabilities of Gaussian blur, of noise (Gaussian, growing with the signal),
        of a slanted illumination.
    """

    contrast: float = 0.5
    brightness: float = 0.15
    gamma: float = 0.6
    invert: float = 0.12
    grey: float = 0.15
    shuffle: float = 0.15
    mix: float = 0.2
    drop: float = 0.04
    blur: float = 0.25
    noise: float = 0.35
    shading: float = 0.2

    def scaled(self, share: float) -> PhotometricRecipe:
        """Return the recipe with every probability and range times ``share``."""
        return PhotometricRecipe(*(share * value for value in astuple(self)))


def vary(
    image: Tensor, generator: torch.Generator, recipe: PhotometricRecipe | None = None
) -> Tensor:
    """Return the images with other contrast, colours, sharpness and noise.

    Parameters
    ----------
    image
        (B, 3, H, W) float in [0, 1].

    Returns
    -------
    (B, 3, H, W) float in [0, 1].
    """
    recipe = recipe or PhotometricRecipe()
    batch, device = image.shape[0], image.device

    def chance(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device)

    def spread(*shape: int) -> Tensor:
        return chance(*shape) * 2 - 1

    def happens(share: float) -> Tensor:
        return (chance(1, 1, 1) < share).float()

    x = _colours(image, recipe, generator)
    exponent = torch.exp(recipe.gamma * spread(1, 1, 1) * happens(0.5))
    x = x.clamp(1e-4, 1) ** exponent
    inverted = happens(recipe.invert)
    x = x * (1 - inverted) + (1 - x) * inverted
    x = (x - 0.5) * torch.exp(recipe.contrast * spread(1, 1, 1)) + 0.5
    x = x + recipe.brightness * spread(1, 1, 1)
    height, width = x.shape[-2:]
    ramp_y = torch.linspace(-1, 1, height, device=device).view(1, 1, -1, 1)
    ramp_x = torch.linspace(-1, 1, width, device=device).view(1, 1, 1, -1)
    slant = spread(1, 1, 1) * ramp_y + spread(1, 1, 1) * ramp_x
    x = x * (1 + 0.3 * slant * happens(recipe.shading))
    x = _blur(x, (0.3 + 1.9 * chance()) * happens(recipe.blur).flatten())
    noise = torch.randn(x.shape, generator=generator, device=device)
    signal = 0.3 + x.clamp(0, 1).sqrt()
    x = x + 0.09 * chance(1, 1, 1) * happens(recipe.noise) * signal * noise
    return x.clamp(0, 1)


def _colours(
    x: Tensor, recipe: PhotometricRecipe, generator: torch.Generator
) -> Tensor:
    batch, device = x.shape[0], x.device

    def chance(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device)

    identity = torch.eye(3, device=device).expand(batch, 3, 3)
    matrix = identity
    order = chance(3).argsort(dim=1)
    for share, change in (
        (recipe.shuffle, identity.gather(1, order[..., None].expand(-1, 3, 3))),
        (recipe.mix, torch.softmax(4 * chance(3, 3), dim=2)),
        (recipe.grey, torch.full((batch, 3, 3), 1 / 3, device=device)),
        (recipe.drop, identity * (chance(1, 3) > chance(1, 3).amin(2, keepdim=True))),
    ):
        applied = (chance(1, 1) < share).float()
        matrix = (change * applied + identity * (1 - applied)) @ matrix
    return torch.einsum("bij,bjyx->biyx", matrix, x)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each sample by its own σ in grid pixels; σ = 0 leaves it as it is."""
    batch, channels, height, width = x.shape
    offset = torch.arange(-4, 5, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(offset**2) / (2 * sigma.clamp(min=1e-2)[:, None] ** 2))
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    kernel = kernel.repeat_interleave(channels, dim=0)[:, None, None, :]
    flat = x.reshape(1, batch * channels, height, width)
    groups = batch * channels
    flat = functional.pad(flat, (4, 4, 4, 4), mode="replicate")
    flat = functional.conv2d(flat, kernel, groups=groups)
    flat = functional.conv2d(flat, kernel.transpose(2, 3), groups=groups)
    return flat.view(batch, channels, height, width)
