"""How far the propagation gets by itself: planes reached, planes too many, IoU in 3-D.

    python benchmarks/stack_ends.py --data DATA
    python benchmarks/stack_ends.py --data DATA --moving 0.8

On validation stacks, from one and two anchors that the robot clicks; the object's ends
are not given. ``--moving SPEED``: on time-lapses made of real images, from the outlines
in the first frame. Nuclei of dsb2018_fluo's validation images are cut out and moved
over their own background for eight frames, turning and wobbling, each with a velocity
of its own: about SPEED of its radii a frame, half of it common to all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from stack_fillers import Filler
from stack_volumes import (
    PlaneAnnotator,
    Volume,
    VolumeObject,
    objects_of,
    open_volume,
    spread_anchors,
)

from napari_cfrseg import Segmenter
from napari_cfrseg.evaluation.datasets.choice import read_split
from napari_cfrseg.geometry.masks import MaskPatch

SPLIT = Path(__file__).with_name("split.json")
NUCLEI = "dsb2018_fluo"
FRAMES = 8


def moved_nuclei(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer],
    speed: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return frames and labels, (T, Y, X), of an image's nuclei on their way."""
    pixels = image.astype(np.float32)
    covered = ndimage.binary_dilation(labels > 0, iterations=4)
    nearest = ndimage.distance_transform_edt(
        covered, return_distances=False, return_indices=True
    )
    filled = ndimage.gaussian_filter(pixels[tuple(nearest)], 3)
    back = np.where(covered, filled, pixels)
    noise = (pixels - ndimage.gaussian_filter(pixels, 1.5))[~covered].std()
    common = rng.normal(0, 0.5 * speed, 2)
    own = {i: (rng.normal(0, 0.6 * speed, 2), rng.normal(0, 6)) for i in _ids(labels)}
    frames = np.zeros((FRAMES, *image.shape), np.float32)
    truth = np.zeros(frames.shape, np.int32)
    for t, frame in enumerate(frames):
        frame[:] = back + rng.normal(0, 0.7 * noise, image.shape)
        ground = frame.copy()
        for i, (velocity, turn) in own.items():
            mask = labels == i
            radius = np.sqrt(mask.sum() / np.pi)
            near = ndimage.binary_dilation(mask, iterations=3) & (mask | (labels == 0))
            way = t * (common + velocity) * radius
            if t:
                way += rng.normal(0, 0.15 * speed * radius, 2)
            by = [*np.round(way).astype(int)]
            light = _placed(np.where(near, pixels - back, 0), turn * t, by, mask)
            frame[:] = np.maximum(frame, ground + light)
            truth[t][_placed(mask.astype(np.float32), turn * t, by, mask) > 0.5] = i
    return frames.clip(0, 255).astype(np.uint8), truth


def _ids(labels: NDArray[np.integer]) -> list[int]:
    ids, areas = np.unique(labels, return_counts=True)
    return [int(i) for i, n in zip(ids, areas, strict=True) if i and n >= 60]


def _placed(
    values: NDArray[np.float32], degrees: float, by: list[int], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Turn what surrounds a mask about its middle, and move it."""
    y, x = (
        slice(max(s.start - 4, 0), s.stop + 4)
        for s in ndimage.find_objects(mask.astype(int))[0]
    )
    turned = np.zeros_like(values)
    turned[y, x] = ndimage.rotate(values[y, x], degrees, reshape=False, order=1)
    return ndimage.shift(turned, by, order=0)


def time_lapses(data: Path, speed: float) -> Iterator[Volume]:
    """Make three time-lapses of validation images with some nuclei in them."""
    rng = np.random.default_rng(3)
    made = 0
    for name in read_split(SPLIT)[NUCLEI]["validation"]:
        volume = open_volume(data / NUCLEI, NUCLEI, name)
        grey = volume.image
        if grey.ndim == 3:
            grey = grey[..., :3].mean(axis=-1)
        if not 15 <= len(_ids(volume.labels)) <= 80 or grey.mean() > 90:
            continue
        part = np.s_[:300, :300]
        frames, truth = moved_nuclei(grey[part], volume.labels[part], speed, rng)
        yield Volume("made of dsb2018_fluo", name, frames, truth, (1.0, 1.0, 1.0))
        made += 1
        if made == 3:
            return


def reached(item: VolumeObject, masks: dict[int, MaskPatch]) -> tuple[int, int]:
    """Return on how many of its planes an object has a mask, and on how many others."""
    planes = {index for index, mask in masks.items() if mask.area}
    own = planes & set(range(item.first, item.last + 1))
    return len(own), len(planes - own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--moving", type=float, help="radii a frame")
    parser.add_argument("--objects", type=int, default=4, help="per stack, at most")
    parser.add_argument("--model", default="default")
    arguments = parser.parse_args()
    segmenter = Segmenter.load(arguments.model)
    if arguments.moving is None:
        stacks = (
            open_volume(arguments.data / name, name, stack)
            for name, sides in sorted(read_split(SPLIT).items())
            if name.startswith("stacks/")
            for stack in sides["validation"]
        )
        counts = (1, 2)
    else:
        stacks, counts = time_lapses(arguments.data, arguments.moving), (1,)
    rows: dict[int, list[tuple[float, int, int, int]]] = {n: [] for n in counts}
    for volume in stacks:
        for item in objects_of(volume, most=arguments.objects):
            annotator = PlaneAnnotator(segmenter, volume, item)
            for count in counts:
                places = spread_anchors(item, count)
                if arguments.moving is None:
                    anchors = {z: annotator.annotate(z)[0] for z in places}
                else:
                    anchors = {item.first: MaskPatch.from_mask(item.truth[item.first])}
                masks = Filler("free", segmenter, volume, item).fill(anchors)
                rows[count].append(
                    (item.iou(masks), item.planes, *reached(item, masks))
                )
    print("| anchors | objects | IoU | planes reached | too short | too long |")
    print("|--:|--:|--:|--:|--:|--:|")
    for count, found in rows.items():
        iou, planes, own, beyond = np.mean(found, axis=0)
        print(
            f"| {count} | {len(found)} | {iou:.3f} | {own / planes:.0%} | "
            f"{planes - own:.1f} | {beyond:.1f} |"
        )


if __name__ == "__main__":
    main()
