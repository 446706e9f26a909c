"""How training windows are varied: new scenes by copy-paste, and other looks.

SUEM copy-paste (CFR-ICL, section 3.3) makes scenes from two labelled windows:

==========  =======================================  ==========================
mode        image                                    truth
==========  =======================================  ==========================
Simple      source object pasted on the extra image  the source object
Union       extra object pasted on the source image  source ∪ extra
Exclusion   extra object pasted on the source image  source − extra
Mixing      the two images blended                   the source object
==========  =======================================  ==========================

Pasting is pixel-aligned, as published. The published code pastes Simple's object with
an opacity in [0.5, 1] (the paper's figures are opaque) and has a fifth mode that the
paper does not name, ``mix_object``. On micrographs a pasted nucleus may glow among dim
ones: ``match_intensity`` first gives it the contrast of the place it lands on.

``vary`` changes contrast, colours, sharpness and noise and moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cfrseg_training.loop.atlas import WindowBatch

#: pixels of the source object that must stay visible (published code)
MIN_VISIBLE_PX = 20


@dataclass(frozen=True, slots=True)
class Scene:
    """Windows, (B, 3, H, W) in [0, 1], and their objects, (B, 1, H, W) float."""

    image: Tensor
    mask: Tensor


def simple(source: Scene, extra: Scene, opacity: Tensor | float = 1.0) -> Scene:
    """Paste the source object, at its own place, on the extra image.

    ``opacity`` (α) is a number or (B, 1, 1, 1); published: uniform in [0.5, 1].
    """
    share = opacity * source.mask
    return Scene(share * source.image + (1 - share) * extra.image, source.mask)


def union(source: Scene, extra: Scene) -> Scene:
    """Paste the extra object on the source image; the truth is both."""
    image = torch.where(extra.mask > 0.5, extra.image, source.image)
    return Scene(image, torch.maximum(source.mask, extra.mask))


def exclusion(source: Scene, extra: Scene) -> Scene:
    """Paste the extra object on the source image; the truth is what stays visible."""
    image = torch.where(extra.mask > 0.5, extra.image, source.image)
    return Scene(image, source.mask * (1 - extra.mask))


def mixing(source: Scene, extra: Scene, opacity: Tensor | float = 0.75) -> Scene:
    """Blend the images, the source with opacity α; the truth stays."""
    return Scene(opacity * source.image + (1 - opacity) * extra.image, source.mask)


def mix_object(source: Scene, extra: Scene, opacity: Tensor | float = 0.75) -> Scene:
    """Blend the extra object's region into the source; the truth stays.

    Not in the paper: the third choice of the published code's second step.
    """
    share = (1 - opacity) * extra.mask
    return Scene((1 - share) * source.image + share * extra.image, source.mask)


def leaves_enough(source: Scene, extra: Scene) -> Tensor:
    """Return (B,) bool: more than 20 pixels of the source object stay uncovered."""
    return (source.mask * (1 - extra.mask)).sum(dim=(1, 2, 3)) > MIN_VISIBLE_PX


def match_intensity(pasted: Scene, onto: Scene) -> Scene:
    """Give an object the mean and spread, per channel, of another scene's object.

    Pixels change under the mask only. Where ``onto`` has no object, its whole window
    is the measure.
    """
    mean, spread = _moments(pasted.image, pasted.mask)
    has_object = onto.mask.flatten(1).any(1).view(-1, 1, 1, 1)
    weight = torch.where(has_object, onto.mask, torch.ones_like(onto.mask))
    wanted_mean, wanted_spread = _moments(onto.image, weight)
    gain = (wanted_spread / spread).clamp(0.25, 4)
    matched = ((pasted.image - mean) * gain + wanted_mean).clamp(0, 1)
    return Scene(torch.where(pasted.mask > 0.5, matched, pasted.image), pasted.mask)


def _moments(image: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    dims = (2, 3)
    total = weight.sum(dims, keepdim=True).clamp(min=1)
    mean = (image * weight).sum(dims, keepdim=True) / total
    variance = ((image - mean).square() * weight).sum(dims, keepdim=True) / total
    return mean, variance.sqrt() + 0.02


@dataclass(frozen=True, slots=True)
class SuemRecipe:
    """How often each mode is used: probabilities, drawn independently."""

    paste: float = 0.5  #: of Simple (published: 0.5, as the next two)
    combine: float = 0.5  #: then of one of ``combinations``
    mix: float = 0.5  #: then of Mixing
    #: modes of the second step, equally likely: "union", "exclusion", "mix_object" (the
    #: published code has all three; the paper the first two)
    combinations: tuple[str, ...] = ("union", "exclusion")
    #: range of α (published [0.5, 1]; 1 to 1 for opaque Simple pastes)
    opacity: tuple[float, float] = (0.5, 1.0)
    matched: bool = True  #: pasted objects take the intensities of where they land

    def __post_init__(self) -> None:
        unknown = set(self.combinations) - set(_COMBINATIONS)
        if unknown:
            msg = f"no such mode: {', '.join(sorted(unknown))}; one of {_COMBINATIONS}"
            raise ValueError(msg)


_COMBINATIONS = ("union", "exclusion", "mix_object")


def recombine(
    source: Scene,
    draw_extra: Callable[[], Scene],
    generator: torch.Generator,
    recipe: SuemRecipe | None = None,
) -> Scene:
    """Apply the three steps of the published order to a batch.

    ``draw_extra`` returns as many other windows, different ones at each call.
    """
    recipe = recipe or SuemRecipe()
    count, device = source.mask.shape[0], source.mask.device

    def chance() -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator, device=device)

    def opacity() -> Tensor:
        low, high = recipe.opacity
        return low + (high - low) * chance()

    extra = draw_extra()
    pasted = match_intensity(source, extra) if recipe.matched else source
    scene = _choose(chance() < recipe.paste, simple(pasted, extra, opacity()), source)
    extra = draw_extra()
    if recipe.matched:
        extra = match_intensity(extra, scene)
    possible = leaves_enough(scene, extra).view(-1, 1, 1, 1)
    combined = _combine(scene, extra, recipe, chance(), opacity())
    scene = _choose((chance() < recipe.combine) & possible, combined, scene)
    mixed = mixing(scene, draw_extra(), opacity())
    return _choose(chance() < recipe.mix, mixed, scene)


def _combine(
    scene: Scene, extra: Scene, recipe: SuemRecipe, draw: Tensor, opacity: Tensor
) -> Scene:
    modes = {
        "union": union(scene, extra),
        "exclusion": exclusion(scene, extra),
        "mix_object": mix_object(scene, extra, opacity),
    }
    chosen = (draw * len(recipe.combinations)).long()
    result = scene
    for index, name in enumerate(recipe.combinations):
        result = _choose(chosen == index, modes[name], result)
    return result


def _choose(condition: Tensor, yes: Scene, no: Scene) -> Scene:
    return Scene(
        torch.where(condition, yes.image, no.image),
        torch.where(condition, yes.mask, no.mask),
    )


def recombined(
    batch: WindowBatch,
    draw_extra: Callable[[], WindowBatch],
    generator: torch.Generator,
    recipe: SuemRecipe,
) -> WindowBatch:
    """Copy-paste between windows; pixels unknown in any of them stay unknown."""
    valid = batch.valid

    def extra_scene() -> Scene:
        nonlocal valid
        extra = draw_extra()
        valid = valid & extra.valid
        return Scene(extra.image, extra.mask)

    scene = recombine(Scene(batch.image, batch.mask), extra_scene, generator, recipe)
    real = batch.real
    if real is not None:  # clicks on this very object
        same = (scene.mask == batch.mask).flatten(1).all(1).view(-1, 1, 1)
        real = torch.where(same, real, torch.full_like(real, -1.0))
    windows = scene.image, scene.mask, batch.others & (scene.mask < 0.5), valid
    return WindowBatch(*windows, batch.first_click, real)


@dataclass(frozen=True, slots=True)
class PhotometricRecipe:
    """Ranges of the first three changes, probabilities of the others."""

    contrast: float = 0.5  #: exp(±c) about the middle, always applied
    brightness: float = 0.15  #: offset ±b, always applied
    gamma: float = 0.6  #: exponent exp(±g), with probability 0.5
    invert: float = 0.12
    grey: float = 0.15  #: average the channels
    shuffle: float = 0.15  #: permute them
    mix: float = 0.2  #: mix them linearly
    drop: float = 0.04  #: silence one
    blur: float = 0.25
    noise: float = 0.35  #: Gaussian, growing with the signal
    shading: float = 0.2  #: a slanted illumination

    def scaled(self, share: float) -> PhotometricRecipe:
        """Return the recipe with every probability and range times ``share``."""
        return PhotometricRecipe(*(share * value for value in astuple(self)))


def vary(
    image: Tensor, generator: torch.Generator, recipe: PhotometricRecipe | None = None
) -> Tensor:
    """Return (B, 3, H, W) images with other contrast, colours, sharpness and noise."""
    recipe = recipe or PhotometricRecipe()
    batch, device = image.shape[0], image.device

    def chance() -> Tensor:
        return torch.rand(batch, 1, 1, 1, generator=generator, device=device)

    def spread() -> Tensor:
        return chance() * 2 - 1

    def happens(share: float) -> Tensor:
        return (chance() < share).float()

    x = _colours(image, recipe, generator)
    x = x.clamp(1e-4, 1) ** torch.exp(recipe.gamma * spread() * happens(0.5))
    inverted = happens(recipe.invert)
    x = x * (1 - inverted) + (1 - x) * inverted
    x = (x - 0.5) * torch.exp(recipe.contrast * spread()) + 0.5
    x = x + recipe.brightness * spread()
    height, width = x.shape[-2:]
    ramp_y = torch.linspace(-1, 1, height, device=device).view(1, 1, -1, 1)
    ramp_x = torch.linspace(-1, 1, width, device=device).view(1, 1, 1, -1)
    slant = spread() * ramp_y + spread() * ramp_x
    x = x * (1 + 0.3 * slant * happens(recipe.shading))
    x = _blur(x, ((0.3 + 1.9 * chance()) * happens(recipe.blur)).flatten())
    noise = torch.randn(x.shape, generator=generator, device=device)
    signal = 0.3 + x.clamp(0, 1).sqrt()
    x = x + 0.09 * chance() * happens(recipe.noise) * signal * noise
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
