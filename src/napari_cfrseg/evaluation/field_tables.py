"""A row of figures for each field of suggestions, and their table as Markdown."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import filterfalse
from typing import NamedTuple

import numpy as np

from napari_cfrseg.evaluation.scores import mean

#: objects clicked before the first suggestions
TAUGHT = 3


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """How fields are measured."""

    max_objects: int = 40  #: objects clicked or corrected per field; a sample beyond
    wrong_share: float = 0.1  #: acceptances that are wrong in the run with noise
    seed: int = 0  #: of the objects taught and sampled, and of the noise
    most: int | None = None  #: only so many objects around the plane's middle


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
    from napari_cfrseg.engine.suggestions import ACCEPT_FROM

    costs = [
        [
            row.clicked.acceptable,
            *row.one_by_one[:2],
            *row.at_once[:2],
            *row.with_noise[:2],
        ]
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
