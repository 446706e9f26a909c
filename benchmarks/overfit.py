"""Train a network on a few real windows until it knows them by heart.

Every network that is offered for training must pass: the loss reaches all of its
parts, the clicks arrive, evaluation mode agrees with training mode.

    python benchmarks/overfit.py NETWORK [--side 224] [--windows 4] [--steps 400]

NETWORK is any name of ``cfrseg models list``, with fresh weights. The windows are
bundled micrographs, an object each. Prints a line per measurement and a last line
that says whether the target was reached; with --steps 1 it only shows that a step of
training fits and runs (peak memory is printed).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from cfrseg_training.loop.atlas import AFTER_FIRST_CLICK, Atlas, Sample, WindowBatch
from cfrseg_training.loop.training_step import RoundsConfig, clicks_to_reach, train_step
from napari_cfrseg.model import registry
from napari_cfrseg.model.network import ClickNetwork
from napari_cfrseg.samples import load_sample

MICROGRAPHS = ("powder_sem", "breast_cancer_he", "glioblastoma_phase", "axon_sem")


@dataclass(frozen=True, slots=True)
class OverfitConfig:
    """How long to train, and how.

    Attributes
    ----------
    target
        Mean IoU after one click, in evaluation mode, at which training ends.
    steps
        Training ends after so many in any case.
    optimiser
        "adam", or "sgd", which needs half of Adam's memory.
    learning_rate, warmup_steps, clip
        The rate, its linear warm-up and the largest gradient norm.
    rounds
        Rounds of clicks per step.
    measure_every
        Steps between two measurements of the IoU.
    seed
        Of the clicks.
    """

    target: float = 0.95
    steps: int = 400
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    warmup_steps: int = 5
    clip: float = 1.0
    rounds: int = 2
    measure_every: int = 10
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """One measurement during training.

    Attributes
    ----------
    step
        Steps taken.
    loss
        Of the last step.
    iou
        Mean IoU after one click, in evaluation mode.
    seconds, cpu_seconds
        Since the start, by the clock and by the processor.
    """

    step: int
    loss: float
    iou: float
    seconds: float
    cpu_seconds: float


def overfit(
    network: ClickNetwork,
    windows: WindowBatch,
    config: OverfitConfig | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Train on these windows and no others.

    Parameters
    ----------
    network
        Trained in place, on the windows' device.
    windows
        A few, of a size the network reads.
    on_progress
        Called with every measurement.

    Returns
    -------
    The last measurement; its ``iou`` is at least ``target``, or all steps were taken.
    """
    config = config or OverfitConfig()
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    # one tensor at a time: a list-wise step needs room for all weights once more
    optimiser = kinds[config.optimiser](
        network.parameters(), lr=config.learning_rate, foreach=False
    )
    generator = torch.Generator(windows.image.device).manual_seed(config.seed)
    host = torch.Generator().manual_seed(config.seed)
    rounds = RoundsConfig(
        weights=tuple(1.0 for _ in range(config.rounds)), refined=0.0, started=0.0
    )
    began, cpu_began = time.perf_counter(), time.process_time()
    for step in range(1, config.steps + 1):
        network.train()
        for group in optimiser.param_groups:
            warm = min(1.0, step / config.warmup_steps)
            group["lr"] = config.learning_rate * warm
        result = train_step(network, windows, rounds, generator, host)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(result.loss)
        nn.utils.clip_grad_norm_(network.parameters(), config.clip, foreach=False)
        optimiser.step()
        if step % config.measure_every and step != config.steps:
            continue
        network.eval()
        reached = clicks_to_reach(network, windows, rounds=1)
        progress = Progress(
            step,
            float(result.loss.detach()),
            float(reached.mean()),
            time.perf_counter() - began,
            time.process_time() - cpu_began,
        )
        if on_progress is not None:
            on_progress(progress)
        if progress.iou >= config.target:
            break
    return progress


def real_windows(count: int, side: int, seed: int) -> WindowBatch:
    """Draw windows around objects of the bundled micrographs, in turn."""
    samples = []
    for name in MICROGRAPHS[: min(count, len(MICROGRAPHS))]:
        bundled = load_sample(name)
        image = bundled.image
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        samples.append(Sample(image, bundled.labels.astype(np.int32), name, name))
    # 600 pixels and more: an object that a grid of 64 still shows as one
    atlas = Atlas(samples, seed=seed, min_area_px=600)
    generator = torch.Generator().manual_seed(seed)
    objects = []
    for index in range(count):
        of_image = (atlas.object_image == index % len(samples)).nonzero()[:, 0]
        drawn = torch.randint(len(of_image), (), generator=generator)
        objects.append(of_image[drawn])
    return atlas.draw(count, side, generator, AFTER_FIRST_CLICK, torch.stack(objects))


def peak_memory_gb() -> float:
    """Peak resident memory of this process (Linux), 0 elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peaks[0]) / 1e6 if peaks else 0.0


def show(progress: Progress) -> None:
    print(
        f"step {progress.step:4d}  loss {progress.loss:.4f}  IoU {progress.iou:.3f}  "
        f"{progress.seconds:.0f} s ({progress.cpu_seconds:.0f} s CPU)",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--optimiser", choices=("adam", "sgd"), default="adam")
    parser.add_argument("--measure-every", type=int, default=10)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    windows = real_windows(options.windows, options.side, options.seed)
    began = time.process_time()
    network = registry.build(registry.named(options.network).architecture)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    print(
        f"{options.network}: {millions:.1f} M parameters, {options.windows} windows of "
        f"{options.side} px, built in {time.process_time() - began:.1f} s CPU",
        flush=True,
    )
    config = OverfitConfig(
        target=options.target,
        steps=options.steps,
        rounds=options.rounds,
        optimiser=options.optimiser,
        learning_rate=options.learning_rate,
        measure_every=options.measure_every,
        seed=options.seed,
    )
    last = overfit(network, windows, config, show)
    verdict = "reached" if last.iou >= options.target else "not reached"
    print(
        f"{options.network}: IoU {last.iou:.3f} after {last.step} steps, "
        f"{last.seconds:.0f} s ({last.cpu_seconds:.0f} s CPU), peak memory "
        f"{peak_memory_gb():.1f} GB: {options.target} {verdict}"
    )
    return 0 if last.iou >= options.target or options.steps == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
