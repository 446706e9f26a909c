"""A run's figures, averaged per set and pooled, and the tables of a report.

Tables have the papers' layout: a row per model, columns per data set.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from napari_cfrseg.evaluation import scores
from napari_cfrseg.evaluation.runner import Run
from napari_cfrseg.evaluation.scores import MIN_POOLED_OBJECTS, ResultRow, pooled_rows

T = TypeVar("T")
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
    #: where the robot stopped before
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
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


def summarize(
    rows: Sequence[ResultRow],
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

    def at(
        measure: Callable[[Sequence[Sequence[float]], float, int], T],
        goals: Sequence[float],
    ) -> dict[int, T]:
        """Measure at the goals that the robot went for."""
        own = (goal for goal in goals if goal <= target + 1e-9)
        return {in_percent(goal): measure(runs, goal, max_clicks) for goal in own}

    curve = scores.mean_iou_curve(runs, max_clicks)
    ok_counts = [scores.clicks_to_ok(row, max_clicks) for row in rows]
    among = [scores.clicks_among(*pair) for pair in zip(rows, ok_counts, strict=True)]
    has_ok = target + 1e-9 >= 0.90
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
        noc=at(scores.mean_clicks_to, NOC_TARGETS),
        nof=at(scores.count_failures, NOF_TARGETS),
        nof_published=at(partial(scores.count_failures, published=True), NOF_TARGETS),
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
    rows: Sequence[ResultRow],
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


#: a model's name and its summaries: one per set, the last one pooled
Results = Sequence[tuple[str, Sequence[Summary]]]


def format_tables(results: Results) -> str:
    """Return results as Markdown: clicks, IoU, surfaces, and the cost of a click."""
    parts = [
        "Clicks (or actions) until the outline is acceptable (NoC@ok: IoU ≥ 0.90, or "
        "≥ 0.75 with a surface dice ≥ 0.95), and objects where it never is.",
        _by_set(results, _ok_cell),
        "Clicks to IoU 0.85 / 0.90, and objects that miss 0.90 within the clicks "
        "allowed (fewer is better).",
        _by_set(results, _noc_cell),
        "IoU after 1 / 3 / 5 clicks.",
        _by_set(results, lambda s: _at_clicks(s.iou_at)),
    ]
    if any(s.boundary_iou_at for _, summaries in results for s in summaries):
        parts += [
            "Boundary IoU after 1 / 3 / 5 clicks, and ASSD after 5, in pixels (and "
            "micrometres).",
            _by_set(results, _surface_cell),
        ]
    parts += [
        "Pooled, in %: first clicks that fail (IoU < 0.5); later clicks that lower the "
        "IoU by more than 0.01 (drops); and the share of the object's area that clicks "
        "mend / spoil (in brackets: spoil beyond the clicked error's reach).",
        _corrections(results),
        "Pooled.",
        _costs(results),
    ]
    return "\n\n".join(parts) + "\n"


def _by_set(results: Results, cell: Callable[[Summary], str]) -> str:
    columns = _columns(results)
    rows = []
    for label, summaries in results:
        by_name = {summary.name: summary for summary in summaries}
        cells = [cell(by_name[name]) if name in by_name else "–" for name, _ in columns]
        rows.append([label, *cells])
    return _table(["model", *(f"{name} ({n})" for name, n in columns)], rows)


def _columns(results: Results) -> list[tuple[str, int]]:
    """Every set with its number of objects, by name, the pool last."""
    counts: dict[str, int] = {}
    for _, summaries in results:
        for summary in summaries:
            counts[summary.name] = max(counts.get(summary.name, 0), summary.objects)
    return sorted(counts.items(), key=lambda item: (item[0] == "pooled", item[0]))


def _ok_cell(summary: Summary) -> str:
    never = "–" if summary.nof_ok is None else summary.nof_ok
    among = ""
    if summary.ok_clicks < summary.noc_ok:
        among = f" ({_number(summary.ok_clicks, 2)} clicks)"
    return f"{_number(summary.noc_ok, 2)}{among} · {never}"


def _noc_cell(summary: Summary) -> str:
    clicks = [_number(summary.noc.get(goal), 2) for goal in (85, 90)]
    return f"{clicks[0]} / {clicks[1]} · {summary.nof.get(90, '–')}"


def _at_clicks(means: Mapping[int, float]) -> str:
    return " / ".join(_number(means.get(n), 3) for n in IOU_CLICKS)


def _surface_cell(summary: Summary) -> str:
    last = IOU_CLICKS[-1]
    cell = _at_clicks(summary.boundary_iou_at)
    cell += f" · {_number(summary.assd_at.get(last), 2)}"
    if summary.assd_um_at:
        cell += f" ({_number(summary.assd_um_at.get(last), 3)} µm)"
    return cell


def _corrections(results: Results) -> str:
    names = ["model", "NoC@ok", "failing first", "drops"]
    names += [f"click {group}" for group in scores.CLICK_GROUPS]
    rows = []
    for label, summaries in results:
        pool = summaries[-1]
        cells = [label, _number(pool.noc_ok, 2)]
        cells += [_percent(share, 0) for share in (pool.failing_first, pool.drops)]
        for group in scores.CLICK_GROUPS:
            change = pool.effects[group]
            cells.append(
                f"{_percent(change.mended)} / {_percent(change.spoilt)} "
                f"({_percent(change.spoilt_far)})"
            )
        rows.append(cells)
    return _table(names, rows)


def _percent(share: float, digits: int = 1) -> str:
    return _number(100 * share, digits)


def _costs(results: Results) -> str:
    names = ["model", *(f"NoC@{goal}" for goal in (80, 85, 90, 95))]
    names += ["NoF@90 (published)", "area under curve", "first click ms"]
    names += ["later click ms", "steps, first / later", "regressions per 100"]
    rows = []
    for label, summaries in results:
        pool = summaries[-1]
        cells = [label, *(_number(pool.noc.get(goal), 2) for goal in (80, 85, 90, 95))]
        cells += [
            f"{pool.nof.get(90, '–')} ({pool.nof_published.get(90, '–')})",
            _number(pool.area_under_curve, 3),
            _number(1000 * pool.first_click_s, 0),
            _number(1000 * pool.later_click_s, 0),
            f"{_number(pool.first_steps, 2)} / {_number(pool.later_steps, 2)}",
            _number(pool.regressions_per_100, 1),
        ]
        rows.append(cells)
    return _table(names, rows)


def format_robot_spread(spread: Mapping[str, Sequence[Summary]]) -> str:
    """Return a table of how much depends on where people click.

    ``spread`` is {model: the pool of each seed of the human-like robot}. Cells are the
    mean over seeds (least to most); mended and spoilt are of clicks from the fourth on.
    """
    rows = []
    for label, pools in spread.items():
        late = [pool.effects["4+"] for pool in pools]
        measures = [[pool.noc_ok for pool in pools]]
        measures += [[p.noc.get(goal, math.nan) for p in pools] for goal in (85, 90)]
        measures.append([100 * pool.drops for pool in pools])
        measures += [[100 * c.mended for c in late], [100 * c.spoilt for c in late]]
        rows.append([label, str(len(pools)), *map(_mean_and_range, measures)])
    names = ["model", "seeds", "NoC@ok", "NoC@85", "NoC@90"]
    return _table([*names, "drops %", "mended %", "spoilt %"], rows) + "\n"


def _mean_and_range(values: Sequence[float]) -> str:
    least, most = (_number(value, 2) for value in (min(values), max(values)))
    return f"{_number(scores.mean(values), 2)} ({least} to {most})"


def write_objects(path: Path, runs: Sequence[Run]) -> None:
    """Write one CSV line per object and run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ["model", "robot_seed", "key", "set", "image", "plane", "area_px"]
        goals = [f"clicks_to_{in_percent(goal)}" for goal in NOC_TARGETS]
        names += ["clicks", "last_iou", *goals]
        names += [*(f"iou_at_{n}" for n in IOU_CLICKS), "regressions", "first_click_s"]
        writer.writerow([*names, "mean_later_click_s", "steps", "run"])
        for run in runs:
            for row in run.rows:
                first, later = scores.seconds_per_click([row.seconds])
                writer.writerow(
                    [
                        *(run.label, row.seed, row.key, row.set_name, row.image_name),
                        *("" if row.plane is None else row.plane, row.area_px),
                        *(len(row.ious), f"{row.ious[-1]:.5f}"),
                        *_reached(run, row.ious),
                        *(f"{scores.iou_at(row.ious, n):.5f}" for n in IOU_CLICKS),
                        scores.count_regressions(row.ious, row.error_px),
                        *(f"{first:.4f}", "" if math.isnan(later) else f"{later:.4f}"),
                        *(sum(row.steps) if row.steps else "", run.folder.name),
                    ]
                )


def _reached(run: Run, ious: Sequence[float]) -> list[int | str]:
    """Clicks to each goal; empty above the robot's own target."""
    most, target = run.settings.max_clicks, run.settings.target + 1e-9
    counts = ((goal, scores.clicks_to(ious, goal, most)) for goal in NOC_TARGETS)
    return [count if goal <= target else "" for goal, count in counts]


def _number(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown: the first column to the left, the others to the right."""
    lines = [names, ["---", *["--:"] * (len(names) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
