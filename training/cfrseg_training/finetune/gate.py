"""The gate: a fine-tuned model must be better on images it did not learn from.

A robot user clicks held-out objects with the model before and with the model after.
The mean change in clicks to 90 % IoU and its bootstrap interval (over images and the
objects in them) decide: *kept* (fewer clicks, interval below 0), *not proven* (interval
holds 0), *refused* (more clicks, or labels that do not follow the images).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from cfrseg_training.loop.labelled import (
    MIN_AREA_PX,
    LabelledData,
    LabelledPlane,
    MemorySource,
)
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.clicking import RunSettings
from napari_cfrseg.evaluation.datasets import (
    BenchmarkObject,
    sample_objects,
)
from napari_cfrseg.evaluation.report.comparisons import bootstrap_means
from napari_cfrseg.evaluation.scores import (
    ObjectRow,
    clicks_to,
    mean_clicks_to,
    mean_iou_at,
)
from napari_cfrseg.evaluation.workers import evaluate_objects
from napari_cfrseg.samples import load_sample, sample_names

Verdict = Literal["kept", "not proven", "refused"]
#: share of the images held out where there are enough of them
HELD_OUT = 0.25
#: with fewer images than this, each is left out in turn
FEWEST_TO_HOLD_OUT = 4
#: objects the robot clicks before and after, over all folds
JUDGED_OBJECTS = 60
#: pixels between the halves of a lone image, as a share of its side
MARGIN = 0.06
#: objects of the bundled images on which forgetting is measured
FORGETTING_OBJECTS = 24
#: p-values of the labels following their images: from which a gain counts as proven,
#: and beyond which the model is refused
PROVEN_CHANCE, LARGEST_CHANCE = 0.02, 0.04


@dataclass(frozen=True, slots=True)
class Fold:
    """What is trained on and what is judged on."""

    trained: tuple[LabelledPlane, ...]
    held_out: tuple[LabelledPlane, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """How images are held out.

    Attributes
    ----------
    how
        "held-out images", "leave one image out", "halves of the one image" or "halves
        of the one stack".
    folds
        One for held-out images, else one for each image or half.
    """

    how: str
    folds: tuple[Fold, ...]

    @property
    def held_out(self) -> tuple[str, ...]:
        """Names of all images that are judged on, each once."""
        names = (plane.name for fold in self.folds for plane in fold.held_out)
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Figures:
    """What the robot needed."""

    objects: int
    noc85: float
    noc90: float
    iou1: float
    iou2: float
    iou3: float
    iou4: float
    iou5: float


def split_data(data: LabelledData, seed: int) -> Split:
    """Hold images out: a quarter; each in turn of two or three; halves of one.

    Raises
    ------
    DatasetError
        One image whose halves do not both hold an object.
    """
    names = data.names
    if len(names) == 1:
        return _halves(data.planes)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    if len(names) < FEWEST_TO_HOLD_OUT:
        folds = tuple(_without(data, {name}) for name in sorted(names))
        return Split("leave one image out", folds)
    count = max(1, round(HELD_OUT * len(names)))
    return Split("held-out images", (_without(data, set(order[:count])),))


def _without(data: LabelledData, names: set[str]) -> Fold:
    trained = tuple(p for p in data.planes if p.name not in names)
    return Fold(trained, tuple(p for p in data.planes if p.name in names))


def _halves(planes: tuple[LabelledPlane, ...]) -> Split:
    if len(planes) >= 2 * FEWEST_TO_HOLD_OUT:
        middle, margin = len(planes) // 2, max(1, round(MARGIN * len(planes)))
        first, second = planes[: middle - margin // 2], planes[middle + margin :]
        how = "halves of the one stack"
        return Split(how, (Fold(first, second), Fold(second, first)))
    for axis in np.argsort([-n for n in planes[0].labels.shape]):
        cut = _cut(planes[0], int(axis))
        side = planes[0].labels.shape[axis]
        gap = max(4, round(MARGIN * side)) // 2
        first = _cropped(planes, int(axis), 0, cut - gap)
        second = _cropped(planes, int(axis), cut + gap, side)
        if first and second:
            how = "halves of the one image"
            return Split(how, (Fold(first, second), Fold(second, first)))
    msg = (
        "one image whose halves do not both hold an object: label objects on both "
        "sides of it, or a second image, so that the result can be judged"
    )
    raise DatasetError(msg)


def _cut(plane: LabelledPlane, axis: int) -> int:
    """Return where to cut so that half of the objects lie on either side."""
    components = find_centres(plane)
    places = sorted(c[axis] for c in components)
    if len(places) < 2:
        return int(plane.labels.shape[axis] // 2)
    middle = len(places) // 2
    return int((places[middle - 1] + places[middle]) / 2)


def find_centres(plane: LabelledPlane) -> list[tuple[float, float]]:
    """Return the middle (row, column) of every label's bounding box."""
    from scipy import ndimage

    boxes = ndimage.find_objects(plane.labels)
    return [
        ((b[0].start + b[0].stop) / 2, (b[1].start + b[1].stop) / 2)
        for b in boxes
        if b is not None
    ]


def _cropped(
    planes: Sequence[LabelledPlane], axis: int, start: int, stop: int
) -> tuple[LabelledPlane, ...]:
    """Cut a range of rows or columns out; planes without an object there go."""
    if stop - start < 16:
        return ()
    index = (slice(None),) * axis + (slice(start, stop),)
    found = []
    for plane in planes:
        labels = plane.labels[index]
        if not (np.bincount(labels.ravel())[1:] >= MIN_AREA_PX).any():
            continue
        shift = [0.0, 0.0]
        shift[axis] = start
        clicks = tuple(
            (i, y - shift[0], x - shift[1], sign) for i, y, x, sign in plane.clicks
        )
        ignore = None if plane.ignore is None else plane.ignore[index]
        found.append(
            replace(
                plane,
                image=plane.image[index],
                labels=np.ascontiguousarray(labels),
                ignore=ignore,
                clicks=clicks,
            )
        )
    return tuple(found)


def judged_objects(fold: Fold, folds: int, seed: int) -> list[BenchmarkObject]:
    """Draw the objects of a fold that the robot clicks before and after.

    At most two thirds of the held-out objects: the others make the live curve, so
    that no weights are chosen by what they are judged on.

    Raises
    ------
    DatasetError
        There is none.
    """
    objects = list(MemorySource("own", fold.held_out).objects())
    if not objects:
        names = ", ".join(dict.fromkeys(p.name for p in fold.held_out))
        msg = f"no object to judge on in {names}: label more of it"
        raise DatasetError(msg)
    most = max(1, JUDGED_OBJECTS // folds)
    share = len(objects) if len(objects) < 6 else 2 * len(objects) // 3
    return sample_objects(objects, min(most, share), seed=seed)


def bundled_objects(count: int = FORGETTING_OBJECTS) -> list[BenchmarkObject]:
    """Return objects of the bundled micrographs, as many of each."""
    planes = []
    for name in sample_names():
        sample = load_sample(name)
        planes.append(
            LabelledPlane(name, None, sample.image, sample.labels.astype(np.int32))
        )
    source = MemorySource("bundled", tuple(planes))
    return sample_objects(list(source.objects()), count)


def judge(
    weights: Path, objects: Sequence[BenchmarkObject], threads: int | None = None
) -> list[ObjectRow]:
    """Let the robot click the objects with a model; rows in the objects' order."""
    factory = partial(Segmenter.load, weights, device="auto", threads=threads)
    settings = RunSettings(max_clicks=20, target=0.90)
    rows = {r.key: r for r in evaluate_objects(factory, objects, settings=settings)}
    return [rows[item.key] for item in objects]


def figures(rows: Sequence[ObjectRow]) -> Figures:
    """Summarise rows."""
    runs = [row.ious for row in rows]
    return Figures(
        len(rows),
        mean_clicks_to(runs, 0.85),
        mean_clicks_to(runs, 0.90),
        *(mean_iou_at(runs, click) for click in (1, 2, 3, 4, 5)),
    )


@dataclass(frozen=True, slots=True)
class Change:
    """Mean change in clicks to 90 %, after − before, and its 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """What follows for the new model."""
        if self.high < 0:
            return "kept"
        return "refused" if self.difference > 0 else "not proven"


def compare(
    before: Sequence[ObjectRow], after: Sequence[ObjectRow], seed: int
) -> Change:
    """Compare two models on the same objects (bootstrap over images, then objects)."""
    change = np.array(
        [
            clicks_to(b.ious, 0.90) - clicks_to(a.ious, 0.90)
            for a, b in zip(before, after, strict=True)
        ],
        float,
    )
    images = [row.image_name for row in before]
    means = bootstrap_means(change, images, np.random.default_rng(seed))
    low, high = (float(v) for v in np.quantile(means, (0.025, 0.975)))
    mean, wider = float(change.mean()), _small_sample_factor(len(change))
    return Change(mean, mean - wider * (mean - low), mean + wider * (high - mean))


def _small_sample_factor(count: int) -> float:
    """Return how much wider Student's interval is than the normal one.

    Percentiles of a bootstrap are too narrow for few objects, as the normal interval
    is: √(n / (n − 1)) for the spread and t for the quantile.
    """
    from scipy import stats

    if count < 2:
        return 100.0
    student = float(stats.t.ppf(0.975, count - 1) / stats.norm.ppf(0.975))
    return student * float(np.sqrt(count / (count - 1)))


def decide(change: Change, chance: float) -> Verdict:
    """Return the verdict, given also how likely the labels fit by chance."""
    if chance > LARGEST_CHANCE:
        return "refused"
    if chance > PROVEN_CHANCE and change.verdict == "kept":
        return "not proven"
    return change.verdict


def suggestions(
    verdict: Verdict, data: LabelledData, facts: Mapping[str, float]
) -> list[str]:
    """Return what to try where the model was not kept.

    Parameters
    ----------
    facts
        ``chance``: p-value of :func:`cfrseg_training.finetune.fit.chance_of_fit`;
        ``before`` and ``after``: NoC@90; ``minutes``; ``judged``: number of objects.
    """
    if verdict == "kept":
        return []
    found = []
    if facts["chance"] > PROVEN_CHANCE:
        found.append(
            "the labels follow their images no better than the same labels moved "
            "elsewhere: check that each label file belongs to its image"
        )
    if facts["before"] <= 2.5:
        found.append("the base model needs few clicks already: there is little to win")
    if len(data.names) < FEWEST_TO_HOLD_OUT:
        found.append("label more images: with few of them little can be proven")
    if facts["judged"] < 20:
        found.append(f"only {facts['judged']:.0f} objects could be judged: label more")
    if facts["minutes"] < 10:
        found.append("give it more minutes")
    if data.broken:
        found.append(f"{len(data.broken)} files were left out: see the reasons")
    return found
