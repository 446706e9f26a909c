"""Times of clicks: by stage on micrographs, and network by network.

Real micrographs are tiled to the wanted sizes (mirrored at the seams, so that no new
edges appear); clicks fall on labelled objects, seeded. Every refinement sees the same
clicks from the same first mask. Each network is timed in a process of its own: it then
has a peak memory of its own, and one that does not fit does not end the others.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation.network_times import (
    REFERENCE,
    Arithmetic,
    ClickTimer,
    HalfOrFull,
    NetworkCost,
    measure,
)
from napari_cfrseg.geometry.distances import depth_in
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.model import registry
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.network import ClickNetwork
from napari_cfrseg.processes import in_processes, use_threads
from napari_cfrseg.samples import load_sample

#: the bundled micrograph whose window networks are timed on
SAMPLE = "powder_sem"
REFINEMENTS = (Refinement.standard(), Refinement.cfr(4), Refinement.adaptive(4))
STAGES = ("crop", "embed_image", "embed_clicks", "refine", "paste")
#: objects that are clicked before the clock counts
WARM_UP = 2


@dataclass(frozen=True, slots=True)
class BenchRow:
    """Times of one kind of click on one size of image, in milliseconds."""

    side_px: int  #: the image is this many pixels high and wide
    click: str  #: "first" (automatic focus) or "next"
    refinement: str
    clicks: int  #: how many were timed
    median_ms: float  #: of the whole click, as the next
    p95_ms: float
    stages_ms: dict[str, float]  #: medians by stage
    mean_steps: float  #: mean refinement steps (1 for standard inference)
    #: median of this click's time over standard inference's on the same click
    ratio_to_standard: float
    set_image_ms: float  #: median


def tiled(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Mirror and repeat an image to ``side`` × ``side`` pixels."""
    ranges = [np.arange(length) for length in image.shape[:2]]
    rows, columns = (np.resize(np.append(r, r[::-1]), side) for r in ranges)
    return image[rows][:, columns]


def trials(
    labels: NDArray[Any], side: int, count: int, seed: int
) -> Iterator[tuple[Click, Click]]:
    """Yield first and next clicks on objects of the tiled image, seeded.

    The first falls on the object's innermost pixel, the next (positive) halfway to
    its rim, as if a part had been missed.
    """
    rng = np.random.default_rng(seed)
    visible = labels[:side, :side]
    ids = np.unique(visible[visible != 0])
    if ids.size == 0:
        raise ValueError("the labels hold no object to click on")
    # the image as it is recurs every two lengths, mirrored copies lie between
    periods = np.array([2 * n for n in labels.shape])
    repeats = [max(1, -(-side // int(p))) for p in periods]
    for _ in range(count):
        mask = visible == rng.choice(ids)
        inner = depth_in(mask)
        first = np.array(np.unravel_index(int(inner.argmax()), mask.shape))
        halfway = np.argwhere(mask & (inner <= max(inner.max() / 2, 1)))
        pair = np.stack([first, halfway[rng.integers(len(halfway))]])
        moved = pair + periods * [rng.integers(n) for n in repeats]
        at, then = moved if moved.max() < side else pair
        yield Click((at[0], at[1])), Click((then[0], then[1]))


def run_bench(
    segmenter: Segmenter,
    image: NDArray[Any],
    labels: NDArray[Any],
    side: int,
    clicks: int = 20,
) -> list[BenchRow]:
    """Time first and next clicks: a row per kind of click and refinement.

    The (Y, X[, C]) micrograph and its (Y, X) ids are tiled to ``side``; the ratios of
    the other refinements refer to standard inference. ``clicks`` objects are clicked,
    after a few that are not counted.
    """
    field = tiled(image, side)
    firsts: dict[str, list[Prediction]] = {str(r): [] for r in REFINEMENTS}
    nexts: dict[str, list[Prediction]] = {str(r): [] for r in REFINEMENTS}
    setting: list[float] = []
    chosen = trials(labels, side, WARM_UP + clicks, seed=0)
    for index, (first, following) in enumerate(chosen):
        for refinement in REFINEMENTS:
            start = time.perf_counter()
            segmenter.set_image(field)  # nothing is left from the click before
            setting.append(time.perf_counter() - start)
            one = segmenter.predict([first], refinement=refinement)
            base = segmenter.predict([first])
            both = [first, following]
            two = segmenter.predict(both, previous=base, refinement=refinement)
            if index >= WARM_UP:
                firsts[str(refinement)].append(one)
                nexts[str(refinement)].append(two)
    pause = 1000 * statistics.median(setting)
    return [*_rows(side, "first", firsts, pause), *_rows(side, "next", nexts, pause)]


def _rows(
    side: int, kind: str, found: dict[str, list[Prediction]], set_image_ms: float
) -> list[BenchRow]:
    reference = [p.seconds for p in next(iter(found.values()))]
    rows = []
    for name, predictions in found.items():
        seconds = [p.seconds for p in predictions]
        ratios = [t / r for t, r in zip(seconds, reference, strict=True)]
        stages = {
            stage: 1000
            * statistics.median(getattr(p.stages, stage) for p in predictions)
            for stage in STAGES
        }
        rows.append(
            BenchRow(
                side_px=side,
                click=kind,
                refinement=name,
                clicks=len(predictions),
                median_ms=1000 * statistics.median(seconds),
                p95_ms=1000 * float(np.percentile(seconds, 95)),
                stages_ms=stages,
                mean_steps=statistics.fmean(p.steps for p in predictions),
                ratio_to_standard=statistics.median(ratios),
                set_image_ms=set_image_ms,
            )
        )
    return rows


#: FCFI on two backbones of timm's, as examples of all of them
TIMM_EXAMPLES = ("fcfi:resnet50", "fcfi:convnext_tiny")


def all_networks() -> tuple[str, ...]:
    """Return the models that are installed and all networks by name, small first."""
    count = {name: registry.named(name).parameters for name in registry.names()}
    published = sorted(count, key=count.__getitem__)
    models = [name for name in checkpoint.list_models() if name not in published]
    small = [name for name in published if count[name] < 5e7]
    large = [name for name in published if name not in small]
    return (*models, *small, *TIMM_EXAMPLES, *large)


def arithmetics(
    device: str, threads: int | None, *, cpu_time: bool = False, compiled: bool = False
) -> tuple[Arithmetic, ...]:
    """Return what to measure: on "auto" the CPU, and CUDA in three precisions."""
    found = []
    if device in ("auto", "cpu"):
        found.append(Arithmetic("cpu", "float32", compiled, threads, cpu_time))
    name = "cuda" if device == "auto" else device
    if name.startswith("cuda") and torch.cuda.is_available():
        precisions: tuple[HalfOrFull, ...] = ("float32", "bfloat16", "float16")
        found += [Arithmetic(name, each, compiled) for each in precisions]
    if device == "mps":
        found.append(Arithmetic("mps", "float32", compiled))
    return tuple(found)


def bench_networks(
    names: Sequence[str], how: Sequence[Arithmetic], repeats: int
) -> Iterator[NetworkCost]:
    """Time networks one after the other and yield their figures as they come.

    Installed models run with their weights, other networks with random ones, on a
    window of a bundled micrograph; ``repeats`` objects count.
    """
    make = partial(_bencher, repeats)
    for task in product(names, how):
        yield from in_processes(make, [task], 1, _lost)


_Task = tuple[str, Arithmetic]


def _bencher(repeats: int, _number: int) -> Callable[[_Task], list[NetworkCost]]:
    """Return what times one network, in a process of its own."""
    return lambda task: [bench_network(*task, repeats)]


def _lost(task: _Task, error: Exception) -> NetworkCost:
    name, how = task
    return NetworkCost(
        name,
        arithmetic=str(how),
        device=how.device,
        precision=how.precision,
        error=str(error).splitlines()[0],
    )


def bench_network(name: str, how: Arithmetic, repeats: int) -> NetworkCost:
    """Time one network in this process; see ``bench_networks``."""
    use_threads(how.threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    network, weights = _load(name)
    try:
        cost = measure(
            _timer(network, how),
            lambda: _timer(_load(REFERENCE)[0], how),
            repeats,
        )
    except torch.OutOfMemoryError as error:
        cost = _lost((name, how), error)
    return replace(cost, network=name, weights=weights)


def _load(name: str) -> tuple[ClickNetwork, str]:
    """Return a network and whose weights it has."""
    models = checkpoint.list_models()
    if name in models:
        return checkpoint.load(models[name])[0], name
    torch.manual_seed(0)
    return registry.build(registry.named(name).architecture), "random"


def _timer(network: ClickNetwork, how: Arithmetic) -> ClickTimer:
    micrograph = load_sample(SAMPLE)
    side = network.grid_size
    field = tiled(micrograph.image, side).astype(np.float32) / 255
    if field.ndim == 2:
        field = np.repeat(field[..., None], 3, axis=2)
    pixels = torch.from_numpy(np.ascontiguousarray(field.transpose(2, 0, 1)))
    ((first, following),) = trials(micrograph.labels, side, 1, seed=0)
    return ClickTimer(network, how, pixels, first, following)


def _path() -> Path:
    return checkpoint.models_folder() / "timings.json"


def _machine() -> str:
    """Name the machine that was timed: another may share the folder."""
    return f"{platform.node()} {platform.machine()} {os.cpu_count()}"


def record(costs: Iterable[NetworkCost]) -> None:
    """Keep a first and a next click's standard milliseconds of each network."""
    known = recorded()
    for cost in costs:
        if cost.error:
            continue
        known.setdefault(cost.network, {})[cost.arithmetic] = {
            "first": round(cost.cost("first", "standard").ms, 1),
            "next": round(cost.cost("next", "standard").ms, 1),
            "next step": round(cost.refine_ms, 1),
        }
    with atomic_path(_path()) as partial:
        partial.write_text(json.dumps({"machine": _machine(), "ms": known}, indent=1))


def recorded() -> dict[str, Any]:
    """Return milliseconds by network, arithmetic and kind; empty where never timed."""
    try:
        kept = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict) or kept.get("machine") != _machine():
        return {}
    known = kept.get("ms")
    return known if isinstance(known, dict) else {}
