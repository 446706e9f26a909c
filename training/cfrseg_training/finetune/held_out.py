"""Hold data out of a fine-tuning: images to judge on, windows for the live curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from cfrseg_training.loop import labelled
from cfrseg_training.loop.atlas import AFTER_FIRST_CLICK, Atlas, WindowBatch
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets import BenchmarkObject, sample_objects

#: share of the images held out where there are enough of them
HELD_OUT = 0.25
#: with fewer images than this, each is left out in turn
FEWEST_TO_HOLD_OUT = 4
#: objects the robot clicks before and after, over all folds
JUDGED_OBJECTS = 60
#: pixels between the halves of a lone image, as a share of its side
MARGIN = 0.06
#: windows of the live curve
CURVE_WINDOWS = 12


@dataclass(frozen=True, slots=True)
class Fold:
    """Planes to train on and planes to judge on."""

    trained: tuple[labelled.LabelledPlane, ...]
    held_out: tuple[labelled.LabelledPlane, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """How images are held out."""

    #: what models are tested on: "held-out images", "each image in turn", "each half of
    #: the image in turn" or "each half of the stack in turn"
    how: str
    folds: tuple[Fold, ...]  #: one for held-out images, else one for each image or half

    @property
    def held_out(self) -> tuple[str, ...]:
        """Names of all images that are judged on, each once."""
        names = (plane.name for fold in self.folds for plane in fold.held_out)
        return tuple(dict.fromkeys(names))


def split_data(data: labelled.LabelledData, seed: int) -> Split:
    """Hold images out: a quarter; each in turn of two or three; halves of one.

    Raises DatasetError for one image whose halves do not both hold an object.
    """
    images = data.groups()
    if len(images) == 1:
        return _halves(data.planes)
    if len(images) < FEWEST_TO_HOLD_OUT:
        folds = tuple(_without(data, names) for names in sorted(images, key=min))
        return Split("each image in turn", folds)
    order = np.random.default_rng(seed).permutation(len(images))
    count = max(1, round(HELD_OUT * len(images)))
    held = set().union(*(images[i] for i in order[:count]))
    return Split("held-out images", (_without(data, held),))


def _without(data: labelled.LabelledData, names: set[str]) -> Fold:
    trained = tuple(p for p in data.planes if p.name not in names)
    return Fold(trained, tuple(p for p in data.planes if p.name in names))


def _halves(planes: tuple[labelled.LabelledPlane, ...]) -> Split:
    at = sorted({plane.plane or 0 for plane in planes})
    if len(at) >= 2 * FEWEST_TO_HOLD_OUT:
        middle, margin = len(at) // 2, max(1, round(MARGIN * len(at)))
        below, above = at[middle - margin // 2], at[middle + margin]
        first = tuple(p for p in planes if (p.plane or 0) < below)
        second = tuple(p for p in planes if (p.plane or 0) >= above)
        how = "each half of the stack in turn"
        return Split(how, (Fold(first, second), Fold(second, first)))
    for axis in np.argsort([-n for n in planes[0].labels.shape]).tolist():
        cut, side = _cut(planes[0], axis), planes[0].labels.shape[axis]
        gap = max(4, round(MARGIN * side)) // 2
        first = _cropped(planes, axis, 0, cut - gap)
        second = _cropped(planes, axis, cut + gap, side)
        if first and second:
            how = "each half of the image in turn"
            return Split(how, (Fold(first, second), Fold(second, first)))
    raise DatasetError(
        "one image whose halves do not both hold an object: label objects on both "
        "sides of it, or a second image, so that the result can be judged"
    )


def _cut(plane: labelled.LabelledPlane, axis: int) -> int:
    """Return where to cut so that half of the objects lie on either side."""
    boxes = [box[axis] for box in ndimage.find_objects(plane.labels) if box]
    places = sorted((box.start + box.stop) / 2 for box in boxes)
    if len(places) < 2:
        return int(plane.labels.shape[axis] // 2)
    middle = len(places) // 2
    return int((places[middle - 1] + places[middle]) / 2)


def _cropped(
    planes: Sequence[labelled.LabelledPlane], axis: int, start: int, stop: int
) -> tuple[labelled.LabelledPlane, ...]:
    """Cut out a range of rows or columns; leave out planes without an object there."""
    if stop - start < 16:
        return ()
    index = (slice(None),) * axis + (slice(start, stop),)
    cropped = []
    for plane in planes:
        labels = plane.labels[index]
        if not (np.bincount(labels.ravel())[1:] >= labelled.MIN_AREA_PX).any():
            continue
        down, right = (0.0, float(start)) if axis else (float(start), 0.0)
        clicks = tuple((i, y - down, x - right, sign) for i, y, x, sign in plane.clicks)
        ignore = None if plane.ignore is None else plane.ignore[index]
        labels = np.ascontiguousarray(labels)
        part = replace(plane, labels=labels, ignore=ignore, clicks=clicks)
        cropped.append(replace(part, image=plane.image[index]))
    return tuple(cropped)


def judged_objects(fold: Fold, folds: int, seed: int) -> list[BenchmarkObject]:
    """Draw the objects of a fold that the robot clicks before and after.

    At most two thirds of the held-out objects: the others make the live curve, so
    that no weights are chosen by what they are judged on. Raises DatasetError if there
    is none.
    """
    objects = list(labelled.MemorySource("own", fold.held_out).objects())
    if not objects:
        names = ", ".join(dict.fromkeys(p.name for p in fold.held_out))
        raise DatasetError(f"no object to judge on in {names}: label more of it")
    most = max(1, JUDGED_OBJECTS // folds)
    share = len(objects) if len(objects) < 6 else 2 * len(objects) // 3
    return sample_objects(objects, min(most, share), seed=seed)


def curve_windows(
    fold: Fold, judged: Sequence[BenchmarkObject], grid: int, device: str
) -> tuple[list[WindowBatch], bool]:
    """Draw the windows of the live curve around held-out objects.

    Also returns whether none of their objects is judged on (only then may weights be
    chosen by them).
    """
    atlas = Atlas([plane.sample() for plane in fold.held_out], device)
    places = {(p.name, p.plane): i for i, p in enumerate(fold.held_out)}
    taken = set()
    for item in judged:
        index = places[item.image_name, item.plane]
        y, x = item.anchor or (0, 0)
        width = int(atlas.level_size[index, 0, 1])
        number = int(atlas.labels[int(atlas.label_start[index]) + y * width + x])
        taken.add((index, number))
    pairs = zip(atlas.object_image.tolist(), atlas.object_label.tolist(), strict=True)
    free = [i for i, pair in enumerate(pairs) if pair not in taken]
    chosen = free or list(range(len(atlas)))
    step = max(1, len(chosen) // CURVE_WINDOWS)
    objects = torch.tensor(chosen[::step][:CURVE_WINDOWS], device=device)
    generator = torch.Generator(device).manual_seed(7)
    batch = atlas.draw(len(objects), grid, generator, AFTER_FIRST_CLICK, objects)
    return [batch], bool(free)
