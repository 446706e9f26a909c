"""Measure suggestions on whole fields: three objects clicked, the rest proposed.

A field is a plane with many labelled objects. The robot clicks three of them until each
outline is acceptable (NoC@ok) and asks for suggestions. It accepts each one that covers
an object with an IoU of 0.75 or more, asks once more, corrects what is not acceptable
yet and clicks what was not found. Asking, accepting, removing and clicking are one
action each. Beside it stand the same objects, each clicked from scratch.

To correct and to click hundreds of objects takes long, so a random sample of them
stands for all; suggestions are judged on all.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation import metrics
from napari_cfrseg.evaluation.datasets import (
    BenchmarkObject,
    group_by_plane,
    sample_objects,
)
from napari_cfrseg.evaluation.robots import ExactRobot
from napari_cfrseg.evaluation.scores import MAX_CLICKS, mean
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import slices

if TYPE_CHECKING:
    from napari_cfrseg.engine.segmenter import Prediction, Segmenter
    from napari_cfrseg.engine.suggestions import ObjectSuggestion, Verdict
    from napari_cfrseg.geometry.windows import Box

#: planes with fewer objects are no fields
MIN_OBJECTS = 30
#: objects clicked before the first suggestions
TAUGHT = 3
#: a suggestion that covers an object this well is accepted
ACCEPTED_IOU = metrics.ACCEPTABLE_LOWER_IOU
#: finished objects that suggestions are learnt from, and how often they are asked for
MOST_LEARNT, ROUNDS = 12, 2


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """How fields are measured."""

    max_objects: int = 40  #: objects clicked or corrected per field; a sample beyond
    wrong_share: float = 0.1  #: acceptances that are wrong in the run with noise
    seed: int = 0  #: of the objects taught and sampled, and of the noise


@dataclass(frozen=True, slots=True)
class FieldRow:
    """Effort for a field, in actions per object of the field.

    Pairs of actions are until each outline is acceptable, and until its IoU is 0.75.
    """

    key: str  #: the plane
    set_name: str
    objects: int
    clicked: tuple[float, float]  #: each object clicked from scratch
    one_by_one: tuple[float, float]  #: right suggestions accepted one at a time
    #: all above the default score accepted in one action, wrong ones removed
    at_once: tuple[float, float]
    with_noise: tuple[float, float]  #: one by one, with acceptances that are wrong
    proposed: int  #: first suggestions with the default score or more …
    right: int  #: … that cover an object with IoU ≥ 0.75, each object counted once
    accepted: int  #: suggestions accepted one by one, in both rounds
    as_they_are: float  #: share of these that needed no correction, in the sample
    first_s: float  #: seconds until the first suggestions
    all_s: float  #: and until all of the first asking


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
    done = {row["key"]: FieldRow(**row) for row in map(json.loads, lines[1:])}
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


def evaluate_field(
    segmenter: Segmenter, objects: Sequence[BenchmarkObject], settings: FieldSettings
) -> FieldRow:
    """Measure one field: all its objects, which lie on one plane."""
    plane = _Field(segmenter, objects, settings)
    sample = plane.others[: settings.max_objects]
    clicked = {number: plane.click(number)[0] for number in sample}
    clean, noisy = plane.suggest(0.0), plane.suggest(settings.wrong_share)

    def per_object(
        further: float, suggested: _Suggested | None = None, *, at_once: bool = False
    ) -> tuple[float, float]:
        costs = []
        for number in sample:
            cost = clicked[number]
            if suggested is not None and number in suggested.masks:
                accepted = not (at_once and number in suggested.at_once)
                cost = (accepted + plane.mend(number, suggested), accepted)
            costs.append(cost)
        rest = np.mean(costs, axis=0) * len(plane.others)
        ok, close = (np.sum(plane.taught, axis=0) + rest + further) / len(objects)
        return float(ok), float(close)

    right, asked = len(clean.at_once), clean.rounds
    accepted = [number for number in sample if number in clean.masks]
    return FieldRow(
        key=objects[0].plane_key,
        set_name=objects[0].set_name,
        objects=len(objects),
        clicked=per_object(0),
        one_by_one=per_object(asked, clean),
        at_once=per_object(
            asked + (clean.proposed > 0) + clean.proposed - right, clean, at_once=True
        ),
        with_noise=per_object(noisy.rounds + 2 * noisy.wrong, noisy),
        proposed=clean.proposed,
        right=right,
        accepted=len(clean.masks),
        as_they_are=mean([plane.mend(n, clean) == 0 for n in accepted] or [0.0]),
        first_s=plane.first_s,
        all_s=plane.all_s,
    )


@dataclass(slots=True)
class _Suggested:
    """Accepted masks by object, and figures of the first suggestions."""

    masks: dict[int, MaskPatch] = field(default_factory=dict)
    mended: dict[int, int] = field(default_factory=dict)
    at_once: set[int] = field(default_factory=set)
    proposed: int = 0
    wrong: int = 0
    rounds: int = 0


class _Field:
    """A plane, its objects by number from 1, and three of them finished."""

    def __init__(
        self,
        segmenter: Segmenter,
        objects: Sequence[BenchmarkObject],
        settings: FieldSettings,
    ) -> None:
        first = objects[0]
        plane = first.source.read_plane(first.image_name, first.plane)
        segmenter.set_image(plane.image)
        self._segmenter, self._settings = segmenter, settings
        self._ignore = plane.ignore_mask
        self._shape = (plane.labels.shape[1], plane.labels.shape[2])
        self._numbers = np.zeros(self._shape, np.int32)
        drawn = sample_objects(objects, None, seed=settings.seed)
        for number, item in enumerate(drawn, 1):
            self._numbers[item.mask_in(plane)] = number
        self._areas = np.bincount(self._numbers.ravel(), minlength=len(drawn) + 1)
        self.others = list(range(TAUGHT + 1, len(drawn) + 1))
        self.first_s = self.all_s = 0.0
        self.taught: list[tuple[int, int]] = []
        self._finished: list[MaskPatch] = []
        for number in range(1, TAUGHT + 1):
            counts, mask = self.click(number)
            self.taught.append(counts)
            self._finished.append(MaskPatch.from_mask(mask))

    def click(
        self, number: int, start: NDArray[np.bool_] | None = None
    ) -> tuple[tuple[int, int], NDArray[np.bool_]]:
        """Click an object until it is acceptable.

        Returns the clicks until then and until the IoU is 0.75, and the mask.
        """
        truth = self._numbers == number
        robot = ExactRobot(truth, self._ignore)
        clicks: list[Click] = []
        shown: Prediction | NDArray[np.bool_] | None = start
        mask, close = start, MAX_CLICKS
        while True:
            if mask is not None:
                masks = (mask, truth, self._ignore)
                iou = metrics.iou(*masks)
                if iou >= ACCEPTED_IOU:
                    close = min(close, len(clicks))
                    if metrics.is_acceptable(iou, metrics.surface_dice(*masks)):
                        break
                if len(clicks) == MAX_CLICKS:
                    break
            clicks.append(robot.next_click(mask))
            shown = self._segmenter.predict(clicks, previous=shown)
            mask = shown.mask
        return (len(clicks), close), mask

    def mend(self, number: int, suggested: _Suggested) -> int:
        """Return the clicks that an accepted object takes until it is acceptable."""
        if number not in suggested.mended:
            start = suggested.masks[number].to_mask(self._shape)
            suggested.mended[number] = self.click(number, start)[0][0]
        return suggested.mended[number]

    def suggest(self, wrong_share: float) -> _Suggested:
        """Ask, accept what is right (and a share that is wrong), and ask once more."""
        from napari_cfrseg.engine.suggestions import ACCEPT_FROM, Verdict

        rng = np.random.default_rng(self._settings.seed)
        result = _Suggested()
        finished, verdicts = list(self._finished), list[Verdict]()
        for _ in range(ROUNDS):
            result.rounds += 1
            proposals = self._first
            if result.rounds > 1:
                proposals = list(self._ask(finished, verdicts))
            others: list[ObjectSuggestion] = []
            before = len(result.masks)
            for proposal in proposals:
                number = self._object_of(proposal)
                chosen = proposal.score >= ACCEPT_FROM and result.rounds == 1
                result.proposed += chosen
                if number is None or number in result.masks or number <= TAUGHT:
                    others.append(proposal)
                    continue
                result.masks[number] = proposal.mask
                if chosen:
                    result.at_once.add(number)
                finished.append(proposal.mask)
                verdicts.append(Verdict(proposal.mask, proposal.traits, right=True))
            new = len(result.masks) - before
            count = min(len(others), round(wrong_share * new))
            for index in rng.permutation(len(others))[:count]:
                result.wrong += 1
                finished.append(others[index].mask)
                wrong = others[index]
                verdicts.append(Verdict(wrong.mask, wrong.traits, right=True))
            if not new:
                break
        return result

    @cached_property
    def _first(self) -> list[ObjectSuggestion]:
        """The first suggestions, from the three objects clicked; they are timed."""
        start = time.perf_counter()
        found: list[ObjectSuggestion] = []
        for proposal in self._ask(self._finished, ()):
            if not found:
                self.first_s = time.perf_counter() - start
            found.append(proposal)
        self.all_s = time.perf_counter() - start
        return found

    def _ask(
        self, finished: Sequence[MaskPatch], verdicts: Sequence[Verdict]
    ) -> Iterator[ObjectSuggestion]:
        taken = np.zeros(self._shape, bool)
        for mask in finished:
            taken[slices(mask.box)] |= mask.mask

        def taken_in(box: Box) -> NDArray[np.bool_]:
            return taken[slices(box)]

        known = self._segmenter.learn(finished[-MOST_LEARNT:])
        for batch in self._segmenter.suggest(known, taken=taken_in, verdicts=verdicts):
            yield from batch.found

    def _object_of(self, proposal: ObjectSuggestion) -> int | None:
        """Return the object that a suggestion covers well enough."""
        patch = proposal.mask
        inside = self._numbers[slices(patch.box)][patch.mask]
        counts = np.bincount(inside, minlength=2)
        counts[0] = 0
        number = int(counts.argmax())
        shared = int(counts[number])
        union = int(inside.size) + int(self._areas[number]) - shared
        return number if number and shared / union >= ACCEPTED_IOU else None


def format_fields(rows: Sequence[FieldRow], settings: FieldSettings) -> str:
    """Lay out actions per object and the quality of accepting all, as Markdown."""
    noise = f"{100 * settings.wrong_share:.0f} % wrong"
    lines = [
        "Actions per object of a field (fewer is better), until every outline is "
        "acceptable / has an IoU of 0.75: each object clicked; right suggestions "
        "accepted one by one; all above the default score accepted at once and wrong "
        f"ones removed; one by one with {noise} acceptances. Precision and recall are "
        "those of accepting all at once.",
        "",
        f"| set | fields (objects) | clicked | one by one | at once | {noise} | at "
        "once / clicked | precision | recall | as they are | first / all s |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    by_set: dict[str, list[FieldRow]] = defaultdict(list)
    for row in rows:
        by_set[row.set_name].append(row)
    groups = sorted(by_set.items())
    figures = [_figures(group) for _, group in groups]
    together = [mean(values) for values in zip(*figures, strict=True)]
    for (name, group), values in zip(
        [*groups, ("sets alike", rows)], [*figures, together], strict=True
    ):
        cells = [f"{a:.2f} / {b:.2f}" for a, b in pairwise(values[:8])][::2]
        ratios = f"{values[4] / values[0]:.2f} / {values[5] / values[1]:.2f}"
        shares = [f"{value:.2f}" for value in values[8:11]]
        count = sum(row.objects for row in group)
        cells = [name, f"{len(group)} ({count})", *cells, ratios, *shares]
        seconds = f"{values[11]:.1f} / {values[12]:.1f}"
        lines.append(f"| {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines) + "\n"


def _figures(rows: Sequence[FieldRow]) -> list[float]:
    """Mean over fields; precision and recall over their suggestions and objects."""
    proposed, right = sum(row.proposed for row in rows), sum(row.right for row in rows)
    pairs = [(*r.clicked, *r.one_by_one, *r.at_once, *r.with_noise) for r in rows]
    return [
        *map(float, np.mean(pairs, axis=0)),
        right / proposed if proposed else math.nan,
        right / sum(row.objects - TAUGHT for row in rows),
        mean([row.as_they_are for row in rows if row.accepted]),
        mean([row.first_s for row in rows]),
        mean([row.all_s for row in rows]),
    ]
