"""Statistics of batch normalisation, taken anew for weights that are to be kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def fresh_statistics(network: nn.Module) -> Iterator[None]:
    """Replace the running statistics by the plain mean over the batches run inside.

    The network is in training mode inside and in evaluation mode afterwards.
    Normalisations that keep no running statistics are left alone.
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
