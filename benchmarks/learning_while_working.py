"""Measure what adapting to finished objects brings to first clicks on others.

    python benchmarks/learning_while_working.py fields DATA OUT
    python benchmarks/learning_while_working.py measure OUT [--finished 5]
    python benchmarks/learning_while_working.py table OUT [--finished 5]

``fields`` lets the robot finish up to ten objects of images of the validation side, and
of kinds that the shipped weights were not trained on. ``measure`` adapts to the newest
so many of them and makes the first clicks on others, in the object's deepest pixel and,
as a person would, near it, with the shipped weights and the adapted ones; some objects
are clicked until they are acceptable. All first clicks expect the size of
the finished objects, as in the window. What OUT holds is not made again.
"""

from __future__ import annotations

import argparse
import json
import pickle
import time
import zlib
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.adaptation import Finished, Lesson
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation import metrics
from napari_cfrseg.evaluation.datasets import BenchmarkObject
from napari_cfrseg.evaluation.datasets.choice import read_split
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.robots import ExactRobot, HumanRobot
from napari_cfrseg.evaluation.scores import FAILING_IOU, bootstrap_means
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import mask_box
from napari_cfrseg.io.plane_image import open_plane

SPLIT = Path(__file__).parent / "split.json"
#: kinds the shipped weights were not trained on: all their images but the test side's
UNSEEN = ("gravel_outcrop_photo", "pebble_beach_photo", "chloroplast_em")
PER_SET, LEAST_OBJECTS, FINISHED, TESTED = 3, 15, 10, 20
MOST_CLICKS = 10


def images_of(data: Path) -> Iterator[tuple[str, list[BenchmarkObject]]]:
    """Yield images with enough objects, up to three of each set."""
    split = read_split(SPLIT)
    for name in sorted(split):
        images = split[name]["validation"]
        if name in UNSEEN:
            images = [*images, *split[name]["train"]]
        if name.startswith("stacks") or not images:
            continue
        folder = LabelFolder(data / name, name, image_names=tuple(images))
        planes: dict[str, list[BenchmarkObject]] = {}
        for item in folder.objects():
            planes.setdefault(item.plane_key, []).append(item)
        keys = sorted(k for k, found in planes.items() if len(found) >= LEAST_OBJECTS)
        for index in np.random.default_rng(5).permutation(len(keys))[:PER_SET]:
            yield keys[index], planes[keys[index]]


def prepare(data: Path, out: Path) -> None:
    """Let the robot finish objects of every image, and keep them."""
    segmenter = Segmenter.load("default", device="cpu")
    out.mkdir(parents=True, exist_ok=True)
    for key, objects in images_of(data):
        path = out / f"{key.replace('/', '__')}.pkl"
        if path.exists():
            continue
        plane = objects[0].source.read_plane(objects[0].image_name, objects[0].plane)
        segmenter.set_image(plane.image)
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        masks = [objects[i].mask_in(plane) for i in rng.permutation(len(objects))]
        height, width = masks[0].shape
        most = min(FINISHED, len(masks) - 10)
        whole = [m for m in masks if _is_inside(mask_box(m), height, width)][:most]
        rest = [m for m in masks if not any(m is w for w in whole)][:TESTED]
        finished: list[Finished] = []
        for truth in whole:
            sides = [float(max(one.mask.mask.shape)) for one in finished]
            hint = FocusHint.from_extents(sides) if len(sides) > 2 else None
            first = ExactRobot(truth, plane.ignore_mask).next_click()
            _, mask = click_until_ok(segmenter, truth, plane.ignore_mask, hint)
            finished.append(Finished(MaskPatch.from_mask(mask), first.yx))
        field = (plane.image, plane.ignore_mask, finished, rest)
        path.write_bytes(pickle.dumps(field))
        print(path.stem, len(objects), flush=True)


def _is_inside(box: Any, height: int, width: int) -> bool:
    y0, x0, y1, x1 = box
    return bool(y0 > 0 and x0 > 0 and y1 < height and x1 < width)


def click_until_ok(
    segmenter: Segmenter,
    truth: NDArray[np.bool_],
    ignore: NDArray[np.bool_] | None,
    hint: FocusHint | None,
) -> tuple[int, NDArray[np.bool_]]:
    """Click until the mask is acceptable; one more than may be if it never is."""
    robot, shown, mask = ExactRobot(truth, ignore), None, np.zeros_like(truth)
    clicks: list[Click] = []
    while len(clicks) < MOST_CLICKS:
        clicks.append(robot.next_click(mask))
        shown = segmenter.predict(clicks, previous=shown, hint=hint)
        mask = shown.mask
        iou = metrics.iou(mask, truth, ignore)
        dice = metrics.surface_dice(mask, truth, ignore)
        if metrics.is_acceptable(iou, dice):
            return len(clicks), mask
    return MOST_CLICKS + 1, mask


def first_clicks(
    segmenter: Segmenter,
    truths: list[NDArray[np.bool_]],
    ignore: NDArray[np.bool_] | None,
    hint: FocusHint | None,
) -> dict[str, list[float]]:
    """Return the IoU of first clicks: in the deepest pixel, and near it."""
    ious: dict[str, list[float]] = {"deepest": [], "near": []}
    for number, truth in enumerate(truths):
        near = HumanRobot(truth, ignore, rng=np.random.default_rng(number))
        robots = {"deepest": ExactRobot(truth, ignore), "near": near}
        for name, robot in robots.items():
            click: Click = robot.next_click()
            mask = segmenter.predict([click], hint=hint).mask
            ious[name].append(metrics.iou(mask, truth, ignore))
    return ious


class _Ungated(Lesson):
    """A lesson whose result is always kept; the table lets it through gates."""

    @staticmethod
    def is_worth_keeping(gain: float, error: float) -> bool:
        return True


def measure(
    path: Path, count: int, tested: int, clicked: int, segmenter: Segmenter
) -> dict[str, Any]:
    """Compare the shipped weights with those adapted in one field."""
    image, ignore, finished, truths = pickle.loads(path.read_bytes())  # noqa: S301 - our own
    finished, truths = finished[-count:], truths[:tested]
    segmenter.adapt(None)
    segmenter.set_image(image)
    hint = FocusHint.from_extents([float(max(f.mask.mask.shape)) for f in finished])
    row: dict[str, Any] = {}
    lesson = _Ungated(segmenter.network, segmenter.focus, open_plane(image), finished)
    start, steps = time.process_time(), []
    for _ in lesson.run():
        steps.append(time.process_time())
    row["seconds"] = time.process_time() - start
    row["longest"] = max(np.diff([start, *steps]), default=0.0)
    row["gain"] = None if lesson.result is None else lesson.result.gain
    for name, adaptation in (("shipped", None), ("adapted", lesson.result)):
        segmenter.adapt(adaptation)
        row[name] = first_clicks(segmenter, truths, ignore, hint)
        row[name]["clicks"] = [
            click_until_ok(segmenter, truth, ignore, hint)[0]
            for truth in truths[:clicked]
        ]
    return row


def _set_after_set(paths: Iterable[Path]) -> list[Path]:
    """Return an image of each set, then the next ones."""
    of_set: dict[str, list[Path]] = {}
    for path in sorted(paths):
        of_set.setdefault(path.stem.split("__")[0], []).append(path)
    return [p for turn in zip_longest(*of_set.values()) for p in turn if p is not None]


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return gains over images: all adapted, or those that the gate lets through."""
    lines = ["| kept | images | first click | shipped | adapted | gain | interval |"]
    lines.append("|---|--:|---|--:|--:|--:|---|")
    gates = (("always", -1.0), ("gain ≥ 0", 0.0), ("gain ≥ 0.02", 0.02))
    for label, least in gates:
        for kind in ("deepest", "near", "fails, near", "clicks"):
            if not all(row["shipped"].get(kind, [1]) for row in rows.values()):
                continue
            pairs = []
            for row in rows.values():
                own, new = (_values(row[w], kind) for w in ("shipped", "adapted"))
                passed = row["gain"] is not None and row["gain"] >= least
                pairs.append((own, new if passed else own))
            change = np.concatenate([new - own for own, new in pairs])
            owner = [str(i) for i, (own, _) in enumerate(pairs) for _ in own]
            means = bootstrap_means(change, owner, np.random.default_rng(0))
            low, high = np.quantile(means, (0.025, 0.975))
            kept = sum(
                r["gain"] is not None and r["gain"] >= least for r in rows.values()
            )
            own, new = (np.concatenate(column) for column in zip(*pairs, strict=True))
            lines.append(
                f"| {label} | {kept} of {len(rows)} | {kind} | {own.mean():.3f} | "
                f"{new.mean():.3f} | {change.mean():+.3f} | {low:+.3f} to {high:+.3f} |"
            )
    seconds = [row["seconds"] for row in rows.values()]
    longest = [row["longest"] for row in rows.values()]
    lines.append(
        f"\n{np.median(seconds):.1f} s (median), at most {max(seconds):.1f} s; "
    )
    lines.append(f"longest step {np.median(longest):.2f} s (median)")
    return "\n".join(lines)


def _values(found: dict[str, list[float]], kind: str) -> NDArray[np.float64]:
    if kind == "fails, near":
        return (np.array(found["near"]) < FAILING_IOU).astype(float)
    return np.array(found[kind], float)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("act", choices=("fields", "measure", "table"))
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--finished", type=int, default=5)
    parser.add_argument("--tested", type=int, default=TESTED, help="first clicks")
    parser.add_argument("--clicked", type=int, default=6, help="until acceptable")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.act == "fields":
        prepare(*options.folders)
        return
    out: Path = options.folders[0]
    results = out / f"finished{options.finished}.json"
    rows = json.loads(results.read_text("utf-8")) if results.exists() else {}
    if options.act == "measure":
        segmenter = Segmenter.load("default", device="cpu")
        numbers = (options.finished, options.tested, options.clicked)
        for path in _set_after_set(out.glob("*.pkl")):
            if path.stem not in rows:
                rows[path.stem] = measure(path, *numbers, segmenter)
                results.write_text(json.dumps(rows), "utf-8")
                print(path.stem, rows[path.stem]["gain"], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
