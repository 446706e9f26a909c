"""Write a report's folder: figures, tables and pictures of some runs.

::

    summary.json     every figure per set and pooled, for each run
    objects.csv      one line per object and run
    table.md         rows = models, columns = sets
    compare.md       each run against the first: paired differences
    robot.md         how much depends on where people click (human-like robot)
    curves.*         mean IoU after each click, SVG and PNG
    clicks.*         objects by clicks needed, SVG and PNG
    sheet-RUN.png    the twelve worst and twelve median objects with their clicks
    command.txt      the exact command
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg import overlay
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation import scores
from napari_cfrseg.evaluation.datasets import BenchmarkObject, as_rgb
from napari_cfrseg.evaluation.metrics import ACCEPTABLE_IOU
from napari_cfrseg.evaluation.report import comparisons, tables
from napari_cfrseg.evaluation.report.tables import Summary
from napari_cfrseg.evaluation.runner import Run
from napari_cfrseg.evaluation.scores import ResultRow, pooled_rows
from napari_cfrseg.geometry.windows import Box, mask_box, overlap
from napari_cfrseg.io.atomic import check_folder

#: colours of curves, in turn
COLOURS = (
    *map(overlay.hex_of, (overlay.BLUE, overlay.VERMILION, overlay.GREEN)),
    *map(overlay.hex_of, (overlay.PURPLE, overlay.ORANGE, overlay.SKY_BLUE)),
    overlay.hex_of((0, 0, 0)),
)
POSITIVE, NEGATIVE = overlay.hex_of(overlay.SKY_BLUE), overlay.hex_of(overlay.ORANGE)
TRUTH_COLOUR, MASK_COLOUR = map(overlay.hex_of, (overlay.YELLOW, overlay.PURPLE))
SHEET_OBJECTS = 12


def summarize_run(run: Run) -> list[Summary]:
    """Figures of a run per set, and pooled last."""
    most, target = run.settings.max_clicks, run.settings.target
    return tables.summarize_sets(run.rows, run.order, max_clicks=most, target=target)


def write_report(
    folder: Path,
    runs: Sequence[Run],
    objects: Mapping[str, BenchmarkObject] | None = None,
    *,
    command: str = "",
    notes: Sequence[str] = (),
) -> list[tuple[str, list[Summary]]]:
    """Write the report's folder; files of an earlier report are replaced.

    Others are compared with the first run. ``objects``, {key: object}, are for the
    contact sheets (None leaves them out), ``command`` is the exact command, ``notes``
    are lines put under the tables. Returns (name, summaries) per run, as in the tables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = name_runs(runs)
    results = [*zip(names, map(summarize_run, runs), strict=True)]
    (folder / "command.txt").write_text(command + "\n", encoding="utf-8")
    text = tables.format_tables(results) + "".join(f"\n{note}\n" for note in notes)
    (folder / "table.md").write_text(text, encoding="utf-8")
    tables.write_objects(folder / "objects.csv", runs)
    _write_summary(folder / "summary.json", runs, results, command)
    _write_comparisons(folder / "compare.md", runs, names)
    _write_spread(folder / "robot.md", runs, results)
    named = zip(names, runs, strict=True)
    pools = {name: pooled_rows(run.rows, run.order) for name, run in named}
    save_curves(folder, pools)
    save_histograms(folder, pools, min(0.90, runs[0].settings.target))
    if objects is not None:
        for run in runs:
            save_contact_sheet(folder / f"sheet-{run.folder.name}.png", run, objects)
    return results


def name_runs(runs: Sequence[Run]) -> list[str]:
    """Name runs for a table: the label, a human-like robot's seed, and actions."""
    names = [
        run.label
        + (f", human-like {run.settings.seed}" if run.settings.human else "")
        + (", actions" if run.settings.actions else "")
        for run in runs
    ]
    return [
        f"{name} ({run.folder.name})" if names.count(name) > 1 else name
        for name, run in zip(names, runs, strict=True)
    ]


def _write_summary(
    path: Path,
    runs: Sequence[Run],
    results: Sequence[tuple[str, Sequence[Summary]]],
    command: str,
) -> None:
    content = {
        "command": command,
        "runs": [
            {
                "name": name,
                "folder": run.folder.name,
                "finished": run.is_finished,
                "started": run.info.get("started"),
                "versions": run.info.get("versions"),
                **run.info["identity"],
                "sets": {s.name: s.to_dict() for s in summaries},
            }
            for run, (name, summaries) in zip(runs, results, strict=True)
        ],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_comparisons(path: Path, runs: Sequence[Run], names: Sequence[str]) -> None:
    first = runs[0]
    parts = [
        comparisons.format_differences(
            comparisons.compare_runs(first, run), names[0], name
        )
        for run, name in zip(runs[1:], names[1:], strict=True)
        if not comparisons.differing_robots(first, run)
    ]
    if parts:
        path.write_text("\n".join(parts), encoding="utf-8")


def _write_spread(
    path: Path, runs: Sequence[Run], results: Sequence[tuple[str, Sequence[Summary]]]
) -> None:
    spread: dict[str, list[Summary]] = {}
    for run, (_, summaries) in zip(runs, results, strict=True):
        robot = "human-like" if run.settings.human else "exact"
        spread.setdefault(f"{run.label}, {robot} robot", []).append(summaries[-1])
    if any(run.settings.human for run in runs):
        path.write_text(tables.format_robot_spread(spread), encoding="utf-8")


def save_curves(folder: Path, pools: Mapping[str, Sequence[ResultRow]]) -> None:
    """Write ``curves.svg`` and ``.png``: mean IoU after each click, per model."""
    figure = _figure((6.4, 4.4))
    axes = figure.subplots()
    for index, (label, rows) in enumerate(pools.items()):
        curve = scores.mean_iou_curve([row.ious for row in rows])
        line = {"linestyle": "-" if index < len(COLOURS) else "--", "label": label}
        line["color"] = COLOURS[index % len(COLOURS)]
        axes.plot(range(1, len(curve) + 1), curve, marker="o", markersize=3, **line)
    axes.set_xlabel("clicks")
    axes.set_ylabel("mean IoU (stopped objects keep their last)")
    axes.set_xticks([1, 5, 10, 15, 20])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, folder, "curves")


def save_histograms(
    folder: Path, pools: Mapping[str, Sequence[ResultRow]], target: float
) -> None:
    """Write ``clicks.svg`` and ``.png``: how many objects took how many clicks."""
    figure = _figure((6.4, 1.2 + 1.5 * len(pools)))
    grid = figure.subplots(len(pools), 1, sharex=True, squeeze=False)
    for index, (label, rows) in enumerate(pools.items()):
        axes = grid[index, 0]
        clicks = [scores.clicks_to(row.ious, target) for row in rows]
        counts = np.bincount(clicks, minlength=scores.MAX_CLICKS + 1)[1:]
        axes.bar(range(1, len(counts) + 1), counts, color=COLOURS[0])
        axes.set_title(label, fontsize=9)
        axes.set_ylabel("objects", fontsize=8)
        axes.set_xticks([1, 5, 10, 15, 20])
    grid[-1, 0].set_xlabel(f"clicks to IoU {target:.2f} (20: that many or never)")
    _save(figure, folder, "clicks")


def save_contact_sheet(
    path: Path, run: Run, objects: Mapping[str, BenchmarkObject]
) -> None:
    """Write the twelve worst and the twelve median objects with their clicks.

    Rows without one of the ``objects`` (by key) are left out.
    """
    rows = rank_rows([row for row in run.rows if row.key in objects], run)
    if not rows:
        return
    figure = _figure((13, 10), layout=None)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.91, 0.05, 0.3)
    # of few objects none is shown twice
    middle = max(SHEET_OBJECTS, len(rows) // 2 - SHEET_OBJECTS // 2)
    chosen = [rows[:SHEET_OBJECTS], rows[middle : middle + SHEET_OBJECTS]]
    for half, part in enumerate(chosen):
        for index, row in enumerate(part):
            axes = figure.add_subplot(4, 6, 1 + SHEET_OBJECTS * half + index)
            axes.axis("off")
            _draw_object(axes, row, objects[row.key], _clicks(row, run))
    figure.suptitle(
        f"{run.label}: rows 1–2 the worst, rows 3–4 the median objects. Yellow: "
        "annotation, purple: last mask, circles: positive, crosses: negative clicks",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)


def rank_rows(rows: Sequence[ResultRow], run: Run) -> list[ResultRow]:
    """Order rows from worst to best: most clicks first, then lowest last IoU.

    Counted are clicks to an acceptable outline (NoC@ok), for robots that stop before
    those to the robot's target.
    """
    return sorted(rows, key=lambda r: (-_clicks(r, run), r.ious[-1], r.key))


def _clicks(row: ResultRow, run: Run) -> int:
    settings = run.settings
    if settings.target >= ACCEPTABLE_IOU - 1e-9:
        return scores.clicks_to_ok(row, settings.max_clicks)
    return scores.clicks_to(row.ious, min(settings.target, 1.0), settings.max_clicks)


def _draw_object(axes: Any, row: ResultRow, item: BenchmarkObject, needed: int) -> None:
    plane = item.source.read_plane(item.image_name, item.plane)
    truth, mask = item.mask_in(plane), row.last_mask()
    y0, x0, y1, x1 = _view(truth, row)
    extent = (x0 - 0.5, x1 - 0.5, y1 - 0.5, y0 - 0.5)
    axes.imshow(as_rgb(plane.image)[y0:y1, x0:x1], extent=extent)
    for found, colour in ((truth, TRUTH_COLOUR), (mask, MASK_COLOUR)):
        part = found[y0:y1, x0:x1]
        if part.any() and not part.all():
            shown = np.arange(x0, x1), np.arange(y0, y1), part.astype(float)
            axes.contour(*shown, levels=[0.5], colors=[colour], linewidths=1)
    for y, x, positive in row.clicks:
        marker, colour = ("o", POSITIVE) if positive else ("x", NEGATIVE)
        edge = "black" if positive else NEGATIVE
        axes.plot(x, y, marker=marker, color=colour, mec=edge, markersize=5)
    axes.set_xlim(x0 - 0.5, x1 - 0.5)
    axes.set_ylim(y1 - 0.5, y0 - 0.5)
    name = f"{row.set_name.rsplit('/', 1)[-1]}\n{row.image_name[:24]}"
    axes.set_title(
        f"{name}\n{needed} of {len(row.ious)} clicks needed, IoU {row.ious[-1]:.2f}",
        fontsize=6,
    )


def _view(truth: NDArray[np.bool_], row: ResultRow) -> Box:
    """Frame the annotation in a square twice as wide, inside the plane."""
    y0, x0, y1, x1 = mask_box(truth) or (0, 0, 1, 1)
    half = max(16, y1 - y0, x1 - x0)
    y, x = (y0 + y1 - 1) // 2, (x0 + x1 - 1) // 2
    return overlap((y - half, x - half, y + half + 1, x + half + 1), (0, 0, *row.shape))


def check_report(folder: Path) -> None:
    """Raise CfrSegError where a report could not be written or its pictures drawn."""
    check_folder(folder)
    if find_spec("matplotlib") is None:
        raise DatasetError(
            'the report\'s pictures need matplotlib: pip install "napari-cfrseg[plots]"'
        )


def _figure(
    size: tuple[float, float], layout: Literal["constrained"] | None = "constrained"
) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, folder: Path, name: str) -> None:
    for suffix in ("svg", "png"):
        figure.savefig(folder / f"{name}.{suffix}", dpi=150)
