"""Normalisation statistics are recomputed over all batches run inside."""

import torch
from settled_norms import fresh_statistics
from torch import nn


def test_statistics_are_the_plain_mean_over_all_batches():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())
    network.eval()
    generator = torch.Generator().manual_seed(0)
    batches = [3 * torch.randn(4, 2, 8, 8, generator=generator) + i for i in range(5)]

    with fresh_statistics(network):
        for batch in batches:
            network(batch)

    norm = network[0]
    means = torch.stack([b.mean(dim=(0, 2, 3)) for b in batches])
    spreads = torch.stack([b.var(dim=(0, 2, 3)) for b in batches])
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    torch.testing.assert_close(norm.running_var, spreads.mean(0))
    assert norm.momentum == 0.1
    assert not network.training


def test_norms_without_statistics_are_left_alone():
    network = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False))
    with fresh_statistics(network):
        network(torch.zeros(1, 2, 4, 4))
    assert network[0].running_mean is None
    assert network[0].momentum == 0.1
