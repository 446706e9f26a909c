"""Tables of a report, in the papers' layout: a row per model, columns per data set."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from napari_cfrseg.evaluation import scores
from napari_cfrseg.evaluation.report.summaries import IOU_CLICKS, Summary, in_percent
from napari_cfrseg.evaluation.runner import Run

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
        _by_set(results, _iou_cell),
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


def _iou_cell(summary: Summary) -> str:
    return " / ".join(_number(summary.iou_at.get(n), 3) for n in IOU_CLICKS)


def _surface_cell(summary: Summary) -> str:
    boundary = " / ".join(
        _number(summary.boundary_iou_at.get(n), 3) for n in IOU_CLICKS
    )
    last = IOU_CLICKS[-1]
    cell = f"{boundary} · {_number(summary.assd_at.get(last), 2)}"
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
    goals = (0.80, 0.85, 0.90, 0.95)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ["model", "robot_seed", "key", "set", "image", "plane", "area_px"]
        names += [
            "clicks",
            "last_iou",
            *(f"clicks_to_{in_percent(n)}" for n in goals),
        ]
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
                        *_reached(run, row.ious, goals),
                        *(f"{scores.iou_at(row.ious, n):.5f}" for n in IOU_CLICKS),
                        scores.count_regressions(row.ious, row.error_px),
                        *(f"{first:.4f}", "" if math.isnan(later) else f"{later:.4f}"),
                        *(sum(row.steps) if row.steps else "", run.folder.name),
                    ]
                )


def _reached(
    run: Run, ious: Sequence[float], goals: Sequence[float]
) -> list[int | str]:
    """Clicks to each goal; empty above the robot's own target."""
    return [
        scores.clicks_to(ious, goal, run.settings.max_clicks)
        if goal <= run.settings.target + 1e-9
        else ""
        for goal in goals
    ]


def _number(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown: the first column to the left, the others to the right."""
    lines = [names, ["---", *["--:"] * (len(names) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
