"""The robot that may take a candidate or move the outline instead of clicking."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_cfrseg.evaluation.datasets import AnnotatedPlane, BenchmarkObject
from napari_cfrseg.evaluation.evaluate_objects import RunSettings, evaluate_object
from napari_cfrseg.evaluation.scores import ResultRow, clicks_among, clicks_to_ok

SIDE = 64
DEPTH = np.maximum(*np.abs(np.mgrid[:SIDE, :SIDE] - 31.5))


def square(half: float) -> np.ndarray:
    return half > DEPTH


@dataclass(frozen=True)
class Answer:
    """A probability that falls from the middle outwards, and other answers."""

    half: float
    others: tuple[float, ...] = ()
    choice: int = 0
    threshold: float = 0.5

    @property
    def mask(self) -> np.ndarray:
        logits = (self.half - DEPTH) * 2  # four logits are two pixels
        return 1 / (1 + np.exp(-logits)) > self.threshold

    @property
    def candidates(self) -> tuple[Answer, ...]:
        return tuple(map(self.choose, range(1 + len(self.others))))

    def choose(self, candidate: int) -> Answer:
        if candidate == self.choice:
            return self
        return replace(self, half=self.others[candidate - 1], choice=candidate)

    def with_threshold(self, threshold: float) -> Answer:
        return replace(self, threshold=threshold)


class Answering:
    """Gives the same answers whatever is clicked."""

    def __init__(self, first: Answer, later: Answer) -> None:
        self.first, self.later = first, later

    def set_image(self, image: np.ndarray) -> None: ...

    def predict(self, clicks: list[Any], previous: Any) -> Answer:
        return self.later if previous else self.first


def run(segmenter: Any, *, actions: bool = True) -> ResultRow:
    plane = AnnotatedPlane(np.zeros((SIDE, SIDE)), square(16)[None].astype(np.uint8))
    item = BenchmarkObject(None, "s", "i", None, 1)  # type: ignore[arg-type]  # not read
    settings = RunSettings(max_clicks=4, min_clicks=1, actions=actions)
    return evaluate_object(segmenter, plane, item, settings)


def test_the_next_candidate_is_taken_where_it_is_best() -> None:
    row = run(Answering(Answer(4, (6, 16)), Answer(4)))
    assert row.actions == ("click", "candidate", "candidate")
    assert len(row.clicks) == 1
    assert row.ious[-1] == 1.0
    assert (clicks_to_ok(row), clicks_among(row, 3)) == (3, 1)


def test_no_candidate_is_taken_after_the_second_click() -> None:
    row = run(Answering(Answer(4, (3, 16)), Answer(10)))
    assert row.actions[:2] == ("click", "click")
    assert "candidate" not in row.actions


def test_the_outline_is_moved_where_that_is_best() -> None:
    row = run(Answering(Answer(14.1), Answer(9)))
    assert row.actions == ("click", "outline")
    assert row.ious[-1] == 1.0


def test_a_click_is_made_where_it_is_best() -> None:
    row = run(Answering(Answer(4), Answer(16)))
    assert row.actions == ("click", "click")
    assert row.ious[-1] == 1.0


def test_the_outline_is_not_moved_to_avoid_a_click_that_spoils() -> None:
    class Shrinking(Answer):
        """Only becomes worse where the outline is moved."""

        @property
        def mask(self) -> np.ndarray:
            return square(self.half - abs(self.threshold - 0.5))

    row = run(Answering(Shrinking(13.2), Shrinking(8)))
    assert row.actions[:2] == ("click", "click")


def test_without_actions_the_robot_only_clicks() -> None:
    row = run(Answering(Answer(4, (16,)), Answer(4)), actions=False)
    assert row.actions == ()
    assert len(row.clicks) == len(row.ious) == 4
    assert clicks_among(row, 3) == 3
