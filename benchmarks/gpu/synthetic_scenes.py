"""Pack made-up scenes, whose borders are known exactly, beside the training packs.

    python benchmarks/gpu/synthetic_scenes.py PACKS --scenes 300 [--seed 0]

Textures come from PACKS/train-*.zip; the scenes go to PACKS/train-synthetic-N.zip.

Annotators draw outlines a pixel in or out; here a border is where the object ends.
Scenes are made of random shapes (blobs, ellipses, polygons, rods, rings, some inside
others, many touching) filled and surrounded with texture cut from real images, with
bright or dark rims, shading, blur and noise. One scene's objects look alike, as those
of a micrograph do.

Everything is drawn at twice the resolution and averaged: what a border pixel shows is
the share of it that each side covers, and its label is the larger share's.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from packs import read_pack, write_pack
from scipy import ndimage

from cfrseg_training.loop.atlas import Sample

#: scenes a part
PART = 100
FloatPlane = NDArray[np.float32]
BoolPlane = NDArray[np.bool_]

KINDS = ("blob", "ellipse", "polygon", "rod", "ring", "cloud")
#: scenes are drawn at this multiple of their resolution
FINE = 2


@dataclass(frozen=True, slots=True)
class SceneRecipe:
    """Settings of the made-up scenes.

    Attributes
    ----------
    side
        Of the image in pixels.
    radius_px
        Range of the objects' mean radius over all scenes, log-uniform; within one
        scene sizes differ by about a factor of two.
    coverage
        Range of the share of the plane that objects are tried for.
    nested
        Probability that a scene's objects get others inside.
    rim
        Probability of a bright or dark rim.
    least_visible
        Objects of which less stays uncovered are left out.
    """

    side: int = 320
    radius_px: tuple[float, float] = (5.0, 70.0)
    coverage: tuple[float, float] = (0.05, 0.7)
    nested: float = 0.2
    rim: float = 0.5
    least_visible: float = 0.5


def cut_textures(
    samples: Sequence[Sample], rng: np.random.Generator, count: int, side: int = 96
) -> list[NDArray[np.uint8]]:
    """Cut squares without any object from labelled images.

    Returns
    -------
    At most ``count`` arrays (side, side, 3) uint8; sparse sets give none.
    """
    usable = [s for s in samples if not s.is_sparse and min(s.labels.shape) >= side]
    found: list[NDArray[np.uint8]] = []
    for _ in range(60 * count if usable else 0):
        sample = usable[rng.integers(len(usable))]
        y, x = (int(rng.integers(n - side + 1)) for n in sample.labels.shape)
        part = slice(y, y + side), slice(x, x + side)
        if (sample.labels[part] > 0).mean() < 0.01:
            found.append(sample.image[part])
            if len(found) == count:
                break
    return found


def scene(
    textures: Sequence[NDArray[np.uint8]],
    rng: np.random.Generator,
    recipe: SceneRecipe | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Make one scene.

    Parameters
    ----------
    textures
        Squares (s, s, 3) uint8 to cut from; at least one.
    rng
        The only source of chance.

    Returns
    -------
    (Y, X, 3) uint8 image and (Y, X) int32 labels, 0 background.
    """
    recipe = recipe or SceneRecipe()
    size = FINE * recipe.side
    owner = _place(size, rng, recipe)
    image = _field(textures, size, rng)
    style = _Style.draw(textures, size, rng, recipe, float(image.mean()))
    for number, box in enumerate(ndimage.find_objects(owner), 1):
        if box is not None:
            grown = tuple(slice(max(s.start - 8, 0), s.stop + 8) for s in box)
            _fill(image[grown], owner[grown] == number, style, grown, rng)
    image = ndimage.gaussian_filter(image, (style.blur, style.blur, 0))
    small = image.reshape(recipe.side, FINE, recipe.side, FINE, 3).mean(axis=(1, 3))
    noise = rng.normal(0, style.noise, (*small.shape[:2], 1 if style.grey else 3))
    small = small + noise * np.sqrt(0.3 + small.clip(0, 1))
    if style.grey:
        small = np.repeat(small.mean(axis=2, keepdims=True), 3, axis=2)
    return (255 * small.clip(0, 1)).astype(np.uint8), _labels(owner, recipe)


def scenes(
    samples: Sequence[Sample],
    count: int,
    seed: int = 0,
    recipe: SceneRecipe | None = None,
) -> list[Sample]:
    """Make scenes of textures cut from labelled images; some have no object."""
    rng = np.random.default_rng(seed)
    textures = cut_textures(samples, rng, 200)
    if not textures:
        msg = "no part of these images is free of objects: nothing to cut textures from"
        raise ValueError(msg)
    made = []
    for number in range(count):
        image, labels = scene(textures, rng, recipe)
        made.append(Sample(image, labels, "synthetic", f"scene {number % 100}"))
    return made


# -- where things are ----------------------------------------------------------------


def _place(
    size: int, rng: np.random.Generator, recipe: SceneRecipe
) -> NDArray[np.int32]:
    """(size, size) numbers of the objects on top."""
    low, high = (math.log(FINE * r) for r in recipe.radius_px)
    typical = math.exp(rng.uniform(low, high))
    kinds = rng.choice(KINDS, size=int(rng.integers(1, 3)))
    wanted = rng.uniform(*recipe.coverage) * size * size
    owner = np.zeros((size, size), np.int32)
    full: list[int] = [0]
    for _ in range(400):
        if sum(full) > wanted and len(full) > 1:
            break
        radius = typical * math.exp(rng.normal(0, 0.3))
        mask = shape(str(rng.choice(kinds)), radius, rng)
        y, x = (int(rng.integers(-n // 3, size - 2 * n // 3 + 1)) for n in mask.shape)
        _put(owner, mask, (y, x), full)
        if rng.random() < recipe.nested:
            inner = shape("blob", radius * rng.uniform(0.25, 0.5), rng)
            at = (
                y + (mask.shape[0] - inner.shape[0]) // 2,
                x + (mask.shape[1] - inner.shape[1]) // 2,
            )
            _put(owner, inner, at, full)
    seen = np.bincount(owner.reshape(-1), minlength=len(full))
    hidden = seen < recipe.least_visible * np.asarray(full)
    hidden[0] = False
    owner[hidden[owner]] = 0
    return owner


def _put(
    owner: NDArray[np.int32], mask: BoolPlane, at: tuple[int, int], full: list[int]
) -> None:
    """Paint one shape, remembering how large it is inside the plane."""
    y, x = at
    top, left = max(-y, 0), max(-x, 0)
    part = owner[max(y, 0) : y + mask.shape[0], max(x, 0) : x + mask.shape[1]]
    inside = mask[top : top + part.shape[0], left : left + part.shape[1]]
    if inside.sum() < 0.5 * mask.sum() or not inside.any():
        return
    part[inside] = len(full)
    full.append(int(inside.sum()))


def shape(kind: str, radius: float, rng: np.random.Generator) -> BoolPlane:
    """Return a shape of about a mean radius (pixels), cut to its own square."""
    reach = math.ceil(2.2 * radius) + 2
    axis = np.arange(-reach, reach + 1, dtype=np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    turn = rng.uniform(0, 2 * math.pi)
    u, v = (
        x * math.cos(turn) + y * math.sin(turn),
        y * math.cos(turn) - x * math.sin(turn),
    )
    angle = np.arctan2(v, u)
    distance = np.hypot(u, v)
    if kind == "ellipse":
        ratio = rng.uniform(1, 2.5) ** 0.5
        return np.hypot(u / ratio, v * ratio) <= radius
    if kind == "polygon":
        sides = int(rng.integers(3, 8))
        step = 2 * math.pi / sides
        within = (angle % step) - step / 2
        return distance * np.cos(within) <= radius * rng.uniform(0.75, 0.95)
    if kind == "rod":
        bend = v - rng.uniform(-0.5, 0.5) * u * u / (2 * radius)
        half = radius * rng.uniform(1.2, 1.9)
        wide = max(1.5, radius * rng.uniform(0.15, 0.5))
        beyond = np.maximum(np.abs(u) - half + wide, 0)
        return np.hypot(beyond, bend) <= wide
    if kind == "ring":
        outer = _wavy(angle, radius, rng, 0.12)
        return (distance <= outer) & (distance > outer * rng.uniform(0.4, 0.8))
    if kind == "cloud":
        noise = ndimage.gaussian_filter(rng.normal(size=u.shape), radius / 3)
        noise = noise / (noise.std() + 1e-6)
        mask = noise * 0.45 + 1.1 - distance / radius > 0
        regions, _ = ndimage.label(mask)
        return regions == regions[reach, reach] if regions[reach, reach] else mask
    return distance <= _wavy(angle, radius, rng, 0.3)


def _wavy(
    angle: FloatPlane, radius: float, rng: np.random.Generator, most: float
) -> FloatPlane:
    """Radius by angle: a circle with a few random waves."""
    waves = sum(
        rng.normal(0, most / k) * np.cos(k * angle + rng.uniform(0, 2 * math.pi))
        for k in range(2, 7)
    )
    return radius * np.clip(1 + waves, 0.35, 1.9)


def _labels(owner: NDArray[np.int32], recipe: SceneRecipe) -> NDArray[np.int32]:
    """Give each pixel to the object that covers most of it."""
    side = recipe.side
    quads = owner.reshape(side, FINE, side, FINE).transpose(0, 2, 1, 3)
    quads = quads.reshape(side, side, FINE * FINE)
    votes = (quads[..., :, None] == quads[..., None, :]).sum(-1)
    best = votes.argmax(axis=-1)
    labels: NDArray[np.int32] = np.take_along_axis(quads, best[..., None], -1)[..., 0]
    return labels


# -- how things look -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Style:
    """How one scene's objects look."""

    colour: NDArray[np.float64]
    texture: FloatPlane
    share: float
    rim: NDArray[np.float64]
    rim_px: float
    outside: bool
    shading: float
    uneven: float
    blur: float
    noise: float
    grey: bool

    @classmethod
    def draw(
        cls,
        textures: Sequence[NDArray[np.uint8]],
        size: int,
        rng: np.random.Generator,
        recipe: SceneRecipe,
        around: float,
    ) -> _Style:
        # objects brighter or darker than what is around them, mostly where there is
        # room for it
        room = 1.0 if around < 0.5 else -1.0
        contrast = (room if rng.random() < 0.8 else -room) * rng.uniform(0.08, 0.4)
        grey = rng.random() < 0.6
        tint = np.zeros(3) if grey else rng.normal(0, 0.12, 3)
        has_rim = rng.random() < recipe.rim
        rim = rng.choice([-1, 1]) * rng.uniform(0.1, 0.5) * has_rim
        return cls(
            colour=contrast + tint,
            texture=_field(textures, size, rng),
            share=rng.uniform(0, 0.9),
            rim=rim + tint / 2 * has_rim,
            rim_px=FINE * rng.uniform(0.7, 3.5),
            outside=rng.random() < 0.3,
            shading=rng.uniform(0, 0.25),
            uneven=rng.uniform(0, 0.12),
            blur=FINE * rng.choice([0.3, rng.uniform(0.3, 2.0)]),
            noise=rng.choice([0.0, rng.uniform(0, 0.08)]),
            grey=grey,
        )


def _field(
    textures: Sequence[NDArray[np.uint8]], size: int, rng: np.random.Generator
) -> FloatPlane:
    """(size, size, 3) in [0, 1]: a texture, turned, enlarged and mirrored to fill."""
    part = textures[rng.integers(len(textures))].astype(np.float32) / 255
    part = np.rot90(part, int(rng.integers(4)))
    zoom = math.exp(rng.uniform(math.log(1.0), math.log(4.0)))
    part = ndimage.zoom(part, (zoom, zoom, 1), order=1)
    part = np.concatenate([part, part[::-1]], axis=0)
    part = np.concatenate([part, part[:, ::-1]], axis=1)
    times = math.ceil(size / part.shape[0])
    tiled = np.tile(part, (times, times, 1))[:size, :size]
    # many backgrounds are black: objects must have room on both sides
    return np.asarray(tiled * rng.uniform(0.5, 1) + rng.uniform(0, 0.5), np.float32)


def _fill(
    image: FloatPlane,
    mask: BoolPlane,
    style: _Style,
    at: tuple[slice, ...],
    rng: np.random.Generator,
) -> None:
    """Paint one object on a part of the image, in place."""
    inside = mask[..., None]
    level = image[mask].mean(axis=0) + style.colour + rng.normal(0, style.uneven)
    texture = style.texture[at]
    body = level + style.share * (texture - texture.mean(axis=(0, 1)))
    ramp = np.linspace(-1, 1, mask.shape[0])[:, None, None]
    body = body * (1 + style.shading * rng.uniform(-1, 1) * ramp)
    if style.rim.any():
        depth = ndimage.distance_transform_edt(mask)
        band = np.exp(-0.5 * (depth / style.rim_px) ** 2)[..., None]
        body = body + style.rim * band
        if style.outside:
            away = ndimage.distance_transform_edt(~mask)
            halo = np.exp(-0.5 * (away / style.rim_px) ** 2)[..., None]
            image[:] = np.where(inside, image, image - 0.5 * style.rim * halo)
    image[:] = np.where(inside, body, image).clip(0, 1)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packs", type=Path)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    real = [p for p in options.packs.glob("train-*.zip") if "synthetic" not in p.name]
    samples = [sample for path in sorted(real) for sample in read_pack(path)]
    made = scenes(samples, options.scenes, options.seed)
    for number, start in enumerate(range(0, len(made), PART)):
        path = options.packs / f"train-synthetic-{number}.zip"
        size = write_pack(made[start : start + PART], path)
        print(path, f"{size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
