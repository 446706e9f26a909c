"""Make docs/weak_spots.png: the objects that need the most clicks, one of each set.

    python docs/make_weak_spots.py DATA RUN [--output docs/weak_spots.png]

RUN is a report folder of ``cfrseg evaluate`` on the validation side, of any refinement.
Only sets whose images may be shown are looked at. Each tile: annotation in blue, the
mask after five clicks in orange, the clicks (white + in, red × out).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.io import imsave
from skimage.transform import resize

from napari_cfrseg import Click, Segmenter
from napari_cfrseg.evaluation.datasets import BenchmarkObject
from napari_cfrseg.evaluation.datasets.choice import micro_objects
from napari_cfrseg.evaluation.robots import ExactRobot
from napari_cfrseg.overlay import draw_overlay

SPLIT = Path(__file__).parents[1] / "benchmarks" / "split.json"
#: Sets whose licence lets their images be shown (shared with the bundled samples).
SHOWN = (
    "t98g_phase",
    "superalloy_sem",
    "axon_sem",
    "powder_sem",
    "ganglioneuroblastoma_fluo",
    "tnbc_he_nuclei",
)
CLICKS, TILE, GAP = 5, 320, 6


def hardest(data: Path, run: Path) -> list[BenchmarkObject]:
    """Return each shown set's object with the lowest IoU after five clicks."""
    lines = (run / "rows.jsonl").read_text().splitlines()
    ious: dict[str, float] = {}
    for row in map(json.loads, lines):
        if row["set_name"] in SHOWN and len(row["ious"]) >= CLICKS:
            ious[row["key"]] = row["ious"][CLICKS - 1]
    drawn = micro_objects(data, SPLIT, "validation", sets=SHOWN)
    worst: dict[str, BenchmarkObject] = {}
    for item in drawn:
        if item.key not in ious:
            continue
        best_so_far = worst.get(item.set_name)
        if best_so_far is None or ious[item.key] < ious[best_so_far.key]:
            worst[item.set_name] = item
    return [worst[name] for name in SHOWN if name in worst]


def tile(segmenter: Segmenter, item: BenchmarkObject) -> NDArray[np.uint8]:
    """Click five times as the robot does and draw what comes of it."""
    plane = item.source.read_plane(item.image_name, item.plane)
    truth = item.mask_in(plane)
    segmenter.set_image(plane.image)
    robot = ExactRobot(truth, plane.ignore_mask)
    clicks: list[Click] = []
    prediction = None
    for _ in range(CLICKS):
        shown = None if prediction is None else prediction.mask
        clicks.append(robot.next_click(shown))
        prediction = segmenter.predict(clicks, previous=prediction)
    if prediction is None:
        raise RuntimeError
    ys, xs = np.nonzero(truth | prediction.mask)
    middle = (ys.min() + ys.max()) // 2, (xs.min() + xs.max()) // 2
    half = max(16, int(0.7 * max(np.ptp(ys), np.ptp(xs))))
    y0, x0 = (max(0, m - half) for m in middle)
    part = slice(y0, y0 + 2 * half), slice(x0, x0 + 2 * half)

    def large(values: NDArray[np.generic], order: int) -> NDArray[np.generic]:
        shape = (TILE, TILE, *values.shape[2:])
        out: NDArray[np.generic] = resize(
            values, shape, order=order, preserve_range=True, anti_aliasing=False
        ).astype(values.dtype)
        return out

    scale = TILE / np.asarray(truth[part].shape)
    moved = [
        Click(
            (
                float(min((c.yx[0] - y0 + 0.5) * scale[0], TILE - 1)),
                float(min((c.yx[1] - x0 + 0.5) * scale[1], TILE - 1)),
            ),
            is_positive=c.is_positive,
        )
        for c in clicks
    ]
    picture = draw_overlay(
        large(plane.image[part], 1), 2 * large(truth[part].astype(np.uint8), 0)
    )
    return draw_overlay(
        picture, large(prediction.mask[part].astype(np.uint8), 0), [moved]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/weak_spots.png"))
    options = parser.parse_args()
    segmenter = Segmenter.load("default", device="cpu")
    tiles = [tile(segmenter, item) for item in hardest(options.data, options.run)]
    width = 3
    rows = [tiles[i : i + width] for i in range(0, len(tiles), width)]
    sheet = np.full(
        (len(rows) * (TILE + GAP) - GAP, width * (TILE + GAP) - GAP, 3), 255, np.uint8
    )
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            y, x = i * (TILE + GAP), j * (TILE + GAP)
            sheet[y : y + TILE, x : x + TILE] = picture
    imsave(options.output, sheet, check_contrast=False)


if __name__ == "__main__":
    main()
