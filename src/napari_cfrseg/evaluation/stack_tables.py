"""Markdown tables of what 3-D robots measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from napari_cfrseg.evaluation.stack_runs import TARGETS, AnchorRow, RobotRow


def anchor_table(rows: Sequence[AnchorRow]) -> str:
    """Return Markdown: per set and number of anchors, the IoU of each way."""
    groups: dict[tuple[str, int], list[AnchorRow]] = defaultdict(list)
    for row in rows:
        if row.method != "clicking":
            groups[row.set_name, row.anchors].append(row)
    methods = list(dict.fromkeys(r.method for r in rows if r.method != "clicking"))
    lines = [
        "| set | anchors | objects | clicks | " + " | ".join(methods) + " |",
        "|---|--:|--:|--:|" + "--:|" * len(methods),
    ]
    for (set_name, anchors), group in sorted(groups.items()):
        by = {m: [r for r in group if r.method == m] for m in methods}
        count = max(len(found) for found in by.values())
        clicks = np.mean([r.clicks for r in group])
        means = " | ".join(f"{np.mean([r.iou for r in by[m]]):.3f}" for m in methods)
        lines.append(f"| {set_name} | {anchors} | {count} | {clicks:.1f} | {means} |")
    for set_name in sorted({r.set_name for r in rows if r.method == "clicking"}):
        found = [r for r in rows if r.method == "clicking" and r.set_name == set_name]
        lines.append(
            f"| {set_name} | every plane clicked | {len(found)} | "
            f"{np.mean([r.clicks for r in found]):.1f} | "
            f"{np.mean([r.iou for r in found]):.3f} |" + " |" * (len(methods) - 1)
        )
    return "\n".join(lines)


def robot_table(rows: Sequence[RobotRow]) -> str:
    """Return Markdown: clicks to each target, planes clicked, IoU, planes computed."""
    lines = [
        "| set | way | objects | "
        + " | ".join(f"clicks to {t:.2f} (reached)" for t in TARGETS)
        + " | planes clicked | IoU at the end | planes computed again | s per object |",
        "|---|---|--:|" + "--:|" * (len(TARGETS) + 4),
    ]
    groups: dict[tuple[str, str], list[RobotRow]] = defaultdict(list)
    for row in rows:
        groups[row.set_name, row.method].append(row)
    for (set_name, method), group in sorted(groups.items()):
        cells = []
        for target in TARGETS:
            reached = [c for r in group if (c := r.clicks_to(target)) is not None]
            mean = f"{np.mean(reached):.1f}" if reached else "–"
            cells.append(f"{mean} ({len(reached)}/{len(group)})")
        lines.append(
            f"| {set_name} | {method} | {len(group)} | "
            + " | ".join(cells)
            + f" | {np.mean([len(r.clicks) for r in group]):.1f}"
            f" | {np.mean([r.ious[-1] for r in group]):.3f}"
            f" | {np.mean([r.computed for r in group]):.1f}"
            f" | {np.mean([r.seconds for r in group]):.1f} |"
        )
    return "\n".join(lines)
