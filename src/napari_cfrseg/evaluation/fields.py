"""Fields: planes with many labelled objects, of which three are clicked at first.

A robot clicks three objects until each outline is acceptable (NoC@ok) and asks for
suggestions of the others.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation.annotator import MOST_LEARNT
from napari_cfrseg.clicks import Click
from napari_cfrseg.evaluation import datasets, metrics
from napari_cfrseg.evaluation.datasets import BenchmarkObject
from napari_cfrseg.evaluation.robots import ExactRobot
from napari_cfrseg.evaluation.scores import MAX_CLICKS
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Box, mask_box, overlap, shape_of, slices

if TYPE_CHECKING:
    from napari_cfrseg.engine.segmenter import Segmenter
    from napari_cfrseg.engine.suggestions import ObjectSuggestion, Verdict

#: planes with fewer objects are no fields
MIN_OBJECTS = 30
#: objects clicked before the first suggestions
TAUGHT = 3
#: a suggestion that covers an object this well is accepted
ACCEPTED_IOU = metrics.ACCEPTABLE_LOWER_IOU


def crowded_planes(
    objects: Sequence[BenchmarkObject], most: int | None = None
) -> list[list[BenchmarkObject]]:
    """Return the planes with enough objects, at most so many of a set, drawn."""
    by_set: dict[str, list[list[BenchmarkObject]]] = defaultdict(list)
    for group in datasets.group_by_plane(objects):
        if len(group) >= MIN_OBJECTS:
            by_set[group[0].set_name].append(group)
    rng = np.random.default_rng(0)
    return [
        fields[i]
        for _, fields in sorted(by_set.items())
        for i in rng.permutation(len(fields))[:most]
    ]


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """How fields are measured."""

    max_objects: int = 40  #: objects clicked or corrected per field; a sample beyond
    wrong_share: float = 0.1  #: acceptances that are wrong in the run with noise
    seed: int = 0  #: of the objects taught and sampled, and of the noise
    most: int | None = None  #: only so many objects around the plane's middle


class Field:
    """A plane, its objects by number from 1, and the first three of them finished.

    Those are drawn at random among the objects that no border of the plane cuts.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        objects: Sequence[BenchmarkObject],
        settings: FieldSettings,
    ) -> None:
        first = objects[0]
        plane = first.source.read_plane(first.image_name, first.plane)
        self.image = plane.image
        segmenter.set_image(plane.image)
        self._segmenter, self._settings = segmenter, settings
        self._ignore = plane.ignore_mask
        self.shape = (plane.labels.shape[1], plane.labels.shape[2])
        self.numbers = np.zeros(self.shape, np.int32)
        drawn = datasets.sample_objects(objects, None, seed=settings.seed)
        masks = [item.mask_in(plane) for item in drawn]
        boxes = [box for mask in masks if (box := mask_box(mask)) is not None]
        self.region, inside = middle_of(boxes, self.shape, settings.most)
        # objects outside get the last numbers; sorting keeps the order drawn
        rims = [(m[[0, -1]], m[:, [0, -1]]) for m in masks]
        cut = [bool(rows.any() or columns.any()) for rows, columns in rims]
        order = sorted(range(len(masks)), key=lambda i: (not inside[i], cut[i]))
        for number, index in enumerate(order, 1):
            self.numbers[masks[index]] = number
        self._areas = np.bincount(self.numbers.ravel(), minlength=len(drawn) + 1)
        self.count = sum(inside)
        self.others = list(range(TAUGHT + 1, self.count + 1))
        self.first_s = self.all_s = 0.0
        self._first_clicks: dict[int, tuple[int, int]] = {}
        self._mended: dict[tuple[object, ...], tuple[int, int]] = {}
        self.taught: list[tuple[int, int]] = []
        self.finished: list[MaskPatch] = []
        for number in range(1, TAUGHT + 1):
            counts, mask = self.click(number)
            self.taught.append(counts)
            self.finished.append(MaskPatch.from_mask(mask))

    def click(
        self, number: int, accepted: ObjectSuggestion | None = None
    ) -> tuple[tuple[int, int], NDArray[np.bool_]]:
        """Click an object until it is acceptable, maybe after a suggestion.

        Returns the further clicks until then and until the IoU is 0.75, and the mask.
        """
        from napari_cfrseg.engine.prediction import Prediction
        from napari_cfrseg.engine.probability_patch import Patch

        truth = self.numbers == number
        robot = ExactRobot(truth, self._ignore)
        clicks: list[Click] = []
        shown: Prediction | None = None
        mask: NDArray[np.bool_] | None = None
        if accepted is not None:
            clicks.append(Click(accepted.seed))
            shown = Prediction(Patch.softened(self.shape, accepted.mask), (*clicks,))
            mask = accepted.mask.to_mask(self.shape)
        before, close = len(clicks), MAX_CLICKS
        while True:
            count = len(clicks) - before
            if mask is not None:
                masks = (mask, truth, self._ignore)
                iou = metrics.iou(*masks)
                if iou >= ACCEPTED_IOU:
                    close = min(close, count)
                    if metrics.is_acceptable(iou, metrics.surface_dice(*masks)):
                        return (count, close), mask
                if count == MAX_CLICKS:
                    return (count, close), mask
            clicks.append(robot.next_click(mask))
            shown = self._segmenter.predict(clicks, previous=shown)
            mask = shown.mask

    def first_click(self, number: int) -> tuple[int, int]:
        """Return where the robot clicks an object first; it is computed once."""
        if number not in self._first_clicks:
            robot = ExactRobot(self.numbers == number, self._ignore)
            self._first_clicks[number] = robot.next_click().pixel
        return self._first_clicks[number]

    def mend(self, accepted: ObjectSuggestion, number: int) -> tuple[int, int]:
        """Return the clicks that a suggestion takes until it is acceptable, and close.

        They are computed once for the same pixels and click.
        """
        mask = accepted.mask
        key = number, mask.offset, mask.mask.tobytes(), accepted.seed
        if key not in self._mended:
            self._mended[key] = self.click(number, accepted)[0]
        return self._mended[key]

    @cached_property
    def first(self) -> list[ObjectSuggestion]:
        """The first suggestions, from the three objects clicked; they are timed."""
        start = time.perf_counter()
        found: list[ObjectSuggestion] = []
        for proposal in self.ask(self.finished, ()):
            if not found:
                self.first_s = time.perf_counter() - start
            found.append(proposal)
        self.all_s = time.perf_counter() - start
        return found

    @property
    def scored(self) -> tuple[tuple[float, bool], ...]:
        """Score of each first suggestion, and whether it is right."""
        found: list[tuple[float, bool]] = []
        seen: set[int] = set()
        for proposal in self.first:
            number, iou = self.match(proposal.mask)
            if number <= self.count:
                right = iou >= ACCEPTED_IOU and number > TAUGHT and number not in seen
                seen |= {number} if right else set()
                found.append((proposal.score, right))
        return tuple(found)

    def ask(
        self, finished: Sequence[MaskPatch], verdicts: Sequence[Verdict]
    ) -> Iterator[ObjectSuggestion]:
        """Ask for suggestions like some finished objects."""
        known = self._segmenter.learn(finished[-MOST_LEARNT:])
        taken = partial(pixels_of, finished)
        for batch in self._segmenter.suggest(
            known, region=self.region, taken=taken, verdicts=verdicts
        ):
            yield from batch.found

    def match(self, mask: MaskPatch) -> tuple[int, float]:
        """Return the object that a mask shares most with (0: none), and their IoU."""
        inside = self.numbers[slices(mask.box)][mask.mask]
        counts = np.bincount(inside, minlength=2)
        counts[0] = 0
        number = int(counts.argmax())
        shared = int(counts[number])
        union = int(inside.size) + int(self._areas[number]) - shared
        return (number, shared / union) if shared else (0, 0.0)


def pixels_of(masks: Sequence[MaskPatch], box: Box) -> NDArray[np.bool_]:
    """Return (h, w) bool, which pixels of a box some masks hold."""
    held = np.zeros(shape_of(box), bool)
    for mask in masks:
        part = overlap(mask.box, box)
        held[slices(part, box)] |= mask.window(part)
    return held


def middle_of(
    boxes: Sequence[Box], shape: tuple[int, int], most: int | None
) -> tuple[Box, list[bool]]:
    """Return a box around a plane's middle, and which objects have theirs inside.

    It holds at most so many objects, given by their boxes; None: the whole plane.
    """
    height, width = shape
    away = [
        max(abs((y0 + y1 - height) / 2), abs((x0 + x1 - width) / 2))
        for y0, x0, y1, x1 in boxes
    ]
    if most is None or len(away) <= most:
        return (0, 0, height, width), [True] * len(away)
    reach = sorted(away)[most]
    whole = math.floor(reach)
    middle = (height // 2 - whole, width // 2 - whole, -(-height // 2), -(-width // 2))
    box = (*middle[:2], middle[2] + whole, middle[3] + whole)
    return overlap(box, (0, 0, height, width)), [one < reach for one in away]
