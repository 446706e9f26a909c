"""Measure suggestions: three finished objects, then the rest of the field.

    python benchmarks/suggestions.py fields DATA OUT [--images 3] [--clicked 30]
    python benchmarks/suggestions.py fit OUT
    python benchmarks/suggestions.py measure OUT

``fields`` lets the robot finish three objects of every image (of the validation side,
with at least 30 objects) and click 30 others of it, each until it is acceptable; what
comes of it is kept in OUT. ``fit`` prints the weights of the score, and what they are
worth on sets they were not fitted to. ``measure`` proposes objects from the three, by
the engine and by a classical pipeline tuned on the same three, and counts: the share of
objects proposed with an IoU of 0.75 (recall), the share of proposals that have it
(precision), and a person's actions for the whole image. Accepting costs one action, and
then as many clicks as make the object acceptable; what is not proposed is clicked.
"""

from __future__ import annotations

import argparse
import pickle
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import segmentation

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine import suggestions
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.likeness import (
    Likeness,
    features_of,
    find_seeds,
    project,
    read_cells,
)
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.engine.stages import Stages, resolve_device
from napari_cfrseg.evaluation import metrics
from napari_cfrseg.evaluation.datasets import AnnotatedPlane, BenchmarkObject
from napari_cfrseg.evaluation.datasets.choice import read_split
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.robots import ExactRobot
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.io.plane_image import PlaneImage, open_plane

SPLIT = Path(__file__).parent / "split.json"
LEAST_OBJECTS = 30
FINISHED = 3
MOST_CLICKS = 10
RIGHT = 0.75
THRESHOLDS = (0.1, 0.5, 0.6, suggestions.ACCEPT_FROM, 0.9)
#: objects around the centre of an image that weights are fitted to
FIT_OBJECTS, FIT_SEEDS = 60, 160
#: and that are measured
MEASURED = 200


@dataclass(eq=False)
class Field:
    """An image, its annotation, and what the robot did in it.

    ``labels`` are the objects that are not finished, numbered from 1; ``alone`` are
    clicks until each of the first ones is acceptable.
    """

    name: str
    image: NDArray[Any]
    labels: NDArray[np.int32]
    ignore: NDArray[np.bool_] | None
    finished: list[MaskPatch]
    finished_clicks: list[int]
    alone: list[int]
    first_ious: list[float]
    areas: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.areas = np.bincount(self.labels.ravel())

    def taken(self, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
        """Return which pixels of a box the finished objects have."""
        out = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
        for mask in self.finished:
            out |= mask.window(box)
        return out

    def truth_of(self, mask: MaskPatch) -> tuple[int, float]:
        """Return the object a mask shares most with, and their IoU."""
        y0, x0, y1, x1 = mask.box
        counts = np.bincount(self.labels[y0:y1, x0:x1][mask.mask], minlength=1)
        counts[0] = 0
        best = int(counts.argmax())
        if not counts[best]:
            return 0, 0.0
        return best, counts[best] / (mask.area + self.areas[best] - counts[best])


def click_until_ok(
    segmenter: Segmenter,
    truth: NDArray[np.bool_],
    ignore: NDArray[np.bool_] | None,
    hint: FocusHint | None,
    start: Prediction | None = None,
) -> tuple[int, list[float], NDArray[np.bool_]]:
    """Click until the mask is acceptable; one more than may be if it never is."""
    robot, shown = ExactRobot(truth, ignore), start
    mask = None if start is None else start.mask
    clicks: list[Click] = [] if start is None else list(start.clicks)
    ious: list[float] = []
    if mask is not None and _is_ok(mask, truth, ignore):
        return 0, ious, mask
    while len(ious) < MOST_CLICKS:
        clicks.append(robot.next_click(mask))
        shown = segmenter.predict(clicks, previous=shown, hint=hint)
        mask = shown.mask
        ious.append(metrics.iou(mask, truth, ignore))
        if _is_ok(mask, truth, ignore):
            return len(ious), ious, mask
    return MOST_CLICKS + 1, ious, mask


def _is_ok(mask: Any, truth: Any, ignore: Any) -> bool:
    iou = metrics.iou(mask, truth, ignore)
    if iou < metrics.ACCEPTABLE_LOWER_IOU:
        return False
    return metrics.is_acceptable(iou, metrics.surface_dice(mask, truth, ignore))


def images_of(data: Path, per_set: int) -> Iterator[tuple[str, list[BenchmarkObject]]]:
    """Yield images of the validation side with enough objects."""
    split = read_split(SPLIT)
    for name in sorted(split):
        images = split[name]["validation"]
        if name.startswith("stacks") or not images:
            continue
        folder = LabelFolder(data / name, name, image_names=tuple(images))
        planes: dict[str, list[BenchmarkObject]] = {}
        for item in folder.objects():
            planes.setdefault(item.plane_key, []).append(item)
        keys = sorted(k for k, found in planes.items() if len(found) >= LEAST_OBJECTS)
        order = np.random.default_rng(5).permutation(len(keys))[:per_set]
        for index in order:
            yield keys[index], planes[keys[index]]


def prepare(data: Path, out: Path, per_set: int, clicked: int) -> None:
    """Let the robot work in every field, and keep what came of it."""
    segmenter = Segmenter.load("default", device="cpu")
    out.mkdir(parents=True, exist_ok=True)
    for name, objects in images_of(data, per_set):
        path = out / f"{name.replace('/', '__')}.field"
        if path.exists():
            continue
        plane = objects[0].source.read_plane(objects[0].image_name, objects[0].plane)
        segmenter.set_image(plane.image)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        order = [objects[i] for i in rng.permutation(len(objects))]
        path.write_bytes(pickle.dumps(_worked(segmenter, plane, name, order, clicked)))
        print(path.stem, flush=True)


def _worked(
    segmenter: Segmenter,
    plane: AnnotatedPlane,
    name: str,
    objects: list[BenchmarkObject],
    clicked: int,
) -> Field:
    chosen = [o for o in objects if not _at_edge(o.mask_in(plane))][:FINISHED]
    rest = [o for o in objects if o not in chosen]
    finished: list[MaskPatch] = []
    counts = []
    for item in chosen:
        hint = FocusHint.from_extents([max(m.mask.shape) for m in finished])
        count, _, mask = click_until_ok(
            segmenter, item.mask_in(plane), plane.ignore_mask, hint
        )
        counts.append(count)
        finished.append(MaskPatch.from_mask(mask))
    hint = FocusHint.from_extents([max(m.mask.shape) for m in finished])
    labels = np.zeros(plane.labels.shape[1:], np.int32)
    alone, first = [], []
    for number, item in enumerate(rest, 1):
        truth = item.mask_in(plane)
        labels[truth] = number
        if number <= clicked:
            count, ious, _ = click_until_ok(segmenter, truth, plane.ignore_mask, hint)
            alone.append(count)
            first.append(ious[0])
    return Field(
        name, plane.image, labels, plane.ignore_mask, finished, counts, alone, first
    )


def _at_edge(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def fields_in(out: Path) -> Iterator[Field]:
    """Yield what ``fields`` kept."""
    for path in sorted(out.glob("*.field")):
        yield pickle.loads(path.read_bytes())  # noqa: S301 - written by this program


# -- the score's weights -------------------------------------------------------------


def fit(out: Path) -> None:
    """Print the weights of the score, and what they are worth on other sets."""
    segmenter = Segmenter.load("default", device="cpu")
    rows = []
    for number, one in enumerate(fields_in(out)):
        for traits, iou in _masks_of(segmenter, one):
            rows.append((number, one.name.split("/")[0], traits, iou >= RIGHT))
        print(one.name, len(rows), flush=True)
    fields = np.array([row[0] for row in rows])
    sets = np.array([row[1] for row in rows])
    traits, right = np.array([row[2] for row in rows]), np.array([r[3] for r in rows])
    share = 1 / np.bincount(fields)[fields]
    share *= len(share) / share.sum()
    (out / "traits.pkl").write_bytes(pickle.dumps((fields, sets, traits, right)))
    scores = np.zeros(len(right))
    for name in np.unique(sets):
        other = sets != name
        mean, spread, weights = logistic(traits[other], right[other], share[other])
        scaled = (traits[~other] - mean) / spread
        scores[~other] = 1 / (1 + np.exp(-scaled @ weights[:-1] - weights[-1]))
    for threshold in THRESHOLDS:
        chosen = scores >= threshold
        print(
            f"score ≥ {threshold}: {right[chosen].mean():.3f} of {chosen.sum()} masks "
            f"are right, on sets the weights were not fitted to"
        )
    for text, values in zip(
        ("mean", "spread", "weights"), logistic(traits, right, share), strict=True
    ):
        print(text, np.round(values, 2).tolist())


def _masks_of(
    segmenter: Segmenter, one: Field
) -> Iterator[tuple[tuple[float, ...], float]]:
    segmenter.set_image(one.image)
    suggester = suggestions.Suggester(
        Stages(segmenter.network, resolve_device("cpu")),
        segmenter.focus,
        open_plane(one.image),
        segmenter.learn(one.finished),
        one.taken,
    )
    suggester.hopeless = 0.0  # every mask counts
    height, width = one.labels.shape
    centres = np.array(
        ndimage.center_of_mass(
            one.labels > 0, one.labels, np.flatnonzero(one.areas[1:]) + 1
        )
    )
    away = np.abs(centres - [height / 2, width / 2]).max(1)
    reach = int(np.sort(away)[min(FIT_OBJECTS, len(away)) - 1])
    middle = (height // 2, width // 2)
    tile = (
        max(0, middle[0] - reach),
        max(0, middle[1] - reach),
        min(height, middle[0] + reach),
        min(width, middle[1] + reach),
    )
    seeds = suggester.seeds_in(tile)[:FIT_SEEDS]
    for start in range(0, len(seeds), 16):
        for found in suggester.answer(seeds[start : start + 16]):
            yield found.traits, one.truth_of(found.mask)[1]


def logistic(
    traits: NDArray[np.float64], right: NDArray[np.bool_], share: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit a logistic regression; return mean, spread and weights (constant last)."""
    mean, spread = traits.mean(0), traits.std(0) + 1e-6
    scaled = np.c_[(traits - mean) / spread, np.ones(len(traits))]
    weights = np.zeros(scaled.shape[1])
    small = 1e-3 * share.sum() * np.eye(len(weights))
    for _ in range(40):
        expected = 1 / (1 + np.exp(-scaled @ weights))
        curve = scaled.T @ ((share * expected * (1 - expected))[:, None] * scaled)
        slope = scaled.T @ (share * (right - expected)) - small @ weights
        weights += np.linalg.solve(curve + small, slope)
    return mean, spread, weights


# -- what suggestions are worth ------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """Figures of one way of proposing in one field."""

    field: str
    way: str
    objects: int
    seconds: float
    proposals: list[tuple[float, int, float]]  # (score, object, IoU)
    actions: dict[str, float]


def measure(out: Path) -> None:
    """Measure the engine and the classical pipeline; keep and print the results."""
    segmenter = Segmenter.load("default", device="cpu")
    path = out / "results.pkl"
    results: list[Result] = pickle.loads(path.read_bytes()) if path.exists() else []  # noqa: S301
    done = {result.field for result in results}
    for one in fields_in(out):
        if one.name in done:
            continue
        region, inside = _region(one)
        segmenter.set_image(one.image)
        start = time.process_time()
        known = segmenter.learn(one.finished)
        batches = segmenter.suggest(known, region=region, taken=one.taken)
        found = [s for batch in batches for s in batch.found]
        spent = time.process_time() - start
        ours = [(s.score, *one.truth_of(s.mask)) for s in found]
        actions = _actions(segmenter, one, inside, found)
        start = time.process_time()
        plain = classical(open_plane(one.image), one.finished, known, region)
        other = time.process_time() - start
        theirs = [(1.0, *one.truth_of(mask)) for mask in plain]
        results += [
            Result(one.name, "suggestions", len(inside), spent, ours, actions),
            Result(one.name, "LoG + watershed", len(inside), other, theirs, {}),
        ]
        path.write_bytes(pickle.dumps(results))
        print(one.name, len(found), actions, flush=True)
    table(results)


def _region(one: Field) -> tuple[tuple[int, int, int, int], set[int]]:
    """Return a box around the centre, and the objects whose middle is in it."""
    height, width = one.labels.shape
    numbers = np.flatnonzero(one.areas[1:]) + 1
    centres = np.array(ndimage.center_of_mass(one.labels > 0, one.labels, numbers))
    away = np.abs(centres - [height / 2, width / 2]).max(1)
    reach = int(np.sort(away)[min(MEASURED, len(away)) - 1]) + 1
    if len(away) <= MEASURED:
        reach = max(height, width)
    box = (
        max(0, height // 2 - reach),
        max(0, width // 2 - reach),
        min(height, height // 2 + reach),
        min(width, width // 2 + reach),
    )
    return box, set(numbers[away <= reach].tolist())


def _actions(
    segmenter: Segmenter,
    one: Field,
    inside: set[int],
    found: list[suggestions.ObjectSuggestion],
) -> dict[str, float]:
    """Return actions per object: clicking each, and with suggestions."""
    best: dict[int, tuple[float, suggestions.ObjectSuggestion]] = {}
    for suggestion in found:
        number, iou = one.truth_of(suggestion.mask)
        if iou >= RIGHT and iou > best.get(number, (0.0, None))[0]:
            best[number] = iou, suggestion
    alone, as_is, corrected, accepted = [], [], [], 0
    for number, clicks in enumerate(one.alone, 1):
        if number not in inside:
            continue
        alone.append(clicks)
        if number not in best:
            as_is.append(clicks)
            corrected.append(clicks)
            continue
        _, suggestion = best[number]
        start = Prediction.from_mask(
            suggestion.mask.to_mask(one.labels.shape), (Click(suggestion.seed),)
        )
        truth = one.labels == number
        more, *_ = click_until_ok(segmenter, truth, one.ignore, None, start)
        accepted += 1
        as_is.append(1)
        corrected.append(1 + more)
    if not alone:
        return {}
    return {
        "clicked": len(alone),
        "accepted": accepted / len(alone),
        "alone": float(np.mean(alone)),
        "as is": float(np.mean(as_is)),
        "corrected": float(np.mean(corrected)),
    }


def classical(
    image: PlaneImage,
    finished: list[MaskPatch],
    known: Likeness,
    region: tuple[int, int, int, int],
) -> list[MaskPatch]:
    """Blobs as markers of a watershed; threshold and sizes from the finished objects.

    On the same projection of the grey values as the engine's seeds. The threshold is
    that of five at which the finished objects come out best.
    """
    step = known.step
    box = (0, 0, *image.shape)
    shown = project(features_of(read_cells(image, box, step), known), known.projection)
    markers = np.zeros(shown.shape, np.int32)
    for number, (y, x, *_) in enumerate(find_seeds(shown, (0, 0), known), 1):
        row, column = (int((v + 0.5) / step) for v in (y, x))
        markers[min(row, len(markers) - 1), min(column, markers.shape[1] - 1)] = number
    tried = []
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7):
        labels = segmentation.watershed(-shown, markers, mask=shown > threshold)
        labels = np.kron(labels, np.ones((step, step), labels.dtype))
        labels = labels[: image.shape[0], : image.shape[1]]
        areas = np.bincount(labels.ravel())
        ious = []
        for mask in finished:
            y0, x0, y1, x1 = mask.box
            counts = np.bincount(labels[y0:y1, x0:x1][mask.mask], minlength=2)
            counts[0] = 0
            label = int(counts.argmax())
            ious.append(counts[label] / (mask.area + areas[label] - counts[label]))
        tried.append((float(np.mean(ious)), labels))
    labels = max(tried, key=lambda one: one[0])[1]
    low, high = 0.5 * min(m.area for m in finished), 2 * max(m.area for m in finished)
    found = []
    for number, part in enumerate(ndimage.find_objects(labels), 1):
        if part is None:
            continue
        offset = part[0].start, part[1].start
        mask = MaskPatch.from_mask(
            ndimage.binary_fill_holes(labels[part] == number), offset
        )
        middle = [(a + b) / 2 for a, b in zip(mask.box[:2], mask.box[2:], strict=True)]
        within = (
            region[0] <= middle[0] < region[2] and region[1] <= middle[1] < region[3]
        )
        known_already = any(suggestions.shared(mask, m) > 0.3 for m in finished)
        if within and low <= mask.area <= high and not known_already:
            found.append(mask)
    return found


def table(results: list[Result]) -> None:
    """Print the results by set, and their means over images."""
    for way in ("suggestions", "LoG + watershed"):
        print(f"\n{way}: share of proposals that are right, of objects proposed\n")
        floors = THRESHOLDS if way == "suggestions" else (0.0,)
        print("| set | " + " | ".join(f"P ≥ {t} | R ≥ {t}" for t in floors) + " |")
        rows: dict[str, list[list[float]]] = {}
        for result in results:
            if result.way == way:
                row = [v for t in floors for v in _precision_recall(result, t)]
                rows.setdefault(result.field.split("/")[0], []).append(row)
        for name, values in {**rows, "mean": list(chain(*rows.values()))}.items():
            shown = [f"{v:.2f}" for v in np.nanmean(values, axis=0)]
            print(f"| {name} | " + " | ".join(shown) + " |")
    print("\n| set | accepted | alone | as is | ratio | until acceptable | ratio |")
    groups: dict[str, list[dict[str, float]]] = {}
    for result in results:
        if result.actions:
            groups.setdefault(result.field.split("/")[0], []).append(result.actions)
    for name, values in {**groups, "mean": list(chain(*groups.values()))}.items():
        mean = {k: float(np.mean([v[k] for v in values])) for k in values[0]}
        print(
            f"| {name} | {mean['accepted']:.2f} | {mean['alone']:.2f} "
            f"| {mean['as is']:.2f} | {mean['as is'] / mean['alone']:.2f} "
            f"| {mean['corrected']:.2f} | {mean['corrected'] / mean['alone']:.2f} |"
        )


def _precision_recall(result: Result, threshold: float) -> tuple[float, float]:
    chosen = [one for one in result.proposals if one[0] >= threshold]
    right = [one for one in chosen if one[2] >= RIGHT]
    precision = len(right) / len(chosen) if chosen else float("nan")
    return precision, len({one[1] for one in right}) / max(result.objects, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["fields", "fit", "measure"])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--clicked", type=int, default=30)
    args = parser.parse_args()
    if args.what == "fields":
        prepare(*args.paths, args.images, args.clicked)
    elif args.what == "fit":
        fit(*args.paths)
    else:
        measure(*args.paths)
