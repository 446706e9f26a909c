"""Rows of objects become figures per set and pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from napari_cfrseg.evaluation import scores
from napari_cfrseg.evaluation.datasets.split import MIN_POOLED_OBJECTS, pooled_rows
from napari_cfrseg.evaluation.object_row import ObjectRow

NOC_TARGETS = (0.80, 0.85, 0.90, 0.95)
NOF_TARGETS = (0.85, 0.90, 0.95)
IOU_CLICKS = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one set, or of the pool.

    Attributes
    ----------
    name
        The set; ``"pooled"`` for the pool.
    objects
        How many.
    noc
        {target in percent: mean clicks}; targets above the robot's own are left out,
        since it stopped before them.
    nof, nof_published
        {target in percent: objects that failed}, success at the last click counted
        as success, and as failure.
    iou_at, boundary_iou_at, assd_at, assd_um_at
        {click: mean}; all but the first empty when surfaces were not measured, ASSD
        in pixels and micrometres over the objects where it is defined.
    curve
        Mean IoU after 1 … max_clicks clicks.
    area_under_curve
        Of the curve, over its width.
    first_click_s, later_click_s
        Seconds per click.
    first_steps, later_steps
        Network steps per click; NaN if the segmenter does not tell.
    regressions_per_100
        Clicks that made it worse, per 100.
    """

    name: str
    objects: int
    noc: dict[int, float]
    nof: dict[int, int]
    nof_published: dict[int, int]
    iou_at: dict[int, float]
    boundary_iou_at: dict[int, float]
    assd_at: dict[int, float]
    assd_um_at: dict[int, float]
    curve: tuple[float, ...]
    area_under_curve: float
    first_click_s: float
    later_click_s: float
    first_steps: float
    later_steps: float
    regressions_per_100: float

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
    """Average one group of rows.

    Parameters
    ----------
    rows
        The objects' runs.
    name
        Of the group.
    max_clicks, target
        What the robot worked with.
    """
    runs = [row.ious for row in rows]
    surfaces = [row for row in rows if row.boundary_ious]
    first_s, later_s = scores.seconds_per_click([row.seconds for row in rows])
    first_steps, later_steps = scores.seconds_per_click([row.steps for row in rows])
    reached = [t for t in NOC_TARGETS if t <= target + 1e-9]
    failing = [t for t in NOF_TARGETS if t <= target + 1e-9]
    curve = scores.mean_iou_curve(runs, max_clicks)
    return Summary(
        name=name,
        objects=len(rows),
        noc={_pc(t): scores.mean_clicks_to(runs, t, max_clicks) for t in reached},
        nof={_pc(t): scores.count_failures(runs, t, max_clicks) for t in failing},
        nof_published={
            _pc(t): scores.count_failures(runs, t, max_clicks, published=True)
            for t in failing
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
    """Average per set, then pooled: the same number of objects of every set.

    Parameters
    ----------
    rows
        The objects' runs.
    order
        Keys in the order the objects were drawn; None: the rows' order.
    max_clicks, target
        What the robot worked with.
    min_objects
        Smaller sets are listed but not pooled.

    Returns
    -------
    One summary per set, by name, and last ``"pooled"`` (the pool is all rows where
    no set is large enough).
    """
    order = order if order is not None else [row.key for row in rows]
    names = sorted({row.set_name for row in rows})
    pool = pooled_rows(rows, order, min_objects=min_objects) or list(rows)
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


def _pc(target: float) -> int:
    return round(100 * target)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
