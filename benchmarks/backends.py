"""The default network against RITM and SimpleClick, and torch against OpenVINO.

Everything takes turns in one run, so that a busy machine slows all of them; medians.

1. One window on each network: the same micrograph on each network's own grid, and on
   SimpleClick's for all. First click: image, click, mask; next click: click, mask.
2. Whole clicks of the default model, automatic focus and pasting included.
3. How far the masks of each program are from torch's in float32, object by object.

    python benchmarks/backends.py --threads 2
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_cfrseg import Segmenter, load_sample
from napari_cfrseg.evaluation.click_times import tiled, trials
from napari_cfrseg.model import registry
from napari_cfrseg.model.network import ClickNetwork
from napari_cfrseg.samples import sample_names

PEERS = ("ritm_hrnet18s", "simpleclick_vit_base")
REFERENCE = "ritm_hrnet18s"


@dataclass
class Timed:
    """A network on a grid; seconds of a first and a next click."""

    name: str
    network: ClickNetwork
    grid: int
    half: bool = False
    first: list[float] = field(default_factory=list)
    following: list[float] = field(default_factory=list)


def window_of(sample: str, grid: int) -> torch.Tensor:
    pixels = torch.from_numpy(load_sample(sample).image.astype(np.float32) / 255)
    pixels = pixels[None, None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)[None]
    size = (grid, grid)
    small = torch.nn.functional.interpolate(pixels, size, mode="bilinear")
    three = small.expand(1, 3, grid, grid)
    return three.contiguous(memory_format=torch.channels_last)


def click(one: Timed, image: torch.Tensor) -> None:
    middle = one.grid / 2
    points = torch.tensor([[[middle, middle, 0.0], [-1.0, -1.0, -1.0]]])
    newest = torch.tensor([[middle, middle, 1.0]])
    network = one.network
    with (
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16, enabled=one.half),
    ):
        start = time.perf_counter()
        embedding = network.embed_image(image)
        features = network.embed_clicks(embedding, points)
        mask = network.refine(features, None, newest).logits.float().sigmoid()
        one.first.append(time.perf_counter() - start)
        start = time.perf_counter()
        features = network.embed_clicks(embedding, points)
        network.refine(features, mask, newest)
        one.following.append(time.perf_counter() - start)


def segmenters(model: str) -> dict[str, Segmenter]:
    """Return the default model by each program that is installed."""
    ways: list[tuple[str, Any]] = [("torch float32", {})]
    ways.append(("torch bfloat16", {"precision": "bfloat16"}))
    if find_spec("openvino") is not None:
        fast = {"backend": "openvino"}
        ways.append(("OpenVINO float32", fast))
        ways.append(("OpenVINO bfloat16", {**fast, "precision": "bfloat16"}))
    return {n: Segmenter.load(model, device="cpu", **how) for n, how in ways}


def windows(made: dict[str, Segmenter], repeats: int, sample: str) -> list[Timed]:
    rows = []
    for name, segmenter in made.items():
        half = segmenter._stages.precision == "bfloat16"  # noqa: SLF001
        network = segmenter._stages.backend.network  # noqa: SLF001
        rows.append(Timed(f"default, {name}", network, network.grid_size, half))
        if name == "torch float32":
            rows.append(Timed(f"default, {name}", network, 448))
    for name in PEERS:
        entry = registry.named(name)
        network = registry.build(entry.architecture).eval().requires_grad_(False)
        network.to(memory_format=torch.channels_last)
        rows += [Timed(name, network, side) for side in {entry.input_sizes[0], 448}]
    images = {one.grid: window_of(sample, one.grid) for one in rows}
    for _ in range(1 + repeats):
        for one in rows:
            click(one, images[one.grid])
    return rows


def report_windows(rows: list[Timed]) -> None:
    def median(values: list[float]) -> float:
        return 1000 * statistics.median(values[1:])

    (beside,) = (r for r in rows if r.name == REFERENCE and r.grid != 448)
    print("| one window | grid | first ms | next ms | first × RITM | next × RITM |")
    print("|---|--:|--:|--:|--:|--:|")
    for one in rows:
        first, following = median(one.first), median(one.following)
        ratios = first / median(beside.first), following / median(beside.following)
        print(
            f"| {one.name} | {one.grid}² | {first:.1f} | {following:.1f} "
            f"| {ratios[0]:.2f} | {ratios[1]:.2f} |"
        )


def iou(one: np.ndarray, other: np.ndarray) -> float:
    union = np.logical_or(one, other).sum()
    return float(np.logical_and(one, other).sum() / union) if union else 1.0


def whole_clicks(made: dict[str, Segmenter], objects: int) -> None:
    spent: dict[str, tuple[list[float], list[float]]] = {n: ([], []) for n in made}
    agree: dict[str, list[float]] = {name: [] for name in made}
    for sample in sample_names():
        micrograph = load_sample(sample)
        image = tiled(micrograph.image, 512)
        for first, following in trials(micrograph.labels, 512, objects, seed=0):
            masks = {}
            for name, segmenter in made.items():
                segmenter.set_image(image)
                one = segmenter.predict([first])
                two = segmenter.predict([first, following], previous=one)
                spent[name][0].append(one.seconds)
                spent[name][1].append(two.seconds)
                masks[name] = one.mask, two.mask
            for name, pair in masks.items():
                exact = masks["torch float32"]
                agree[name] += [iou(*both) for both in zip(pair, exact, strict=True)]
    base = spent["torch float32"]
    print(
        "\n| whole clicks | first ms | next ms | first × torch | next × torch ", end=""
    )
    print("| IoU with torch: median | worst | equal |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, times in spent.items():
        ms = [1000 * statistics.median(t) for t in times]
        ratio = [
            statistics.median(a / b for a, b in zip(t, r, strict=True))
            for t, r in zip(times, base, strict=True)
        ]
        same = agree[name]
        equal = sum(value == 1 for value in same)
        print(
            f"| {name} | {ms[0]:.0f} | {ms[1]:.1f} | {ratio[0]:.2f} | {ratio[1]:.2f} "
            f"| {statistics.median(same):.4f} | {min(same):.3f} "
            f"| {equal} of {len(same)} |"
        )


def processor() -> str:
    """Return the processor's name and what of its arithmetic matters here."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    names = [
        line.split(":")[1].strip() for line in text.splitlines() if "model n" in line
    ]
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    found = [one for one in known if f" {one} " in f"{text} "]
    return f"{(names or [platform.processor()])[0]} ({', '.join(found)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--objects", type=int, default=8, help="per bundled sample")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print(
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    made = segmenters(given.model)
    steps: list[Callable[[], None]] = [
        lambda: report_windows(windows(made, given.repeats, "powder_sem")),
        lambda: whole_clicks(made, given.objects),
    ]
    for step in steps:
        step()


if __name__ == "__main__":
    main()
