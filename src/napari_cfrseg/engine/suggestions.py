"""Suggest further objects of a plane that look like those finished.

Three steps, of which only the second needs the network:

1. Seeds: blobs of the finished objects' sizes (:mod:`~napari_cfrseg.engine.likeness`).
2. Each seed is answered as a first click is, in a window of its blob's size, and its
   mask, unless hopeless or sure, once more: as a click on its innermost pixel, in a
   window of its size. The better of both counts, cut where its border looks most like
   those of the finished objects. In batches and bfloat16 results may differ from a
   click's in single pixels, so a mask is recorded with its acceptance.
3. Each mask gets the probability of being right, from the network's quality and
   confidence and from its likeness to the finished objects (size, grey values,
   roundness); every verdict of a person moves the weights.

``benchmarks/suggestions.md`` has the measurements behind these choices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine import likeness
from napari_cfrseg.engine.focus import border_cells, clicked_component
from napari_cfrseg.engine.likeness import Likeness, Seed
from napari_cfrseg.geometry.distances import innermost
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Box, Window, mask_box, overlap, paste
from napari_cfrseg.io.plane_image import PlaneImage

if TYPE_CHECKING:
    from napari_cfrseg.engine.stages import Answer, Stages

#: side of a first window over the blob's diameter, for objects as long as wide
_FIRST_LOOK = 2.0
#: side of a second window over the longer side of the first mask's box
_SECOND_LOOK = 2.3
#: where a mask may be cut; what a border is worth there: contrast like that of the
#: finished objects', slope, distance of the cut from 0.5, the cut
_CUTS = (0.3, 0.4, 0.5, 0.6)
_BORDER = (0.51, 0.21, -1.08, -0.29)
#: cells around the widest of these masks that are looked at
_MARGIN = 8
#: seeds answered at once: more cost as much each, and clicks wait longer
_BATCH = 8
#: diameters between places that are tried in turn: a texture has many strong seeds
_APART = 1.5
#: batches of a tile without a good mask, one after the other, that end it
_PATIENCE = 4
#: a mask at least as probable is shown with its batch, and no seed inside is answered
_GOOD = 0.5
#: a mask at least as probable is shown at once and not looked at again
_SURE = 0.9
#: a mask less probable than this is not suggested: nine in ten would be in the way
_SHOWN = 0.2
#: diameters beyond those of the finished objects by more than this are not suggested
_SIZES = 2.0
#: two masks that share this much of the smaller one are one object
SAME_OBJECT = 0.3
#: the default probability from which all are accepted
ACCEPT_FROM = 0.78
#: how strongly the weights resist a person's verdicts
_INERTIA = 4.0

#: mean, spread and weight of each trait (the constant last), fitted to the training
#: side (``benchmarks/suggestions.py fit``)
_MEAN = np.array([0.89, 0.53, 1.05, 0.35, 1.0, 0.19, 0.72])
_SPREAD = np.array([0.72, 0.17, 0.86, 0.47, 0.59, 0.18, 0.29])
_WEIGHTS = np.array([1.14, 1.09, -0.3, -0.27, 0.35, -0.29, 0.0, -0.86])


@dataclass(frozen=True, slots=True, eq=False)
class ObjectSuggestion:
    """An object that is proposed."""

    mask: MaskPatch
    seed: tuple[int, int]  #: (row, column) of the click that would have made it
    score: float  #: probability that a person finds it right, in [0, 1]
    #: what the score is computed from; comes back with the person's verdict. Empty
    #: where the object was carried from another plane
    traits: tuple[float, ...]
    continues: int | None = None  #: the object of another plane that it is


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some suggestions, best first, and how many tiles of the plane are done."""

    found: tuple[ObjectSuggestion, ...]
    done: int
    total: int
    searched: Box | None = None  #: the tile that it completes, None within a tile


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """A person's judgement of a suggestion: right or not."""

    mask: MaskPatch
    traits: tuple[float, ...]
    right: bool


def shared(one: MaskPatch, other: MaskPatch) -> float:
    """Return what two masks share, as a part of the smaller one."""
    box = overlap(one.box, other.box)
    if box[0] >= box[2] or box[1] >= box[3]:
        return 0.0
    both = np.count_nonzero(one.window(box) & other.window(box))
    return both / max(min(one.area, other.area), 1)


def weights_after(verdicts: Sequence[Verdict]) -> NDArray[np.float64]:
    """Return the score's weights after a person's verdicts: a few Newton steps."""
    weights = _WEIGHTS.copy()
    verdicts = [verdict for verdict in verdicts if verdict.traits]
    if not verdicts:
        return weights
    traits = np.array([verdict.traits for verdict in verdicts])
    scaled = np.c_[(traits - _MEAN) / _SPREAD, np.ones(len(traits))]
    right = np.array([float(verdict.right) for verdict in verdicts])
    for _ in range(8):
        expected = expit(scaled @ weights)
        slope = scaled.T @ (right - expected) - _INERTIA * (weights - _WEIGHTS)
        curve = scaled.T @ ((expected * (1 - expected))[:, None] * scaled)
        weights += np.linalg.solve(curve + _INERTIA * np.eye(len(weights)), slope)
    return weights


def rescored(
    found: Sequence[ObjectSuggestion], verdicts: Sequence[Verdict]
) -> list[ObjectSuggestion]:
    """Return suggestions with the scores that they have after verdicts, best first."""
    weights = weights_after(verdicts)
    again = [
        replace(s, score=_score(s.traits, weights)) if s.traits else s for s in found
    ]
    return sorted(again, key=lambda s: -s.score)


def _score(traits: Sequence[float], weights: NDArray[np.float64]) -> float:
    scaled = (np.array(traits) - _MEAN) / _SPREAD
    return float(expit(scaled @ weights[:-1] + weights[-1]))


class Suggester:
    """Proposes objects of one plane; see ``Segmenter.suggest`` for the parameters."""

    #: a mask less probable than this gets no second look
    hopeless = 0.1

    def __init__(
        self,
        stages: Stages,
        image: PlaneImage,
        known: Likeness,
        taken: Callable[[Box], NDArray[np.bool_]],
        verdicts: Sequence[Verdict] = (),
        earlier: Sequence[Batch] = (),
    ) -> None:
        self._stages = stages
        self._image = image
        self._known = known
        self._taken = taken
        self._weights = weights_after(verdicts)
        self._rejected = [v.mask for v in verdicts if not v.right]
        self._shown = [s for batch in earlier for s in batch.found]
        self._searched = [batch.searched for batch in earlier if batch.searched]

    def run(self, region: Box | None = None) -> Iterator[Batch]:
        """Yield suggestions in batches, tile by tile, from the region's centre out."""
        shown = self._shown
        tiles = self._tiles(region or (0, 0, *self._image.shape))
        done, reach = self._searched, self._known.reach
        tiles = [t for t in tiles if not any(overlap(t, box) == t for box in done)]
        for number, tile in enumerate(tiles):
            around = tile[0] - reach, tile[1] - reach, tile[2] + reach, tile[3] + reach
            parts = ((s, overlap(s.mask.box, around)) for s in shown)
            near = [s for s, (y0, x0, y1, x1) in parts if y0 < y1 and x0 < x1]
            for found in self._suggest_in(tile, near):
                shown += found
                yield Batch(tuple(found), number, len(tiles))
            yield Batch((), number + 1, len(tiles), tile)

    def _tiles(self, region: Box) -> list[Box]:
        cell = self._known.reach
        side = cell * max(1, round(max(256, 6 * max(self._known.sizes)) / cell))
        y0, x0 = (v // cell * cell for v in region[:2])
        boxes = [
            (y, x, min(y + side, region[2]), min(x + side, region[3]))
            for y in range(y0, region[2], side)
            for x in range(x0, region[3], side)
        ]
        # twice the centre, as of the boxes
        centre = region[0] + region[2], region[1] + region[3]
        boxes.sort(key=lambda b: math.dist(centre, (b[0] + b[2], b[1] + b[3])))
        return [(max(b[0], region[0]), max(b[1], region[1]), b[2], b[3]) for b in boxes]

    def _suggest_in(
        self, tile: Box, near: list[ObjectSuggestion]
    ) -> Iterator[list[ObjectSuggestion]]:
        waiting: list[ObjectSuggestion] = []
        given = list(near)
        seeds = self.seeds_in(tile)
        # the largest first: what is inside one of them is no object
        for scale in reversed(self._known.scales):
            own = [s for s in seeds if self._known.scale_of(s.size) is scale]
            own = _spread(own, _APART * scale.size)
            yield from self._suggest_at(own, given, waiting)
        rest = _apart(waiting, given)
        if rest:
            yield rest

    def _suggest_at(
        self,
        seeds: list[Seed],
        given: list[ObjectSuggestion],
        waiting: list[ObjectSuggestion],
    ) -> Iterator[list[ObjectSuggestion]]:
        """Yield what is good at seeds, and add it to ``given``; the rest waits."""
        in_vain = 0
        while seeds and in_vain < _PATIENCE:
            batch: list[Seed] = []
            later: list[Seed] = []
            while seeds and len(batch) < _BATCH:
                seed = seeds.pop(0)
                if any(seed.yx in s.mask for s in given):
                    continue
                is_same = any(_in_blob(seed, other) for other in batch)
                (later if is_same else batch).append(seed)
            seeds[:0] = later
            looks = self._looks(batch)
            found = next(looks)
            sure = _apart([s for s in found if s.score >= _SURE], given)
            given += sure
            yield sure
            found += next(looks)
            yield []
            waiting += [s for s in found if _SHOWN <= s.score < _GOOD]
            good = _apart([s for s in found if s.score >= _GOOD], given)
            given += good
            in_vain = 0 if sure or good else in_vain + 1
            if good:
                yield good

    def seeds_in(self, tile: Box) -> list[Seed]:
        """Return the free seeds in a tile, the strongest first."""
        known, reach = self._known, self._known.reach
        height, width = self._image.shape
        y0, x0 = (max(0, v // reach * reach - reach) for v in tile[:2])
        box = (y0, x0, min(height, tile[2] + reach), min(width, tile[3] + reach))
        cells = likeness.read_cells(self._image, box, known.step)
        seeds = likeness.find_seeds(cells, (y0, x0), known)
        pixels = np.rint(seeds[:, :2]).astype(np.intp).clip(max=(height - 1, width - 1))
        inside = ((pixels >= tile[:2]) & (pixels < tile[2:])).all(axis=1)
        pixels, seeds = pixels[inside], seeds[inside]
        free = ~self._taken(tile)[tuple((pixels - tile[:2]).T)]
        for mask in self._rejected:
            free &= ~mask.holds(pixels)
        pairs = zip(pixels[free].tolist(), seeds[free].tolist(), strict=True)
        return [Seed((y, x), size, blob) for (y, x), (_, _, size, blob) in pairs]

    def answer(self, seeds: Sequence[Seed]) -> list[ObjectSuggestion]:
        """Return what the network makes of some seeds, at most two masks each."""
        return [suggestion for look in self._looks(seeds) for suggestion in look]

    def _looks(self, seeds: Sequence[Seed]) -> Iterator[list[ObjectSuggestion]]:
        """Yield masks of a first look, and of a second from unsure ones' middles."""
        scale = _FIRST_LOOK * self._known.elongation
        first = self._look(seeds, [scale * seed.size for seed in seeds])
        yield [s for s, is_whole in first if is_whole]
        again = [s for s, is_whole in first if not is_whole or s.score < _SURE]
        middles = [Seed(innermost(s.mask), 0.0, s.traits[-1]) for s in again]
        sides = [_SECOND_LOOK * max(s.mask.mask.shape) for s in again]
        yield [s for s, is_whole in self._look(middles, sides) if is_whole]

    def _look(
        self, seeds: Sequence[Seed], sides: Sequence[float]
    ) -> list[tuple[ObjectSuggestion, bool]]:
        """Answer seeds in windows of some sides; say whether no border cuts a mask."""
        if not seeds:
            return []
        grid, plane = self._stages.grid, self._image.shape
        windows = [
            Window.centred(seed.yx, max(32, round(side)), grid, plane)
            for seed, side in zip(seeds, sides, strict=True)
        ]
        clicks = [Click(seed.yx) for seed in seeds]
        answers = self._stages.first_answers(windows, clicks, self._image.crop)
        pairs = zip(seeds, answers, strict=True)
        judged = [self._judged(seed, answer) for seed, answer in pairs]
        return [one for one in judged if one and one[0].score >= self.hopeless]

    def _judged(
        self, seed: Seed, answer: Answer
    ) -> tuple[ObjectSuggestion, bool] | None:
        """Return an answer as a suggestion, and whether no border cuts it."""
        window, plane = answer.window, self._image.shape
        sure = clicked_component(answer.probability > 0.5, window, [Click(seed.yx)])
        if sure is None:
            return None
        cut = self._cut(answer, seed)
        inside = answer.probability > cut
        body = clicked_component(inside, window, [Click(seed.yx)])
        cells = None if body is None else mask_box(body)
        if body is None or cells is None:
            return None
        probability = np.where(body | ~inside, answer.probability, 0)
        mask = self._mask(probability, cut, window, cells)
        known = sorted(self._known.sizes)
        size = 2 * math.sqrt(mask.area / math.pi)
        if not known[0] / _SIZES < size < known[-1] * _SIZES:
            return None
        look = likeness.Appearance.at(answer.image, body, window.px_per_cell)
        confidence = float(np.abs(2 * answer.probability[sure] - 1).mean())
        quality = 0.5 if answer.quality is None else answer.quality
        traits = self._known.traits(look, quality, confidence, seed.response)
        score = _score(traits, self._weights)
        is_whole = not border_cells(body, window, plane).any()
        return ObjectSuggestion(mask, seed.yx, score, traits), is_whole

    def _cut(self, answer: Answer, seed: Seed) -> float:
        """Return where a mask's border looks most like one of the finished objects'."""
        row, column = answer.window.cell(seed.yx)
        labels, _ = ndimage.label(answer.probability > _CUTS[0])
        y0, x0, y1, x1 = mask_box(labels == labels[row, column]) or (0, 0, 0, 0)
        y0, x0 = max(y0 - _MARGIN, 0), max(x0 - _MARGIN, 0)
        part = slice(y0, y1 + _MARGIN), slice(x0, x1 + _MARGIN)
        channels = self._image.channels
        features = likeness.close_features_of(answer.image[:channels, *part])
        like = likeness.project(features, self._known.border)
        slope = np.sqrt(np.mean(np.square(features[-channels:]), axis=0))
        found = []
        for cut in _CUTS:
            labels, _ = ndimage.label(answer.probability[part] > cut)
            label = labels[row - y0, column - x0]
            if not label:
                break
            body = ndimage.binary_fill_holes(labels == label)
            wide, narrow = ndimage.binary_dilation(body), ndimage.binary_erosion(body)
            outer = ndimage.binary_dilation(wide) & ~body
            inner = body & ~ndimage.binary_erosion(narrow)
            around = like[outer].mean() if outer.any() else 0.0
            contrast = like[inner].mean() - around
            found.append((cut, contrast, slope[wide & ~narrow].mean()))
        steepest = max(one[2] for one in found) + 1e-6
        worth = [
            np.dot(_BORDER, (contrast, steep / steepest, (cut - 0.5) ** 2, cut))
            for cut, contrast, steep in found
        ]
        return found[int(np.argmax(worth))][0]

    def _mask(
        self, probability: NDArray[np.float32], cut: float, window: Window, cells: Box
    ) -> MaskPatch:
        """Return a mask on the plane without holes; empty where others have it."""
        y0, x0, y1, x1 = cells
        box = overlap(
            window.plane_box((y0 - 1, x0 - 1, y1 + 1, x1 + 1)),
            window.clipped(self._image.shape),
        )
        if box[0] >= box[2] or box[1] >= box[3]:
            return MaskPatch.empty()
        mask = ndimage.binary_fill_holes(paste(probability, window, box) > cut)
        free = mask & ~self._taken(box)
        if np.count_nonzero(free) < (1 - SAME_OBJECT) * np.count_nonzero(mask):
            return MaskPatch.empty()
        found = MaskPatch.from_mask(free, (box[0], box[1]))
        if any(shared(found, rejected) > 0.5 for rejected in self._rejected):
            return MaskPatch.empty()
        return found


def _spread(seeds: Sequence[Seed], side: float) -> list[Seed]:
    """Return seeds, the strongest first, in turn from each square of a side."""
    counts: Counter[tuple[int, int]] = Counter()
    turns = []
    for seed in seeds:
        square = int(seed.yx[0] / side), int(seed.yx[1] / side)
        turns.append(counts[square])
        counts[square] += 1
    order = sorted(range(len(seeds)), key=turns.__getitem__)
    return [seeds[index] for index in order]


def _apart(
    found: Sequence[ObjectSuggestion], given: list[ObjectSuggestion]
) -> list[ObjectSuggestion]:
    """Return the best of those that are the same object, best first."""
    kept: list[ObjectSuggestion] = []
    for suggestion in sorted(found, key=lambda s: -s.score):
        if all(shared(suggestion.mask, o.mask) < SAME_OBJECT for o in given + kept):
            kept.append(suggestion)
    return kept


def _in_blob(seed: Seed, other: Seed) -> bool:
    """Whether two seeds are likely in one object: one lies in the other's blob."""
    return math.dist(seed.yx, other.yx) < max(seed.size, other.size) / 2
