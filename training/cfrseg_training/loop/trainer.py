"""The training loop, from top to bottom.

A step draws windows, varies them, runs the rounds and descends; the learning rate
follows a cosine over a budget of seconds or of steps; a moving average of the weights
is what is evaluated and kept. A run that was stopped continues from its state.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cfrseg_training.configuration import TrainConfig
from cfrseg_training.loop import run_state, training_step
from cfrseg_training.loop.atlas import Atlas, WindowBatch
from cfrseg_training.loop.augmentation import recombined, vary
from cfrseg_training.loop.training_step import RoundsConfig, StepResult
from napari_cfrseg.model.network import ClickNetwork

_log = logging.getLogger(__name__)

#: what of a trainer is in its state as it is
_KEPT = ("step", "elapsed_s", "history", "best", "stale")
#: network, number of windows and their grid, chance of the windows and of the host
Step = Callable[[ClickNetwork, int, int, torch.Generator, torch.Generator], StepResult]


class Trainer:
    """Train a network on an atlas.

    The network is trained in place, on the atlas's device. The run's state is kept at
    ``state_path``; an existing one is resumed. ``validation`` are windows for the quick
    validation. ``watch`` is called after every step; it may wait (a pause, which the
    budget does not count) and returns False to stop. ``step`` draws and runs a batch in
    place of ``train_step``.
    """

    def __init__(
        self,
        network: ClickNetwork,
        atlas: Atlas,
        config: TrainConfig,
        state_path: Path,
        validation: list[WindowBatch] | None = None,
        clock: Callable[[], float] = time.monotonic,
        watch: Callable[[Trainer], bool] | None = None,
        step: Step | None = None,
    ) -> None:
        if config.budget_s is None and config.steps is None:
            raise ValueError("a run needs an end: give budget_s or steps")
        self.device = atlas.device
        self.network = network.to(self.device)
        self.network.to(memory_format=torch.channels_last)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = config.norm_momentum
        self.atlas = atlas
        self.config = config
        self.state_path = state_path
        self.validation = validation or []
        self.clock = clock
        self.watch = watch
        self.run_step = step
        halves = {"bfloat16": torch.bfloat16, "float16": torch.float16}
        self.half = halves.get(config.autocast)
        scales = self.half is torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scales)
        self.best: dict[str, Any] | None = None
        self.stale = 0
        #: this process wants to stop before the end; all processes have agreed to
        self.stopping = self.stopped = False
        self._saved_at = self._validated_at = 0.0
        self.average = run_state.MovingAverage(self.network, config.ema)
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}]
        groups.append({"params": others, "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(
            groups,
            weight_decay=config.weight_decay,
            lr=config.learning_rate,
            fused=self.device.type == "cuda",
        )
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.host = torch.Generator().manual_seed(config.seed)
        self.step = 0
        self.elapsed_s = 0.0
        #: the first process's ``elapsed_s`` at the last exchange
        self.agreed_s = 0.0
        self.history: list[dict[str, float]] = []
        self._resume()

    def run(self) -> ClickNetwork:
        """Train to the end of the budget (or ``stop_after_s``); return the average."""
        start, before = self.clock(), self.elapsed_s
        self._saved_at = self._validated_at = start
        limit = self.config.stop_after_s or math.inf
        self._prepare()
        while self.progress() < 1.0 and not self.stopped:
            loss, reached = self._descend()
            self.average.update(self.network)
            now = self.clock()
            self.elapsed_s = before + now - start
            if self.step % self.config.average_every == 0:
                self._average_processes()
            if self.step % self.config.note_every == 0:
                self._note(float(loss), [float(v) for v in reached])
            self._validate_and_save(now)
            self.stopping |= now - start > limit
            start += self._ask_watcher()
            if run_state.process_count() == 1:
                self.stopped = self.stopping
        last = self.history[-1] if self.history else {}
        if "noc90" not in last or last["step"] != self.step:
            self.validate()
        self.save()
        if self.best is not None:
            self.average.network.load_state_dict(self.best["network"])
        return self.average.network

    # -- schedule --------------------------------------------------------------------

    def progress(self) -> float:
        """Share of the budget that is used, 0 to 1."""
        shares = [0.0]
        if self.config.budget_s is not None:
            passed = self.agreed_s if run_state.process_count() > 1 else self.elapsed_s
            shares.append(passed / self.config.budget_s)
        if self.config.steps is not None:
            shares.append(self.step / self.config.steps)
        return min(1.0, max(shares))

    def grid_and_batch(self) -> tuple[int, int]:
        """Return the present grid and how many windows a step draws on it."""
        own = self.network.grid_size
        grid = own
        for until, coarse in reversed(self.config.grids):
            if self.progress() < until:
                grid = coarse
        return grid, max(1, round(self.config.batch * (own / grid) ** 2))

    def learning_rate(self) -> float:
        """Return the rate of the next step: warm-up, then cosine down to 1 %."""
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress()))
        return self.config.learning_rate * warm * (0.01 + 0.99 * cosine)

    def _ask_watcher(self) -> float:
        """Return the seconds the watcher waited, which cost no budget."""
        if self.watch is None:
            return 0.0
        before = self.clock()
        self.stopping |= not self.watch(self)
        return self.clock() - before

    def _prepare(self) -> None:
        self.network.train()
        if self.config.frozen_norms:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        if self.config.compile:
            for stage in ("embed_image", "embed_clicks", "refine"):
                compiled = torch.compile(getattr(self.network, stage), dynamic=False)
                setattr(self.network, stage, compiled)

    # -- one step --------------------------------------------------------------------

    def _descend(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss, reached = torch.zeros((), device=self.device), []
        for share in self._batches():
            result = self.evaluate(self.network, self.config.rounds)
            torch.autograd.backward(self.scaler.scale(result.loss * share))
            loss = loss + result.loss.detach() * share
            reached.append(result.iou)
        if self._shares_gradients():
            trained = [p for p in self.network.parameters() if p.requires_grad]
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
            loss, *grads = self._exchange([loss, *grads])
            for parameter, grad in zip(trained, grads, strict=True):
                parameter.grad = grad.clone()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        return loss, [torch.stack(v).mean() for v in zip(*reached, strict=True)]

    def _batches(self) -> Iterator[float]:
        """Yield each batch's share of the gradient, with its generators seeded."""
        own = self.config.accumulate
        if own == 1 and not self.config.synchronous:
            yield 1.0
            return
        shared = self._shares_gradients()
        first = own * run_state.process_rank() if shared else 0
        for number in range(first, first + own):
            seed = (1_000_003 * self.config.seed + self.step) * 4096 + number
            self.generator.manual_seed(seed)
            self.host.manual_seed(seed)
            yield 1 / (own * (run_state.process_count() if shared else 1))

    def evaluate(self, network: ClickNetwork, rounds: RoundsConfig) -> StepResult:
        """Draw a batch and run a network, in training mode, through its rounds."""
        grid, count = self.grid_and_batch()
        if self.run_step is not None:
            return self.run_step(network, count, grid, self.generator, self.host)
        batch = self.draw(count, grid)
        half = self.half
        with torch.autocast(self.device.type, half, enabled=half is not None):
            chance = self.generator, self.host
            return training_step.train_step(network, batch, rounds, *chance)

    def draw(self, count: int, grid: int) -> WindowBatch:
        """Draw windows as a step sees them: recombined and varied."""
        config, chance = self.config, self.generator
        plain = partial(self.atlas.draw, count, grid, chance, config.windows)
        batch = plain()
        if config.suem is not None:
            batch = recombined(batch, plain, chance, config.suem)
        image = vary(batch.image, chance, config.photometry)
        image = image.contiguous(memory_format=torch.channels_last)
        return replace(batch, image=image)

    # -- several processes -----------------------------------------------------------

    def _shares_gradients(self) -> bool:
        return self.config.synchronous and run_state.process_count() > 1

    @torch.no_grad()
    def _average_processes(self) -> None:
        """Average weights and normalisation statistics over the processes."""
        if run_state.process_count() == 1:
            return
        tensors: list[torch.Tensor] = [*self.network.parameters()]
        tensors += [b for b in self.network.buffers() if b.is_floating_point()]
        sums = self._exchange(tensors)
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total / run_state.process_count())

    def _exchange(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """Sum tensors over the processes; take the first's clock and wish to stop."""
        own = self.elapsed_s, self.stopping
        sums, (self.agreed_s, stops) = run_state.summed_over_processes(tensors, own)
        self.stopped = stops > 0
        return sums

    # -- validation and state --------------------------------------------------------

    def _validate_and_save(self, now: float) -> None:
        if now - self._validated_at > self.config.validate_every_s:
            self.validate()
            self._validated_at = self.clock()
        if now - self._saved_at > self.config.save_every_s:
            self.save()
            self._saved_at = self.clock()

    def _note(self, loss: float, reached: list[float]) -> None:
        row = {"step": self.step, "elapsed_s": self.elapsed_s, "loss": loss}
        row |= {f"iou{i}": value for i, value in enumerate(reached)}
        self.history.append(row)
        rounds = " ".join(f"{value:.3f}" for value in reached)
        message = "step %d  %.0f s  loss %.4f  iou %s"
        _log.info(message, self.step, self.elapsed_s, loss, rounds)

    def validate(self) -> dict[str, float]:
        """Let the robot click in the validation windows; note and return the means."""
        if not self.validation:
            return {}
        network = self.average.network
        clicked = partial(training_step.clicks_to_reach, network, autocast=self.half)
        row = {"step": float(self.step), "elapsed_s": self.elapsed_s}
        row |= training_step.summary(torch.cat([*map(clicked, self.validation)]))
        self.history.append(row)
        _log.info("clicks to 85 and 90 %%: %.2f, %.2f", row["noc85"], row["noc90"])
        self._remember(row)
        return row

    def _remember(self, row: dict[str, float]) -> None:
        """Keep the weights if they are the best so far, else count up ``stale``."""
        if not (self.config.keep_best or self.config.patience):
            return
        score = (row["noc90"], -row["iou5"])
        if self.best is None or score < tuple(self.best["score"]):
            weights = self.average.network.state_dict()
            kept = {k: v.detach().cpu().clone() for k, v in weights.items()}
            self.best = {"score": list(score), "step": self.step, "network": kept}
            self.stale = 0
            return
        self.stale += 1
        if self.config.patience is not None and self.stale >= self.config.patience:
            self.stopping = True

    def save(self) -> None:
        """Write the state; with several processes the first one does."""
        if run_state.process_rank():
            return
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {name: getattr(self, name) for name in _KEPT}
        state |= {
            "average_count": self.average.count,
            "generator": self.generator.get_state(),
            "host": self.host.get_state(),
        }
        run_state.write_state(state, self.state_path)

    def _parts(self) -> dict[str, Any]:
        """Parts of the run with a state dictionary, by their names in the state."""
        return {
            "network": self.network,
            "average": self.average.network,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
        }

    def _resume(self) -> None:
        state: dict[str, Any] | None = None
        if run_state.process_rank() == 0 and self.state_path.exists():
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        state = run_state.decided_by_first(state)
        if state is None:
            return
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.average.count = state["average_count"]
        self.generator.set_state(state["generator"])
        self.host.set_state(state["host"])
        for name in _KEPT:
            setattr(self, name, state[name])
        self.agreed_s = self.elapsed_s
        patience = self.config.patience
        self.stopped = patience is not None and self.stale >= patience
        if run_state.process_rank():
            # the state is the first process's; the others draw windows of their own
            own = self.config.seed + self.step
            self.generator.manual_seed(own)
            self.host.manual_seed(own)
