"""Can a network learn at all? Train it on a handful of windows until it knows them.

Every network that is offered for training must pass: the loss reaches all of its
parts, the clicks arrive, evaluation mode agrees with training mode.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from cfrseg_training.loop.atlas import WindowBatch
from cfrseg_training.loop.training_step import RoundsConfig, clicks_to_reach, train_step
from napari_cfrseg.model.network import ClickNetwork


@dataclass(frozen=True, slots=True)
class OverfitConfig:
    """How hard to try.

    Attributes
    ----------
    target
        Mean IoU after one click, in evaluation mode, at which it is done.
    steps
        Given up after so many.
    optimiser
        "adam"; or "sgd", which keeps nothing per weight: half of Adam's memory.
    learning_rate, warmup_steps, clip
        The rate, its linear warm-up and the largest gradient norm.
    rounds
        Rounds of clicks per step.
    judge_every
        Steps between two looks at the IoU.
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
    judge_every: int = 10
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is.

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
    tell: Callable[[Progress], None] | None = None,
) -> Progress:
    """Train on these windows and no others.

    Parameters
    ----------
    network
        Trained in place, on the windows' device.
    windows
        A few, of a size the network reads.
    tell
        Called at every look at the IoU.

    Returns
    -------
    The last look; its ``iou`` is at least ``target``, or all steps were taken.
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
        if step % config.judge_every and step != config.steps:
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
        if tell is not None:
            tell(progress)
        if progress.iou >= config.target:
            break
    return progress
