"""Tables of ablations: every row against the first of its table, object by object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_cfrseg.evaluation.scores import (
    bootstrap_means,
    clicks_to,
    count_failures,
    mean_clicks_to,
    mean_iou_at,
)

HEAD = (
    "| row | seeds | NoC@85 | NoC@90 | not at 90 | IoU@1 | IoU@3 | IoU@5 "
    "| Δ NoC@85 | interval | Δ NoC@90 | interval | Δ NoC@90 of each seed |",
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|---|---|",
)
Object = tuple[str, str, str]


def tables(out: Path, named: Mapping[str, Sequence[str]]) -> str:
    """Return the results as Markdown tables.

    Parameters
    ----------
    out
        Folder of the result files, ``TABLE-ROW-SEED.json``.
    named
        Rows of each table; the others are compared with the first.
    """
    lines = []
    for name, rows in named.items():
        lines += [f"### {name}", "", *HEAD]
        first = _runs(out, name, rows[0])
        for key in rows:
            mine = _runs(out, name, key)
            lines.append(_line(key, mine, first if key != rows[0] else {}))
        lines.append("")
    return "\n".join(lines)


def _runs(out: Path, table: str, key: str) -> dict[int, dict[Object, list[float]]]:
    """Return, per seed and object, the IoU after each click."""
    runs = {}
    for path in sorted(out.glob(f"{table}-{key}-*.json")):
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        runs[int(path.stem.rpartition("-")[2])] = {
            (o["set"], str(o["image"]), str(o["object"])): o["ious"]
            for o in values["objects"]
        }
    return runs


def _line(
    key: str,
    mine: Mapping[int, Mapping[Object, list[float]]],
    first: Mapping[int, Mapping[Object, list[float]]],
) -> str:
    if not mine:
        return f"| {key} | not run |" + " |" * 11
    runs = [ious for objects in mine.values() for ious in objects.values()]
    most = max(len(ious) for ious in runs)
    failures = 100 * count_failures(runs, 0.9, most) / len(runs)
    figures = (
        f"| {key} | {len(mine)} "
        f"| {mean_clicks_to(runs, 0.85, most):.2f} "
        f"| {mean_clicks_to(runs, 0.9, most):.2f} | {failures:.1f} % "
        + "".join(f"| {mean_iou_at(runs, n):.3f} " for n in (1, 3, 5))
    )
    seeds = sorted(mine.keys() & first.keys())
    if not seeds:
        return figures + "| – | – | – | – | – |"
    cells = []
    for target in (0.85, 0.9):
        mean, low, high = _change(mine, first, seeds, target, most)
        cells += [f"{mean:+.2f}", f"{low:+.2f} to {high:+.2f}"]
    each = ", ".join(
        f"{_change(mine, first, [seed], 0.9, most)[0]:+.2f}" for seed in seeds
    )
    return figures + f"| {' | '.join(cells)} | {each} |"


def _change(
    mine: Mapping[int, Mapping[Object, list[float]]],
    first: Mapping[int, Mapping[Object, list[float]]],
    seeds: Sequence[int],
    target: float,
    most: int,
) -> tuple[float, float, float]:
    """Return the mean change in clicks and its 95 % interval over images.

    An object's change is the mean over the seeds; images are drawn with replacement,
    then objects within each.
    """
    shared = sorted(
        set.intersection(*(set(d[s]) for d in (mine, first) for s in seeds))
    )
    change = np.array(
        [
            [
                clicks_to(mine[s][k], target, most)
                - clicks_to(first[s][k], target, most)
                for s in seeds
            ]
            for k in shared
        ],
        float,
    ).mean(axis=1)
    images = [f"{k[0]}/{k[1]}" for k in shared]
    means = bootstrap_means(change, images, np.random.default_rng(0))
    low, high = (float(v) for v in np.quantile(means, (0.025, 0.975)))
    return float(change.mean()), low, high
