"""The robot that accepts, corrects and rejects the suggestions of a field.

It accepts each one that covers an object with an IoU of 0.75 or more, and asks again as
long as that finds two more. At once, it first accepts all sure ones together where that
saves actions, after moving the slider where that saves more, removes the wrong ones (an
IoU below 0.5; others are corrected), and looks at the scores that the rest has then. In
the end it accepts the other right ones by strokes through some that are near each other
and clicks the other objects: a click in a suggestion that is still open accepts it, and
it is corrected; one with an IoU below 0.5 is rejected before, and two or more of these
together with all that are open. Each of these acts is one action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from napari_cfrseg.engine.suggestions import (
    ACCEPT_FROM,
    ObjectSuggestion,
    Verdict,
    rescored,
)
from napari_cfrseg.evaluation.fields import ACCEPTED_IOU, TAUGHT, Field
from napari_cfrseg.geometry.distances import innermost
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import overlap, shape_of

#: a suggestion that covers an object less is rejected, not corrected
CORRECTED_IOU = 0.5
#: how many a stroke accepts at most, and how many diameters the next one is away
MOST_IN_STROKE, STROKE_STEP = 5, 3.0
#: how often suggestions are asked for
MOST_ROUNDS = 4


class _Act(NamedTuple):
    """Accepting all from a score on, after rejecting the wrong ones."""

    threshold: float
    kept: list[ObjectSuggestion]
    wrong: list[ObjectSuggestion]
    actions: int
    saved: int  #: actions beside accepting the right ones one by one


@dataclass(slots=True)
class SuggestionRobot:
    """The state of a field's suggestions, and the actions so far."""

    plane: Field
    accepted: dict[int, ObjectSuggestion] = field(default_factory=dict)  #: by object
    open: list[ObjectSuggestion] = field(default_factory=list)
    finished: list[MaskPatch] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    actions: int = 0
    threshold: float = ACCEPT_FROM  #: of the slider

    def run(
        self, wrong_share: float = 0.0, *, at_once: bool = False, seed: int = 0
    ) -> None:
        """Accept what is right, and a share that is wrong; ask again while it pays."""
        rng = np.random.default_rng(seed)
        self.finished = list(self.plane.finished)
        for number in range(MOST_ROUNDS):
            self.actions += 1
            self.open = list(self.plane.first)
            if number:
                self.open = list(self.plane.ask(self.finished, self.verdicts))
            before = len(self.accepted)
            if at_once:
                self.accept_sure()
            self.accept_right(by_strokes=at_once)
            new = len(self.accepted) - before
            wrong = [s for s in self.open if self._is_seen(s)]
            count = min(len(wrong), round(wrong_share * new))
            for index in rng.permutation(len(wrong))[:count]:
                self.actions += 2  # made, and taken back in the end
                self.finished.append(wrong[index].mask)
                self.verdicts.append(_verdict(wrong[index], right=True))
            if new < 2:
                break
        self.reject_rest()

    def accept_sure(self) -> None:
        """Reject wrong sure ones and accept all others, while that saves actions.

        Each that is accepted saves the click that would accept it, near misses too.
        """
        while True:
            places = {math.floor(100 * s.score) / 100 for s in self.open}
            places.discard(self.threshold)
            acts = [self._act(place) for place in (self.threshold, *sorted(places))]
            act = max(acts, key=lambda one: one.saved)
            if act.saved <= 0:
                return
            self.threshold = act.threshold
            self.actions += act.actions
            for proposal in act.kept:
                self._accept(proposal)
            self.verdicts += [_verdict(s, right=False) for s in act.wrong]
            left = [s for s in self.open if s.score < act.threshold]
            self.open = rescored(left, self.verdicts)

    def accept_right(self, *, by_strokes: bool) -> None:
        """Accept the right ones that are left, by strokes or one at a time."""
        right = [*self._new(self.open, ACCEPTED_IOU).values()]
        wrong = [s for s in self.open if s not in right]
        self.actions += strokes(right, wrong) if by_strokes else len(right)
        for proposal in right:
            self._accept(proposal)

    def _act(self, threshold: float) -> _Act:
        sure = [s for s in self.open if s.score >= threshold]
        kept = [*self._new(sure, CORRECTED_IOU).values()]
        wrong = [s for s in sure if s not in kept and self._is_seen(s)]
        others = {*kept, *self._new(self.open, CORRECTED_IOU).values()}
        actions = 1 + strokes(wrong, [*others]) + (threshold != self.threshold)
        return _Act(threshold, kept, wrong, actions, len(kept) - actions)

    def reject_rest(self) -> None:
        """Reject all that are open where two or more at clicks would be anyway.

        The others there are no loss: correcting one costs as much as its object from
        scratch (``benchmarks/suggestions.md``).
        """
        left = set(self.plane.others) - self.accepted.keys()
        there = [(self._at_click(number), number) for number in left]
        wrong = [s for s, number in there if s and not self._is_near(s, number)]
        if len(wrong) > 1:
            self.actions += 1
            self.verdicts += [_verdict(s, right=False) for s in self.open]
            self.open = []

    def finish(self, number: int, clicked: tuple[int, int]) -> tuple[int, int, int]:
        """Return what an object takes after suggestions; ``clicked``: without any.

        Actions until it is acceptable, the same with an accepted one left as it is from
        an IoU of 0.75 on, and until its IoU is 0.75.
        """
        if number in self.accepted:
            ok, close = self.plane.mend(self.accepted[number], number)
            return ok, close, close
        ok, close = clicked
        there = self._at_click(number)
        if there is not None and self._is_near(there, number):
            seed = self.plane.first_click(number)
            ok, close = self.plane.mend(replace(there, seed=seed), number)
        one = int(there is not None)  # accepted or rejected
        return one + ok, one + ok, one + close

    def _at_click(self, number: int) -> ObjectSuggestion | None:
        """Return the open suggestion that an object's first click is in."""
        pixel = self.plane.first_click(number)
        return next((s for s in self.open if pixel in s.mask), None)

    def _is_near(self, proposal: ObjectSuggestion, number: int) -> bool:
        found, iou = self.plane.match(proposal.mask)
        return found == number and iou >= CORRECTED_IOU

    def _is_seen(self, proposal: ObjectSuggestion) -> bool:
        """Whether a suggestion is not one of an object outside what is measured."""
        return self.plane.match(proposal.mask)[0] <= self.plane.count

    def _new(
        self, proposals: Sequence[ObjectSuggestion], least: float
    ) -> dict[int, ObjectSuggestion]:
        """Return each new object's best suggestion, of an IoU of at least ``least``."""
        best: dict[int, tuple[float, ObjectSuggestion]] = {}
        for proposal in proposals:
            number, iou = self.plane.match(proposal.mask)
            is_new = TAUGHT < number <= self.plane.count and number not in self.accepted
            if is_new and iou >= max(least, best.get(number, (0.0,))[0]):
                best[number] = iou, proposal
        return {number: proposal for number, (_, proposal) in best.items()}

    def _accept(self, proposal: ObjectSuggestion) -> None:
        self.accepted[self.plane.match(proposal.mask)[0]] = proposal
        self.finished.append(proposal.mask)
        self.verdicts.append(_verdict(proposal, right=True))
        self.open = [s for s in self.open if s is not proposal]


def strokes(
    chosen: Sequence[ObjectSuggestion], others: Sequence[ObjectSuggestion]
) -> int:
    """Return in how many acts some suggestions are accepted, or rejected.

    Each is a stroke from middle to middle, straight to the nearest one that is left
    and can be reached without touching any of the others, or a click on a single one.
    """
    middles = {s: innermost(s.mask) for s in chosen}
    left, acts = [*chosen], 0
    while left:
        acts += 1
        last: ObjectSuggestion | None = left.pop(0)
        for _ in range(MOST_IN_STROKE - 1):
            if last is not None:
                last = _next_of(left, last, middles, others)
            if last is not None:
                left.remove(last)
    return acts


def _next_of(
    left: Sequence[ObjectSuggestion],
    last: ObjectSuggestion,
    middles: dict[ObjectSuggestion, tuple[int, int]],
    others: Sequence[ObjectSuggestion],
) -> ObjectSuggestion | None:
    """Return where a stroke goes on to, None if it ends."""
    start, reach = middles[last], STROKE_STEP * 2 * math.sqrt(last.mask.area / math.pi)
    far = {s: math.dist(start, middles[s]) for s in left}
    near = sorted((s for s in left if far[s] < reach), key=far.__getitem__)
    return next((s for s in near if not _touches(others, start, middles[s])), None)


def _touches(
    others: Sequence[ObjectSuggestion], start: tuple[int, int], end: tuple[int, int]
) -> bool:
    """Return whether a straight stroke touches any of some suggestions."""
    count = math.ceil(math.dist(start, end)) + 1
    path = np.round(np.linspace(start, end, count)).astype(int)
    low, high = path.min(axis=0), path.max(axis=0) + 1
    box = (*low.tolist(), *high.tolist())
    masks = (s.mask for s in others)
    near = (m for m in masks if 0 not in shape_of(overlap(m.box, box)))
    return any(m.window(box)[tuple((path - low).T)].any() for m in near)


def _verdict(proposal: ObjectSuggestion, *, right: bool) -> Verdict:
    return Verdict(proposal.mask, proposal.traits, right)
