"""Trainings on made windows as a program, for tests that kill it or run it twice.

    python train_made.py [[STATE, OPTIONS], …]

writes STATE and STATE.json (the losses and a sum over the weights) and prints the
number of steps of each. Two more options: ``pause_s`` after each step, ``stop_at`` a
step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from cfrseg_training.configuration import TrainConfig
from cfrseg_training.loop.atlas import Atlas, Sample
from cfrseg_training.loop.trainer import Trainer
from cfrseg_training.loop.training_step import RoundsConfig
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

SHAPE = CfrNetConfig(
    widths=(16, 16, 16, 16), feedback_width=8, head_width=8, grid_size=64
)


def made_atlas() -> Atlas:
    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[:96, :96]
    labels = np.zeros((96, 96), np.int32)
    for number, (y, x, r) in enumerate(((22, 24, 9), (60, 30, 14), (50, 74, 12)), 1):
        labels[(ys - y) ** 2 + (xs - x) ** 2 <= r**2] = number
    image = rng.integers(0, 50, (96, 96, 1)) + 150 * (labels > 0)[..., None]
    return Atlas([Sample(np.repeat(image, 3, 2).astype(np.uint8), labels, "d", "g")])


def made_trainer(state: Path, **options) -> Trainer:
    torch.manual_seed(2)  # with others float16 overflows, and a step is left out
    rounds = RoundsConfig(weights=(1.0, 2.0), started=0.0)
    config = {
        "batch": 2,
        "warmup_steps": 2,
        "ema": 0.9,
        "note_every": 1,
        "learning_rate": 1e-3,
        "rounds": rounds,
        **options,
    }
    return Trainer(CfrNet(SHAPE), made_atlas(), TrainConfig(**config), state)


def run(state: Path, options: dict[str, Any]) -> None:
    pause_s, stop_at = options.pop("pause_s", 0.0), options.pop("stop_at", 10**9)
    trainer = made_trainer(state, **options)

    def watch(trainer: Trainer) -> bool:
        time.sleep(pause_s)
        return trainer.step < stop_at

    trainer.watch = watch
    trainer.run()
    sys.stdout.write(f"{trainer.step}\n")
    if not dist.is_initialized() or dist.get_rank() == 0:
        report = {
            "losses": [row["loss"] for row in trainer.history if "loss" in row],
            "weights": float(
                sum(p.detach().double().sum() for p in trainer.network.parameters())
            ),
        }
        state.with_suffix(".json").write_text(json.dumps(report))


def main() -> None:
    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    for state, options in json.loads(sys.argv[1]):
        run(Path(state), options)


if __name__ == "__main__":
    main()
