"""Click in a real window on five kinds of micrographs; print what each click changes.

A robot clicks the middle of the largest error with the mouse until people would accept
the outline, at most eight times, on one object of each of them (bundled). Prints a
Markdown table: milliseconds from the press to the labels on the layer, the IoU then,
and what the click made right and wrong, in shares of the object's area. With
``--pictures`` a picture of the window is kept for each micrograph::

    xvfb-run -a python benchmarks/window_session.py [--objects 2] [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hands import Hands
from numpy.typing import NDArray
from scipy import ndimage

from napari_cfrseg.evaluation.metrics import (
    click_effect,
    iou,
    is_acceptable,
    surface_dice,
)
from napari_cfrseg.evaluation.robots import ExactRobot
from napari_cfrseg.samples import load_sample

KINDS = (
    "ganglioneuroblastoma_fluo",
    "breast_cancer_he",
    "glioblastoma_phase",
    "axon_sem",
    "powder_sem",
)
CLICKS = 8


def objects_of(labels: NDArray[np.uint16], count: int) -> Iterator[NDArray[np.bool_]]:
    """Yield masks of whole objects of middle size, the nearest to the median first."""
    inner = np.setdiff1d(np.unique(labels[1:-1, 1:-1]), [0])
    edge = np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    whole = np.setdiff1d(inner, edge)
    areas = ndimage.sum_labels(np.ones_like(labels), labels, whole)
    for index in np.argsort(np.abs(areas - np.median(areas)))[:count]:
        yield labels == whole[index]


def click_until_right(hands: Hands, truth: NDArray[np.bool_]) -> Iterator[str]:
    """Click one object; yield a click's cells of the table."""
    robot, area = ExactRobot(truth), np.count_nonzero(truth)
    controller = hands.dock.controller
    controller.new_object()
    before = np.zeros_like(truth)
    for number in range(1, CLICKS + 1):
        click = robot.next_click(before)
        start = time.perf_counter()
        hands.click(*click.yx, right=not click.is_positive)
        waited = time.perf_counter() - start
        layer = controller.labels.layer
        after = np.asarray(layer.data) == layer.selected_label
        effect = click_effect(before, after, truth, None, click.pixel)
        reached = iou(after, truth)
        right = is_acceptable(reached, surface_dice(after, truth))
        yield (
            f"{number}{'+' if click.is_positive else '−'} | {1000 * waited:.0f} | "
            f"{reached:.3f}{' ✓' if right else ''} | {effect.mended_px / area:.3f} | "
            f"{effect.spoilt_px / area:.3f}"
        )
        if right:
            return
        before = after


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1, help="of each micrograph")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    hands = Hands()
    print(
        "| micrograph | click | ms | IoU | mended | spoilt |\n|---|---|--:|--:|--:|--:|"
    )
    for kind in KINDS:
        for layer in hands.viewer.layers:
            layer.visible = False
        hands.open(kind)
        for truth in objects_of(load_sample(kind).labels, options.objects):
            for cells in click_until_right(hands, truth):
                print(f"| {kind} | {cells} |", flush=True)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            picture = options.pictures / f"{kind}.png"
            hands.viewer.screenshot(str(picture), canvas_only=False)
    print("\n" + ("; ".join(hands.problems) or "no traceback, no dead click"))


if __name__ == "__main__":
    main()
