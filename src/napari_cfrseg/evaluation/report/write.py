"""A report's folder: what was measured, in figures, tables and pictures.

::

    summary.json     every figure per set and pooled, for each run
    objects.csv      one line per object and run
    table.md         rows = models, columns = sets
    compare.md       each run against the first: paired differences
    robot.md         how much NoC@90 depends on where people click (human-like robot)
    curves.*         mean IoU after each click, SVG and PNG
    clicks.*         objects by clicks needed, SVG and PNG
    sheet-RUN.png    the twelve worst and twelve median objects with their clicks
    command.txt      the exact command
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_cfrseg.evaluation.datasets.benchmark_objects import BenchmarkObject
from napari_cfrseg.evaluation.datasets.split import pooled_rows
from napari_cfrseg.evaluation.object_row import ObjectRow
from napari_cfrseg.evaluation.report import plots
from napari_cfrseg.evaluation.report.comparisons import compare_runs, format_differences
from napari_cfrseg.evaluation.report.results import Summary, summarize_sets
from napari_cfrseg.evaluation.report.tables import (
    format_robot_spread,
    format_tables,
    write_objects,
)
from napari_cfrseg.evaluation.runner import Run


def summarize_run(run: Run) -> list[Summary]:
    """Figures of a run per set, and pooled last."""
    return summarize_sets(
        run.rows,
        run.order,
        max_clicks=run.settings.max_clicks,
        target=run.settings.target,
    )


def write_report(
    folder: Path,
    runs: Sequence[Run],
    objects: Mapping[str, BenchmarkObject] | None = None,
    *,
    command: str = "",
    notes: Sequence[str] = (),
) -> list[tuple[str, list[Summary]]]:
    """Write the report's folder.

    Parameters
    ----------
    folder
        Where to; files of an earlier report are replaced.
    runs
        The runs, the one others are compared with first.
    objects
        {key: object}, for the contact sheets; None leaves them out.
    command
        The exact command.
    notes
        Lines put under the tables.

    Returns
    -------
    (name, summaries) per run, as in the tables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = name_runs(runs)
    results = [
        (name, summarize_run(run)) for name, run in zip(names, runs, strict=True)
    ]
    (folder / "command.txt").write_text(command + "\n", encoding="utf-8")
    tables = format_tables(results)
    tables += "".join(f"\n{note}\n" for note in notes)
    (folder / "table.md").write_text(tables, encoding="utf-8")
    write_objects(folder / "objects.csv", runs)
    _write_summary(folder / "summary.json", runs, results, command)
    _write_comparisons(folder / "compare.md", runs, names)
    _write_spread(folder / "robot.md", runs, results)
    pools = dict(zip(names, (_pool(run) for run in runs), strict=True))
    plots.save_curves(folder, pools)
    plots.save_histograms(folder, pools, min(0.90, runs[0].settings.target))
    for run in runs:
        if objects is not None:
            sheet = folder / f"sheet-{run.folder.name}.png"
            plots.save_contact_sheet(sheet, run, objects)
    return results


def name_runs(runs: Sequence[Run]) -> list[str]:
    """Name runs for a table: the label, and the seed of a human-like robot."""
    names = [
        f"{run.label}, human-like {run.settings.seed}"
        if run.settings.human
        else run.label
        for run in runs
    ]
    return [
        f"{name} ({run.folder.name})" if names.count(name) > 1 else name
        for name, run in zip(names, runs, strict=True)
    ]


def _pool(run: Run) -> list[ObjectRow]:
    return pooled_rows(run.rows, run.order) or list(run.rows)


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
        format_differences(compare_runs(first, run), names[0], name)
        for run, name in zip(runs[1:], names[1:], strict=True)
        if _same_robot(first, run)
    ]
    if parts:
        path.write_text("\n".join(parts), encoding="utf-8")


def _same_robot(first: Run, second: Run) -> bool:
    a, b = first.settings, second.settings
    return (a.human, a.seed, a.max_clicks, a.target) == (
        b.human,
        b.seed,
        b.max_clicks,
        b.target,
    )


def _write_spread(
    path: Path,
    runs: Sequence[Run],
    results: Sequence[tuple[str, Sequence[Summary]]],
) -> None:
    spread: dict[str, list[float]] = {}
    for run, (_, summaries) in zip(runs, results, strict=True):
        clicks = summaries[-1].noc.get(90)
        if clicks is not None:
            robot = "human-like" if run.settings.human else "exact"
            spread.setdefault(f"{run.label}, {robot} robot", []).append(clicks)
    if any(run.settings.human for run in runs) and spread:
        path.write_text(format_robot_spread(spread), encoding="utf-8")
