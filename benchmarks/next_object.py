"""How often a click on the next object begins it, and a correction does not.

A click apart from the selected object begins the next one (``annotation/apart.py``).
Two robots, exact and human-like, click validation objects until the IoU is 0.9, at most
8 clicks; counted is each positive click on missed pixels that would begin an object by
mistake. Once an outline is acceptable, and after a first click with an IoU of 0.5 or
more, they also click in the middle of the two nearest other objects and of any third
one; counted is how many of these clicks begin an object as they should::

    python benchmarks/next_object.py --data DATA [--objects 10] [--sets NAME …]
"""

from __future__ import annotations

import argparse
import os
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.apart import is_apart, is_part
from napari_cfrseg.annotation.handlers import new_object
from napari_cfrseg.annotation.rounds import RoundComputer
from napari_cfrseg.annotation.state import ClickEntry, PlaneState, Round, Settings
from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation import metrics
from napari_cfrseg.evaluation.datasets import (
    MIN_AREA_PX,
    AnnotatedPlane,
    BenchmarkObject,
    group_by_plane,
)
from napari_cfrseg.evaluation.datasets.choice import micro_objects
from napari_cfrseg.evaluation.robots import ExactRobot, HumanRobot
from napari_cfrseg.geometry.masks import MaskPatch

SPLIT = Path(__file__).parent / "split.json"
MOST_CLICKS, TARGET, FIRST_IOU = 8, 0.9, 0.5
#: objects nearer than this are counted apart, too
NEAR_PX = 4

#: set, kind of click, whether it began an object
Counted = Iterator[tuple[str, str, bool]]


def robot_of(
    item: BenchmarkObject, truth: NDArray[np.bool_], human: bool
) -> ExactRobot:
    """Return the robot that clicks a mask."""
    rng = np.random.default_rng([1, zlib.crc32(item.key.encode())])
    return HumanRobot(truth, rng=rng) if human else ExactRobot(truth)


def begins(
    computer: RoundComputer, clicks: list[Click], shown: Prediction, click: Click
) -> bool:
    """Whether a further click begins another object, as in the window."""
    entries = tuple(ClickEntry(0, one, Refinement()) for one in clicks)
    mask = MaskPatch.from_mask(shown.mask)
    before = PlaneState(entries=entries, rounds=(Round(shown),), mask=mask)
    event, first = (ev.ClickAdded(i, (), click.yx, True, 1) for i in (1, 2))
    objects = {1: new_object(1).with_plane((), before)}
    if is_apart(objects, computer, Settings(), event, (first,)):
        return True
    after = computer.on(()).predict([*clicks, click], previous=shown).mask
    return is_part(before, MaskPatch.from_mask(after), click.pixel)


def neighbours(
    item: BenchmarkObject, plane: AnnotatedPlane, truth: NDArray[np.bool_]
) -> list[tuple[NDArray[np.bool_], float]]:
    """Return the two nearest other objects and any third, and how far they are."""
    labels = np.where(truth, 0, plane.labels[item.layer])
    parts = measure.label(labels, background=0, connectivity=2)
    areas = np.bincount(parts.ravel())
    numbers = [i for i in range(1, len(areas)) if areas[i] >= MIN_AREA_PX]
    if not numbers:
        return []
    away = ndimage.minimum(ndimage.distance_transform_edt(~truth), parts, numbers)
    order = np.argsort(away)
    chosen = [*order[:2]]
    if len(order) > 2:
        rng = np.random.default_rng([2, zlib.crc32(item.key.encode())])
        chosen.append(order[rng.integers(2, len(order))])
    return [(parts == numbers[i], float(away[i])) for i in chosen]


def count(
    computer: RoundComputer, item: BenchmarkObject, plane: AnnotatedPlane, human: bool
) -> Counted:
    """Click an object, and other objects instead of its next click."""
    segmenter = computer.on(())
    truth = item.mask_in(plane)
    others = neighbours(item, plane, truth)
    robot, clicks, finished = robot_of(item, truth, human), [], False
    shown: Prediction | None = None
    for number in range(MOST_CLICKS):
        mask = None if shown is None else shown.mask
        click = robot.next_click(mask)
        if shown is not None and click.is_positive and mask.any():
            yield item.set_name, "correction", begins(computer, clicks, shown, click)
        clicks.append(click)
        shown = segmenter.predict(clicks, previous=shown)
        iou = metrics.iou(shown.mask, truth)
        is_ok = metrics.is_acceptable(iou, metrics.surface_dice(shown.mask, truth))
        if (is_ok and not finished) or (number == 0 and iou >= FIRST_IOU):
            state = "finished" if is_ok else "begun"
            for other, away in others:
                there = robot_of(item, other, human).next_click()
                if not shown.mask[there.pixel]:
                    found = begins(computer, clicks, shown, there)
                    yield item.set_name, state, found
                    yield item.set_name, "near" if away < NEAR_PX else "away", found
        finished |= is_ok
        if iou >= TARGET and finished:
            return


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("CFRSEG_DATA"))
    parser.add_argument("--objects", type=int, default=10, help="per set")
    parser.add_argument("--sets", nargs="+")
    options = parser.parse_args()
    segmenter = Segmenter.load("default", device="cpu")
    objects = micro_objects(
        options.data, SPLIT, max_per_set=options.objects, sets=options.sets
    )
    counts: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for group in group_by_plane(objects):
        first = group[0]
        plane = first.source.read_plane(first.image_name, first.plane)
        shape = plane.image.shape[:2]
        computer = RoundComputer(lambda _, at=plane: at.image, shape, segmenter)
        for item in group:
            for human in (False, True):
                robot = "human" if human else "exact"
                for name, kind, began in count(computer, item, plane, human):
                    for key in ((robot, kind), (name, kind), ("all", kind)):
                        counts[key].append(began)
    kinds = ("correction", "finished", "begun", "near", "away")
    print(f"| robot or set | {' | '.join(kinds)} |")
    print("|---|" + "--:|" * len(kinds))
    names = sorted({name for name, _ in counts}, key=lambda n: (len(n) > 5, n))
    for name in names:
        found = [counts[name, kind] for kind in kinds]
        cells = [f"{sum(f)} of {len(f)} ({np.mean(f or [0]):.1%})" for f in found]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
