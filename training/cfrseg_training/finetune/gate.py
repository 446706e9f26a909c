"""The gate: a fine-tuned model must be better on images it did not learn from.

A robot user clicks held-out objects with the model before and with the model after.
The mean change in clicks to 90 % IoU and its bootstrap interval (over images and the
objects in them) decide: *kept* (fewer clicks, interval below 0), *not proven* (interval
contains 0), *refused* (more clicks, or labels that do not follow the images).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from cfrseg_training.finetune.held_out import FEWEST_TO_HOLD_OUT
from cfrseg_training.loop import labelled
from cfrseg_training.loop.labelled import LabelledPlane
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import counted
from napari_cfrseg.evaluation import scores
from napari_cfrseg.evaluation.datasets import BenchmarkObject, sample_objects
from napari_cfrseg.evaluation.evaluate_objects import RunSettings, evaluate_objects
from napari_cfrseg.samples import load_sample, sample_names
from napari_cfrseg.training_job import verdict_sentence

Verdict = Literal["kept", "not proven", "refused"]
#: objects of the bundled images on which forgetting is measured
FORGETTING_OBJECTS = 24
#: files left out that are named
SHOWN_BROKEN = 3
#: p-values of the labels following their images: from which a gain counts as proven,
#: and beyond which the model is refused
PROVEN_CHANCE, LARGEST_CHANCE = 0.02, 0.04
#: moved copies each label map is compared with
ROLLS = 59
#: planes used for that, and the longest side they are thinned to
MOST_PLANES, LONGEST_PX = 8, 512


@dataclass(frozen=True, slots=True)
class Figures:
    """Mean clicks and IoU of the robot."""

    objects: int
    noc85: float
    noc90: float
    iou1: float
    iou2: float
    iou3: float
    iou4: float
    iou5: float


def bundled_objects() -> list[BenchmarkObject]:
    """Return objects of the bundled micrographs, as many of each."""
    planes = []
    for name in sample_names():
        sample = load_sample(name)
        labels = sample.labels.astype(np.int32)
        planes.append(LabelledPlane(name, None, sample.image, labels))
    source = labelled.MemorySource("bundled", tuple(planes))
    return sample_objects(list(source.objects()), FORGETTING_OBJECTS)


def judge(
    weights: Path, objects: Sequence[BenchmarkObject], threads: int | None = None
) -> list[scores.ResultRow]:
    """Let the robot click the objects with a model; rows in the objects' order."""
    factory = partial(Segmenter.load, weights, device="auto", threads=threads)
    settings = RunSettings(max_clicks=20, target=0.90)
    rows = {r.key: r for r in evaluate_objects(factory, objects, settings=settings)}
    return [rows[item.key] for item in objects]


def figures(rows: Sequence[scores.ResultRow]) -> Figures:
    """Summarise rows."""
    runs = [row.ious for row in rows]
    return Figures(
        len(rows),
        scores.mean_clicks_to(runs, 0.85),
        scores.mean_clicks_to(runs, 0.90),
        *(scores.mean_iou_at(runs, click) for click in (1, 2, 3, 4, 5)),
    )


@dataclass(frozen=True, slots=True)
class Change:
    """Mean change in clicks to 90 %, after − before, and its 95 % interval."""

    difference: float
    low: float
    high: float


def compare(
    before: Sequence[scores.ResultRow], after: Sequence[scores.ResultRow], seed: int
) -> Change:
    """Compare two models on the same objects (bootstrap over images, then objects)."""
    was, now_is = (
        np.array([scores.clicks_to(row.ious, 0.90) for row in rows], float)
        for rows in (before, after)
    )
    change = now_is - was
    images = [row.image_name for row in before]
    means = scores.bootstrap_means(change, images, np.random.default_rng(seed))
    low, high = (float(v) for v in np.quantile(means, (0.025, 0.975)))
    mean, wider = float(change.mean()), _small_sample_factor(len(change))
    return Change(mean, mean - wider * (mean - low), mean + wider * (high - mean))


def _small_sample_factor(count: int) -> float:
    """Return √(n / (n − 1)) · t / z: a bootstrap of few objects is too narrow."""
    if count < 2:
        return 100.0
    student = float(stats.t.ppf(0.975, count - 1) / stats.norm.ppf(0.975))
    return student * float(np.sqrt(count / (count - 1)))


def decide(change: Change, chance: float = 0.0) -> Verdict:
    """Return the verdict, given also how likely the labels fit by chance."""
    if change.high < 0 and chance <= PROVEN_CHANCE:
        return "kept"
    worse = change.high >= 0 and change.difference > 0
    return "refused" if worse or chance > LARGEST_CHANCE else "not proven"


def suggestions(
    verdict: Verdict, data: labelled.LabelledData, facts: Mapping[str, float]
) -> list[str]:
    """Return which files were left out, and what to try where the model was not kept.

    ``facts`` has the ``chance`` of fit, NoC@90 ``before``, the ``minutes`` and how
    many objects were ``judged``.
    """
    broken = [f"left out {name}: {reason}" for name, reason in data.broken.items()]
    texts = broken[:SHOWN_BROKEN]
    if broken[SHOWN_BROKEN:]:
        texts.append(f"left out {counted(len(broken) - SHOWN_BROKEN, 'more file')}")
    if verdict == "kept":
        return texts
    if facts["chance"] > PROVEN_CHANCE:
        texts.append(
            "the labels follow their images no better than the same labels moved "
            "elsewhere: check that each label file belongs to its image"
        )
    if facts["before"] <= 2.5:
        texts.append("the base model needs few clicks already: there is little to win")
    if len(data.groups()) < FEWEST_TO_HOLD_OUT:
        texts.append("label more images: with few of them little can be proven")
    if facts["judged"] < 20:
        texts.append(f"only {facts['judged']:.0f} objects could be judged: label more")
    if facts["minutes"] < 10:
        texts.append("give it more minutes")
    return texts


def chance_of_fit(planes: Sequence[LabelledPlane]) -> float:
    """Return the p-value of labels following their images; no network is needed.

    Three measures of a label map on its image: how steep the image is along the
    labels' outlines, how far the grey level inside differs from that just outside,
    and how the roughness does. Each is measured for the labels where they are and for
    the same labels mirrored and rolled to other places. Labels that belong to the image
    stand out in at least one; those of another image do not, though fine-tuning on them
    can lower the clicks on further labels of the kind.

    At most eight planes are used, spread evenly. The p-value is between 1 / (ROLLS + 1)
    (the labels follow the images) and 1.
    """
    rng = np.random.default_rng(0)
    chosen = planes[:: max(1, len(planes) // MOST_PLANES)][:MOST_PLANES]
    # (rolls + 1, measures), the first row of the labels where they are
    total = np.zeros((ROLLS + 1, 3))
    for plane in chosen:
        values = _measures(plane, rng)
        total += (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)
    total /= np.sqrt(len(chosen))
    extreme = np.abs(total).max(axis=1)
    return float((extreme >= extreme[0]).mean())


def _measures(plane: LabelledPlane, rng: np.random.Generator) -> NDArray[np.float64]:
    thin = max(1, -(-max(plane.labels.shape) // LONGEST_PX))
    pixels = labelled.to_uint8(plane.image)
    grey = pixels.mean(axis=2)[::thin, ::thin].astype(np.float32)
    labels = plane.labels[::thin, ::thin]
    smooth = ndimage.gaussian_filter(grey, 1)
    steep = ndimage.gaussian_gradient_magnitude(grey, 1)
    rough = np.sqrt(np.maximum(ndimage.gaussian_filter(grey**2, 2) - smooth**2, 0))
    inside = labels > 0
    outline = ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
    ring = ndimage.binary_dilation(inside, iterations=4) & ~inside
    height, width = labels.shape
    rows = []
    for index in range(ROLLS + 1):
        masks = [outline, inside, ring]
        if index:
            down, across = rng.random(2) < 0.5
            shift = (int(rng.integers(height)), int(rng.integers(width)))
            flips = np.s_[:: -1 if down else 1, :: -1 if across else 1]
            masks = [np.roll(m[flips], shift, axis=(0, 1)) for m in masks]
        line, core, rim = masks
        bright = _mean(smooth, core) - _mean(smooth, rim)
        rougher = _mean(rough, core) - _mean(rough, rim)
        rows.append([_mean(steep, line), bright, rougher])
    return np.array(rows, float)


def _mean(values: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    return float(values[where].mean()) if where.any() else 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A fine-tuning and its judgement."""

    verdict: Verdict
    before: Figures  #: of the base model on held-out objects
    after: Figures  #: of the fine-tuned one
    difference: float  #: mean change in clicks to 90 %, after − before
    low: float  #: its 95 % interval
    high: float
    how: str  #: how images were held out
    held_out: tuple[str, ...]  #: names of the images that were judged on
    steps: int  #: of the last training
    seconds: float  #: of everything
    bundled_before: Figures | None  #: on the bundled micrographs: what was forgotten
    bundled_after: Figures | None
    chance: float  #: p-value of the labels following their images (``chance_of_fit``)
    suggestions: tuple[str, ...]  #: what to try where the model was not kept
    left_out: Mapping[str, str]  #: files that could not be used, with the reason
    model: str = ""  #: path of the new weights
    #: path of the weights in the job's folder, whatever the verdict; without one, of
    #: weights beside the output where their gain is not proven
    candidate: str = ""


def report_text(outcome: Outcome) -> str:
    """Return an outcome as a table and its verdict."""
    lines = ["                  objects  NoC@85  NoC@90  IoU@1  @2    @3    @4    @5"]
    for name, before, after in (
        ("held out", outcome.before, outcome.after),
        ("bundled", outcome.bundled_before, outcome.bundled_after),
    ):
        for when, f in (("before", before), ("after", after)):
            if f is not None:
                objects, noc85, noc90, *ious = astuple(f)
                counts = f"{objects:7d}  {noc85:6.2f}  {noc90:6.2f}"
                means = " ".join(f"{v:.3f}" for v in ious)
                lines.append(f"{name:9s}{when:8s} {counts}  {means}")
    interval = f"95 % interval {outcome.low:+.2f} to {outcome.high:+.2f}"
    lines.append(
        f"change in clicks to 90 %: {outcome.difference:+.2f} ({interval}); judged by "
        f"{outcome.how}: {', '.join(outcome.held_out[:8])}"
    )
    end = "The old model stays."
    if outcome.verdict == "not proven":
        end = f"It is {outcome.candidate}: use it, or delete it."
    sentence = verdict_sentence(asdict(outcome))
    lines.append(f"{outcome.verdict}: {sentence} {outcome.model or end}")
    lines += [f"  - {text}" for text in outcome.suggestions]
    return "\n".join(lines)
