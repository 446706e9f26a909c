"""Measure suggestions on whole fields: three objects clicked, the rest proposed.

A robot works with the suggestions of a field and clicks the other objects
(:mod:`~napari_cfrseg.evaluation.suggestion_robot`), or clicks each from scratch. A
random sample of the objects stands for all; suggestions are judged on all.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_cfrseg.engine.suggestions import ACCEPT_FROM
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets import BenchmarkObject
from napari_cfrseg.evaluation.fields import TAUGHT, Field, FieldSettings
from napari_cfrseg.evaluation.scores import mean
from napari_cfrseg.evaluation.suggestion_robot import SuggestionRobot

if TYPE_CHECKING:
    from napari_cfrseg.engine.segmenter import Segmenter


class Cost(NamedTuple):
    """Actions per object of a field."""

    acceptable: float  #: until each outline is acceptable
    #: the same, but a suggestion accepted at its IoU of 0.75 or more is left as it is
    as_it_is: float
    close: float  #: until the IoU of each is 0.75


@dataclass(frozen=True, slots=True)
class FieldRow:
    """Effort for a field, and the first suggestions."""

    key: str  #: the plane
    set_name: str
    objects: int
    clicked: Cost  #: each object clicked from scratch
    one_by_one: Cost  #: right suggestions accepted one at a time
    at_once: Cost  #: all above the slider in one action, the others by strokes
    with_noise: Cost  #: one by one, with acceptances that are wrong
    #: score of each first suggestion, and whether it covers an object with IoU ≥ 0.75
    #: (each object counted once)
    scored: tuple[tuple[float, bool], ...]
    accepted: int  #: suggestions accepted one by one, in both rounds
    as_they_are: float  #: share of these that needed no correction, in the sample
    first_s: float  #: seconds until the first suggestions
    all_s: float  #: and until all of the first asking

    def found(self, threshold: float) -> tuple[int, int]:
        """Return how many were suggested at a score or above, and how many right."""
        chosen = [right for score, right in self.scored if score >= threshold]
        return len(chosen), sum(chosen)


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

    def per_object(suggested: SuggestionRobot | None = None) -> Cost:
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

    def run(wrong_share: float = 0.0, *, at_once: bool = False) -> SuggestionRobot:
        suggested = SuggestionRobot(plane)
        suggested.run(wrong_share, at_once=at_once, seed=settings.seed)
        return suggested

    one_by_one = run()
    pairs = [(n, one_by_one.accepted.get(n)) for n in sample]
    kept = [plane.mend(found, n)[0] == 0 for n, found in pairs if found]
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
        as_they_are=mean(kept or [0.0]),
        first_s=plane.first_s,
        all_s=plane.all_s,
    )


def format_fields(rows: Sequence[FieldRow], settings: FieldSettings) -> str:
    """Lay out actions per object and the quality of accepting all, as Markdown."""
    noise = f"{100 * settings.wrong_share:.0f} % wrong"
    lines = [
        "Actions per object of a field (fewer is better), until every outline is "
        "acceptable / with suggestions left as they are from an IoU of 0.75 on: each "
        "object clicked; right suggestions accepted one by one; all above the slider "
        "accepted at once after wrong ones were rejected, the other right ones by "
        f"strokes; one by one with {noise} "
        "acceptances. Precision and recall are those of accepting all at the default; "
        "*all* is the share of objects that any suggestion covers.",
        "",
        "| set | fields (objects) | clicked | one by one | at once | "
        f"{noise} | one by one / clicked | at once / clicked | precision | recall | "
        "all | kept as they are | first / all s |",
        f"|---|---|{11 * '--:|'}",
    ]
    by_set: dict[str, list[FieldRow]] = defaultdict(list)
    for row in rows:
        by_set[row.set_name].append(row)
    groups = sorted(by_set.items())
    figures = [_figures(group) for _, group in groups]
    # a precision is nan where nothing is sure
    known = [filterfalse(math.isnan, values) for values in zip(*figures, strict=True)]
    together = [mean([*values]) for values in known]
    for (name, group), (clicked, *values) in zip(
        [*groups, ("sets alike", rows)], [*figures, together], strict=True
    ):
        pairs = list(zip(values[:6:2], values[1:6:2], strict=True))
        cells = [f"{clicked:.2f}", *(f"{a:.2f} / {b:.2f}" for a, b in pairs)]
        cells += [f"{a / clicked:.2f} / {b / clicked:.2f}" for a, b in pairs[:2]]
        cells += [f"{value:.2f}" for value in values[6:10]]
        count = sum(row.objects for row in group)
        seconds = f"{values[10]:.1f} / {values[11]:.1f}"
        head = f"| {name} | {len(group)} ({count}) | "
        lines.append(f"{head}{' | '.join(cells)} | {seconds} |")
    return "\n".join(lines) + "\n"


def _figures(rows: Sequence[FieldRow]) -> list[float]:
    """Mean over fields; precision and recall over their suggestions and objects."""
    costs = [
        (*row.clicked[:1], *row.one_by_one[:2], *row.at_once[:2], *row.with_noise[:2])
        for row in rows
    ]
    proposed, right = np.sum([row.found(ACCEPT_FROM) for row in rows], axis=0)
    objects = sum(row.objects - TAUGHT for row in rows)
    return [
        *map(float, np.mean(costs, axis=0)),
        right / proposed if proposed else math.nan,
        right / objects,
        sum(row.found(0.0)[1] for row in rows) / objects,
        mean([row.as_they_are for row in rows if row.accepted]),
        mean([row.first_s for row in rows]),
        mean([row.all_s for row in rows]),
    ]
