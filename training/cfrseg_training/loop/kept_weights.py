"""The weights a training keeps: their moving average, statistics and files."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_cfrseg.errors import TrainingError
from napari_cfrseg.io.atomic import atomic_path, clear_leftovers
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.network import ClickNetwork


class MovingAverage:
    """Exponential moving average of parameters; buffers are copied.

    Parameters
    ----------
    network
        Starts as its copy.
    decay
        Approached from below: min(decay, (1 + n) / (10 + n)) at step n.
    """

    def __init__(self, network: ClickNetwork, decay: float) -> None:
        self.network: ClickNetwork = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.count = 0

    @torch.no_grad()
    def update(self, network: ClickNetwork) -> None:
        """Move towards the network's present weights."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        pairs = zip(self.network.parameters(), network.parameters(), strict=True)
        for mine, theirs in pairs:
            mine.lerp_(theirs, 1 - decay)
        for kept, new in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(new)


@contextmanager
def fresh_statistics(network: nn.Module) -> Iterator[None]:
    """Replace the running statistics by the plain mean over the batches run inside.

    The network is in training mode inside and in evaluation mode afterwards.
    Normalisations that keep no running statistics are not touched.
    """
    norms = [
        m
        for m in network.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 # no public base
        and m.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a run's state; the one before it stays until the new one is whole.

    Raises
    ------
    TrainingError
        There is no room, or the folder cannot be written into.
    """
    clear_leftovers(path.parent, {path.stem})
    with _explained(path, "the training's state"), atomic_path(path) as temporary:
        torch.save(dict(state), temporary)


def write_weights(
    path: Path,
    network: ClickNetwork,
    metadata: checkpoint.Metadata,
    *,
    half: bool = True,
) -> None:
    """Write a weights file as :func:`napari_cfrseg.model.weights_file.save` does.

    Raises
    ------
    TrainingError
        There is no room, or the folder cannot be written into.
    """
    with _explained(path, "the weights"):
        checkpoint.save(path, network, metadata, half=half)


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """Turn the writers' different errors on a full disk into one message."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch: RuntimeError
        whole = path.suffix == ".pt" and path.exists()
        msg = (
            f"{path}: {what} cannot be written "
            f"({' '.join(str(error).split())[:160]}); make room and run the same "
            f"command again{'; the state before it is whole' if whole else ''}"
        )
        raise TrainingError(msg) from error
