"""Train the default network on packed images (``pack.py``), on a CPU or GPU.

    python benchmarks/gpu/train_default.py PACKS OUT --budget-s 900 [--compile]

PACKS holds train-*.zip and validation-*.zip. OUT receives NAME.state.pt (resumed when
it exists), NAME.safetensors (the moving average, fp16 but for the normalisations) and
NAME.json (history and figures). Run again with the same NAME to go on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist
from encoder_weights import start_encoder
from packs import read_side
from settled_norms import settle_norms

from cfrseg_training.configuration import TrainConfig
from cfrseg_training.loop.atlas import (
    AFTER_FIRST_CLICK,
    Atlas,
    WindowBatch,
    WindowRecipe,
)
from cfrseg_training.loop.augmentation import PhotometricRecipe
from cfrseg_training.loop.trainer import Trainer
from cfrseg_training.loop.training_step import RoundsConfig
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig
from napari_cfrseg.model.network import ClickNetwork

_log = logging.getLogger(__name__)

TRAINING_DATA = [
    "BBBC038v1 (Data Science Bowl 2018), CC0",
    "TNBC H&E nuclei (Naylor et al.), CC BY 4.0",
    "T98G phase contrast, MIT",
    "axon SEM (AxonDeepSeg), MIT",
    "powder SEM, spheroidite SEM, superalloy SEM, melt pools, MIT",
    "ganglioneuroblastoma fluorescence, CC0",
    "Fluocells (neurons), Apache-2.0 excerpt of a CC BY-SA data set",
    "E. coli DAPI and bright field (2 sets), MIT",
    "BBBC050 mouse embryo, planes, CC0",
]


def validation_windows(atlas: Atlas, grid: int, count: int) -> list[WindowBatch]:
    """Draw fixed windows as the product lays them after the first click."""
    generator = torch.Generator(atlas.device).manual_seed(7)
    return [
        atlas.draw(32, grid, generator, AFTER_FIRST_CLICK) for _ in range(count // 32)
    ]


def said_of(without: Sequence[str]) -> list[str]:
    """Return what weights say of the sets that were left out, if any."""
    return [f"the default's sets but {', '.join(without)}"] if without else []


def commit() -> str:
    """Return the commit of the code, or 'unknown' outside a checkout."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def options_of_command() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="default")
    parser.add_argument(
        "--backbone", help="a timm model; by default resnet10t or START's"
    )
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument(
        "--backbone-weights", type=Path, help="a pretrained file of the backbone alone"
    )
    parser.add_argument(
        "--fine-feedback",
        type=int,
        help="channels of the fine feedback; by default START's",
    )
    parser.add_argument("--budget-s", type=float, default=900)
    parser.add_argument("--stop-after-s", type=float)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--grids", nargs="*", default=[], help="SHARE:GRID, coarse grids first"
    )
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--validation-windows", type=int, default=768)
    parser.add_argument("--validate-every-s", type=float, default=60)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--iou-weight", type=float, default=0.5)
    parser.add_argument("--earlier", type=int, default=0)
    parser.add_argument("--norm-momentum", type=float, default=0.1)
    parser.add_argument(
        "--photometry", type=float, default=1.0, help="share of its changes"
    )
    parser.add_argument(
        "--zoomed",
        type=float,
        default=WindowRecipe().zoomed,
        help="share of windows laid as after the first click",
    )
    parser.add_argument("--set-power", type=float, default=0.4)
    parser.add_argument("--settle-batches", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", default="")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--without", nargs="+", default=[], help="sets to leave out")
    return parser.parse_args()


def config_of(options: argparse.Namespace, device: str, rank: int) -> TrainConfig:
    """Turn the command line into the run's configuration."""
    return TrainConfig(
        budget_s=options.budget_s,
        stop_after_s=options.stop_after_s,
        batch=options.batch,
        grids=grids_of(options.grids),
        ema=options.ema,
        validate_every_s=options.validate_every_s,
        learning_rate=options.learning_rate,
        autocast="bfloat16" if device == "cuda" else "float32",
        seed=options.seed + 1000 * rank,
        compile=options.compile,
        norm_momentum=options.norm_momentum,
        windows=WindowRecipe(zoomed=options.zoomed),
        photometry=PhotometricRecipe().scaled(options.photometry),
        rounds=RoundsConfig(
            iou_weight=options.iou_weight,
            earlier=options.earlier,
        ),
    )


def prepare(options: argparse.Namespace) -> tuple[str, int]:
    """Set up logging, precision, threads and processes; return device and rank."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    return device, join_processes(options.out, device)


def join_processes(out: Path, device: str = "cpu") -> int:
    """Join the launcher's other processes, start the log; return this one's rank."""
    rank = 0
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        rank = dist.get_rank()
    level = logging.WARNING if rank else logging.INFO
    logging.basicConfig(level=level, stream=sys.stdout, format="%(message)s")
    out.mkdir(parents=True, exist_ok=True)
    return rank


def grids_of(pairs: list[str]) -> tuple[tuple[float, int], ...]:
    """Return (share of the budget, grid) of each SHARE:GRID."""
    parts = (pair.split(":") for pair in pairs)
    return tuple((float(share), int(grid)) for share, grid in parts)


def make_network(options: argparse.Namespace) -> ClickNetwork:
    """Make the network to train: new, from weights, or on a pretrained backbone.

    Of weights of another shape only tensors that fit are taken; of another backbone
    none is.
    """
    old = checkpoint.load(options.start)[0] if options.start else None
    if old is not None and not isinstance(old, CfrNet):
        raise SystemExit(f"{options.start} is of another family than the default")
    config = CfrNetConfig() if old is None else old.config
    given = {"backbone": options.backbone, "fine_feedback": options.fine_feedback}
    wanted = replace(config, **{k: v for k, v in given.items() if v is not None})
    network = CfrNet(wanted)
    if old is not None:
        theirs, mine = old.state_dict(), network.state_dict()
        same_backbone = wanted.backbone == config.backbone
        for key, tensor in mine.items():
            fits = key in theirs and theirs[key].shape == tensor.shape
            if fits and (same_backbone or not key.startswith("backbone.")):
                tensor.copy_(theirs[key])
    if options.backbone_weights:
        start_encoder(network, options.backbone_weights)
    return network


def main() -> None:
    """Run the command."""
    options = options_of_command()
    device, rank = prepare(options)
    started = time.monotonic()
    train_side = read_side(options.packs, "train", options.without)
    atlas = Atlas(train_side, device, set_power=options.set_power)
    network = make_network(options)
    windows = []
    if rank == 0:
        held_out_side = read_side(options.packs, "validation", options.without)
        held_out = Atlas(held_out_side, device, set_power=0)
        windows = validation_windows(
            held_out, network.grid_size, options.validation_windows
        )
    _log.info("%d objects, %.0f s to read", len(atlas), time.monotonic() - started)
    config = config_of(options, device, rank)
    state = options.out / f"{options.name}.state.pt"
    trainer = Trainer(network, atlas, config, state, windows)
    trained = trainer.run()
    if rank:
        return
    if trainer.progress() >= 1:
        settle_norms(trainer, options.settle_batches)
    figures = trainer.validate()
    speed = trainer.step * options.batch / max(1e-9, trainer.elapsed_s)
    _log.info("%s: %.0f windows/s, %s", options.name, speed, figures)
    report = {
        "name": options.name,
        "backbone": network.architecture()["backbone"],
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "figures": figures,
        "config": asdict(config),
        "history": trainer.history,
    }
    (options.out / f"{options.name}.json").write_text(json.dumps(report))
    metadata = checkpoint.Metadata(
        architecture=network.architecture(),
        name=options.name,
        training_data=said_of(options.without) or TRAINING_DATA,
        licence="BSD-3-Clause",
        commit=options.commit or commit(),
        seed=options.seed,
        steps=trainer.step,
        validation={"quick": figures},
    )
    checkpoint.save(options.out / f"{options.name}.safetensors", trained, metadata)


if __name__ == "__main__":
    main()
