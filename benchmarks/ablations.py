"""The papers' trained ablations in kind: equal budgets, same windows, paired intervals.

    python benchmarks/ablations.py rows
    python benchmarks/ablations.py run icl/both PACKS OUT --seed 0 --steps 160
    python benchmarks/ablations.py all PACKS OUT --steps 160
    python benchmarks/ablations.py table OUT

PACKS is what ``benchmarks/gpu/pack.py`` writes. Every row has a file of its own in OUT:
a row that was killed continues, a finished row is skipped. All rows start from
the same encoder (``--encoder``: the shape of a model, with its backbones, pyramid and
detail map, or "none") and, for a seed, from the same fresh remainder as far as it has
the same parts; at each step all rows draw windows about the same objects. Judged are
windows about validation objects that a robot clicks (``--judge windows``: the network
alone, cheap) or whole images with automatic focus (``--judge images --data DATA``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ablation_rows import TABLES, Row
from ablation_tables import tables
from gpu.packs import read_side
from gpu.settled_norms import settle_norms
from network_variants import VariantConfig, VariantNet

from cfrseg_training.configuration import TrainConfig
from cfrseg_training.loop.atlas import AFTER_FIRST_CLICK, Atlas, Sample, WindowBatch
from cfrseg_training.loop.trainer import Trainer
from cfrseg_training.loop.training_step import RoundsConfig, clicks_to_reach
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation.datasets.choice import micro_objects
from napari_cfrseg.evaluation.evaluate_objects import RunSettings, evaluate_objects
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.cfrnet import CfrNet
from napari_cfrseg.model.network import ClickNetwork

SPLIT = Path(__file__).parent / "split.json"
#: parts of the network that see neither clicks nor masks
ENCODER = ("backbone", "pyramid", "detail", "second")
#: rounds from which every row takes its normalisation statistics
SETTLING = RoundsConfig(weights=(1.0, 1.0, 1.0), refined=0.0, started=0.0)
#: windows clicked at a time
JUDGED_AT_ONCE = 32


class Bench:
    """Images, read once for all rows.

    Parameters
    ----------
    options
        The command line's.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.judged: list[dict[str, Any]] = []
        self.windows: list[WindowBatch] = []
        if options.judge == "windows":
            self._draw_windows(read_side(options.packs, "validation"))

    @cached_property
    def training(self) -> Atlas:
        """The training data of the rows."""
        return Atlas(read_side(self.options.packs, "train"), self.device)

    def _draw_windows(self, samples: list[Sample]) -> None:
        """Lay a window about so many objects of each set, as after the first click."""
        atlas = Atlas(samples, self.device, set_power=0)
        generator = torch.Generator().manual_seed(20261121)
        order = torch.randperm(len(atlas), generator=generator).tolist()
        taken: dict[str, list[int]] = {}
        for index in order:
            of_set = taken.setdefault(
                samples[int(atlas.object_image[index])].dataset, []
            )
            if len(of_set) < self.options.objects:
                of_set.append(index)
        chosen = [index for name in sorted(taken) for index in taken[name]]
        for index in chosen:
            number = int(atlas.object_image[index])
            self.judged.append(
                {"set": samples[number].dataset, "image": number, "object": index}
            )
        chance = torch.Generator(self.device).manual_seed(7)
        for start in range(0, len(chosen), JUDGED_AT_ONCE):
            objects = torch.tensor(
                chosen[start : start + JUDGED_AT_ONCE], device=self.device
            )
            grid = self.options.grid
            self.windows.append(
                atlas.draw(len(objects), grid, chance, AFTER_FIRST_CLICK, objects)
            )

    def run(self, name: str, seed: int) -> Path:
        """Train and judge one row; return its result file."""
        table, key = name.split("/")
        row, out = TABLES[table][key], self.options.out
        result = out / f"{table}-{key}-{seed}.json"
        twin = out / "trained" / f"{self._digest(row, seed)}.json"
        if not twin.exists() and not result.exists():
            began = time.process_time()
            if row.swapped is None:
                network, steps = self._train(row, seed, twin.with_suffix(".pt"))
            else:
                network, steps = _swapped(row.swapped, self.options.grid), 0
            values = {
                "row": name,
                "seed": seed,
                "steps": steps,
                "cpu_s": time.process_time() - began,
                "objects": self._judge(network),
            }
            _write(twin, values)
            twin.with_suffix(".pt").unlink(missing_ok=True)
        if not result.exists():
            _write(result, json.loads(twin.read_text()))
        return result

    def _train(self, row: Row, seed: int, state: Path) -> tuple[ClickNetwork, int]:
        options = self.options
        torch.manual_seed(seed)
        network = fresh(row.variant, options.encoder)
        network.grid_size = options.grid
        config = TrainConfig(
            steps=options.steps,
            budget_s=None if options.minutes is None else 60 * options.minutes,
            batch=options.batch,
            learning_rate=1e-3,
            warmup_steps=20,
            ema=0.98,
            norm_momentum=0.05,
            seed=seed,
            suem=row.suem,
            rounds=row.rounds,
            # each step has a random source of its own, so that all rows draw windows
            # about the same objects, independent of their other draws
            synchronous=True,
            note_every=20,
            save_every_s=120.0,
        )
        trainer = Trainer(network, self.training, config, state)
        trainer.run()
        # every row takes its statistics from the same plain windows and rounds
        trainer.generator.manual_seed(seed)
        trainer.host.manual_seed(seed)
        trainer.config = replace(trainer.config, suem=None, rounds=SETTLING)
        settle_norms(trainer, options.settle)
        return trainer.average.network, trainer.step

    def _judge(self, network: ClickNetwork) -> list[dict[str, Any]]:
        """Return, per object, its set and image and the IoU after each click."""
        options = self.options
        network.eval()
        if options.judge == "windows":
            device = torch.device(self.device)
            network.to(device)
            reached = [
                iou
                for batch in self.windows
                for iou in clicks_to_reach(
                    network, batch, rounds=options.clicks
                ).tolist()
            ]
            pairs = zip(self.judged, reached, strict=True)
            return [{**item, "ious": [round(v, 4) for v in iou]} for item, iou in pairs]
        objects = micro_objects(
            options.data, SPLIT, "validation", max_per_set=options.objects
        )
        settings = RunSettings(max_clicks=options.clicks, target=0.90)
        rows = evaluate_objects(
            lambda: Segmenter(network, device="auto"), objects, settings=settings
        )
        return [
            {
                "set": r.set_name,
                "image": f"{r.image_name}/{r.plane}",
                "object": r.key,
                "ious": list(r.ious),
            }
            for r in sorted(rows, key=lambda r: r.key)
        ]

    def _digest(self, row: Row, seed: int) -> str:
        """Rows of several tables that are one training share its result."""
        o = self.options
        row_parts = (replace(row, seeds=1), seed, o.steps, o.minutes, o.batch, o.grid)
        how = (o.encoder, o.settle, o.judge, o.objects, o.clicks)
        return hashlib.sha256(repr((row_parts, how)).encode()).hexdigest()[:16]


def _write(path: Path, values: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values), encoding="utf-8")


def fresh(variant: VariantConfig, encoder: str) -> VariantNet:
    """Return a fresh network; of a model, if one is named, it has shape and encoder.

    What the papers do not have is left out: the fine feedback, the odds of changes.
    """
    if encoder == "none":
        return VariantNet(variant)
    model = _default_network(encoder)
    shape = replace(model.config, fine_feedback=0, change_width=0)
    network = VariantNet(replace(variant, network=shape))
    for name, part in network.named_children():
        if name in ENCODER:
            part.load_state_dict(getattr(model, name).state_dict())
    return network


def _default_network(name: str) -> CfrNet:
    """Load a model that is a default network."""
    network, _ = checkpoint.load(checkpoint.resolve(name))
    if not isinstance(network, CfrNet):
        msg = f"{name} is not a default network (CfrNet)"
        raise TypeError(msg)
    return network


def _swapped(changes: Iterable[tuple[str, Any]], grid: int) -> ClickNetwork:
    """Return the shipped default network with another FFCM at inference."""
    network = _default_network("default")
    network.grid_size = grid
    for name, value in changes:
        setattr(network.ffcm, name, value)
    return network


def options_of_command() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("rows")
    commands.add_parser("table").add_argument("out", type=Path)
    for name in ("run", "all"):
        command = commands.add_parser(name)
        if name == "run":
            command.add_argument("row", help="TABLE/ROW")
            command.add_argument("--seed", type=int, default=0)
        else:
            command.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
        command.add_argument("packs", type=Path)
        command.add_argument("out", type=Path)
        command.add_argument("--steps", type=int, help="budget, in steps")
        command.add_argument("--minutes", type=float, help="budget, in minutes")
        command.add_argument("--batch", type=int, default=8)
        command.add_argument("--grid", type=int, default=96)
        command.add_argument("--settle", type=int, default=20)
        command.add_argument(
            "--judge", choices=("windows", "images"), default="windows"
        )
        command.add_argument("--data", type=Path, help="the sets, to judge on images")
        command.add_argument("--objects", type=int, default=24, help="judged, per set")
        command.add_argument("--clicks", type=int, default=20)
        command.add_argument("--encoder", default="default")
        command.add_argument("--threads", type=int)
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    options = options_of_command()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = [f"{t}/{k}" for t, rows in TABLES.items() for k in rows]
    if options.command == "rows":
        print("\n".join(names))
        return
    if options.command == "table":
        print(tables(options.out, {t: list(rows) for t, rows in TABLES.items()}))
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    (options.out / "trained").mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    if options.command == "run":
        print(bench.run(options.row, options.seed))
        return
    most = max(row.seeds for rows in TABLES.values() for row in rows.values())
    # a table's rows with one seed first, then with the next
    wanted = [
        (f"{t}/{k}", seed)
        for t in options.tables
        for seed in range(most)
        for k, row in TABLES[t].items()
        if seed < row.seeds
    ]
    for name, seed in wanted:
        print(bench.run(name, seed), flush=True)


if __name__ == "__main__":
    main()
