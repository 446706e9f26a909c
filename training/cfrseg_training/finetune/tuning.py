"""Fine-tune a model on one's own labels, and keep it only if it needs fewer clicks.

Images are held out; a robot clicks their objects with the model before and after. With
few images every one is held out in turn: each training has the same share of the time,
and the model that is kept was trained on all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cfrseg_training.configuration import Settings, TrainConfig
from cfrseg_training.finetune import gate, held_out
from cfrseg_training.finetune.held_out import Fold
from cfrseg_training.loop.atlas import Atlas, WindowBatch
from cfrseg_training.loop.labelled import LabelledData, LabelledPlane, describe
from cfrseg_training.loop.run_state import decided_by_first, process_rank, write_weights
from cfrseg_training.loop.trainer import Trainer
from napari_cfrseg.errors import TrainingError
from napari_cfrseg.evaluation.datasets import BenchmarkObject
from napari_cfrseg.evaluation.scores import ResultRow
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.training_job import JobReporter

_log = logging.getLogger(__name__)

_NO_CHANGE = gate.Change(0.0, 0.0, 0.0)


class LogReporter:
    """Writes phases into the log, in place of a job's folder."""

    def phase(
        self, name: str, share: float, eta_s: float | None = None, message: str = ""
    ) -> None:
        """Log a phase once, when it begins."""
        if message:
            _log.info("%s: %s", name, message)

    def row(self, row: Mapping[str, float]) -> None:
        """Do nothing."""

    def may_continue(self) -> bool:
        """Return True: it runs to its end. False stops it and keeps the best so far."""
        return True


#: receives progress and returns what the user wants
Reporter: TypeAlias = LogReporter | JobReporter


def fine_tune(
    data: LabelledData,
    settings: Settings,
    *,
    config: TrainConfig | None = None,
    work: Path | None = None,
    reporter: Reporter | None = None,
) -> gate.Outcome:
    """Fine-tune a model and write it where it is better.

    ``settings.data`` is not read. ``config`` is the run, if not the settings'; the
    folds share its budget. ``work`` is the folder of the states (by default a temporary
    one): a run that was killed continues from them. Raises DatasetError if there is
    nothing to judge on, CheckpointError if there is no such base model, TrainingError
    if something cannot be written or the data are not those of the states in ``work``.
    """
    with ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = config or settings.train_config()
        run = _FineTuning(data, settings, config, folder, reporter or LogReporter())
        run.keeps_work = work is not None
        return run.run()


class _FineTuning:
    """One fine-tuning from beginning to end; see :func:`fine_tune`."""

    def __init__(
        self,
        data: LabelledData,
        settings: Settings,
        config: TrainConfig,
        work: Path,
        reporter: Reporter,
    ) -> None:
        if settings.output is None:
            raise TrainingError("no output: where the new model is to be written")
        self.output = settings.output
        self.data = data
        self.settings = settings
        self.work = work
        self.reporter = reporter
        self.source = checkpoint.resolve(settings.base)
        self.split = held_out.split_data(data, settings.seed)
        folds = len(self.split.folds)
        self.trainings = 1 if folds == 1 else folds + 1
        self.config = config
        if config.budget_s is not None:
            self.config = replace(config, budget_s=config.budget_s / self.trainings)
        judged = partial(held_out.judged_objects, folds=folds, seed=settings.seed)
        self.objects = [*map(judged, self.split.folds)]
        self.bundled = gate.bundled_objects() if settings.forgetting else []
        self.is_first = process_rank() == 0
        self.stopped = False
        self.keeps_work = True
        self.judging_s = 0.0
        self.steps = self._reported = 0
        self.start = time.monotonic()

    def run(self) -> gate.Outcome:
        """Judge, train, judge, decide, write."""
        self._check_same_data()
        self._report("judging before", 0.0, message=describe(self.data.planes))
        chance = gate.chance_of_fit(self.data.planes)
        began = time.monotonic()
        before = [
            self._judged(self.source, objects, f"before-{index}")
            for index, objects in enumerate(self.objects)
        ]
        bundled_before = self._judged(self.source, self.bundled, "bundled-before")
        self.judging_s = time.monotonic() - began
        after: list[list[ResultRow]] = []
        candidate = self.source
        for index, fold in enumerate(self.split.folds):
            if self.stopped:
                break
            candidate = self._train(index, fold.trained, fold)
            self._report("judging after", 0.1 + 0.8 * (index + 1) / self.trainings)
            after.append(self._judged(candidate, self.objects[index], f"after-{index}"))
        judged = [*chain(*before[: len(after)])], [*chain(*after)]
        change = (
            gate.compare(*judged, self.settings.seed) if self.is_first else _NO_CHANGE
        )
        verdict: gate.Verdict = decided_by_first(gate.decide(change, chance))
        unproven = verdict == "not proven" and self.settings.keep_unproven
        wanted = verdict == "kept" or unproven
        # the user may keep a model that is not proven, so it is trained too
        if self.trainings > 1 and verdict != "refused" and not self.stopped:
            candidate = self._train(len(self.split.folds), self.data.planes)
        self._report("judging after", 0.95)
        bundled = bundled_before, self._judged(candidate, self.bundled, "bundled-after")
        outcome = self._outcome(change, verdict, judged, bundled, chance)
        spare = ""
        if verdict == "not proven" and not wanted:
            spare = str(self.output.with_suffix(".unproven.safetensors"))
        outcome = replace(
            outcome,
            model=str(self.output) if wanted else "",
            candidate=str(candidate) if self.keeps_work else spare,
        )
        if self.is_first:
            self._write(outcome, candidate)
            for state in self.work.glob("training-*.pt"):
                state.unlink()  # ten times the size of the model, which is kept
        return outcome

    def _outcome(
        self,
        change: gate.Change,
        verdict: gate.Verdict,
        judged: tuple[list[ResultRow], list[ResultRow]],
        bundled: tuple[list[ResultRow], list[ResultRow]],
        chance: float,
    ) -> gate.Outcome:
        before, after = (gate.figures(rows) for rows in judged)
        was, now_is = (gate.figures(rows) if rows else None for rows in bundled)
        facts = {
            "chance": chance,
            "before": before.noc90,
            "judged": float(before.objects),
            "minutes": self.settings.minutes,
        }
        interval = change.difference, change.low, change.high
        split = self.split.how, self.split.held_out
        done = self.steps, time.monotonic() - self.start
        advice = tuple(gate.suggestions(verdict, self.data, facts))
        result = (verdict, before, after, *interval, *split, *done, was, now_is)
        return gate.Outcome(*result, chance, advice, dict(self.data.broken))

    def _check_same_data(self) -> None:
        """Refuse data that are not those of the states, in all processes alike."""
        path = self.work / "data.json"
        own = f"{self.data.fingerprint()} {_tensors_sha256(self.source)}"
        began_with = own
        if self.is_first and path.exists():
            began_with = json.loads(path.read_text(encoding="utf-8"))
        elif self.is_first:
            _write_json(path, own)
        began_with = decided_by_first(began_with)
        if own != began_with:
            lost = "; ".join(f"{k}: {v}" for k, v in self.data.broken.items())
            raise TrainingError(
                f"the data or the base model are not those this training began with"
                f"{f' ({lost[:300]})' if lost else ''}: put them back to go on from "
                f"{self.work}, or begin again in another folder"
            )

    def _train(
        self, index: int, planes: Sequence[LabelledPlane], fold: Fold | None = None
    ) -> Path:
        """Train on planes and return the candidate's weights file."""
        candidate = self.work / f"candidate-{index}.safetensors"
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network, metadata = checkpoint.load(self.source)
        atlas = Atlas([plane.sample() for plane in planes], device)
        windows: list[WindowBatch] = []
        own = False
        if fold is not None and self.is_first:
            windows, own = held_out.curve_windows(
                fold, self.objects[index], network.grid_size, device
            )
        keep_best = own and self.config.budget_s is not None
        config = replace(self.config, keep_best=keep_best)
        state, watch = self.work / f"training-{index}.pt", partial(self._watch, index)
        trainer = Trainer(network, atlas, config, state, windows, watch=watch)
        self._reported = len(trainer.history)
        tuned = trainer.run()
        self.stopped = trainer.stopped and trainer.progress() < 1.0
        self.steps = trainer.step
        if self.is_first:
            write_weights(candidate, tuned, self._description(metadata, trainer))
        return candidate

    def _watch(self, index: int, trainer: Trainer) -> bool:
        if not self.is_first:
            return True
        for row in trainer.history[self._reported :]:
            self.reporter.row({"training": float(index), **row})
        self._reported = len(trainer.history)
        done = trainer.progress()
        share = 0.1 + 0.8 * (index + done) / self.trainings
        budget = self.config.budget_s or trainer.elapsed_s / max(done, 1e-6)
        left = budget * (1 - done + self.trainings - 1 - index) + self.judging_s
        message = f"training {index + 1} of {self.trainings}, step {trainer.step}"
        self._report("training", share, left, f"{message}; tested on {self.split.how}")
        return self.reporter.may_continue()

    def _description(
        self, base: checkpoint.Metadata, trainer: Trainer
    ) -> checkpoint.Metadata:
        sha256 = checkpoint.weights_sha256(self.source)
        provenance: dict[str, Any] = {
            "base": {"name": base.name, "sha256": sha256},
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
            name=self.output.stem,
            training_data=[*base.training_data, own],
            licence=f"{base.licence} (base model); the fine-tuning images are yours",
            seed=self.settings.seed,
            steps=trainer.step,
            validation={},
            provenance=provenance,
        )

    def _judged(
        self, weights: Path, objects: Sequence[BenchmarkObject], kept_as: str
    ) -> list[ResultRow]:
        """Click objects, or read what a killed run had clicked already."""
        if not self.is_first or not objects:
            return []
        path = self.work / f"{kept_as}-{_tensors_sha256(weights)[:16]}.json"
        if path.exists():
            listed = json.loads(path.read_text(encoding="utf-8"))
            rows = [ResultRow.from_dict(values) for values in listed]
            if [row.key for row in rows] == [item.key for item in objects]:
                return rows
        rows = gate.judge(weights, objects, self.settings.threads)
        _write_json(path, [asdict(row) for row in rows])
        return rows

    def _report(
        self, phase: str, share: float, eta_s: float | None = None, message: str = ""
    ) -> None:
        if self.is_first:
            self.reporter.phase(phase, share, eta_s, message)

    def _write(self, outcome: gate.Outcome, candidate: Path) -> None:
        target = outcome.model or ("" if self.keeps_work else outcome.candidate)
        if target:
            network, metadata = checkpoint.load(candidate)
            metadata = replace(metadata, validation=asdict(outcome))
            write_weights(Path(target), network, metadata)
        _write_json(self.output.with_suffix(".report.json"), asdict(outcome))


def _tensors_sha256(weights: Path) -> str:
    """Return the SHA-256 of a weights file without its description, which has times."""
    with weights.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))  # safetensors' header
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, values: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
