"""Objects of stacks from a few annotated planes: tables, calibration, speed.

    python benchmarks/stacks.py evaluate --data DATA --side validation
    python benchmarks/stacks.py calibrate --data DATA
    python benchmarks/stacks.py speed
    python benchmarks/stacks.py ahead

``evaluate`` writes ``stacks-SIDE.md`` and the rows as JSON into ``--out``; with
``--side test`` it measures the test stacks, which no constant was chosen on.
``calibrate`` fits the confidence on validation stacks and prints its constants and the
reliability table. ``speed`` measures planes per second and peak memory on a stack of
``--planes`` that is read lazily; ``ahead`` compares, in turn in one process, walks that
read and embed the next plane ahead with ones that do not (``--one-by-one``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from stack_robots import (
    AnchorRow,
    RobotRow,
    Sample,
    anchor_table,
    robot_table,
    run_anchors,
    run_clicking,
    run_robot,
)
from stack_volumes import Volume, VolumeObject, objects_of, open_volume

from napari_cfrseg import Segmenter
from napari_cfrseg.evaluation.datasets.choice import read_split
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.propagation import Track, propagate
from napari_cfrseg.propagation.decisions import confidence_of, features
from napari_cfrseg.propagation.planes import SegmenterPlanes

SPLIT = Path(__file__).with_name("split.json")
#: its labels are another model's: with the test stacks, as a smoke test only
SMOKE = "stacks/mcf10_nuclei_timelapse"


def volumes(data: Path, side: str) -> Iterator[Volume]:
    """Read the stacks of one side of the split."""
    for name, sides in sorted(read_split(SPLIT).items()):
        if name.startswith("stacks/"):
            stacks = [*sides.get(side, ())]
            if side == "test" and name == SMOKE:
                stacks += sides.get("excluded", ())
            for stack in stacks:
                yield open_volume(data / name, name, stack)


def drawn(arguments: argparse.Namespace) -> Iterator[tuple[Volume, VolumeObject]]:
    """Draw objects, the same number per stack at most."""
    wanted = arguments.sets.split(",")
    for volume in volumes(arguments.data, arguments.side):
        if not any(w in volume.set_name for w in wanted):
            continue
        for item in objects_of(volume, most=arguments.objects, seed=arguments.seed):
            yield volume, item


def load(arguments: argparse.Namespace) -> Segmenter:
    torch.set_num_threads(arguments.threads)
    return Segmenter.load(arguments.model, device=arguments.device)


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure anchors and robots, print and write the tables."""
    segmenter = load(arguments)
    counts = [int(n) for n in arguments.anchors.split(",")]
    rows: list[AnchorRow] = []
    robots: list[RobotRow] = []
    start = time.perf_counter()
    for number, (volume, item) in enumerate(drawn(arguments)):
        rows += run_anchors(segmenter, volume, item, counts, drawn=arguments.drawn)
        if number % arguments.every == 0 and not arguments.drawn:
            rows.append(run_clicking(segmenter, volume, item))
            robots += [
                run_robot(segmenter, volume, item, method)
                for method in ("propagation", "interpolation", "copying")
            ]
        spent = time.perf_counter() - start
        print(f"{volume.name} object {item.label}: {spent:.0f} s", flush=True)
        write(arguments, rows, robots)
    print(write(arguments, rows, robots))


def write(
    arguments: argparse.Namespace, rows: list[AnchorRow], robots: list[RobotRow]
) -> str:
    """Write what is measured so far, so that a run cut short is not lost."""
    text = f"{anchor_table(rows)}\n\n{robot_table(robots)}\n"
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"stacks-{arguments.side}.md").write_text(text)
    known = {
        "anchors": [asdict(r) for r in rows],
        "robots": [asdict(r) for r in robots],
    }
    (arguments.out / f"stacks-{arguments.side}.json").write_text(json.dumps(known))
    return text


def calibrate(arguments: argparse.Namespace) -> None:
    """Fit the confidence by leaving objects out, print constants and reliability."""
    segmenter = load(arguments)
    arguments.side = "validation"
    counts = [int(n) for n in arguments.anchors.split(",")]
    samples: list[Sample] = []
    groups: list[str] = []
    for volume, item in drawn(arguments):
        list(
            run_anchors(
                segmenter,
                volume,
                item,
                counts,
                methods=("propagation", "free"),
                samples=samples,
            )
        )
        groups += [f"{volume.name}#{item.label}"] * (len(samples) - len(groups))
        print(f"{volume.name} object {item.label}: {len(samples)} planes", flush=True)
    x = np.array([features(s.evidence) for s in samples])
    y = np.array([s.iou for s in samples])
    names = np.array(groups)
    coefficients = fit(x, y)
    folds = np.array([hash_of(g) % 5 for g in names])
    expected = np.empty_like(y)
    for fold in range(5):
        held = folds == fold
        if held.any() and not held.all():
            w = fit(x[~held], y[~held])
            expected[held] = 1 / (1 + np.exp(-x[held] @ w))
    print("COEFFICIENTS =", tuple(round(float(c), 3) for c in coefficients))
    print(reliability(expected, y))
    check = [confidence_of(s.evidence, coefficients.tolist()) for s in samples]
    print(
        f"correlation, held out: {np.corrcoef(expected, y)[0, 1]:.3f}; "
        f"fitted: {np.corrcoef(check, y)[0, 1]:.3f}"
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    known = [
        {"group": g, "iou": s.iou, "confidence": float(e), **asdict(s.evidence)}
        for g, s, e in zip(groups, samples, expected, strict=True)
    ]
    (arguments.out / "stacks-calibration.json").write_text(json.dumps(known))


def hash_of(name: str) -> int:
    import zlib

    return zlib.crc32(name.encode())


def fit(x: np.ndarray, y: np.ndarray, ridge: float = 1.0) -> np.ndarray:
    """Logistic regression of a share y in [0, 1], by Newton steps, mildly damped."""
    w = np.zeros(x.shape[1])
    damp = ridge * np.eye(x.shape[1])
    damp[0, 0] = 0
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (p - y) + damp @ w
        hessian = (x * (p * (1 - p))[:, None]).T @ x + damp + 1e-9 * np.eye(len(w))
        step = np.linalg.solve(hessian, gradient)
        w -= step
        if np.abs(step).max() < 1e-8:
            break
    return w


def reliability(expected: np.ndarray, found: np.ndarray) -> str:
    """Return Markdown: planes binned by the IoU that was expected of them."""
    lines = [
        "| expected IoU | planes | mean expected | mean IoU |",
        "|---|--:|--:|--:|",
    ]
    edges = np.linspace(0, 1, 11)
    error = 0.0
    for low, high in pairwise(edges):
        here = (expected >= low) & (expected < high)
        if here.any():
            said, was = expected[here].mean(), found[here].mean()
            error += here.mean() * abs(said - was)
            lines.append(
                f"| {low:.1f}–{high:.1f} | {here.sum()} | {said:.3f} | {was:.3f} |"
            )
    return "\n".join([*lines, f"\nexpected calibration error {error:.3f}"])


def speed(arguments: argparse.Namespace) -> None:
    """Write a lazily read stack, carry a tube through it, print rate and peak."""
    segmenter = load(arguments)
    size, count = 512, arguments.planes
    with tempfile.TemporaryDirectory() as folder:
        stack = lazy_stack(Path(folder), count, size, arguments.format, arguments.shift)
        y, x = np.mgrid[:size, :size]
        anchor = MaskPatch.from_mask(np.hypot(y - 256, x - 256) < 40)
        planes = SegmenterPlanes(
            segmenter,
            stack,
            count=count,
            shape=(size, size),
            ahead=not arguments.one_by_one,
        )
        # torch's first runs allocate what all others use
        warm = Track(1, {0: anchor}, 0, 4)
        list(propagate(planes, [warm]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        planes.runs = planes.ahead.hits = 0
        start, cpu = time.perf_counter(), time.process_time()
        found = 0
        digest = hashlib.sha256()
        for result in propagate(planes, [Track(1, {0: anchor}, 0, count - 1)]):
            found += bool(result.mask.mask.size)
            digest.update(repr((result.mask.offset, result.confidence)).encode())
            digest.update(result.mask.mask.tobytes())
        spent, cpu = time.perf_counter() - start, time.process_time() - cpu
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{digest.hexdigest()[:12]} {found} found, {segmenter.device}", file=sys.stderr
    )
    measured = {
        "rate": planes.runs / spent,
        "cpu_ms": 1000 * cpu / planes.runs,
        "early": planes.ahead.hits / planes.runs,
        "peak": after,
        "grown": after - before,
        "stack": count * size * size / 2**20,
    }
    print(json.dumps(measured), flush=True)


def ahead(arguments: argparse.Namespace) -> None:
    """Walk ahead and one by one in turn: other work slows both alike."""
    segmenter = load(arguments)
    size, count = 512, arguments.planes
    y, x = np.mgrid[:size, :size]
    anchor = MaskPatch.from_mask(np.hypot(y - 256, x - 256) < 40)
    spent: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    hits = 0.0
    with tempfile.TemporaryDirectory() as folder:
        stack = lazy_stack(Path(folder), count, size, arguments.format, arguments.shift)
        for number in range(arguments.repeats + 1):
            for is_ahead, times in spent.items():
                planes = SegmenterPlanes(
                    segmenter, stack, count=count, shape=(size, size), ahead=is_ahead
                )
                start = time.perf_counter(), time.process_time(), time.thread_time()
                list(propagate(planes, [Track(1, {0: anchor}, 0, count - 1)]))
                end = time.perf_counter(), time.process_time(), time.thread_time()
                wall, cpu, own = (
                    (b - a) / planes.runs for a, b in zip(start, end, strict=True)
                )
                hits = max(hits, planes.ahead.hits / planes.runs)
                if number:  # torch's first runs allocate what all others use
                    times.append((wall, cpu, own))
    for is_ahead, times in spent.items():
        wall, cpu, own = np.median(times, axis=0)
        print(
            f"{'ahead' if is_ahead else 'one by one'}: {1 / wall:.1f} planes/s, "
            f"{1000 * cpu:.1f} ms of CPU time each, {1000 * own:.1f} of them on the "
            "thread that walks"
        )
    ratios = [b[0] / a[0] for a, b in zip(*spent.values(), strict=True)]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    print(
        f"{len(ratios)} pairs of {count} planes, {segmenter.device}, "
        f"{arguments.threads} threads: {middle:.2f} times as fast (quartiles {low:.2f} "
        f"to {high:.2f}), {hits:.0%} of the windows embedded ahead"
    )


def lazy_stack(folder: Path, count: int, size: int, kind: str, shift: float):
    """Write planes one by one; return what reads them one by one."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]

    def plane(z: int) -> np.ndarray:
        centre = 256 + 40 * shift * np.sin(z / 40)
        grey = 60 + 90 * (np.hypot(y - 256, x - centre) < 40)
        return (grey + rng.normal(0, 8, (size, size))).clip(0, 255).astype(np.uint8)

    if kind == "zarr":
        import zarr

        array = zarr.create_array(
            folder / "stack.zarr",
            shape=(count, size, size),
            chunks=(1, size, size),
            dtype="uint8",
        )
        for z in range(count):
            array[z] = plane(z)
        opened = zarr.open_array(folder / "stack.zarr", mode="r")
    else:
        import tifffile
        import zarr

        path = folder / "stack.tif"
        with tifffile.TiffWriter(path, bigtiff=True) as writer:
            for z in range(count):
                writer.write(plane(z), compression="zlib", contiguous=False)
        opened = zarr.open_array(tifffile.imread(path, aszarr=True), mode="r")
    from napari_cfrseg.io.axes import plane_of

    return lambda z: plane_of(opened, (z,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, run in (
        ("evaluate", evaluate),
        ("calibrate", calibrate),
        ("speed", speed),
        ("ahead", ahead),
    ):
        one = commands.add_parser(name)
        one.set_defaults(run=run)
        if run in (evaluate, calibrate):
            one.add_argument("--data", type=Path, required=True)
        one.add_argument("--side", choices=("validation", "test"), default="validation")
        one.add_argument("--anchors", default="1,2,3,5")
        one.add_argument("--objects", type=int, default=10, help="per stack, at most")
        one.add_argument(
            "--every", type=int, default=3, help="robot: every n-th object"
        )
        one.add_argument(
            "--sets", default="", help="only sets with one of these, comma-separated"
        )
        one.add_argument(
            "--drawn", action="store_true", help="anchors are the annotation's outlines"
        )
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--model", default="default")
        one.add_argument("--device", default="auto")
        one.add_argument("--threads", type=int, default=2)
        one.add_argument("--out", type=Path, default=Path("stacks-report"))
        one.add_argument("--planes", type=int, default=50)
        one.add_argument(
            "--shift", type=float, default=0.75, help="px per plane, at most"
        )
        one.add_argument("--one-by-one", action="store_true", help="nothing ahead")
        one.add_argument("--repeats", type=int, default=3)
        one.add_argument("--format", choices=("zarr", "tiff"), default="zarr")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
