"""Split every data set by source group into train, validation and test.

A source group (one mosaic, patient, animal, embryo or volume) never crosses sides.
Among many seeded draws per set the one is kept that comes nearest to 70/15/15 of
groups and objects, with at least 30 objects in validation and in test where the set
allows it. Sets with fewer than three groups stay whole on one side (``WHOLE``).

    python benchmarks/make_split.py DATA            # DATA/manifest.csv, or CFRSEG_DATA
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np

SEED = 20_261_121
DRAWS = 4000
SIDES = ("train", "validation", "test")
SHARES = np.array([0.70, 0.15, 0.15])
ENOUGH_OBJECTS = 30
#: a group holding more than this share of a set's images goes to train, in sets
#: with enough other groups
VERY_LARGE = 0.1
MANY_GROUPS = 20
WHOLE = {
    "chloroplast_em": "train",
    "stacks/chloroplast_em_stack": "train",
    "pebble_beach_photo": "train",
    "ecoli_dapi_dense": "train",
    "stacks/fib25_neuropil": "test",
    "stacks/stardist_sample_nuclei3d": "test",
    "stacks/mcf10_nuclei_timelapse": "excluded",
}


def read_groups(manifest: Path) -> dict[str, dict[str, list[tuple[str, int]]]]:
    """Return {set: {group: [(image name, number of objects)]}}."""
    sets: dict[str, dict[str, list[tuple[str, int]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    with manifest.open(newline="") as file:
        for row in csv.DictReader(file):
            item = (row["name"], int(row["objects"]))
            sets[row["set"]][row["source_group"]].append(item)
    return sets


def cost(sides: np.ndarray, images: np.ndarray, objects: np.ndarray) -> float:
    """Distance of a draw from the wished shares; lower is better."""
    groups_of = np.bincount(sides, minlength=3)
    if groups_of.min() == 0:
        return np.inf
    objects_of = np.bincount(sides, weights=objects, minlength=3)
    total = abs(groups_of / groups_of.sum() - SHARES).sum()
    total += abs(objects_of / objects_of.sum() - SHARES).sum()
    enough = min(ENOUGH_OBJECTS, 0.27 * objects.sum())
    total += 4 * np.maximum(1 - objects_of[1:] / enough, 0).sum()
    if len(sides) >= MANY_GROUPS:
        total += 10 * ((images > VERY_LARGE * images.sum()) & (sides > 0)).sum()
        total += 10 * ((images > 10) & (sides > 0)).sum()
    return float(total)


def split_set(name: str, groups: dict[str, list[tuple[str, int]]]) -> dict[str, str]:
    """Return {group: side}."""
    names = sorted(groups)
    if len(names) < 3:
        return dict.fromkeys(names, WHOLE[name])
    images = np.array([len(groups[g]) for g in names])
    objects = np.array([sum(n for _, n in groups[g]) for g in names])
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    draws = (rng.choice(3, len(names), p=SHARES) for _ in range(DRAWS))
    best = min(draws, key=lambda sides: cost(sides, images, objects))
    return {group: SIDES[side] for group, side in zip(names, best, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default=os.environ.get("CFRSEG_DATA"))
    parser.add_argument("--out", default=Path(__file__).with_name("split.json"))
    args = parser.parse_args()
    if args.data is None:
        parser.error("name the data folder, or set CFRSEG_DATA")
    sets, group_sides = {}, {}
    for name, groups in sorted(read_groups(Path(args.data) / "manifest.csv").items()):
        side_of = split_set(name, groups)
        sides: dict[str, list[str]] = {side: [] for side in SIDES}
        objects = dict.fromkeys((*SIDES, "excluded"), 0)
        for group, side in side_of.items():
            sides.setdefault(side, []).extend(image for image, _ in groups[group])
            objects[side] += sum(n for _, n in groups[group])
        sets[name] = {side: sorted(images) for side, images in sides.items()}
        group_sides[name] = dict(sorted(side_of.items()))
        print(name, {s: (len(v), objects[s]) for s, v in sets[name].items()})
    split = {"seed": SEED, "sets": sets, "groups": group_sides}
    Path(args.out).write_text(json.dumps(split, indent=1) + "\n")


if __name__ == "__main__":
    main()
