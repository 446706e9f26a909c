"""All training images in one buffer, from which windows are drawn in batches.

Every image (with three coarser levels of it) and every label map lies in one flat
tensor; a batch of windows of any centre, side, rotation and stretch is then a single
gather, on the CPU or on a GPU, with no loader processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure
from torch import Tensor

#: interior points kept per object: the innermost, 4 near it, 4 anywhere inside
POINTS = 9
#: levels of each image: full, 1/2, 1/4, 1/8
LEVELS = 4
#: a person's click: (label, y, x, is positive)
RealClick = tuple[int, float, float, bool]
#: of one object's clicks this many are kept
MOST_CLICKS = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image; data set and group steer how often it is drawn."""

    image: NDArray[np.uint8]  #: (Y, X, 3), intensities already scaled
    #: (Y, X), 0 background; each connected component of a label is an object
    labels: NDArray[np.integer]
    dataset: str
    group: str
    #: where unlabelled does not mean background, pixels away from the drawn object are
    #: ignored by the losses
    is_sparse: bool = False
    ignore: NDArray[np.bool_] | None = None  #: (Y, X), unknown pixels
    clicks: tuple[RealClick, ...] = ()  #: a person's, in order


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows drawn from an atlas, on its device."""

    image: Tensor  #: (B, 3, G, G) float32 in [0, 1]
    mask: Tensor  #: (B, 1, G, G) float32, 1 inside the drawn object
    others: Tensor  #: (B, 1, G, G) bool, pixels of other objects
    valid: Tensor  #: (B, 1, G, G) bool, False outside the plane and at unknown labels
    first_click: Tensor  #: (B, 2) float32 (y, x) on the grid, inside the object
    #: (B, K, 3) float32 rows ``[y, x, label]`` on the grid, the clicks a person made on
    #: the drawn object (label −1: none), or None where there are none at all
    real: Tensor | None = None


@dataclass(frozen=True, slots=True)
class WindowRecipe:
    """How windows are laid around objects."""

    zoomed: float = 0.6  #: share of windows like those after the first click
    #: range of object extent over window side in those, roughly centred
    zoomed_extent: tuple[float, float] = (0.3, 0.8)
    #: the same, log-uniform, in the others: the first click's search, centred on it
    searching_extent: tuple[float, float] = (0.07, 1.6)
    shift: float = 0.15  #: largest offset of a zoomed window, in sides
    stretch: float = 1.2  #: largest factor between the two axes
    rotate: bool = True  #: whether windows are turned by any angle
    side_px: tuple[float, float] = (24.0, 4096.0)  #: bounds, in image pixels


class Layout(NamedTuple):
    """Where windows lie: cell g, from the middle, shows ``centre + matrix @ g``."""

    objects: Tensor  # (B,) long, indices of the objects
    centre: Tensor  # (B, 2) float, plane pixels
    matrix: Tensor  # (B, 2, 2) float, plane pixels per cell
    click: Tensor  # (B, 2) float, plane pixels: a point inside the object


#: Windows as the product lays them after the first click, to measure in.
AFTER_FIRST_CLICK = WindowRecipe(zoomed=1.0, rotate=False, stretch=1.0001, shift=0.05)


class Atlas:
    """Images, labels and objects, flat in memory (see the module docstring).

    ``seed`` is of the interior points; components below ``min_area_px`` are no objects.
    A data set of n groups is drawn in proportion to n ** ``set_power``.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        device: torch.device | str = "cpu",
        *,
        seed: int = 0,
        min_area_px: int = 30,
        set_power: float = 0.4,
    ) -> None:
        rng = np.random.default_rng(seed)
        samples = list(samples)
        if not samples:
            raise ValueError("no labelled image to train on")
        pixels: list[Tensor] = []
        labels: list[Tensor] = []
        shapes: list[list[tuple[int, int]]] = []
        objects: list[_Object] = []
        for index, sample in enumerate(samples):
            levels = _levels(sample.image)
            pixels += [level.reshape(-1, 3) for level in levels]
            shapes.append([(level.shape[0], level.shape[1]) for level in levels])
            parts = measure.label(sample.labels, background=0, connectivity=2)
            numbered = parts.astype(np.int32)
            labels.append(torch.from_numpy(numbered.reshape(-1)))
            objects += _objects(index, numbered, rng, min_area_px)
            if sample.ignore is not None:
                numbered[sample.ignore] = -1  # shares memory with the tensor
        if not objects:
            msg = f"no object of {min_area_px} px or more in {len(samples)} images"
            raise ValueError(msg)
        self.device = torch.device(device)
        self.pixels = torch.cat(pixels).to(self.device)
        self.labels = torch.cat(labels).to(self.device)
        size = torch.tensor(shapes)  # I L 2
        area = size.prod(dim=2)
        starts = area.flatten().cumsum(0) - area.flatten()
        self.level_size = size.to(self.device)
        self.level_start = starts.view(-1, LEVELS).to(self.device)
        self.label_start = (area[:, 0].cumsum(0) - area[:, 0]).to(self.device)
        self.sparse = torch.tensor([s.is_sparse for s in samples], device=self.device)
        image, label, box, inside, points = zip(*objects, strict=True)
        self.object_image = torch.tensor(image, device=self.device)
        self.object_label = torch.tensor(label, device=self.device)
        self.object_box = torch.tensor(box, dtype=torch.float32, device=self.device)
        self.object_area = torch.tensor(inside, device=self.device).float()
        self.object_points = torch.from_numpy(np.stack(points)).to(self.device)
        real = _real_clicks(samples, image, points)
        self.object_real = None if real is None else real.to(self.device)
        weights = _object_weights(samples, image, set_power)
        self.object_weight = torch.tensor(weights, device=self.device)

    def __len__(self) -> int:
        return len(self.object_image)

    def draw(
        self,
        count: int,
        grid: int,
        generator: torch.Generator,
        recipe: WindowRecipe | None = None,
        objects: Tensor | None = None,
    ) -> WindowBatch:
        """Draw ``count`` windows of ``grid`` × ``grid`` pixels.

        The generator, on the atlas's device, is the only source of chance. ``objects``
        are (B,) indices of the objects, by default drawn by weight.
        """
        return self.gather(self.lay(count, grid, generator, recipe, objects), grid)

    def lay(
        self,
        count: int,
        grid: int,
        generator: torch.Generator,
        recipe: WindowRecipe | None = None,
        objects: Tensor | None = None,
    ) -> Layout:
        """Draw where windows lie; the parameters are those of ``draw``."""
        recipe = recipe or WindowRecipe()
        if objects is None:
            objects = torch.multinomial(
                self.object_weight, count, replacement=True, generator=generator
            )

        def chance(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=self.device)

        box = self.object_box[objects]
        extent = (box[:, 2:] - box[:, :2]).amax(dim=1)
        low, high = recipe.zoomed_extent
        zoomed_fill = low + (high - low) * chance(count)
        low, high = (math.log(v) for v in recipe.searching_extent)
        searching_fill = torch.exp(low + (high - low) * chance(count))
        zoomed = chance(count) < recipe.zoomed
        side = extent / torch.where(zoomed, zoomed_fill, searching_fill)
        side = side.clamp(*recipe.side_px)
        # half of the clicks are the innermost point, as a careful user's
        pick = (chance(count) * 2 * (POINTS - 1)).long() - (POINTS - 2)
        click = self.object_points[objects, pick.clamp(min=0)]
        click = click + (chance(count, 2) - 0.5)
        middle = (box[:, :2] + box[:, 2:] - 1) / 2
        middle = middle + (chance(count, 2) - 0.5) * 2 * recipe.shift * side[:, None]
        centre = torch.where(zoomed[:, None], middle, click)
        angle = chance(count) * (2 * math.pi if recipe.rotate else 0.0)
        ratio = torch.exp((chance(count) * 2 - 1) * math.log(recipe.stretch) / 2)
        flip = torch.where(chance(count, 2) < 0.5, -1.0, 1.0)
        scale = torch.stack([ratio, 1 / ratio], dim=1) * flip
        scale = scale * (side / grid)[:, None]
        cos, sin = angle.cos(), angle.sin()
        turn = torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
        return Layout(objects, centre, turn * scale[:, None, :], click)

    def gather(self, layout: Layout, grid: int) -> WindowBatch:
        """Sample windows that were laid."""
        objects, centre, matrix, click = layout
        axis = torch.arange(grid, device=self.device) - (grid - 1) / 2
        offsets = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
        plane = torch.einsum("bij,yxj->byxi", matrix, offsets)
        plane = plane + centre[:, None, None, :]
        image_index = self.object_image[objects]
        image = self._image(image_index, plane, matrix)
        mask, others, inside = self._labels(objects, image_index, plane)
        away = self._away(objects, plane) & ~others & (mask < 0.5)
        valid = inside & ~(away & self.sparse[image_index].view(-1, 1, 1, 1))
        on_grid = torch.linalg.solve(matrix, (click - centre)[..., None])[..., 0]
        middle = (grid - 1) / 2
        real = None
        if self.object_real is not None:
            real = self.object_real[objects].clone()
            offset = (real[..., :2] - centre[:, None]).transpose(1, 2)
            real[..., :2] = torch.linalg.solve(matrix, offset).transpose(1, 2) + middle
        return WindowBatch(image, mask, others, valid, on_grid + middle, real)

    def _image(self, index: Tensor, plane: Tensor, matrix: Tensor) -> Tensor:
        step = matrix.square().sum(dim=1).sqrt().amax(dim=1)  # plane px per grid px
        level = (step.clamp(min=1).log2() + 0.3).floor().clamp(0, LEVELS - 1).long()
        size = self.level_size[index, level][:, None, None, :]
        start = self.level_start[index, level][:, None, None]
        factor = (2.0 ** level.float()).view(-1, 1, 1, 1)
        where = (plane + 0.5) / factor - 0.5
        out = torch.zeros(*plane.shape[:-1], 3, device=self.device)
        for flat, weight in _bilinear(where, start, size):
            out += self.pixels[flat].float() * weight[..., None]
        return (out / 255).permute(0, 3, 1, 2)

    def _labels(
        self, objects: Tensor, index: Tensor, plane: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        size = self.level_size[index, 0][:, None, None, :]
        start = self.label_start[index][:, None, None]
        inside = ((plane > -0.5) & (plane < size - 0.5)).all(dim=-1)
        wanted = self.object_label[objects].view(-1, 1, 1)
        amount = torch.zeros(plane.shape[:-1], device=self.device)
        for flat, weight in _bilinear(plane, start, size):
            amount += (self.labels[flat] == wanted) * weight
        nearest = torch.minimum(plane.clamp(min=0), (size - 1).float()).round().long()
        flat = start + nearest[..., 0] * size[..., 1] + nearest[..., 1]
        labels = self.labels[flat]
        mask = ((amount > 0.5) & inside)[:, None].float()
        others = ((labels > 0) & (labels != wanted) & inside)[:, None]
        return mask, others & (mask < 0.5), (inside & (labels >= 0))[:, None]

    def _away(self, objects: Tensor, plane: Tensor) -> Tensor:
        """(B, 1, G, G) bool: outside the object's box widened by a quarter."""
        box = self.object_box[objects][:, None, None, :]
        margin = 0.25 * (box[..., 2:] - box[..., :2]).amax(dim=-1, keepdim=True)
        low, high = box[..., :2] - margin, box[..., 2:] + margin
        return ((plane < low) | (plane > high)).any(dim=-1)[:, None]


#: image, label, box (y0, x0, y1, x1), area and interior points
_Object = tuple[int, int, tuple[int, int, int, int], int, NDArray[np.float32]]


def _objects(
    index: int, numbered: NDArray[np.int32], rng: np.random.Generator, min_area_px: int
) -> Iterator[_Object]:
    """Yield an image's components that are neither too small nor half the plane."""
    half_plane = numbered.size / 2
    for number, box in enumerate(ndimage.find_objects(numbered), 1):
        if box is None:
            continue
        mask = np.pad(numbered[box] == number, 1)
        area = int(mask.sum())
        if not min_area_px <= area <= half_plane:
            continue
        corner = np.asarray([box[0].start, box[1].start])
        points = (_interior_points(mask, rng) + corner - 1).astype(np.float32)
        bounds = (*corner.tolist(), box[0].stop, box[1].stop)
        yield index, number, bounds, area, points


def _interior_points(
    mask: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return (9, 2) float32 points (y, x) inside a mask that is padded by zeros."""
    depth = ndimage.distance_transform_edt(mask)
    innermost = np.unravel_index(int(depth.argmax()), depth.shape)
    near, inside = np.argwhere(depth > depth.max() / 2), np.argwhere(mask)
    drawn = [p[rng.integers(len(p), size=4)] for p in (near, inside)]
    return np.concatenate([np.asarray([innermost]), *drawn]).astype(np.float32)


def _object_weights(
    samples: list[Sample], object_image: Sequence[int], set_power: float
) -> list[float]:
    """Weigh objects so that sets, groups, images and crowded images balance."""
    groups: dict[str, set[str]] = {}
    images: dict[tuple[str, str], int] = {}
    for sample in samples:
        groups.setdefault(sample.dataset, set()).add(sample.group)
        key = (sample.dataset, sample.group)
        images[key] = images.get(key, 0) + 1
    per_image = np.bincount(object_image, minlength=len(samples))
    total = {n: sum(images[n, g] ** 0.5 for g in own) for n, own in groups.items()}
    weights = []
    for index in object_image:
        sample = samples[index]
        in_group = images[sample.dataset, sample.group]
        share = in_group**0.5 / total[sample.dataset] / in_group
        of_set = len(groups[sample.dataset]) ** set_power
        weights.append(of_set * share / float(per_image[index]))
    return weights


def _real_clicks(
    samples: Sequence[Sample],
    object_image: Sequence[int],
    object_points: Sequence[NDArray[np.float32]],
) -> Tensor | None:
    """Return a person's clicks on each object, (N, K, 3) rows; None if none has any.

    A label of several components gives each the clicks from its first positive one on.
    """
    if not any(sample.clicks for sample in samples):
        return None
    out = torch.full((len(object_image), MOST_CLICKS, 3), -1.0)
    for index, image in enumerate(object_image):
        sample = samples[image]
        y, x = (int(v) for v in object_points[index][0])
        label = int(sample.labels[y, x])
        own = [c[1:] for c in sample.clicks if c[0] == label]
        while own and not _hits(sample.labels, label, own[0]):
            own.pop(0)
        for row, (click_y, click_x, positive) in enumerate(own[:MOST_CLICKS]):
            out[index, row] = torch.tensor([click_y, click_x, float(positive)])
    return out


def _hits(
    labels: NDArray[np.integer], label: int, click: tuple[float, float, bool]
) -> bool:
    y, x, positive = round(click[0]), round(click[1]), click[2]
    inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
    return positive and inside and int(labels[y, x]) == label


def _levels(image: NDArray[np.uint8]) -> list[Tensor]:
    """Halve the image three times by averaging, sizes rounded up."""
    level = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()
    out = [level]
    for _ in range(LEVELS - 1):
        level = torch.nn.functional.avg_pool2d(
            level[None], 2, ceil_mode=True, count_include_pad=False
        )[0]
        out.append(level)
    return [x.round().to(torch.uint8).permute(1, 2, 0) for x in out]


def _bilinear(
    where: Tensor, start: Tensor, size: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield flat indices and weights of the four pixels around (B, G, G, 2) points."""
    where = torch.minimum(where.clamp(min=0), (size - 1).float())
    low = where.floor()
    share = where - low
    low = low.long()
    high = torch.minimum(low + 1, size - 1)
    for ys, wy in ((low, 1 - share[..., 0]), (high, share[..., 0])):
        for xs, wx in ((low, 1 - share[..., 1]), (high, share[..., 1])):
            yield start + ys[..., 0] * size[..., 1] + xs[..., 1], wy * wx
