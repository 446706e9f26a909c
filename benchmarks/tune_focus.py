"""Choose the constants of the automatic focus on the validation split.

Every object gets its first click (the robot's); every window the focus would try is
evaluated once, and its mask compared with the object. Which constants pick the best
windows is then a search over numbers alone::

    python benchmarks/tune_focus.py MODEL --data DATA [--objects 40] [--trials 3000]

Prints the mean IoU after one click (mean over objects) with the constants as they
are, with the best found, and with the best window of each object ("oracle", which no
constants can beat); the found constants come from half the images, the figures for
them from the other half as well.
"""

from __future__ import annotations

import argparse
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_cfrseg.engine.focus import FocusSettings, WindowEvidence, score
from napari_cfrseg.engine.probability_patch import Patch, put_back
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation import metrics
from napari_cfrseg.evaluation.datasets import group_by_plane
from napari_cfrseg.evaluation.datasets.choice import micro_objects
from napari_cfrseg.evaluation.robots import ExactRobot

SPLIT = Path(__file__).parent / "split.json"
#: Constant → lowest and highest value tried.
RANGES = {
    "fill_low": (0.05, 0.5),
    "fill_high": (0.45, 0.95),
    "fill_falloff": (0.2, 2.5),
    "quality_power": (0.0, 6.0),
    "confidence_power": (0.0, 6.0),
    "purity_power": (0.0, 3.0),
    "border_power": (0.0, 30.0),
    "octave_cost": (0.0, 0.15),
    "agreement_weight": (0.0, 0.8),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One object's windows: what speaks for each, and how good its mask is."""

    set_name: str
    image_name: str
    evidence: tuple[WindowEvidence | None, ...]
    ious: tuple[float, ...]

    def picked(self, settings: FocusSettings) -> float:
        """Return the IoU of the window these constants choose."""
        scores = [score(e, settings) for e in self.evidence]
        return self.ious[int(np.argmax(scores))]


def collect(segmenter: Segmenter, data: Path, count: int) -> list[Choice]:
    choices = []
    objects = micro_objects(data, SPLIT, "validation", max_per_set=count)
    for group in group_by_plane(objects):
        plane = group[0].source.read_plane(group[0].image_name, group[0].plane)
        segmenter.set_image(plane.image)
        for item in group:
            truth = item.mask_in(plane)
            click = ExactRobot(truth, plane.ignore_mask).next_click()
            tried = segmenter.try_windows(click)
            ious = []
            for attempt in tried:
                nothing = Patch.empty(truth.shape)
                patch = put_back(nothing, attempt.probability, attempt.look.window)
                mask = patch.read((0, 0, *truth.shape)) > 0.5
                ious.append(metrics.iou(mask, truth, plane.ignore_mask))
            evidence = tuple(a.evidence for a in tried)
            choices.append(
                Choice(item.set_name, item.image_name, evidence, tuple(ious))
            )
    return choices


def mean(choices: list[Choice], settings: FocusSettings | None) -> float:
    """Mean IoU over objects; with None, of each object's best window."""
    return float(
        np.mean(
            [max(c.ious) if settings is None else c.picked(settings) for c in choices]
        )
    )


def search(choices: list[Choice], trials: int, seed: int) -> FocusSettings:
    """Random search, the second half of it around the best so far."""
    rng = np.random.default_rng(seed)
    best, best_iou = FocusSettings(), mean(choices, FocusSettings())
    for trial in range(trials):
        values = {}
        for name, (low, high) in RANGES.items():
            if trial < trials // 2:
                values[name] = rng.uniform(low, high)
            else:
                near = getattr(best, name) + rng.normal() * 0.1 * (high - low)
                values[name] = float(np.clip(near, low, high))
        if values["fill_low"] >= values["fill_high"]:
            continue
        settings = replace(FocusSettings(), **values)
        found = mean(choices, settings)
        if found > best_iou:
            best, best_iou = settings, found
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--objects", type=int, default=40, help="per set, at most")
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    segmenter = Segmenter.load(given.model, device=given.device)
    choices = collect(segmenter, given.data, given.objects)
    halves = [[], []]
    for choice in choices:
        halves[zlib.crc32(choice.image_name.encode()) % 2].append(choice)
    found = search(halves[0], given.trials, given.seed)
    print(f"{len(choices)} objects, {len(halves[0])} of them searched on")
    for name, half in zip(("searched", "held out"), halves, strict=True):
        figures = [mean(half, s) for s in (FocusSettings(), found, None)]
        text = "  as is {:.4f}  found {:.4f}  oracle {:.4f}".format(*figures)
        print(f"{name:9s}{text}")
    for name in sorted({c.set_name for c in choices}):
        part = [c for c in choices if c.set_name == name]
        figures = [mean(part, s) for s in (FocusSettings(), found, None)]
        print("  {:28s}{:.3f}  {:.3f}  {:.3f}".format(name, *figures))
    for name in RANGES:
        print(f"{name} = {getattr(found, name):.3g}")


if __name__ == "__main__":
    main()
