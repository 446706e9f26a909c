"""Average trained networks' weights and recompute the normalisation statistics.

    python benchmarks/mean_weights.py PACKS OUT.safetensors FILE:WEIGHT FILE:WEIGHT …

The files are of one lineage: the same network, one of them trained on from the other.
The first names the network; what only it has (a fine feedback the others were trained
without) is kept whole. PACKS is what ``benchmarks/gpu/pack.py`` wrote.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from gpu.packs import read_side

from cfrseg_training.configuration import TrainConfig
from cfrseg_training.loop.atlas import Atlas
from cfrseg_training.loop.augmentation import PhotometricRecipe
from cfrseg_training.loop.trainer import Trainer
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.network import ClickNetwork


def mean(networks: Sequence[ClickNetwork], weights: Sequence[float]) -> None:
    """Give the first network the weighted mean of all; weights add up to 1."""
    states = [network.state_dict() for network in networks]
    with torch.no_grad():
        for key, value in states[0].items():
            if value.is_floating_point() and all(key in state for state in states):
                parts = (
                    w * state[key] for w, state in zip(weights, states, strict=True)
                )
                value.copy_(sum(parts, torch.zeros_like(value)))


def settled(
    network: ClickNetwork, packs: Path, batches: int, photometry: float
) -> ClickNetwork:
    """Return a copy with statistics taken over batches of training windows."""
    atlas = Atlas(read_side(packs, "train"), "cpu")
    nowhere = packs / "no state to resume"
    recipe = PhotometricRecipe().scaled(photometry)
    config = TrainConfig(steps=1, batch=12, photometry=recipe)
    trainer = Trainer(network, atlas, config, nowhere)
    trainer.settle_norms(batches)
    return trainer.average.network


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("files", nargs="+", metavar="FILE:WEIGHT")
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument(
        "--photometry", type=float, default=1.0, help="share of its changes"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = [pair.rsplit(":", 1) for pair in options.files]
    loaded = [checkpoint.load(Path(name)) for name, _ in pairs]
    shares = [float(share) for _, share in pairs]
    mean([network for network, _ in loaded], [s / sum(shares) for s in shares])
    network, metadata = loaded[0]
    steps = max(m.steps or 0 for _, m in loaded)
    checkpoint.save(
        options.out,
        settled(network, options.packs, options.batches, options.photometry),
        replace(metadata, steps=steps, validation={}),
    )


if __name__ == "__main__":
    main()
