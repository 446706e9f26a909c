"""Train the default network in the product's own loop, from trained weights.

    python benchmarks/gpu/train_product.py PACKS OUT --name run8 --start default \
        --second efficientnet-lite0.pth --budget-s 7000

PACKS holds train-*.zip. The weights of START are given more width and a second,
pretrained encoder where the options say so: a wider layer's old outputs keep their old
weights and read nothing of the new inputs, its new outputs start at random, and so the
network draws the same until training changes it. Normalisations keep their statistics,
so that training computes what the product does. OUT receives NAME.state.pt (resumed
when it exists), NAME.json and NAME.safetensors (the moving average). ``--export``
writes those and ends.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist
import train_default
from encoder_weights import start_encoder
from packs import open_atlas, read_side, save_atlas
from product_rounds import ProductConfig, ProductStep
from settled_norms import fresh_statistics
from torch import Tensor

from cfrseg_training.configuration import TrainConfig
from cfrseg_training.loop.atlas import Atlas, WindowRecipe
from cfrseg_training.loop.augmentation import PhotometricRecipe
from cfrseg_training.loop.trainer import Trainer
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

_log = logging.getLogger(__name__)

TRAINING_DATA = [
    *train_default.TRAINING_DATA,
    "chloroplasts in electron micrographs, MIT",
    "gravel photographs, BSD-3; pebble photographs, Apache-2.0",
    "synthetic scenes of this project",
    "ImageNet, by EfficientNet-Lite0's weights (Google), Apache-2.0",
]


def options_of_command() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="product")
    parser.add_argument("--start", default="default")
    parser.add_argument("--second", type=Path, help="weights of the second encoder")
    parser.add_argument("--second-backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--widths", type=int, nargs=4, default=[64, 96, 128, 160])
    parser.add_argument("--head-width", type=int, default=64)
    parser.add_argument("--fine-feedback", type=int, default=64)
    parser.add_argument("--fine-width", type=int, default=32)
    parser.add_argument("--judge-width", type=int, default=48)
    parser.add_argument("--budget-s", type=float, default=7000)
    parser.add_argument("--stop-after-s", type=float)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--grids", nargs="*", default=["0.5:96"])
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument("--ema", type=float, default=0.997)
    parser.add_argument("--photometry", type=float, default=0.35)
    parser.add_argument("--set-power", type=float, default=0.25)
    parser.add_argument("--earlier", type=int, default=ProductConfig().earlier)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", default="")
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--without", nargs="+", default=[], help="sets to leave out")
    return parser.parse_args()


def make_network(options: argparse.Namespace, atlas: Atlas | None) -> CfrNet:
    """Give the weights to start from the wished shape."""
    old = checkpoint.load(checkpoint.resolve(options.start))[0]
    if not isinstance(old, CfrNet):
        raise SystemExit(f"{options.start} is of another family than the default")
    config = replace(
        old.config,
        widths=tuple(options.widths),
        head_width=options.head_width,
        fine_feedback=options.fine_feedback,
        fine_width=options.fine_width,
        second_backbone=options.second_backbone,
        deepened=True,
        judge_width=options.judge_width,
        late_push=(0.0,),
        change_width=0,
    )
    if config == old.config:
        return old
    network = grown(old, config)
    if atlas is None:
        return network
    if network.second is not None and old.second is None and options.second:
        lent = CfrNet(CfrNetConfig(backbone=options.second_backbone))
        start_encoder(lent, options.second)
        given = lent.backbone.state_dict()  # to its coarsest map, which is left out
        wanted = network.second.backbone.state_dict()
        network.second.backbone.load_state_dict({k: given[k] for k in wanted})
    if any(w != v for w, v in zip(config.widths, old.config.widths, strict=True)):
        settle_new(network, old, atlas, options)
    return network


def grown(old: CfrNet, config: CfrNetConfig) -> CfrNet:
    """Return a network of another shape that computes what an old one does.

    Parameters
    ----------
    old
        The trained network; in evaluation or training.
    config
        No narrower than the old one's. Encoders of the same name keep their weights;
        a second encoder, a deeper head or a judge where there was none is new.
    """
    network = CfrNet(config)
    mine, given = network.state_dict(), old.state_dict()
    with torch.no_grad():
        for key, tensor in mine.items():
            if key in given:
                tensor.copy_(_grown(tensor, given[key], _parts(key, old, network)))
    return network


def _parts(key: str, old: CfrNet, new: CfrNet) -> list[tuple[int, int]]:
    """Return (old, new) widths of the concatenated inputs of a layer, if it has any."""
    name = key.rpartition(".")[0]
    if name == "head.quality.0":
        was, now = (n.config.widths[0] for n in (old, new))
        return [(was, now), (was, now), (3, 3)]
    was, now = (getattr(n.get_submodule(name), "parts", None) for n in (old, new))
    if was is None or now is None:
        return []
    return list(zip(was, now, strict=True))


def _grown(fresh: Tensor, old: Tensor, parts: list[tuple[int, int]]) -> Tensor:
    if fresh.shape == old.shape:
        return old
    out = fresh.clone()
    rows = old.shape[0]
    if old.ndim == 1:
        out[:rows] = old
        return out
    out[:rows] = 0  # the old outputs do not see what is new
    parts = parts or [(old.shape[1], fresh.shape[1])]
    at_old = at_new = 0
    for was, now in parts:
        out[:rows, at_new : at_new + was] = old[:, at_old : at_old + was]
        at_old, at_new = at_old + was, at_new + now
    return out


def settle_new(
    network: CfrNet, old: CfrNet, atlas: Atlas, options: argparse.Namespace
) -> None:
    """Take the statistics of what is new; the old weights keep theirs."""
    step = step_of(options, atlas, earlier=0)
    chance = [torch.Generator().manual_seed(1) for _ in range(2)]
    with fresh_statistics(network), torch.no_grad():
        for _ in range(24):
            step(network, 2 * options.batch, 96, *chance)
    mine, given = network.state_dict(), old.state_dict()
    for key, value in given.items():
        if "running_" in key and key in mine:
            mine[key][: len(value)] = value


def config_of(options: argparse.Namespace, rank: int) -> TrainConfig:
    """Turn the command line into the run's configuration."""
    return TrainConfig(
        budget_s=options.budget_s,
        stop_after_s=options.stop_after_s,
        batch=options.batch,
        grids=train_default.grids_of(options.grids),
        ema=options.ema,
        validate_every_s=1e9,
        save_every_s=150,
        learning_rate=options.learning_rate,
        warmup_steps=100,
        clip=2.0,
        seed=options.seed + 1000 * rank,
        frozen_norms=True,
        note_every=25,
    )


def step_of(options: argparse.Namespace, atlas: Atlas, earlier: int) -> ProductStep:
    """Return what draws and runs a batch."""
    look = PhotometricRecipe().scaled(options.photometry)
    return ProductStep(atlas, ProductConfig(earlier=earlier), WindowRecipe(), look)


def export(options: argparse.Namespace) -> None:
    """Write the weights of the moving average, as the state has them."""
    state = torch.load(
        options.out / f"{options.name}.state.pt", map_location="cpu", weights_only=True
    )
    network = make_network(options, None)
    network.load_state_dict(state["average"])
    network.eval()
    metadata = checkpoint.Metadata(
        architecture=network.architecture(),
        name=options.name,
        training_data=train_default.said_of(options.without) or TRAINING_DATA,
        licence="BSD-3-Clause",
        commit=options.commit or "unknown",
        seed=options.seed,
        steps=state["step"],
    )
    path = options.out / f"{options.name}.safetensors"
    checkpoint.save(path, network, metadata)
    report = {
        "name": options.name,
        "config": asdict(config_of(options, 0)),
        "product": asdict(ProductConfig(earlier=options.earlier)),
        "photometry": options.photometry,
        "history": state["history"],
    }
    path.with_suffix(".json").write_text(json.dumps(report))
    _log.info("%s: step %d, %.0f s", path, state["step"], state["elapsed_s"])


def atlas_of(options: argparse.Namespace) -> Atlas:
    """Open PACKS/train-atlas.pt, made from the packs where it is not there yet.

    Without some of the sets it is a file in OUT.
    """
    path = (options.out if options.without else options.packs) / "train-atlas.pt"
    if not path.exists():
        samples = read_side(options.packs, "train", options.without)
        save_atlas(Atlas(samples, set_power=options.set_power), path)
    return open_atlas(path)


def main() -> None:
    """Run the command."""
    options = options_of_command()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rank = train_default.join_processes(options.out)
    if options.export:
        export(options)
        return
    started = time.monotonic()
    atlas = atlas_of(options)
    _log.info("%d objects, %.0f s to read", len(atlas), time.monotonic() - started)
    state = options.out / f"{options.name}.state.pt"
    network = make_network(options, None if state.exists() else atlas)
    if dist.is_initialized():  # the same weights in every process
        for tensor in (*network.parameters(), *network.buffers()):
            dist.broadcast(tensor.data, 0)
    step = step_of(options, atlas, options.earlier)
    trainer = Trainer(network, atlas, config_of(options, rank), state, step=step)
    count = sum(p.numel() for p in network.parameters()) / 1e6
    _log.info("%.2f M parameters, from step %d", count, trainer.step)
    trainer.run()
    if rank == 0:
        export(options)


if __name__ == "__main__":
    main()
