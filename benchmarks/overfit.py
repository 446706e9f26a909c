"""Train a network on a few real windows until it knows them.

    python benchmarks/overfit.py NETWORK [--side 224] [--windows 4] [--steps 400]

NETWORK is any name of ``cfrseg models list``, with fresh weights. The windows are
bundled micrographs, an object each. Prints a line per look at the IoU and a last line
that says whether the target was reached; with --steps 1 it only shows that a step of
training fits and runs (peak memory is printed).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cfrseg_training.loop.atlas import AFTER_FIRST_CLICK, Atlas, Sample, WindowBatch
from cfrseg_training.overfit import OverfitConfig, Progress, overfit
from napari_cfrseg.model import registry
from napari_cfrseg.samples import load_sample

MICROGRAPHS = ("powder_sem", "breast_cancer_he", "glioblastoma_phase", "axon_sem")


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
    parser.add_argument("--judge-every", type=int, default=10)
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
        judge_every=options.judge_every,
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
