"""Every network in turn, each in a process of its own.

A process of its own has a peak memory of its own, and one that does not fit takes no
other down with it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from napari_cfrseg.evaluation.timing.micrograph_times import tiled, trials
from napari_cfrseg.evaluation.timing.network_times import (
    REFERENCE,
    Arithmetic,
    ClickTimer,
    NetworkCost,
    measure,
)
from napari_cfrseg.io.atomic import atomic_path

if TYPE_CHECKING:
    from napari_cfrseg.evaluation.timing.network_times import NetworkCost
    from napari_cfrseg.model.network import ClickNetwork


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

#: FCFI on two backbones of timm's stands for all of them
TIMM_EXAMPLES = ("fcfi:resnet50", "fcfi:convnext_tiny")
_OUT_OF_MEMORY = "the process ended, probably for want of memory"


def all_networks() -> tuple[str, ...]:
    """Return the models that are installed and all networks by name, small first."""
    from napari_cfrseg.model import weights_file as checkpoint
    from napari_cfrseg.model.registry import named, names

    published = sorted(names(), key=lambda name: named(name).parameters)
    models = [name for name in checkpoint.list_models() if name not in published]
    small = [name for name in published if named(name).parameters < 5e7]
    large = [name for name in published if name not in small]
    return (*models, *small, *TIMM_EXAMPLES, *large)


def arithmetics(
    device: str, threads: int | None, *, cpu_time: bool = False, compiled: bool = False
) -> tuple[Arithmetic, ...]:
    """Return what to measure: on "auto" the CPU, and CUDA in three precisions."""
    import torch

    found = []
    if device in ("auto", "cpu"):
        found.append(Arithmetic("cpu", "float32", compiled, threads, cpu_time))
    name = "cuda" if device == "auto" else device
    if name.startswith("cuda") and torch.cuda.is_available():
        found += [
            Arithmetic(name, "float32", compiled),
            Arithmetic(name, "bfloat16", compiled),
            Arithmetic(name, "float16", compiled),
        ]
    if device == "mps":
        found.append(Arithmetic("mps", "float32", compiled))
    return tuple(found)


def bench_networks(
    names: Sequence[str], how: Sequence[Arithmetic], *, repeats: int, sample: str
) -> Iterator[NetworkCost]:
    """Time networks one after the other and yield their figures as they come.

    Parameters
    ----------
    names
        Installed models run with their weights, other networks with random ones.
    how
        A row per network and entry.
    repeats
        Objects clicked that count.
    sample
        Bundled micrograph whose middle is the window.
    """
    for name in names:
        for arithmetic in how:
            yield _apart(name, arithmetic, repeats, sample)


def _apart(name: str, how: Arithmetic, repeats: int, sample: str) -> NetworkCost:
    cost = in_own_process(bench_network, name, how, repeats, sample)
    if cost is not None:
        return cost
    return NetworkCost(
        name,
        arithmetic=str(how),
        device=how.device,
        precision=how.precision,
        error=_OUT_OF_MEMORY,
    )


def in_own_process(
    work: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Result | None:
    """Run a function in a fresh process; None if that process dies."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(work, *arguments, **named).result()
        except BrokenProcessPool:
            return None


def bench_network(name: str, how: Arithmetic, repeats: int, sample: str) -> NetworkCost:
    """Time one network in this process; see ``bench_networks``."""
    import torch

    if how.threads is not None:
        torch.set_num_threads(how.threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    network, weights = _load(name)
    try:
        cost = measure(
            _timer(network, how, sample),
            lambda: _timer(_load(REFERENCE)[0], how, sample),
            repeats,
        )
    except torch.OutOfMemoryError as error:
        cost = NetworkCost("", error=str(error).splitlines()[0])
    return replace(cost, network=name, weights=weights)


def _load(name: str) -> tuple[ClickNetwork, str]:
    """Return a network and whose weights it has."""
    import torch

    from napari_cfrseg.model import registry
    from napari_cfrseg.model import weights_file as checkpoint

    models = checkpoint.list_models()
    if name in models:
        return checkpoint.load(models[name])[0], name
    torch.manual_seed(0)
    return registry.build(registry.named(name).architecture), "random"


def _timer(network: ClickNetwork, how: Arithmetic, sample: str) -> ClickTimer:
    import torch

    from napari_cfrseg.samples import load_sample

    micrograph = load_sample(sample)
    side = network.grid_size
    field = tiled(micrograph.image, side).astype(np.float32) / 255
    if field.ndim == 2:
        field = np.repeat(field[..., None], 3, axis=2)
    pixels = torch.from_numpy(np.ascontiguousarray(field.transpose(2, 0, 1)))
    ((first, following),) = trials(micrograph.labels, side, 1, seed=0)
    return ClickTimer(network, how, pixels, first, following)


_FILE = "timings.json"


def _path() -> Path:
    from napari_cfrseg.model import weights_file as checkpoint

    return checkpoint.models_folder() / _FILE


def _machine() -> str:
    """Name the machine the figures are of: another may share the folder."""
    return f"{platform.node()} {platform.machine()} {os.cpu_count()}"


def record(costs: Iterable[NetworkCost]) -> None:
    """Keep a first and a next click's standard milliseconds of each network."""
    known = _read()
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


def recorded() -> dict[str, dict[str, dict[str, float]]]:
    """Return milliseconds by network, arithmetic and kind; empty where never timed."""
    return _read()


def _read() -> dict[str, Any]:
    try:
        kept = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict) or kept.get("machine") != _machine():
        return {}
    known = kept.get("ms")
    return known if isinstance(known, dict) else {}
