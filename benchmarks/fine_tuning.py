"""Fine-tuning in kind: a base model that never saw five sets, tuned on a few images.

    python benchmarks/fine_tuning.py base PACKS OUT --minutes 75
    python benchmarks/fine_tuning.py tune axon_sem 4 DATA OUT --minutes 10 --threads 2
    python benchmarks/fine_tuning.py all DATA OUT --minutes 10 --threads 2
    python benchmarks/fine_tuning.py table OUT > benchmarks/fine_tuning.md

``base`` trains OUT/base.safetensors without the five sets (resumed where it was
killed). ``tune`` fine-tunes it on so many images of the set's train side, as
``cfrseg-train`` would, lets the robot click the set's validation images before and
after, and asks the gate what it says of that. The images are the first of a seeded
draw: 4 images hold the 1, 16 the 4.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from gpu.packs import read_side
from gpu.settled_norms import settle_norms

from cfrseg_training.configuration import TrainConfig, default_config
from cfrseg_training.finetune.gate import chance_of_fit, compare, decide, figures, judge
from cfrseg_training.loop.atlas import Atlas
from cfrseg_training.loop.labelled import labelled
from cfrseg_training.loop.trainer import Trainer
from cfrseg_training.loop.training_step import RoundsConfig
from napari_cfrseg.evaluation.datasets.choice import micro_objects, read_split
from napari_cfrseg.evaluation.scores import ResultRow
from napari_cfrseg.io.images import read_image
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.cfrnet import CfrNet

SPLIT = Path(__file__).parent / "split.json"
LEFT_OUT = (
    "axon_sem",
    "dsb2018_stained",
    "superalloy_sem",
    "t98g_phase",
    "tnbc_he_nuclei",
)
COUNTS = (1, 4, 16)


def train_base(options: argparse.Namespace) -> Path:
    """Train the default network without the five sets."""
    path = options.out / "base.safetensors"
    if path.exists():
        return path
    options.out.mkdir(parents=True, exist_ok=True)
    samples = read_side(options.packs, "train", LEFT_OUT)
    torch.manual_seed(options.seed)
    network = CfrNet()
    config = TrainConfig(
        budget_s=60 * options.minutes,
        batch=options.batch,
        learning_rate=1.2e-3,
        warmup_steps=100,
        ema=0.998,
        norm_momentum=0.01,
        grids=((0.5, 96),),
        seed=options.seed,
        rounds=RoundsConfig(earlier=3),
    )
    trainer = Trainer(network, Atlas(samples), config, options.out / "base.pt")
    trained = trainer.run()
    settle_norms(trainer, options.settle)
    sets = sorted({s.dataset for s in samples})
    metadata = checkpoint.Metadata(
        architecture=network.architecture(),
        name="base",
        training_data=[f"all sets but {', '.join(LEFT_OUT)}: {', '.join(sets)}"],
        licence="BSD-3-Clause",
        seed=options.seed,
        steps=trainer.step,
    )
    checkpoint.save(path, trained, metadata)
    return path


def tune(set_name: str, count: int, options: argparse.Namespace) -> Path:
    """Fine-tune on ``count`` images of a set; measure before and after."""
    result = options.out / f"{set_name}-{count}-{options.seed}.json"
    if result.exists():
        return result
    base = options.base or options.out / "base.safetensors"
    sides = read_split(SPLIT)[set_name]
    order = np.random.default_rng(options.seed).permutation(len(sides["train"]))
    names = [sides["train"][i] for i in order[:count]]
    folder = options.data / set_name
    planes = [
        plane
        for name in names
        for plane in labelled(
            name,
            read_image(folder / "images" / f"{name}.tif"),
            read_image(folder / "labels" / f"{name}.tif"),
        )
    ]
    objects = micro_objects(
        options.data, SPLIT, "validation", max_per_set=options.objects, sets=[set_name]
    )
    before_path = options.out / f"{set_name}-before.json"
    if before_path.exists():
        before = [ResultRow.from_dict(r) for r in json.loads(before_path.read_text())]
    else:
        before = judge(base, objects, options.threads)
        before_path.write_text(json.dumps([asdict(r) for r in before]))
    network, metadata = checkpoint.load(base)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = default_config(60 * options.minutes, options.seed)
    atlas = Atlas([plane.sample() for plane in planes], device)
    trainer = Trainer(network, atlas, config, result.with_suffix(".pt"))
    weights = result.with_suffix(".safetensors")
    checkpoint.save(weights, trainer.run(), replace(metadata, name=result.stem))
    after = judge(weights, objects, options.threads)
    change = compare(before, after, options.seed)
    chance = chance_of_fit(planes)
    values = {
        "set": set_name,
        "images": names,
        "objects_trained_on": len(atlas),
        "steps": trainer.step,
        "seconds": trainer.elapsed_s,
        "before": figures(before).noc90,
        "after": figures(after).noc90,
        "before_85": figures(before).noc85,
        "after_85": figures(after).noc85,
        "difference": change.difference,
        "low": change.low,
        "high": change.high,
        "chance": chance,
        "verdict": decide(change, chance),
        "objects": len(objects),
        "rows": [asdict(r) for r in after],
    }
    result.write_text(json.dumps(values))
    return result


def table(out: Path) -> str:
    """Return the results as a table."""
    lines = [
        "# Fine-tuning on a few images of kinds the base model never saw",
        "",
        "| set | images | objects trained on | steps | objects judged "
        "| NoC@85 before | after | NoC@90 before | after | fewer | Δ | interval "
        "| the gate says |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|---|",
    ]
    for set_name in LEFT_OUT:
        for count in COUNTS:
            for path in sorted(out.glob(f"{set_name}-{count}-*.json")):
                f = json.loads(path.read_text())
                saved = 100 * (1 - f["after"] / f["before"])
                lines.append(
                    f"| {set_name} | {len(f['images'])} | {f['objects_trained_on']} "
                    f"| {f['steps']} | {f['objects']} | {f['before_85']:.2f} "
                    f"| {f['after_85']:.2f} | {f['before']:.2f} "
                    f"| {f['after']:.2f} | {saved:.0f} % | {f['difference']:+.2f} "
                    f"| {f['low']:+.2f} to {f['high']:+.2f} | {f['verdict']} |"
                )
    return "\n".join(lines)


def options_of_command() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table").add_argument("out", type=Path)
    base = commands.add_parser("base")
    base.add_argument("packs", type=Path)
    base.add_argument("out", type=Path)
    base.add_argument("--minutes", type=float, default=75)
    base.add_argument("--batch", type=int, default=8)
    base.add_argument("--settle", type=int, default=100)
    for name in ("tune", "all"):
        command = commands.add_parser(name)
        if name == "tune":
            command.add_argument("set", choices=LEFT_OUT)
            command.add_argument("count", type=int)
        command.add_argument("data", type=Path)
        command.add_argument("out", type=Path)
        command.add_argument("--minutes", type=float, default=10)
        command.add_argument("--objects", type=int, default=40)
        command.add_argument("--base", type=Path, help="[OUT/base.safetensors]")
    for command in commands.choices.values():
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--threads", type=int)
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    options = options_of_command()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.command == "table":
        print(table(options.out))
    elif options.command == "base":
        print(train_base(options))
    elif options.command == "tune":
        print(tune(options.set, options.count, options))
    else:
        for set_name in LEFT_OUT:
            for count in COUNTS:
                print(tune(set_name, count, options), flush=True)


if __name__ == "__main__":
    main()
