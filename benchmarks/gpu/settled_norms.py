"""Normalisation statistics of a trained network, computed again over many batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from cfrseg_training.loop.trainer import Trainer


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


def settle_norms(trainer: Trainer, batches: int) -> None:
    """Recompute the statistics of a run's average network.

    The running statistics that training leaves behind belong to the last few
    batches and to weights that moved. On the validation split recomputing them
    saved the shipped model half a click. The first clicks are run alone, without
    the rounds that may come before them: with those rounds among the statistics a
    first click's mask is worse by 0.02 of IoU.
    """
    network = trainer.average.network
    rounds = replace(trainer.config.rounds, earlier=0)
    with fresh_statistics(network), torch.no_grad():
        for _ in range(batches):
            trainer.evaluate(network, rounds)
