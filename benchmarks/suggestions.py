"""Measure suggestions: three finished objects, then the rest of the field.

    python benchmarks/suggestions.py measure DATA OUT [--fields 2] [--objects 12]
    python benchmarks/suggestions.py measure DATA OUT --unseen
    python benchmarks/suggestions.py times
    python benchmarks/suggestions.py fit DATA

``measure`` runs fields of the validation side (at least 30 objects), as
``cfrseg evaluate --suggest`` does, and prints its table; then the share of proposals
that are right (precision) and of objects that have a right one (recall) from a score
on, and those of a classical pipeline tuned on the same three objects. ``--unseen``:
kinds of images that the defaults before run 9 were not trained on. Fields that OUT has
are not measured again. ``times``: processor time and memory on 100 discs in 1024² and
on a plane of 10,000². ``fit`` prints the weights of the score, and what they are worth
on sets they were not fitted to.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import segmentation

from napari_cfrseg.engine import suggestions
from napari_cfrseg.engine.likeness import (
    Likeness,
    features_of,
    find_seeds,
    project,
    read_cells,
)
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.engine.stages import Stages
from napari_cfrseg.evaluation.datasets import BenchmarkObject
from napari_cfrseg.evaluation.datasets.choice import read_split
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.evaluate_fields import (
    FieldRow,
    evaluate_fields,
    format_fields,
)
from napari_cfrseg.evaluation.fields import (
    ACCEPTED_IOU,
    TAUGHT,
    Field,
    FieldSettings,
    crowded_planes,
    pixels_of,
)
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.io.plane_image import PlaneImage, open_plane

SPLIT = Path(__file__).parent / "split.json"
#: sets that came with run 9: the defaults before it saw none of their sides
UNSEEN = ("chloroplast_em", "gravel_outcrop_photo", "pebble_beach_photo")
THRESHOLDS = (0.2, 0.5, suggestions.ACCEPT_FROM, 0.9)
#: objects around an image's middle that are measured
MEASURED = 60
#: the same that weights are fitted to; their seeds; images of a set to choose from
FIT_OBJECTS, FIT_SEEDS, FIT_IMAGES = 40, 160, 12


def measured_fields(
    data: Path, most: int, *, unseen: bool, training: bool = False
) -> list[list[BenchmarkObject]]:
    """Return fields, at most so many of a set; of the test side none.

    They are of the validation side, or of some images of the training side.
    """
    split = read_split(SPLIT)
    objects: list[BenchmarkObject] = []
    for name in sorted(split):
        sides = ("train", "validation") if name in UNSEEN else ("validation",)
        images = tuple(image for side in sides for image in split[name][side])
        if training:
            order = np.random.default_rng(1).permutation(split[name]["train"])
            images = tuple(order[:FIT_IMAGES].tolist())
        if images and (name in UNSEEN) is unseen and not name.startswith("stacks"):
            objects += LabelFolder(data / name, name, image_names=images).objects()
    return crowded_planes(objects, most)


# -- the score's weights -------------------------------------------------------------


def fit(data: Path, most: int) -> None:
    """Print the weights of the score, and what they are worth on other sets.

    They are fitted to the training side: what is measured has no part in them.
    """
    segmenter = Segmenter.load("default", device="cpu")
    rows = []
    fields_to_fit = measured_fields(data, most, unseen=False, training=True)
    for number, objects in enumerate(fields_to_fit):
        for traits, iou in _masks_of(segmenter, objects):
            rows.append((number, objects[0].set_name, traits, iou >= ACCEPTED_IOU))
        print(objects[0].plane_key, len(rows), flush=True)
    fields = np.array([row[0] for row in rows])
    sets = np.array([row[1] for row in rows])
    traits, right = np.array([row[2] for row in rows]), np.array([r[3] for r in rows])
    share = 1 / np.bincount(fields)[fields]
    share *= len(share) / share.sum()
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
    segmenter: Segmenter, objects: Sequence[BenchmarkObject]
) -> Iterator[tuple[tuple[float, ...], float]]:
    one = Field(segmenter, objects, FieldSettings(most=FIT_OBJECTS))
    suggester = suggestions.Suggester(
        Stages(segmenter.network, "cpu"),
        open_plane(one.image),
        segmenter.learn(one.finished),
        partial(pixels_of, one.finished),
    )
    suggester.hopeless = 0.0  # every mask counts
    seeds = suggester.seeds_in(one.region)[:FIT_SEEDS]
    for start in range(0, len(seeds), 16):
        for found in suggester.answer(seeds[start : start + 16]):
            yield found.traits, one.match(found.mask)[1]


def logistic(
    traits: NDArray[np.float64], right: NDArray[np.bool_], share: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit a logistic regression; return mean, spread and weights (constant last)."""
    mean, spread = traits.mean(0), traits.std(0) + 1e-6
    scaled = np.c_[(traits - mean) / spread, np.ones(len(traits))]
    weights = np.zeros(scaled.shape[1])
    small = 1e-2 * share.sum() * np.eye(len(weights))
    for _ in range(40):
        expected = 1 / (1 + np.exp(-scaled @ weights))
        curve = scaled.T @ ((share * expected * (1 - expected))[:, None] * scaled)
        slope = scaled.T @ (share * (right - expected)) - small @ weights
        weights += np.linalg.solve(curve + small, slope)
    return mean, spread, weights


# -- what suggestions are worth ------------------------------------------------------


def measure(
    data: Path, out: Path, most: int, objects: int, *, unseen: bool, model: str
) -> None:
    """Measure the engine and the classical pipeline, and print the tables."""
    segmenter = Segmenter.load(model, device="cpu")
    out.mkdir(parents=True, exist_ok=True)
    settings = FieldSettings(max_objects=objects, most=MEASURED)
    fields = measured_fields(data, most, unseen=unseen)
    path, rows = out / "classical.jsonl", []
    theirs = (
        dict(map(json.loads, path.read_text().splitlines())) if path.exists() else {}
    )
    identity = {"segmenter": model}
    for row, items in zip(
        evaluate_fields(out / "fields.jsonl", segmenter, fields, settings, identity),
        fields,
        strict=True,
    ):
        rows.append(row)
        if row.key not in theirs:
            theirs[row.key] = _classical_in(segmenter, items, settings)
            with path.open("a") as file:
                file.write(json.dumps([row.key, theirs[row.key]]) + "\n")
        print(len(rows), len(fields), row.key, flush=True)
    print(format_fields(rows, settings))
    print(thresholds(rows, theirs))


def _classical_in(
    segmenter: Segmenter, items: Sequence[BenchmarkObject], settings: FieldSettings
) -> tuple[int, int, float]:
    """Return proposals, right ones, and processor seconds."""
    one = Field(segmenter, items, settings)
    start = time.process_time()
    image, known = open_plane(one.image), segmenter.learn(one.finished)
    found = classical(image, one.finished, known)
    spent = time.process_time() - start
    y0, x0, y1, x1 = one.region
    centres = [(np.array(m.box[:2]) + m.box[2:]) / 2 for m in found]
    inside = [y0 <= y < y1 and x0 <= x < x1 for y, x in centres]
    matched = [one.match(m) for m, seen in zip(found, inside, strict=True) if seen]
    matched = [(n, iou) for n, iou in matched if n <= one.count]
    right = {n for n, iou in matched if n > TAUGHT and iou >= ACCEPTED_IOU}
    return len(matched), len(right), spent


def classical(
    image: PlaneImage,
    finished: list[MaskPatch],
    known: Likeness,
) -> list[MaskPatch]:
    """Blobs as markers of a watershed; threshold and sizes from the finished objects.

    On the same projection of the grey values as the engine's seeds. The threshold is
    that of five at which the finished objects come out best.
    """
    step = known.step
    box = (0, 0, *image.shape)
    cells = read_cells(image, box, step)
    scale = known.scales[len(known.scales) // 2]
    shown = project(features_of(cells, scale.size / step), scale.projection)
    markers = np.zeros(shown.shape, np.int32)
    for number, (y, x, *_) in enumerate(find_seeds(cells, (0, 0), known), 1):
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
        known_already = any(suggestions.shared(mask, m) > 0.3 for m in finished)
        if low <= mask.area <= high and not known_already:
            found.append(mask)
    return found


def thresholds(
    rows: Sequence[FieldRow], theirs: dict[str, tuple[int, int, float]]
) -> str:
    """Lay out precision and recall from a score on, as Markdown."""
    titles = "".join(f"P ≥ {t} | R ≥ {t} | " for t in THRESHOLDS)
    lines = [
        f"| set | {titles}LoG + watershed P | R |",
        f"|---|{(2 * len(THRESHOLDS) + 2) * '--:|'}",
    ]
    by_set: dict[str, list[FieldRow]] = defaultdict(list)
    for row in rows:
        by_set[row.set_name].append(row)
    for name, group in [*sorted(by_set.items()), ("all objects alike", list(rows))]:
        objects = sum(row.objects - TAUGHT for row in group)
        counts = [
            np.sum([row.found(threshold) for row in group], axis=0)
            for threshold in THRESHOLDS
        ]
        counts.append(np.sum([theirs[row.key][:2] for row in group], axis=0))
        shares = chain(*((r / max(n, 1), r / objects) for n, r in counts))
        lines.append(f"| {name} | {' | '.join(f'{v:.2f}' for v in shares)} |")
    return "\n".join(lines)


# -- time and memory -----------------------------------------------------------------


def times() -> None:
    """Print the processor time of all threads, wall time and growth of memory."""
    segmenter = Segmenter.load("default", device="cpu")
    for cells, places, side in ((10, 102, 1024), (200, 50, 10_000)):
        rows, columns = np.indices((places, places)) - places // 2
        tile = np.clip(160 - 100 / (1 + np.exp(12 - np.hypot(rows, columns))), 0, 255)
        image = np.full((side, side), 60, np.uint8)
        image[: cells * places, : cells * places] = np.tile(tile, (cells, cells))
        image[::3, ::2] += 8
        segmenter.set_image(image)
        disc = np.hypot(rows, columns) < 12
        corners = [(0, 0), (0, places), (places, 0)]
        finished = [MaskPatch.from_mask(disc, corner) for corner in corners]
        segmenter.predict([(places // 2, places // 2)])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, cpu, first, count = time.perf_counter(), time.process_time(), "", 0
        known = segmenter.learn(finished)
        taken = partial(pixels_of, finished)
        for batch in segmenter.suggest(known, taken=taken):
            count += len(batch.found)
            now = (time.process_time() - cpu, time.perf_counter() - start)
            if batch.found and not first:
                first = f"first after {now[0]:.2f} s ({now[1]:.2f} s wall)"
            if count >= 400:
                break
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"{side}²: {first}, {count} after {now[0]:.1f} s ({now[1]:.1f} s wall); "
            f"memory grew by {grown:.0f} MB"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["fit", "measure", "times"])
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("--fields", type=int, default=2)
    parser.add_argument("--objects", type=int, default=12)
    parser.add_argument("--unseen", action="store_true")
    parser.add_argument("--model", default="default")
    args = parser.parse_args()
    if args.what == "fit":
        fit(*args.paths, args.fields)
    elif args.what == "times":
        times()
    else:
        kinds = {"unseen": args.unseen, "model": args.model}
        measure(*args.paths, args.fields, args.objects, **kinds)
