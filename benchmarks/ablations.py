"""The papers' trained ablations in kind, equal budgets per row, paired intervals.

    python benchmarks/ablations.py rows
    python benchmarks/ablations.py run icl/both PACKS DATA OUT --seed 0 --minutes 20
    python benchmarks/ablations.py all PACKS DATA OUT --minutes 20
    python benchmarks/ablations.py table OUT > benchmarks/ablations.md

PACKS is what ``benchmarks/gpu/pack.py`` writes, DATA the folder of the sets. A row that
was killed goes on; a row that is done is not done again. All rows of a table start from
the same encoder (``--encoder``: the backbone and pyramid of a model, "none": fresh) and
draw the same windows for a seed; everything that sees clicks or masks starts fresh.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cfrseg_training.atlas import Atlas
from cfrseg_training.loop import TrainConfig, Trainer
from cfrseg_training.packed import read_pack
from cfrseg_training.rounds import RoundsConfig
from cfrseg_training.suem import SuemRecipe
from cfrseg_training.variants import VariantConfig, VariantNet
from napari_cfrseg import checkpoint
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation.compare import bootstrap_means
from napari_cfrseg.evaluation.loop import RunSettings
from napari_cfrseg.evaluation.micrographs import micro_objects
from napari_cfrseg.evaluation.processes import evaluate_objects
from napari_cfrseg.evaluation.rows import ObjectRow
from napari_cfrseg.evaluation.scores import clicks_to, mean_clicks_to, mean_iou_at

SPLIT = Path(__file__).parent / "split.json"
#: parts of the network that see neither clicks nor masks
ENCODER = ("backbone.", "pyramid.", "detail.")
DEFAULT = VariantConfig()
#: RITM's scheme: up to three rounds without gradient, then one with it
NFL = RoundsConfig(weights=(1.0,), earlier=3, refined=0.0, started=0.0)
ICL = RoundsConfig(weights=(1.0, 2.0, 3.0), refined=0.0, started=0.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    variant: VariantConfig = DEFAULT
    rounds: RoundsConfig = ICL
    suem: SuemRecipe | None = None
    seeds: int = 1


#: the first row of each table is what the others are compared with
TABLES: Mapping[str, Mapping[str, Row]] = {
    "icl": {  # CFR-ICL, Table 1
        "nfl": Row(rounds=NFL, seeds=3),
        "icl": Row(seeds=3),
        "suem": Row(rounds=NFL, suem=SuemRecipe(), seeds=3),
        "both": Row(suem=SuemRecipe(), seeds=3),
    },
    "modules": {  # FCFI, Table 3
        "baseline": Row(VariantConfig(feedback="input")),
        "ffc": Row(VariantConfig(fusion="concat")),
        "cffm": Row(VariantConfig(feedback="uncorrected")),
        "both": Row(),
    },
    "affinity": {  # FCFI, Table 4
        "cosine": Row(),
        "exponential": Row(VariantConfig(affinity="exponential")),
    },
    "ratio": {  # FCFI, Table 5
        f"r{ratio}": Row(VariantConfig(ratio=ratio))
        for ratio in (0.3, 0.1, 0.2, 0.4, 0.5)
    },
    "fusion": {  # FCFI, Table 6
        "none": Row(VariantConfig(feedback="none")),
        "input": Row(VariantConfig(feedback="input")),
        "no_residual": Row(VariantConfig(fusion="no_residual")),
        "no_gate": Row(VariantConfig(fusion="no_gate")),
        "cffm": Row(),
    },
}


def run(name: str, options: argparse.Namespace) -> Path:
    """Train and measure one row; return its result file."""
    table, key = name.split("/")
    row = TABLES[table][key]
    result = options.out / f"{table}-{key}-{options.seed}.json"
    twin = _twin(row, options)
    if result.exists() or twin.exists():
        if not result.exists():
            result.write_bytes(twin.read_bytes())
        return result
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    network = VariantNet(row.variant)
    if options.encoder != "none":
        take_encoder(network, options.encoder)
    config = TrainConfig(
        budget_s=60 * options.minutes,
        batch=options.batch,
        learning_rate=1e-3,
        warmup_steps=50,
        ema=0.995,
        norm_momentum=0.01,
        seed=options.seed,
        suem=row.suem,
        rounds=row.rounds,
        grids=((1.0, options.grid),),
        note_every=20,
    )
    samples = [
        s for p in sorted(options.packs.glob("train-*.zip")) for s in read_pack(p)
    ]
    trainer = Trainer(network, Atlas(samples), config, result.with_suffix(".pt"))
    network = trainer.run()
    trainer.settle_norms(options.settle)
    rows = measure(network, options)
    values = {
        "row": name,
        "seed": options.seed,
        "steps": trainer.step,
        "seconds": trainer.elapsed_s,
        "options": {k: str(v) for k, v in vars(options).items()},
        "rows": [r.to_dict() for r in rows],
    }
    for path in (result, twin):
        path.write_text(json.dumps(values))
    return result


def _twin(row: Row, options: argparse.Namespace) -> Path:
    """Rows of several tables that are one training share its result."""
    import hashlib

    said = (replace(row, seeds=1), options.seed, options.minutes, options.batch)
    digest = hashlib.sha256(repr((*said, options.grid, options.encoder)).encode())
    return options.out / "trained" / f"{digest.hexdigest()[:16]}.json"


def take_encoder(network: VariantNet, name: str) -> None:
    """Give a fresh network the encoder of a model."""
    other, _ = checkpoint.load(checkpoint.resolve(name))
    mine = network.state_dict()
    theirs = {
        k: v
        for k, v in other.state_dict().items()
        if k.startswith(ENCODER) and mine[k].shape == v.shape
    }
    network.load_state_dict({**mine, **theirs})


def measure(network: torch.nn.Module, options: argparse.Namespace) -> list[ObjectRow]:
    """Let the robot click the validation objects, without a cascade."""
    objects = micro_objects(
        options.data,
        SPLIT,
        "validation",
        max_per_set=options.objects,
        sets=options.sets,
    )
    network.grid_size = options.grid
    settings = RunSettings(max_clicks=options.clicks, target=0.90)
    found = {
        r.key: r
        for r in evaluate_objects(
            lambda: Segmenter(network, device="auto"), objects, settings=settings
        )
    }
    return [found[item.key] for item in objects]


def table(out: Path) -> str:
    """Lay the results out, each row against the first of its table."""
    lines = ["# Ablations in kind", "", "Negative differences favour the row.", ""]
    for name, rows in TABLES.items():
        lines += [
            f"## {name}",
            "",
            "| row | seeds | steps | objects | NoC@85 | NoC@90 | IoU@1 | IoU@5 "
            "| Δ NoC@90 | interval |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
        ]
        first: dict[tuple[int, str], ObjectRow] = {}
        for key in rows:
            found = [
                json.loads(p.read_text())
                for p in sorted(out.glob(f"{name}-{key}-*.json"))
            ]
            mine = {
                (f["seed"], r["key"]): ObjectRow.from_dict(r)
                for f in found
                for r in f["rows"]
            }
            if not found:
                lines.append(f"| {key} | not run |" + " |" * 8)
                continue
            first = first or mine
            lines.append(_line(key, found, mine, first))
        lines.append("")
    return "\n".join(lines)


def _line(
    key: str,
    found: list[dict],
    mine: Mapping[tuple[int, str], ObjectRow],
    first: Mapping[tuple[int, str], ObjectRow],
) -> str:
    runs = [r.ious for r in mine.values()]
    shared = sorted(mine.keys() & first.keys())
    most = max(len(r.ious) for r in (*mine.values(), *first.values()))
    change = np.array(
        [
            clicks_to(mine[k].ious, 0.9, most) - clicks_to(first[k].ious, 0.9, most)
            for k in shared
        ],
        float,
    )
    cells = ["–", "–"]
    if shared and mine is not first:
        images = [f"{mine[k].set_name}/{mine[k].image_name}" for k in shared]
        means = bootstrap_means(change, images, np.random.default_rng(0))
        low, high = np.quantile(means, (0.025, 0.975))
        cells = [f"{change.mean():+.2f}", f"{low:+.2f} to {high:+.2f}"]
    steps = round(np.mean([f["steps"] for f in found]))
    return (
        f"| {key} | {len(found)} | {steps} | {len(runs)} "
        f"| {mean_clicks_to(runs, 0.85):.2f} | {mean_clicks_to(runs, 0.9):.2f} "
        f"| {mean_iou_at(runs, 1):.3f} | {mean_iou_at(runs, 5):.3f} "
        f"| {cells[0]} | {cells[1]} |"
    )


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
        command.add_argument("packs", type=Path)
        command.add_argument("data", type=Path)
        command.add_argument("out", type=Path)
        command.add_argument("--minutes", type=float, default=20)
        command.add_argument("--batch", type=int, default=8)
        command.add_argument("--grid", type=int, default=128)
        command.add_argument("--settle", type=int, default=40)
        command.add_argument("--objects", type=int, default=12, help="per set")
        command.add_argument("--clicks", type=int, default=20)
        command.add_argument("--sets", nargs="+", help="[all with validation images]")
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
        print(table(options.out))
        return
    (options.out / "trained").mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.command == "run":
        print(run(options.row, options))
        return
    for name in names:
        group, key = name.split("/")
        for seed in range(TABLES[group][key].seeds):
            options.seed = seed
            print(run(name, options), flush=True)


if __name__ == "__main__":
    main()
