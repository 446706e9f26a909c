"""Fine-tune a model on one's own labels, and keep it only if it needs fewer clicks.

Some images are held out; a robot user clicks their objects with the model before and
with the model after. The difference in clicks to 90 % IoU, with a bootstrap interval
over objects, decides: *kept* (fewer clicks, interval below 0), *not proven* (interval
holds 0) or *refused* (more clicks).
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cfrseg_training.atlas import Atlas, Sample
from cfrseg_training.loop import TrainConfig, Trainer
from cfrseg_training.packed import to_uint8
from cfrseg_training.suem import SuemRecipe
from napari_cfrseg import checkpoint
from napari_cfrseg.atomic import atomic_path
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import CfrSegError, DatasetError
from napari_cfrseg.evaluation.compare import bootstrap_means
from napari_cfrseg.evaluation.folders import LabelFolder
from napari_cfrseg.evaluation.loop import RunSettings
from napari_cfrseg.evaluation.objects import BenchmarkObject, sample_objects
from napari_cfrseg.evaluation.processes import evaluate_objects
from napari_cfrseg.evaluation.rows import ObjectRow
from napari_cfrseg.evaluation.scores import clicks_to, mean_clicks_to, mean_iou_at

_log = logging.getLogger(__name__)

Verdict = Literal["kept", "not proven", "refused"]
#: share of the images held out, at least one
HELD_OUT = 0.25
#: objects the robot clicks before and after
JUDGED_OBJECTS = 60


@dataclass(frozen=True, slots=True)
class Figures:
    """What the robot needed on the held-out objects."""

    objects: int
    noc85: float
    noc90: float
    iou1: float
    iou5: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A fine-tuning and its judgement.

    Attributes
    ----------
    verdict
        "kept", "not proven" or "refused".
    before, after
        Figures of the base model and of the fine-tuned one.
    difference, low, high
        Mean change in clicks to 90 %, after − before, and its 95 % interval.
    held_out
        Names of the images that were not trained on.
    steps, seconds
        Of training.
    """

    verdict: Verdict
    before: Figures
    after: Figures
    difference: float
    low: float
    high: float
    held_out: tuple[str, ...]
    steps: int
    seconds: float


def readable_pairs(folder: LabelFolder) -> tuple[list[str], dict[str, str]]:
    """Return the names whose image and labels fit, and the others with the reason."""
    good, broken = [], {}
    for name in folder.names():
        try:
            plane = folder.read_plane(name, None)
        except (CfrSegError, OSError, ValueError) as error:
            broken[name] = " ".join(str(error).split())
            continue
        if plane.labels.any():
            good.append(name)
        else:
            broken[name] = "its labels are empty"
    return good, broken


def hold_out(names: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Split names into those trained on and those held out (a quarter, at least 1).

    Raises
    ------
    DatasetError
        Fewer than two images.
    """
    if len(names) < 2:
        msg = (
            f"{len(names)} usable image: fine-tuning needs at least 2, one of them to "
            "judge the result on"
        )
        raise DatasetError(msg)
    order = np.random.default_rng(seed).permutation(len(names))
    count = max(1, round(HELD_OUT * len(names)))
    held = {names[i] for i in order[:count]}
    return [n for n in names if n not in held], sorted(held)


def read_samples(folder: LabelFolder, names: Sequence[str]) -> list[Sample]:
    """Read labelled planes for training; of a stack, every plane with labels."""
    chosen = replace(folder, image_names=tuple(names))
    planes = dict.fromkeys((o.image_name, o.plane) for o in chosen.objects())
    samples = []
    for name, plane in planes:
        annotated = chosen.read_plane(name, plane)
        pixels = to_uint8(annotated.image)
        samples.append(Sample(pixels, annotated.labels[0], folder.name, name))
    return samples


def judge(
    weights: Path, objects: Sequence[BenchmarkObject], threads: int | None
) -> list[ObjectRow]:
    """Let the robot click the objects with a model; rows in the objects' order."""
    factory = partial(Segmenter.load, weights, device="auto", threads=threads)
    settings = RunSettings(max_clicks=20, target=0.90)
    rows = {r.key: r for r in evaluate_objects(factory, objects, settings=settings)}
    return [rows[item.key] for item in objects]


def figures(rows: Sequence[ObjectRow]) -> Figures:
    """Summarise rows."""
    runs = [row.ious for row in rows]
    return Figures(
        len(rows),
        mean_clicks_to(runs, 0.85),
        mean_clicks_to(runs, 0.90),
        mean_iou_at(runs, 1),
        mean_iou_at(runs, 5),
    )


def compare(
    before: Sequence[ObjectRow], after: Sequence[ObjectRow], seed: int
) -> tuple[Verdict, float, float, float]:
    """Return the verdict, the mean change in clicks to 90 % and its interval."""
    change = np.array(
        [
            clicks_to(b.ious, 0.90) - clicks_to(a.ious, 0.90)
            for a, b in zip(before, after, strict=True)
        ],
        float,
    )
    # objects, not images, are resampled: one held-out image must do
    each = [row.key for row in before]
    means = bootstrap_means(change, each, np.random.default_rng(seed))
    low, high = (float(v) for v in np.quantile(means, (0.025, 0.975)))
    mean = float(change.mean())
    verdict: Verdict = "not proven"
    if high < 0:
        verdict = "kept"
    elif mean > 0:
        verdict = "refused"
    return verdict, mean, low, high


def fine_tune(
    folder: LabelFolder,
    output: Path,
    *,
    base: str = "default",
    minutes: float = 15.0,
    keep_unproven: bool = False,
    suem: SuemRecipe | None = None,
    config: TrainConfig | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Outcome:
    """Fine-tune a model and write it where it is better.

    Parameters
    ----------
    folder
        Images and labels.
    output
        The new weights file; written when the verdict is "kept" (or "not proven" and
        ``keep_unproven``). A report stands beside it in any case.
    base
        Name or path of the model to start from.
    minutes
        Of training; judging comes on top.
    suem
        Copy-paste recipe; None: the default recipe.
    config
        The run; by default small steps for the given minutes.

    Raises
    ------
    DatasetError
        No usable pair, or only one.
    CheckpointError
        No such base model.
    """
    source = checkpoint.resolve(base)
    names, broken = readable_pairs(folder)
    for name, reason in broken.items():
        _log.warning("left out %s: %s", name, reason)
    trained_on, held_out = hold_out(names, seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    judged = replace(folder, image_names=tuple(held_out))
    objects = sample_objects(list(judged.objects()), JUDGED_OBJECTS, seed=seed)
    if not objects:
        msg = f"no object of {folder.min_area_px} px or more in {', '.join(held_out)}"
        raise DatasetError(msg)
    before = judge(source, objects, threads)
    _log.info("before: %s", figures(before))
    network, metadata = checkpoint.load(source)
    config = config or TrainConfig(
        budget_s=60 * minutes,
        batch=8 if device == "cpu" else 64,
        learning_rate=2e-4,
        warmup_steps=50,
        ema=0.99,
        autocast="bfloat16" if device == "cuda" else "float32",
        seed=seed,
        suem=suem or SuemRecipe(mix=0.2),
    )
    atlas = Atlas(read_samples(folder, trained_on), device)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(network, atlas, config, Path(scratch) / "state.pt")
        tuned = trainer.run()
        candidate = Path(scratch) / output.name
        described = replace(
            metadata,
            name=output.stem,
            training_data=[*metadata.training_data, f"fine-tuned on {folder.name}"],
            licence="yours: fine-tuned on your images",
            seed=seed,
            steps=trainer.step,
            validation={},
        )
        checkpoint.save(candidate, tuned, described)
        after = judge(candidate, objects, threads)
        verdict, mean, low, high = compare(before, after, seed)
        outcome = Outcome(
            verdict,
            figures(before),
            figures(after),
            mean,
            low,
            high,
            tuple(held_out),
            trainer.step,
            time.monotonic() - start,
        )
        if verdict == "kept" or (verdict == "not proven" and keep_unproven):
            described = replace(described, validation=asdict(outcome))
            checkpoint.save(output, tuned, described)
    with atomic_path(output.with_suffix(".report.json")) as report:
        report.write_text(json.dumps({**asdict(outcome), "left_out": broken}, indent=1))
    return outcome
