"""Is one run better than another? Paired differences with bootstrap intervals.

For objects both runs did, d_i = value_B(i) − value_A(i); the interval is the 2.5th to
97.5th percentile of the mean of d over resamples. Objects of one image resemble each
other, so images are drawn with replacement, and then objects within each: the intervals
are wider and honest. A difference whose interval holds 0 is called not significant.
With fewer than five images the verdict is limited to these images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation import scores
from napari_cfrseg.evaluation.runner import Run
from napari_cfrseg.evaluation.scores import ResultRow, bootstrap_means, pooled_rows

CONFIDENCE = 0.95
#: with fewer images an interval speaks of these images only
MIN_IMAGES = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """B minus A in one measure, over one group of objects."""

    measure: str  #: for example ``"NoC@90"``
    group: str  #: the set's name, or ``"pooled"``
    #: how many were paired
    objects: int
    images: int
    #: means, and B − A
    mean_a: float
    mean_b: float
    difference: float
    #: interval of the difference
    low: float
    high: float
    fewer_is_better: bool  #: whether a negative difference favours B

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """``"B better"``, ``"A better"`` or ``"not significant"``, and on how few."""
        if not self.is_significant:
            return "not significant"
        better = "B" if (self.difference < 0) == self.fewer_is_better else "A"
        few = f" on these {self.images} images" if self.images < MIN_IMAGES else ""
        return f"{better} better{few}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, the verdict included."""
        return {**asdict(self), "verdict": self.verdict}


def compare_runs(
    first: Run,
    second: Run,
    *,
    resamples: int = scores.RESAMPLES,
) -> list[Difference]:
    """Compare two runs of the same protocol, A and B, on the objects both did.

    All measures are pooled (the same number of objects of every set; each over the
    objects where both runs have it), then NoC@90 of each set; sets with fewer paired
    objects than ``MIN_POOLED_OBJECTS`` are neither pooled nor listed. Raises
    DatasetError if the runs share no object or their robots differ.
    """
    if odd := differing_robots(first, second):
        raise DatasetError(
            f"{first.folder} and {second.folder} were made by different robots "
            f"({', '.join(odd)}): run both with the same options"
        )
    rows_b = {row.key: row for row in second.rows}
    pairs = {row.key: (row, rows_b[row.key]) for row in first.rows if row.key in rows_b}
    if not pairs:
        msg = f"{first.folder} and {second.folder} have no object in common"
        raise DatasetError(msg)
    rows_a = [a for a, _ in pairs.values()]
    pool = pooled_rows(rows_a, first.order)
    measures = _measures(first.settings.target, first.settings.max_clicks)
    rng = np.random.default_rng(0)
    paired = [pairs[row.key] for row in pool]
    found = [
        _difference(named, "pooled", paired, rng, resamples)
        for named in measures.items()
    ]
    noc = ("NoC@90", measures.get("NoC@90", measures["NoC@80"]))
    for set_name in sorted({row.set_name for row in rows_a}):
        group = [pairs[row.key] for row in rows_a if row.set_name == set_name]
        if len(group) >= scores.MIN_POOLED_OBJECTS:
            found.append(_difference(noc, set_name, group, rng, resamples))
    return [difference for difference in found if difference is not None]


#: value of one row, and whether fewer is better
Measure = tuple[Callable[[ResultRow], float], bool]


def _measures(target: float, max_clicks: int) -> Mapping[str, Measure]:
    def noc(row: ResultRow, goal: float) -> float:
        return scores.clicks_to(row.ious, goal, max_clicks)

    def iou(row: ResultRow, click: int) -> float:
        return scores.iou_at(row.ious, click)

    def share(row: ResultRow, effect: str, group: str) -> float:
        return scores.mean(scores.shares(row, effect, group))

    found: dict[str, Measure] = {}
    if target >= 0.90 - 1e-9:
        found["NoC@ok"] = (lambda row: scores.clicks_to_ok(row, max_clicks), True)
    for goal in (0.80, 0.85, 0.90, 0.95):
        if goal <= target + 1e-9 or goal == 0.80:
            found[f"NoC@{round(100 * goal)}"] = (partial(noc, goal=goal), True)
    for n in (1, 3, 5):
        found[f"IoU@{n}"] = (partial(iou, click=n), False)
    found["first click fails"] = (lambda row: row.ious[0] < scores.FAILING_IOU, True)
    found["drops, share of clicks"] = (
        lambda row: scores.mean(scores.drops(row.ious)),
        True,
    )
    for effect, group in product(scores.EFFECTS, scores.CLICK_GROUPS):
        name = f"{effect.replace('_', ' ')}, click {group}"
        found[name] = (partial(share, effect=effect, group=group), effect != "mended")
    found["area under curve"] = (
        lambda row: scores.area_under_curve([row.ious], max_clicks),
        False,
    )
    found["regressions per object"] = (
        lambda row: scores.count_regressions(row.ious, row.error_px),
        True,
    )
    found["seconds per click"] = (lambda row: float(np.mean(row.seconds)), True)
    return found


def _difference(
    named: tuple[str, Measure],
    group: str,
    pairs: Sequence[tuple[ResultRow, ResultRow]],
    rng: np.random.Generator,
    resamples: int,
) -> Difference | None:
    """Compare over the pairs where both rows have the measure; None without any."""
    name, (value, fewer_is_better) = named
    values = np.array([(value(a), value(b)) for a, b in pairs], float)
    known = np.isfinite(values).all(axis=1)
    if not known.any():
        return None
    a, b = values[known].T
    images = [
        f"{row.set_name}/{row.image_name}"
        for (row, _), is_known in zip(pairs, known, strict=True)
        if is_known
    ]
    resampled = bootstrap_means(b - a, images, rng, resamples)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    amounts = len(images), len(set(images))
    means = float(a.mean()), float(b.mean()), float((b - a).mean())
    interval = float(low), float(high)
    return Difference(name, group, *amounts, *means, *interval, fewer_is_better)


def differing_robots(first: Run, second: Run) -> list[str]:
    """Name the settings in which the robots of two runs differ; none: comparable."""
    a, b = asdict(first.settings), asdict(second.settings)
    return [k for k in ("max_clicks", "target", "human", "seed") if a[k] != b[k]]


def format_differences(
    differences: Sequence[Difference], label_a: str, label_b: str
) -> str:
    """Return differences as a Markdown table."""
    lines = [
        f"A = {label_a}, B = {label_b}; paired over the same objects, "
        f"{round(100 * CONFIDENCE)} % bootstrap intervals over images and their "
        "objects.",
        "",
        "| measure | on | objects (images) | A | B | B − A | interval | |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]
    lines += [
        f"| {d.measure} | {d.group} | {d.objects} ({d.images}) | {d.mean_a:.3f} "
        f"| {d.mean_b:.3f} | {d.difference:+.3f} | [{d.low:+.3f}, {d.high:+.3f}] "
        f"| {d.verdict} |"
        for d in differences
    ]
    return "\n".join(lines) + "\n"
