"""Learn what finished objects have in common; find places on a plane like them.

Grey values are projected onto what tells the finished objects from their surroundings;
maxima of the Laplacian of Gaussian at their sizes are the seeds of suggestions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Box, Window, crop, mask_box
from napari_cfrseg.io.plane_image import PlaneImage, Scaling

#: blobs this much weaker than the finished objects are no seeds
_WEAKEST = 0.2
#: finished objects larger than this times the smallest of their scale have another
_SCALES = 2.5


class Seed(NamedTuple):
    """A blob: its middle pixel, its diameter in pixels, its response (1: as learnt)."""

    yx: tuple[int, int]
    size: float
    response: float


@dataclass(frozen=True, slots=True, eq=False)
class Appearance:
    """An object as its window shows it: colours in [0, 1], areas in pixels."""

    colour: NDArray[np.float64]
    contrast: NDArray[np.float64]
    log_area: float
    log_roughness: float

    @classmethod
    def at(
        cls, image: NDArray[np.float32], inside: NDArray[np.bool_], cell: float
    ) -> Appearance:
        """Describe a mask on the grid of a (3, grid, grid) window."""
        count: int = max(int(np.count_nonzero(inside)), 1)
        box = mask_box(inside) or (0, 0, 1, 1)
        reach = max(2, round(0.2 * math.sqrt(count)))
        rows = slice(max(box[0] - reach, 0), box[2] + reach)
        columns = slice(max(box[1] - reach, 0), box[3] + reach)
        body, pixels = inside[rows, columns], image[:, rows, columns]
        ring = ndimage.binary_dilation(body, iterations=reach) & ~body
        outline = int(np.count_nonzero(body & ~ndimage.binary_erosion(body)))
        colour = pixels[:, body].mean(1) if body.any() else np.zeros(3)
        around = pixels[:, ring].mean(1) if ring.any() else colour
        return cls(
            colour.astype(float),
            (colour - around).astype(float),
            math.log(count * cell * cell),
            2 * math.log(outline + 1) - math.log(count),
        )


class Scale(NamedTuple):
    """Traits that tell finished objects of one size from their surroundings."""

    size: float  #: diameter in pixels that grey values are smoothed for
    #: (channels, constant last) weights of the features of :func:`features_of`
    projection: NDArray[np.float64]
    response: float  #: the blob response inside them


@dataclass(frozen=True, slots=True, eq=False)
class Likeness:
    """Common traits of the finished objects; small, and holds for other planes."""

    sizes: tuple[float, ...]  #: diameters of circles of their areas, in pixels
    elongation: float  #: longer side of their boxes over that diameter
    looks: tuple[Appearance, ...]  #: what is seen of them
    scales: tuple[Scale, ...]  #: the smallest first
    #: weights of :func:`close_features_of` that tell their insides from close to them
    border: NDArray[np.float64]
    #: black and white where the finished objects lie outside those of their plane
    scaling: Scaling | None = None

    @property
    def step(self) -> int:
        """Pixels per cell of the map that seeds are searched on."""
        return max(1, int(min(self.sizes) / 8))

    @property
    def reach(self) -> int:
        """Pixels around a place that its seeds depend on, in whole cells."""
        cell = self.step << _octave(max(self.sizes) / self.step)
        return cell * math.ceil(3 * max(self.sizes) / cell)

    def scale_of(self, size: float) -> Scale:
        """Return the scale on which objects of a diameter are looked for."""
        return min(self.scales, key=lambda s: abs(math.log(s.size / size)))

    def traits(
        self, look: Appearance, quality: float, confidence: float, blob: float
    ) -> tuple[float, ...]:
        """Return what the score of a mask is computed from."""
        areas = np.array([known.log_area for known in self.looks])
        spread = max(float(areas.std(ddof=1)) if len(areas) > 1 else 0.0, 0.35)
        contrast = np.mean([known.contrast for known in self.looks], axis=0)
        span = float(np.linalg.norm(contrast)) + 0.03
        away = (np.linalg.norm(known.colour - look.colour) for known in self.looks)
        unlike = float(min(away))
        along = float(look.contrast @ contrast) / (float(contrast @ contrast) + 1e-4)
        rough = np.mean([known.log_roughness for known in self.looks])
        quality = min(max(quality, 0.02), 0.98)
        return (
            math.log(quality / (1 - quality)),
            confidence,
            min(abs(look.log_area - float(areas.mean())) / spread, 4.0),
            min(unlike / span, 3.0),
            min(max(along, -1.0), 2.0),
            min(abs(look.log_roughness - float(rough)), 2.0),
            min(blob, 1.5),
        )


def learn(image: PlaneImage, finished: Sequence[MaskPatch], grid: int) -> Likeness:
    """Learn what finished objects of a plane have in common.

    ValueError if none of the masks holds a pixel.
    """
    masks = [mask for mask in finished if mask.mask.size]
    if not masks:
        msg = "no object is finished on this plane: outline one, better three, first"
        raise ValueError(msg)
    sizes = tuple(2 * math.sqrt(mask.area / math.pi) for mask in masks)
    longer, looks, closely = [], [], []
    for mask, size in zip(masks, sizes, strict=True):
        longer.append(max(mask.mask.shape) / size)
        y0, x0, y1, x1 = mask.box
        centre = ((y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2)
        side = max(32, round(1.6 * max(mask.mask.shape)))
        window = Window.centred(centre, side, grid, image.shape)
        inside = mask.window(window.box).astype(np.float32)
        body = crop(inside, Window(0, 0, side, grid))[0] > 0.5
        pixels = image.crop(window)
        looks.append(Appearance.at(pixels, body, window.px_per_cell))
        away = ndimage.distance_transform_edt(np.where(body, 0, 1))
        depth = ndimage.distance_transform_edt(body)
        near = np.maximum(away, depth) <= 0.25 * math.sqrt(np.count_nonzero(body))
        features = close_features_of(pixels[: image.channels])
        closely.append((features, near & body, near & ~body))
    border = _separate(closely)
    known = Likeness(sizes, float(np.median(longer)), tuple(looks), (), border)
    return replace(known, scales=tuple(_scales(image, masks, known)))


def _scales(
    image: PlaneImage, masks: Sequence[MaskPatch], known: Likeness
) -> Iterator[Scale]:
    """Yield a scale for each group of finished objects of about one size."""
    groups: list[list[int]] = []
    for index in np.argsort(known.sizes).tolist():
        if not groups or known.sizes[index] > _SCALES * known.sizes[groups[-1][0]]:
            groups.append([])
        groups[-1].append(index)
    for group in groups:
        own = [known.sizes[index] for index in group]
        size = float(np.median(own))
        maps = [_surroundings(image, masks[i], masks, known, size) for i in group]
        projection = _separate(maps)
        strongest = [
            max(
                float(blobs[_sampled(inside, r)].max(initial=0))
                for blobs, _, r in _blob_maps(
                    project(features, projection), _blob_sizes(own), known.step
                )
            )
            for features, inside, _ in maps
        ]
        yield Scale(size, projection, max(float(np.median(strongest)), 1e-3))


def _surroundings(
    image: PlaneImage,
    mask: MaskPatch,
    masks: Sequence[MaskPatch],
    known: Likeness,
    size: float,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return features around a mask, cells in any finished object and near this one."""
    step, reach = known.step, known.reach
    y0, x0, y1, x1 = mask.box
    height, width = image.shape
    box = (
        max(0, (y0 - reach) // step * step),
        max(0, (x0 - reach) // step * step),
        min(height, y1 + reach),
        min(width, x1 + reach),
    )
    features = features_of(read_cells(image, box, step), size / step)
    inside = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
    for other in masks:
        inside |= other.window(box)
    away = ndimage.distance_transform_edt(~mask.window(box))
    near = (away > 0) & (away <= max(2.0, 0.3 * size)) & ~inside
    return features, _sampled(inside, step), _sampled(near, step)


def _sampled(mask: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    return _shrunk(mask.astype(np.float32), step) > 0.5


def _separate(
    parts: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]],
) -> NDArray[np.float64]:
    """Fit weights that give 1 inside the finished objects and 0 around them."""
    inner = np.concatenate([f[:, inside].T for f, inside, _ in parts])
    outer = np.concatenate([f[:, near].T for f, _, near in parts])
    if not len(inner) or not len(outer):
        return np.append(np.ones(parts[0][0].shape[0]), 0.0)
    values = np.concatenate([inner, outer]).astype(float)
    share = np.repeat([0.5 / len(inner), 0.5 / len(outer)], [len(inner), len(outer)])
    mean, spread = values.mean(0), values.std(0) + 1e-3
    scaled = np.c_[(values - mean) / spread, np.ones(len(values))]
    wanted = np.repeat([1.0, 0.0], [len(inner), len(outer)])
    gram = scaled.T @ (share[:, None] * scaled) + 1e-2 * np.eye(scaled.shape[1])
    beta = np.linalg.solve(gram, scaled.T @ (share * wanted))
    weights = beta[:-1] / spread
    return np.append(weights, beta[-1] - weights @ mean)


def read_cells(image: PlaneImage, box: Box, step: int) -> NDArray[np.float32]:
    """(C, h, w) grey values of a box in cells of ``step`` pixels."""
    y0, x0, y1, x1 = box
    pixels = np.asarray(image.array[y0:y1, x0:x1])
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    scaled = image.scaling.apply(pixels[:, :, : image.channels])
    return np.stack([_shrunk(scaled[:, :, c], step) for c in range(image.channels)])


def _shrunk(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Average over blocks; the last rows and columns are repeated to fill them."""
    if step == 1:
        return values
    height, width = values.shape
    padded = np.pad(values, ((0, -height % step), (0, -width % step)), mode="edge")
    shape = (padded.shape[0] // step, step, padded.shape[1] // step, step)
    mean: NDArray[np.float32] = padded.reshape(shape).mean((1, 3))
    return mean


def features_of(cells: NDArray[np.float32], middle: float) -> NDArray[np.float32]:
    """(3 C, h, w): grey values at two scales, and how much they vary.

    ``middle`` is the diameter of objects, in cells.
    """

    def smooth(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        found: NDArray[np.float32] = ndimage.gaussian_filter(
            values, (0, sigma, sigma), mode="nearest"
        )
        return found

    fine = smooth(cells, middle / 16)
    varies = smooth(np.abs(cells - fine), middle / 8)
    return np.concatenate([fine, smooth(cells, middle / 6), varies])


def close_features_of(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """(4 C, h, w): a window's pixels at two scales, how they vary, and their slope."""
    fine = ndimage.gaussian_filter(pixels, (0, 0.8, 0.8), mode="nearest")
    wide = ndimage.gaussian_filter(pixels, (0, 2.5, 2.5), mode="nearest")
    varies = ndimage.gaussian_filter(np.abs(pixels - fine), (0, 1.5, 1.5))
    slope = [ndimage.gaussian_gradient_magnitude(one, 1.2) for one in pixels]
    return np.concatenate([fine, wide, varies, slope])


def project(
    features: NDArray[np.float32], projection: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(h, w): about 1 inside objects like the finished ones, 0 around them."""
    shown = np.tensordot(projection[:-1].astype(np.float32), features, 1)
    shown += np.float32(projection[-1])
    clipped: NDArray[np.float32] = np.clip(shown, -0.5, 1.5)
    return clipped


def _octave(cells: float) -> int:
    """How often a map is halved before blobs of so many cells are searched on it."""
    return max(0, int(math.log2(max(cells, 1.0) / 8)))


def _blob_sizes(sizes: Sequence[float]) -> list[float]:
    """Return the diameters of the blobs that objects of some diameters are."""
    low, high = 0.5 * min(sizes), 1.35 * max(sizes)
    count = max(2, math.ceil(2 * math.log2(high / low)) + 1)
    return [*map(float, np.geomspace(low, high, count))]


def _blob_maps(
    shown: NDArray[np.float32], sizes: Sequence[float], step: int
) -> Iterator[tuple[NDArray[np.float32], float, int]]:
    """Yield (response, diameter in pixels, shrinking), normalised over the sizes."""
    for size in sizes:
        shrinking = 2 ** _octave(size / step)
        sigma = size / step / shrinking / 2 / math.sqrt(2)
        cells = _shrunk(shown, shrinking)
        laplace = ndimage.gaussian_laplace(cells, sigma, mode="nearest", truncate=3.0)
        yield (-laplace * sigma**2).astype(np.float32), size, shrinking


def find_seeds(
    cells: NDArray[np.float32], origin: tuple[int, int], known: Likeness
) -> NDArray[np.float64]:
    """(N, 4) blobs: row, column, diameter, response; the strongest first."""
    found = []
    sizes = _blob_sizes(known.sizes)
    for scale in known.scales:
        at = [size for size in sizes if known.scale_of(size) is scale]
        shown = project(features_of(cells, scale.size / known.step), scale.projection)
        for response, size, shrinking in _blob_maps(shown, at, known.step):
            cell = known.step * shrinking
            around = max(3, int(0.5 * size / cell) | 1)
            top = ndimage.maximum_filter(response, around, mode="nearest")
            is_strong = response >= _WEAKEST * scale.response
            peaks = np.argwhere((response == top) & is_strong)
            values = response[tuple(peaks.T)] / scale.response
            places = (peaks + 0.5) * cell - 0.5 + np.asarray(origin)
            found.append(np.c_[places, np.full(len(peaks), size), values])
    seeds = np.concatenate(found)
    seeds = seeds[np.argsort(-seeds[:, 3], kind="stable")]
    if not len(seeds):
        return seeds
    tree, taken, kept = cKDTree(seeds[:, :2]), np.zeros(len(seeds), bool), []
    for index, seed in enumerate(seeds):
        if not taken[index]:
            kept.append(index)
            taken[tree.query_ball_point(seed[:2], 0.3 * seed[2])] = True
    return seeds[kept]
