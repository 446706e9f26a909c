"""Measure suggestions on whole fields: three objects clicked, the rest proposed.

A field is a plane with many labelled objects. The robot clicks three of them until each
outline is acceptable (NoC@ok), asks for suggestions, accepts, corrects or rejects them
(:mod:`~napari_cfrseg.evaluation.accepting`) and clicks the other objects. Beside it
stand the same objects, each clicked from scratch.

To correct and to click hundreds of objects takes long, so a random sample of them
stands for all; suggestions are judged on all.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation import metrics
from napari_cfrseg.evaluation.accepting import ACCEPTED_IOU, Suggested
from napari_cfrseg.evaluation.datasets import (
    BenchmarkObject,
    group_by_plane,
    sample_objects,
)
from napari_cfrseg.evaluation.field_tables import TAUGHT, Cost, FieldRow, FieldSettings
from napari_cfrseg.evaluation.robots import ExactRobot
from napari_cfrseg.evaluation.scores import MAX_CLICKS, mean
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import mask_box, overlap, shape_of, slices

if TYPE_CHECKING:
    from napari_cfrseg.engine.segmenter import Segmenter
    from napari_cfrseg.engine.suggestions import ObjectSuggestion, Verdict
    from napari_cfrseg.geometry.windows import Box

#: planes with fewer objects are no fields
MIN_OBJECTS = 30
#: finished objects that suggestions are learnt from
MOST_LEARNT = 12


def fields_of(
    objects: Sequence[BenchmarkObject], most: int | None = None, *, seed: int = 0
) -> list[list[BenchmarkObject]]:
    """Return the planes with enough objects, at most so many of a set, seeded."""
    by_set: dict[str, list[list[BenchmarkObject]]] = defaultdict(list)
    for group in group_by_plane(objects):
        if len(group) >= MIN_OBJECTS:
            by_set[group[0].set_name].append(group)
    rng = np.random.default_rng(seed)
    return [
        fields[i]
        for _, fields in sorted(by_set.items())
        for i in rng.permutation(len(fields))[:most]
    ]


def evaluate_fields(
    path: Path,
    segmenter: Segmenter,
    fields: Sequence[Sequence[BenchmarkObject]],
    settings: FieldSettings,
    identity: Mapping[str, Any],
) -> Iterator[FieldRow]:
    """Measure fields and append a line for each to a file; finished ones are read.

    ``identity`` says what is measured. Raises DatasetError if the file is of another
    run.
    """
    head = json.loads(json.dumps({**identity, "settings": asdict(settings)}))
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    if lines and json.loads(lines[0]) != head:
        msg = f"{path} holds another run: name another folder, or delete it"
        raise DatasetError(msg)
    done = {row.key: row for row in map(_read, lines[1:])}
    with path.open("a", encoding="utf-8") as file:
        if not lines:
            file.write(json.dumps(head) + "\n")
        for objects in fields:
            row = done.get(objects[0].plane_key)
            if row is None:
                row = evaluate_field(segmenter, objects, settings)
                file.write(json.dumps(asdict(row)) + "\n")
                file.flush()
            yield row


def _read(line: str) -> FieldRow:
    row = json.loads(line)
    for name in ("clicked", "one_by_one", "at_once", "with_noise"):
        row[name] = Cost(*row[name])
    return FieldRow(**row)


def evaluate_field(
    segmenter: Segmenter, objects: Sequence[BenchmarkObject], settings: FieldSettings
) -> FieldRow:
    """Measure one field: all its objects, which lie on one plane."""
    plane = Field(segmenter, objects, settings)
    sample = plane.others[: settings.max_objects]
    clicked = {number: plane.click(number)[0] for number in sample}

    def per_object(suggested: Suggested | None = None) -> Cost:
        costs = []
        for number in sample:
            ok, close = clicked[number]
            cost = (ok, ok, close)
            if suggested is not None:
                cost = suggested.finish(number, clicked[number])
            costs.append(cost)
        rest = np.mean(costs, axis=0) * len(plane.others)
        taught = np.sum([(ok, ok, close) for ok, close in plane.taught], axis=0)
        acts = 0 if suggested is None else suggested.actions
        return Cost(*((taught + rest + acts) / plane.count).tolist())

    def run(wrong_share: float = 0.0, *, at_once: bool = False) -> Suggested:
        suggested = Suggested(plane)
        suggested.run(wrong_share, at_once=at_once, seed=settings.seed)
        return suggested

    one_by_one = run()
    accepted = [number for number in sample if number in one_by_one.accepted]
    return FieldRow(
        key=objects[0].plane_key,
        set_name=objects[0].set_name,
        objects=plane.count,
        clicked=per_object(),
        one_by_one=per_object(one_by_one),
        at_once=per_object(run(at_once=True)),
        with_noise=per_object(run(settings.wrong_share)),
        scored=plane.scored,
        accepted=len(one_by_one.accepted),
        as_they_are=mean(
            [plane.mend(one_by_one.accepted[n], n)[0] == 0 for n in accepted] or [0.0]
        ),
        first_s=plane.first_s,
        all_s=plane.all_s,
    )


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
        drawn = sample_objects(objects, None, seed=settings.seed)
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
        batches = self._segmenter.suggest(
            known, region=self.region, taken=taken, verdicts=verdicts
        )
        for batch in batches:
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
