"""Figures of a run: averages over the objects of each set, and pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from napari_cfrseg.evaluation import scores
from napari_cfrseg.evaluation.scores import MIN_POOLED_OBJECTS, ObjectRow, pooled_rows

NOC_TARGETS = (0.80, 0.85, 0.90, 0.95)
NOF_TARGETS = (0.85, 0.90, 0.95)
IOU_CLICKS = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one set, or of the pool."""

    name: str  #: the set; ``"pooled"`` for the pool
    objects: int
    #: mean actions until the outline is acceptable, the clicks among them (the same
    #: where the robot only clicks), and the objects where it never is; NaN and None
    #: where the robot stopped before, or rows lack the surface dice
    noc_ok: float
    ok_clicks: float
    nof_ok: int | None
    #: share of the objects whose first click fails (IoU below 0.5)
    failing_first: float
    #: share of the clicks after the first that lower the IoU by more than 0.01
    drops: float
    #: shares of the object's area that clicks 1, 2, 3 and later ones change
    effects: dict[str, scores.ClickShares]
    #: {target in percent: mean clicks}; targets above the robot's own are left out,
    #: since it stopped before them
    noc: dict[int, float]
    #: {target in percent: objects that failed}, success at the last click counted as
    #: success, and as failure
    nof: dict[int, int]
    nof_published: dict[int, int]
    #: {click: mean}; all but the first empty when surfaces were not measured, ASSD in
    #: pixels and micrometres over the objects where it is defined
    iou_at: dict[int, float]
    boundary_iou_at: dict[int, float]
    assd_at: dict[int, float]
    assd_um_at: dict[int, float]
    curve: tuple[float, ...]  #: mean IoU after 1 … max_clicks clicks
    area_under_curve: float  #: of the curve, over its width
    #: seconds per click
    first_click_s: float
    later_click_s: float
    #: network steps per click; NaN if the segmenter does not report them
    first_steps: float
    later_steps: float
    regressions_per_100: float  #: clicks that made it worse, per 100

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; NaN becomes None."""
        plain = _finite(asdict(self))
        if not isinstance(plain, dict):
            raise TypeError(plain)
        return plain


def summarize(
    rows: Sequence[ObjectRow],
    name: str,
    *,
    max_clicks: int = scores.MAX_CLICKS,
    target: float = 0.90,
) -> Summary:
    """Average one group of rows; ``max_clicks`` and ``target`` are the robot's."""
    runs = [row.ious for row in rows]
    surfaces = [row for row in rows if row.boundary_ious]
    first_s, later_s = scores.seconds_per_click([row.seconds for row in rows])
    first_steps, later_steps = scores.seconds_per_click([row.steps for row in rows])
    reached = {in_percent(t): t for t in NOC_TARGETS if t <= target + 1e-9}
    failing = {in_percent(t): t for t in NOF_TARGETS if t <= target + 1e-9}
    curve = scores.mean_iou_curve(runs, max_clicks)
    ok_counts = [scores.clicks_to_ok(row, max_clicks) for row in rows]
    among = [scores.clicks_among(*pair) for pair in zip(rows, ok_counts, strict=True)]
    has_ok = target + 1e-9 >= 0.90 and all(row.surface_dices for row in rows)
    never_ok = None
    if has_ok:
        never_ok = sum(not scores.is_ok_within(row, max_clicks) for row in rows)
    return Summary(
        name=name,
        objects=len(rows),
        noc_ok=scores.mean(ok_counts) if has_ok else math.nan,
        ok_clicks=scores.mean(among) if has_ok else math.nan,
        nof_ok=never_ok,
        failing_first=scores.mean([run[0] < scores.FAILING_IOU for run in runs]),
        drops=scores.mean([drop for run in runs for drop in scores.drops(run)]),
        effects=scores.mean_effects(rows),
        noc={
            name: scores.mean_clicks_to(runs, goal, max_clicks)
            for name, goal in reached.items()
        },
        nof={
            name: scores.count_failures(runs, goal, max_clicks)
            for name, goal in failing.items()
        },
        nof_published={
            name: scores.count_failures(runs, goal, max_clicks, published=True)
            for name, goal in failing.items()
        },
        iou_at={n: scores.mean_iou_at(runs, n) for n in IOU_CLICKS},
        boundary_iou_at=_mean_at([r.boundary_ious for r in surfaces]),
        assd_at=_mean_at([r.assds_px for r in surfaces]),
        assd_um_at=_mean_at([r.assds_um for r in surfaces if r.assds_um]),
        curve=tuple(float(value) for value in curve),
        area_under_curve=scores.area_under_curve(runs, max_clicks),
        first_click_s=first_s,
        later_click_s=later_s,
        first_steps=first_steps,
        later_steps=later_steps,
        regressions_per_100=scores.regressions_per_100(
            runs, [row.error_px for row in rows]
        ),
    )


def summarize_sets(
    rows: Sequence[ObjectRow],
    order: Sequence[str] | None = None,
    *,
    max_clicks: int = scores.MAX_CLICKS,
    target: float = 0.90,
    min_objects: int = MIN_POOLED_OBJECTS,
) -> list[Summary]:
    """Average per set by name, and last ``"pooled"``.

    The pool has the same number of objects of every set with ``min_objects`` or more;
    it is all rows where no set is large enough. ``order`` are the keys in the order
    drawn, by default the rows' order.
    """
    order = order if order is not None else [row.key for row in rows]
    names = sorted({row.set_name for row in rows})
    pool = pooled_rows(rows, order, min_objects=min_objects)
    groups = [([row for row in rows if row.set_name == name], name) for name in names]
    return [
        summarize(group, name, max_clicks=max_clicks, target=target)
        for group, name in [*groups, (pool, "pooled")]
    ]


def _mean_at(runs: Sequence[Sequence[float]]) -> dict[int, float]:
    if not runs:
        return {}
    means = {}
    for click in IOU_CLICKS:
        values = np.array([scores.iou_at(run, click) for run in runs])
        finite = values[np.isfinite(values)]
        means[click] = float(finite.mean()) if finite.size else math.nan
    return means


def in_percent(target: float) -> int:
    """Return a share as a whole percentage."""
    return round(100 * target)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
