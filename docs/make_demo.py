"""Write the clicks of ``cfrseg demo --headless``.

Usage: ``python docs/make_demo.py SAMPLE ID [ID …] [--model NAME]``. The robot user
clicks the given objects of a bundled micrograph's annotation, one after the other, as
a person would who corrects what they see: until the mask is good, three clicks at most.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg import Click, Segmenter
from napari_cfrseg.evaluation.robots import ExactRobot
from napari_cfrseg.samples import load_sample

TARGET = Path(__file__).resolve().parents[1] / "src" / "napari_cfrseg" / "sample_data"
MOST_CLICKS, GOOD_IOU = 3, 0.9


def click_object(
    segmenter: Segmenter, robot: ExactRobot, truth: NDArray[np.bool_]
) -> list[Click]:
    """Click until the mask is good or the clicks are used up."""
    clicks: list[Click] = []
    prediction = None
    for _ in range(MOST_CLICKS):
        clicks.append(robot.next_click(None if prediction is None else prediction.mask))
        prediction = segmenter.predict(clicks, previous=prediction)
        mask = prediction.mask
        iou = (mask & truth).sum() / (mask | truth).sum()
        print(f"  {len(clicks)} clicks: IoU {iou:.3f}")
        if iou >= GOOD_IOU:
            break
    return clicks


def main() -> None:
    """Click, and write ``demo.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sample")
    parser.add_argument("ids", type=int, nargs="+")
    parser.add_argument("--model", default="default")
    arguments = parser.parse_args()
    sample = load_sample(arguments.sample)
    segmenter = Segmenter.load(arguments.model, device="cpu")
    segmenter.set_image(sample.image)
    objects = []
    for number in arguments.ids:
        print(f"object {number}")
        truth = sample.labels == number
        clicks = click_object(segmenter, ExactRobot(truth), truth)
        objects.append(
            [[*click.pixel, "+" if click.is_positive else "-"] for click in clicks]
        )
    lines = ",\n".join(f"    {json.dumps(clicks)}" for clicks in objects)
    (TARGET / "demo.json").write_text(
        f'{{\n  "sample": "{sample.name}",\n  "objects": [\n{lines}\n  ]\n}}\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
