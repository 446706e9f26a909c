"""SUEM copy-paste (CFR-ICL, section 3.3): new scenes from two labelled windows.

==========  =======================================  ==========================
mode        image                                    truth
==========  =======================================  ==========================
Simple      source object pasted on the extra image  the source object
Union       extra object pasted on the source image  source ∪ extra
Exclusion   extra object pasted on the source image  source − extra
Mixing      the two images blended                   the source object
==========  =======================================  ==========================

Windows are of one size and pasting is pixel-aligned, as published. The published code
pastes Simple's object with an opacity in [0.5, 1] (the paper's figures are opaque) and
has a fifth mode, ``mix_object``, that the paper does not name: the extra object's
region is blended into the source, and the truth stays.

On micrographs a pasted nucleus may glow among dim ones: ``match_intensity`` first
brings the pasted object's contrast to that of the place it lands on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: pixels of the source object that must stay visible (published code)
MIN_VISIBLE_PX = 20


@dataclass(frozen=True, slots=True)
class Scene:
    """A window and its object.

    Attributes
    ----------
    image
        (B, 3, H, W) float in [0, 1].
    mask
        (B, 1, H, W) float, 1 on the object.
    """

    image: Tensor
    mask: Tensor


def simple(source: Scene, extra: Scene, opacity: Tensor | float = 1.0) -> Scene:
    """Paste the source object, at its own place, on the extra image.

    Parameters
    ----------
    opacity
        α, a number or (B, 1, 1, 1); published: uniform in [0.5, 1].
    """
    share = opacity * source.mask
    image = share * source.image + (1 - share) * extra.image
    return Scene(image, source.mask)


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
    visible = (source.mask * (1 - extra.mask)).sum(dim=(1, 2, 3))
    return visible > MIN_VISIBLE_PX


def match_intensity(pasted: Scene, onto: Scene) -> Scene:
    """Give an object the mean and spread, per channel, of the object it lands beside.

    Parameters
    ----------
    pasted
        Its pixels change under its mask only.
    onto
        The scene whose object is the measure; without an object, its whole window is.

    Returns
    -------
    The pasted scene, image in [0, 1].
    """
    mean, spread = _moments(pasted.image, pasted.mask)
    weight = torch.where(
        onto.mask.flatten(1).any(1).view(-1, 1, 1, 1),
        onto.mask,
        torch.ones_like(onto.mask),
    )
    wanted_mean, wanted_spread = _moments(onto.image, weight)
    gain = (wanted_spread / spread).clamp(0.25, 4)
    matched = ((pasted.image - mean) * gain + wanted_mean).clamp(0, 1)
    image = torch.where(pasted.mask > 0.5, matched, pasted.image)
    return Scene(image, pasted.mask)


def _moments(image: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    dims = (2, 3)
    total = weight.sum(dims, keepdim=True).clamp(min=1)
    mean = (image * weight).sum(dims, keepdim=True) / total
    variance = ((image - mean).square() * weight).sum(dims, keepdim=True) / total
    return mean, variance.sqrt() + 0.02


@dataclass(frozen=True, slots=True)
class SuemRecipe:
    """How often each mode is met.

    Attributes
    ----------
    paste, combine, mix
        Probabilities of Simple, then of one of ``combinations``, then of Mixing, each
        drawn independently (published: 0.5 each).
    combinations
        Modes of the second step, equally likely: "union", "exclusion", "mix_object"
        (the published code has all three; the paper the first two).
    opacity
        Range of α (published [0.5, 1]; 1 to 1 for opaque Simple pastes).
    matched
        Whether pasted objects take the intensities of where they land.
    """

    paste: float = 0.5
    combine: float = 0.5
    mix: float = 0.5
    combinations: tuple[str, ...] = ("union", "exclusion")
    opacity: tuple[float, float] = (0.5, 1.0)
    matched: bool = True

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

    Parameters
    ----------
    source
        The batch's own windows.
    draw_extra
        Returns as many other windows, anew at each call.
    generator
        Of the batch's device.
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
