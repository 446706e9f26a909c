"""3-D robots: annotate a few planes, fill the rest, correct the worst plane first."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from stack_fillers import FILLERS, Filler, FillerName, Gap
from stack_volumes import PlaneAnnotator, Volume, VolumeObject, spread_anchors

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.propagation import Evidence, PropagationSettings, gaps_of

#: volume IoUs whose clicks are counted
TARGETS = (0.80, 0.85, 0.90)


@dataclass(frozen=True, slots=True)
class AnchorRow:
    """One object filled in one way from evenly spread anchors.

    Attributes
    ----------
    set_name, stack, label
        The object.
    method
        A filler's name, or ``clicking``: every plane clicked, nothing filled.
    anchors, clicks
        Annotated planes, and the clicks they took.
    iou
        In 3-D.
    planes
        How many the object spans.
    seconds
        For filling (for clicking: all of it).
    """

    set_name: str
    stack: str
    label: int
    method: str
    anchors: int
    clicks: int
    iou: float
    planes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RobotRow:
    """One object corrected plane by plane, the worst one first.

    Attributes
    ----------
    set_name, stack, label, method
        As in :class:`AnchorRow`.
    clicks, ious
        After each plane that was clicked: all clicks so far, and the IoU in 3-D.
    computed
        Planes computed after the first propagation, over all corrections.
    seconds
        For filling.
    """

    set_name: str
    stack: str
    label: int
    method: str
    clicks: tuple[int, ...]
    ious: tuple[float, ...]
    computed: int
    seconds: float

    def clicks_to(self, target: float) -> int | None:
        """Return the clicks that reached an IoU, None where none did."""
        for clicks, iou in zip(self.clicks, self.ious, strict=True):
            if iou >= target:
                return clicks
        return None


@dataclass(frozen=True, slots=True)
class Sample:
    """A propagated plane's evidence and confidence, and the IoU it really had."""

    label: int
    evidence: Evidence
    confidence: float
    iou: float


def run_anchors(
    segmenter: Segmenter,
    volume: Volume,
    item: VolumeObject,
    counts: Sequence[int],
    settings: PropagationSettings | None = None,
    *,
    methods: Sequence[FillerName] = FILLERS,
    drawn: bool = False,
    samples: list[Sample] | None = None,
) -> Iterator[AnchorRow]:
    """Fill an object from 1, 2, … evenly spread anchors in every way.

    Parameters
    ----------
    counts
        How many anchors.
    methods
        Ways; all get the same anchors, annotated by the same clicks.
    drawn
        Anchors are the annotation's own outlines, as if drawn by hand, and cost no
        click: this shows the filling alone.
    samples
        Collects what the propagation said of each plane, for its calibration.
    """
    annotator = PlaneAnnotator(segmenter, volume, item)
    known: dict[int, tuple[MaskPatch, int]] = {}
    for count in counts:
        places = spread_anchors(item, count)
        for index in places:
            if index not in known and drawn:
                known[index] = MaskPatch.from_mask(item.truth[index]), 0
            elif index not in known:
                known[index] = annotator.annotate(index)
        anchors = {index: known[index][0] for index in places}
        clicks = sum(known[index][1] for index in places)
        for method in methods:
            filler = Filler(method, segmenter, volume, item, settings)
            masks = filler.fill(anchors)
            yield AnchorRow(
                volume.set_name,
                volume.name,
                item.label,
                method,
                len(places),
                clicks,
                item.iou(masks),
                item.planes,
                filler.seconds,
            )
            if samples is not None and method in ("propagation", "free"):
                samples.extend(_samples(item, filler))


def run_clicking(segmenter: Segmenter, volume: Volume, item: VolumeObject) -> AnchorRow:
    """Click every plane of an object until it is good: the reference without a fill."""
    start = time.perf_counter()
    annotator = PlaneAnnotator(segmenter, volume, item)
    masks, clicks = {}, 0
    for index in range(item.first, item.last + 1):
        masks[index], made = annotator.annotate(index)
        clicks += made
    return AnchorRow(
        volume.set_name,
        volume.name,
        item.label,
        "clicking",
        item.planes,
        clicks,
        item.iou(masks),
        item.planes,
        time.perf_counter() - start,
    )


def run_robot(
    segmenter: Segmenter,
    volume: Volume,
    item: VolumeObject,
    method: FillerName,
    settings: PropagationSettings | None = None,
    *,
    most_planes: int = 8,
    target: float = TARGETS[-1],
) -> RobotRow:
    """Annotate the largest plane, fill, then correct the worst plane again and again.

    The worst plane is the one with the most wrong pixels that is no anchor yet. Its
    correction starts from the mask that was filled in; then only the gap around it is
    filled again.
    """
    annotator = PlaneAnnotator(segmenter, volume, item)
    areas = item.truth.sum(axis=(1, 2))
    index, start = int(areas.argmax()), None
    filler = Filler(method, segmenter, volume, item, settings)
    anchors: dict[int, MaskPatch] = {}
    masks: dict[int, MaskPatch] = {}
    clicks: list[int] = []
    ious: list[float] = []
    computed = 0
    for turn in range(most_planes):
        anchors[index], made = annotator.annotate(index, start)
        around = _gaps_around(anchors, index, item, len(volume.image), method)
        before = filler.planes_computed
        masks = filler.fill(anchors, _without(masks, around, item), around)
        if turn:
            computed += filler.planes_computed - before
        clicks.append(made + (clicks[-1] if clicks else 0))
        ious.append(item.iou(masks))
        worst = _worst(item, masks, anchors)
        if ious[-1] >= target or worst is None:
            break
        index, start = worst, masks.get(worst, MaskPatch.empty())
    return RobotRow(
        volume.set_name,
        volume.name,
        item.label,
        method,
        tuple(clicks),
        tuple(ious),
        computed,
        filler.seconds,
    )


def _gaps_around(
    anchors: Mapping[int, MaskPatch],
    index: int,
    item: VolumeObject,
    count: int,
    method: FillerName,
) -> tuple[Gap, ...]:
    low, high = min(*anchors, item.first), max(*anchors, item.last)
    if method == "free":
        low, high = 0, count - 1
    return tuple(gap for gap in gaps_of(anchors, low, high) if index in gap)


def _without(
    masks: Mapping[int, MaskPatch], gaps: Iterable[Gap], item: VolumeObject
) -> dict[int, MaskPatch]:
    """Drop what lies in gaps that are filled again."""
    kept = dict(masks)
    for below, above in gaps:
        for index in masks:
            if (below is None or index > below) and (above is None or index < above):
                kept.pop(index, None)
    return kept


def _worst(
    item: VolumeObject, masks: Mapping[int, MaskPatch], anchors: Mapping[int, MaskPatch]
) -> int | None:
    """Return the plane with the most wrong pixels, None if none has any."""
    shape = (item.truth.shape[1], item.truth.shape[2])
    wrong: dict[int, int] = {}
    for index in {*masks, *range(item.first, item.last + 1)} - set(anchors):
        mask = masks.get(index, MaskPatch.empty()).to_mask(shape)
        wrong[index] = int(np.count_nonzero(mask != item.truth[index]))
    if not wrong or max(wrong.values()) == 0:
        return None
    return max(sorted(wrong), key=lambda i: wrong[i])


def _samples(item: VolumeObject, filler: Filler) -> Iterator[Sample]:
    shape = (item.truth.shape[1], item.truth.shape[2])
    for result in filler.results:
        if result.evidence is None or not result.mask.mask.size:
            continue
        mask, truth = result.mask.to_mask(shape), item.truth[result.index]
        union = int(np.count_nonzero(mask | truth))
        iou = int(np.count_nonzero(mask & truth)) / union if union else 1.0
        yield Sample(item.label, result.evidence, result.confidence, iou)


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
