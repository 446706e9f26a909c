"""Pack the split's images for a machine that has neither them nor a network.

    python benchmarks/gpu/pack.py DATA OUT [--side train validation]

writes OUT/SIDE-N.zip, each at most 35 MiB (``packs.py``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from packs import write_pack

from cfrseg_training.loop.atlas import Sample
from cfrseg_training.loop.labelled import to_uint8

#: pixels a part, which keeps it under 35 MiB even where PNG gains little
PART_PX = 22_000_000
#: unlabelled is not background in these sets (see the sets' own descriptions)
SPARSE = {"ecoli_bf_fluo_2ch", "meltpool_optical", "pebble_beach_photo"}
#: planes of a stack: every second one
PLANE_STEP = 2


def read(
    data: Path, dataset: str, name: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (image, labels) planes of one file."""
    image = tifffile.imread(data / dataset / "images" / f"{name}.tif")
    labels = tifffile.imread(data / dataset / "labels" / f"{name}.tif")
    if dataset.startswith("stacks/"):
        for plane in range(0, len(image), PLANE_STEP):
            if labels[plane].any():
                yield image[plane], labels[plane]
        return
    if image.ndim == 3 and image.shape[0] < 5:  # CYX
        image = np.moveaxis(image, 0, -1)
    yield image, labels


def samples(data: Path, side: str) -> Iterator[Sample]:
    """Yield every labelled plane on one side of the split."""
    split = json.loads((Path(__file__).parents[1] / "split.json").read_text())
    groups = group_of(data)
    for dataset, sides in split["sets"].items():
        for name in sides.get(side, ()):
            for image, labels in read(data, dataset, name):
                group = groups[dataset, name]
                yield Sample(to_uint8(image), labels, dataset, group, dataset in SPARSE)


def group_of(data: Path) -> dict[tuple[str, str], str]:
    """Map (set, name) to the source group."""
    lines = (data / "manifest.csv").read_text().splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=False)) for line in lines[1:]]
    return {(r["set"], r["name"]): r["source_group"] for r in rows}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", nargs="+", default=["train", "validation"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for side in options.side:
        waiting, number = [], 0
        for sample in samples(options.data, side):
            waiting.append(sample)
            if sum(s.labels.size for s in waiting) > PART_PX:
                size = write_pack(waiting, options.out / f"{side}-{number}.zip")
                print(side, number, len(waiting), f"{size / 2**20:.1f} MiB")
                waiting, number = [], number + 1
        if waiting:
            size = write_pack(waiting, options.out / f"{side}-{number}.zip")
            print(side, number, len(waiting), f"{size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
