"""Fine-tune a model on one's own labels, and keep it only if it needs fewer clicks.

Images are held out (:mod:`cfrseg_training.finetune.gate` says how); a robot clicks
their objects with the model before and after. With few images every one is held out in
turn: each training has the same share of the time, and the model that is kept was
trained on all.
"""

from __future__ import annotations

import json
import logging
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cfrseg_training.finetune.curve import curve_windows
from cfrseg_training.finetune.fit import chance_of_fit
from cfrseg_training.finetune.gate import (
    Change,
    Fold,
    Split,
    Verdict,
    bundled_objects,
    compare,
    decide,
    figures,
    judge,
    judged_objects,
    split_data,
    suggestions,
)
from cfrseg_training.finetune.outcome import LogReporter, Outcome, Reporter
from cfrseg_training.loop.atlas import Atlas, WindowBatch
from cfrseg_training.loop.checkpoints import write_weights
from cfrseg_training.loop.labelled import LabelledData, LabelledPlane, describe
from cfrseg_training.loop.suem import SuemRecipe
from cfrseg_training.loop.trainer import TrainConfig, Trainer
from napari_cfrseg.errors import TrainingError
from napari_cfrseg.evaluation.datasets import BenchmarkObject
from napari_cfrseg.evaluation.scores import ObjectRow
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.model import weights_file as checkpoint

_log = logging.getLogger(__name__)

_NO_CHANGE = Change(0.0, 0.0, 0.0)


def default_config(seconds: float, seed: int = 0) -> TrainConfig:
    """Return how own labels are trained on: small steps, statistics left alone."""
    on_gpu = torch.cuda.is_available()
    return TrainConfig(
        budget_s=seconds,
        batch=64 if on_gpu else 8,
        learning_rate=2e-4,
        warmup_steps=10,
        ema=0.99,
        autocast="bfloat16" if on_gpu else "float32",
        seed=seed,
        suem=SuemRecipe(mix=0.2),
        frozen_norms=True,
        validate_every_s=max(20.0, seconds / 12),
        save_every_s=20.0,
        note_every=5,
    )


def fine_tune(
    data: LabelledData,
    output: Path,
    *,
    base: str = "default",
    minutes: float = 15.0,
    keep_unproven: bool = False,
    config: TrainConfig | None = None,
    seed: int = 0,
    threads: int | None = None,
    work: Path | None = None,
    reporter: Reporter | None = None,
    forgetting: bool = True,
) -> Outcome:
    """Fine-tune a model and write it where it is better.

    Parameters
    ----------
    data
        Labelled planes (:func:`cfrseg_training.loop.labelled.read_data`).
    output
        The new weights file; written when the verdict is "kept" (or "not proven" and
        ``keep_unproven``). A report stands beside it in any case.
    base
        Name or path of the model to start from.
    minutes
        Of training; judging comes on top.
    config
        The run; by default :func:`default_config`. Its budget is shared by the folds.
    seed, threads
        Of everything drawn; CPU threads of the robot's model.
    work
        Folder of the states: a run that was killed goes on from them. By default a
        temporary one.
    reporter
        Hears of progress, and may pause or stop.
    forgetting
        Whether the bundled micrographs are clicked, too.

    Raises
    ------
    DatasetError
        Nothing to judge on.
    CheckpointError
        No such base model.
    TrainingError
        The state or the weights cannot be written, or the data are not those of the
        states in ``work``.
    """
    keeps_work = work is not None
    with ExitStack() as stack:
        if work is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = _Options(
            output, base, minutes, keep_unproven, seed, threads, keeps_work
        )
        return _FineTuning(
            data, options, config, work, reporter or LogReporter(), forgetting
        ).run()


@dataclass(frozen=True, slots=True)
class _Options:
    output: Path
    base: str
    minutes: float
    keep_unproven: bool
    seed: int
    threads: int | None
    keeps_work: bool


class _FineTuning:
    """One fine-tuning from beginning to end; see :func:`fine_tune`."""

    def __init__(
        self,
        data: LabelledData,
        options: _Options,
        config: TrainConfig | None,
        work: Path,
        reporter: Reporter,
        forgetting: bool,
    ) -> None:
        self.data = data
        self.options = options
        self.work = work
        self.reporter = reporter
        self.source = checkpoint.resolve(options.base)
        self.split: Split = split_data(data, options.seed)
        folds = len(self.split.folds)
        self.trainings = 1 if folds == 1 else folds + 1
        seconds = 60 * options.minutes / self.trainings
        self.config = config or default_config(seconds, options.seed)
        if config is not None and config.budget_s is not None:
            self.config = replace(config, budget_s=config.budget_s / self.trainings)
        self.objects = [
            judged_objects(fold, folds, options.seed) for fold in self.split.folds
        ]
        self.bundled = bundled_objects() if forgetting else []
        self.is_first = not dist.is_initialized() or dist.get_rank() == 0
        self.stopped = False
        self.judging_s = 0.0
        self.steps = self._told = 0
        self.start = time.monotonic()

    def run(self) -> Outcome:
        """Judge, train, judge, decide, write."""
        self._check_same_data()
        self._say("judging before", 0.0, message=describe(self.data.planes))
        chance = chance_of_fit(self.data.planes)
        asked = time.monotonic()
        before = [
            self._judged(self.source, objects, f"before-{index}")
            for index, objects in enumerate(self.objects)
        ]
        bundled_before = self._judged(self.source, self.bundled, "bundled-before")
        self.judging_s = time.monotonic() - asked
        after: list[list[ObjectRow]] = []
        candidate = self.source
        for index, fold in enumerate(self.split.folds):
            if self.stopped:
                break
            candidate = self._train(index, fold.trained, fold, self.objects[index])
            self._say("judging after", 0.1 + 0.8 * (index + 1) / self.trainings)
            rows = self._judged(candidate, self.objects[index], f"after-{index}")
            after.append(rows)
        judged = _flat(before[: len(after)]), _flat(after)
        change = compare(*judged, self.options.seed) if self.is_first else _NO_CHANGE
        verdict = decide(change, chance)
        unproven = verdict == "not proven" and self.options.keep_unproven
        wanted = verdict == "kept" or unproven
        # a person may keep what is not proven: it is made ready
        final = self._agreed(verdict != "refused")
        if self.trainings > 1 and final and not self.stopped:
            candidate = self._train(len(self.split.folds), self.data.planes, None, [])
        self._say("judging after", 0.95)
        bundled = bundled_before, self._judged(candidate, self.bundled, "bundled-after")
        outcome = self._outcome(change, verdict, judged, bundled, chance)
        outcome = replace(
            outcome,
            model=str(self.options.output) if wanted else "",
            candidate=str(candidate) if self.options.keeps_work else "",
        )
        if self.is_first:
            self._write(outcome, candidate)
        return outcome

    def _outcome(
        self,
        change: Change,
        verdict: Verdict,
        judged: tuple[list[ObjectRow], list[ObjectRow]],
        bundled: tuple[list[ObjectRow], list[ObjectRow]],
        chance: float,
    ) -> Outcome:
        before, after = (figures(rows) for rows in judged)
        facts = {
            "chance": chance,
            "before": before.noc90,
            "judged": float(before.objects),
            "minutes": self.options.minutes,
        }
        was, now_is = (figures(rows) if rows else None for rows in bundled)
        return Outcome(
            verdict,
            before,
            after,
            change.difference,
            change.low,
            change.high,
            self.split.how,
            self.split.held_out,
            self.steps,
            time.monotonic() - self.start,
            was,
            now_is,
            chance,
            tuple(suggestions(verdict, self.data, facts)),
            dict(self.data.broken),
        )

    def _check_same_data(self) -> None:
        """Refuse to go on with other data than the states were made with."""
        path, found = self.work / "data.json", self.data.fingerprint()
        if not path.exists():
            if not self.is_first:
                return
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(found), encoding="utf-8")
        elif json.loads(path.read_text(encoding="utf-8")) != found:
            lost = "; ".join(f"{k}: {v}" for k, v in self.data.broken.items())
            msg = (
                f"the data are not those this training began with"
                f"{f' ({lost[:300]})' if lost else ''}: put them back to go on from "
                f"{self.work}, or start anew"
            )
            raise TrainingError(msg)

    # -- training --------------------------------------------------------------------

    def _train(
        self,
        index: int,
        planes: Sequence[LabelledPlane],
        fold: Fold | None,
        judged: Sequence[BenchmarkObject],
    ) -> Path:
        """Train on planes and return the candidate's weights file."""
        candidate = self.work / f"candidate-{index}.safetensors"
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network, metadata = checkpoint.load(self.source)
        atlas = Atlas([plane.sample() for plane in planes], device)
        windows: list[WindowBatch] = []
        own = False
        if fold is not None and self.is_first:
            windows, own = curve_windows(fold, judged, network.grid_size, device)
        config = replace(
            self.config, keep_best=own and self.config.budget_s is not None
        )
        trainer = Trainer(
            network,
            atlas,
            config,
            self.work / f"training-{index}.pt",
            windows,
            watch=lambda trainer: self._watch(index, trainer),
        )
        self._told = len(trainer.history)
        tuned = trainer.run()
        self.stopped = trainer.stopped and trainer.progress() < 1.0
        self.steps = trainer.step
        if self.is_first:
            write_weights(candidate, tuned, self._description(metadata, trainer))
        return candidate

    def _watch(self, index: int, trainer: Trainer) -> bool:
        if not self.is_first:
            return True
        for row in trainer.history[self._told :]:
            self.reporter.row({"training": float(index), **row})
        self._told = len(trainer.history)
        done = trainer.progress()
        share = 0.1 + 0.8 * (index + done) / self.trainings
        budget = self.config.budget_s or trainer.elapsed_s / max(done, 1e-6)
        left = budget * (1 - done + self.trainings - 1 - index) + self.judging_s
        message = (
            f"training {index + 1} of {self.trainings}, step {trainer.step}; "
            f"{self.split.how}"
        )
        self._say("training", share, left, message)
        return self.reporter.goes_on()

    def _description(
        self, base: checkpoint.Metadata, trainer: Trainer
    ) -> checkpoint.Metadata:
        from importlib.metadata import version

        from napari_cfrseg.session.session_models import weights_sha256

        provenance: dict[str, Any] = {
            "base": {"name": base.name, "sha256": weights_sha256(self.source)},
            "data_sha256": self.data.fingerprint(),
            "images": self.data.names,
            "config": asdict(trainer.config),
            "versions": {
                "python": platform.python_version(),
                **{n: version(n) for n in ("napari-cfrseg", "torch", "timm", "numpy")},
            },
            "device": str(trainer.device),
            "seconds": round(trainer.elapsed_s, 1),
        }
        own = f"own images ({describe(self.data.planes)}), not published"
        return replace(
            base,
            name=self.options.output.stem,
            training_data=[*base.training_data, own],
            licence=f"{base.licence} (base model); the fine-tuning images are yours",
            seed=self.options.seed,
            steps=trainer.step,
            validation={},
            provenance=provenance,
        )

    # -- judging ---------------------------------------------------------------------

    def _judged(
        self, weights: Path, objects: Sequence[BenchmarkObject], kept_as: str
    ) -> list[ObjectRow]:
        """Click objects; what was done before a kill is read, not done again."""
        if not self.is_first or not objects:
            return []
        path = self.work / f"{kept_as}.json"
        if path.exists():
            listed = json.loads(path.read_text(encoding="utf-8"))
            rows = [ObjectRow.from_dict(values) for values in listed]
            if [row.key for row in rows] == [item.key for item in objects]:
                return rows
        rows = judge(weights, objects, self.options.threads)
        with atomic_path(path) as temporary:
            text = json.dumps([row.to_dict() for row in rows])
            temporary.write_text(text, encoding="utf-8")
        return rows

    def _agreed(self, wanted: bool) -> bool:
        """Tell the first process's decision to all."""
        if not dist.is_initialized():
            return wanted
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        flag = torch.tensor([float(wanted)], device=device)
        dist.broadcast(flag, 0)
        return bool(flag[0] > 0)

    def _say(
        self, phase: str, share: float, eta_s: float | None = None, message: str = ""
    ) -> None:
        if self.is_first:
            self.reporter.phase(phase, share, eta_s, message)

    def _write(self, outcome: Outcome, candidate: Path) -> None:
        output = self.options.output
        if outcome.model:
            network, said = checkpoint.load(candidate)
            write_weights(output, network, replace(said, validation=asdict(outcome)))
        with atomic_path(output.with_suffix(".report.json")) as report:
            report.write_text(json.dumps(asdict(outcome), indent=1), encoding="utf-8")


def _flat(groups: Sequence[Sequence[ObjectRow]]) -> list[ObjectRow]:
    return [row for rows in groups for row in rows]
