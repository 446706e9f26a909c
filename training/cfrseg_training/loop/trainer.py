"""The training loop, from top to bottom.

A step draws windows, varies them, runs the rounds and descends; the learning rate
follows a cosine over a budget of seconds or of steps; an exponential moving average of
the weights is what is evaluated and kept. The state is written every so often, and a
run that was stopped goes on from it.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from cfrseg_training.loop.atlas import Atlas, WindowBatch, WindowRecipe
from cfrseg_training.loop.checkpoints import write_state
from cfrseg_training.loop.norms import fresh_statistics
from cfrseg_training.loop.photometry import PhotometricRecipe, vary
from cfrseg_training.loop.suem import Scene, SuemRecipe, recombine
from cfrseg_training.loop.training_step import (
    RoundsConfig,
    StepResult,
    clicks_to_reach,
    train_step,
)
from napari_cfrseg.model.network import ClickNetwork

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that shapes a run, besides the data and the network.

    Attributes
    ----------
    budget_s, steps
        The learning rate reaches its end after so many seconds of training or so
        many steps, whichever comes first; None: no such bound.
    stop_after_s
        Seconds after which this process writes its state and returns, whatever the
        budget; a later process resumes.
    grids
        Pairs (share of the budget, grid): windows are drawn on coarse grids first,
        which costs a fraction of the network's own and teaches most of it. Empty:
        the network's grid from the start. The batch grows as the grid shrinks, so
        that each step costs about the same.
    batch, learning_rate, weight_decay, warmup_steps, clip, ema
        Batch size; AdamW's rate and decay; steps of linear warm-up; largest gradient
        norm; decay of the moving average.
    norm_momentum
        Share of the running statistics that each step's batch replaces; small batches
        want a small share, or what is kept is mostly the last few batches.
    average_every
        With several processes (``torch.distributed`` initialised): each descends on
        its own windows and the weights are averaged every so many steps (local SGD),
        so that a process held up by its neighbours stalls the others rarely.
    autocast
        ``"bfloat16"`` on a GPU, ``"float32"`` on a CPU (whose bf16 backward is slow);
        ``"float16"`` scales the loss, for GPUs without bfloat16.
    accumulate
        Batches whose gradients are averaged before each step. With more than one, and
        when ``synchronous``, every batch has a random source of its own, made of the
        seed, the step and its number, so that one process with 2 × the batches and
        two processes take the same steps.
    synchronous
        With several processes: average the gradients of every step instead of the
        weights now and then.
    frozen_norms
        Leave the statistics of batch normalisations as they are (small data).
    keep_best, patience
        Return the weights of the best quick validation; stop after so many that were
        no better. Both survive a resume.
    note_every
        Steps between two entries of the loss in the history.
    seed
        Of everything drawn.
    save_every_s, validate_every_s
        Seconds between two states and between two quick validations.
    compile
        Whether the stages are compiled (worth it on a GPU, for long runs).
    suem
        Copy-paste between windows (CFR-ICL), or None.
    windows, photometry, rounds
        How windows lie, how they look, and how their clicks are trained.
    """

    budget_s: float | None = None
    steps: int | None = None
    stop_after_s: float | None = None
    grids: tuple[tuple[float, int], ...] = ()
    batch: int = 64
    learning_rate: float = 1.5e-3
    average_every: int = 8
    weight_decay: float = 0.02
    warmup_steps: int = 300
    clip: float = 3.0
    ema: float = 0.999
    norm_momentum: float = 0.1
    autocast: str = "float32"
    seed: int = 0
    save_every_s: float = 60.0
    validate_every_s: float = 60.0
    compile: bool = False
    accumulate: int = 1
    synchronous: bool = False
    frozen_norms: bool = False
    keep_best: bool = False
    patience: int | None = None
    note_every: int = 50
    suem: SuemRecipe | None = None
    windows: WindowRecipe = field(default_factory=WindowRecipe)
    photometry: PhotometricRecipe = field(default_factory=PhotometricRecipe)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)


class MovingAverage:
    """Exponential moving average of parameters; buffers are copied.

    Parameters
    ----------
    network
        Starts as its copy.
    decay
        Approached from below: min(decay, (1 + n) / (10 + n)) at step n.
    """

    def __init__(self, network: ClickNetwork, decay: float) -> None:
        self.network: ClickNetwork = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.count = 0

    @torch.no_grad()
    def update(self, network: ClickNetwork) -> None:
        """Move towards the network's present weights."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        pairs = zip(self.network.parameters(), network.parameters(), strict=True)
        for mine, theirs in pairs:
            mine.lerp_(theirs, 1 - decay)
        for kept, new in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(new)


class Trainer:
    """Train a network on an atlas.

    Parameters
    ----------
    network
        Trained in place, on the atlas's device.
    atlas
        Training images.
    config
        The run.
    state_path
        Where the run's state is kept; an existing state is resumed.
    validation
        Windows for the quick validation, or None.
    clock
        Returns seconds; a test's own.
    watch
        Called after every step; may wait (a pause, which the budget does not count)
        and returns False to stop.
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
    ) -> None:
        if config.budget_s is None and config.steps is None:
            msg = "a run needs an end: give budget_s or steps"
            raise ValueError(msg)
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
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=config.autocast == "float16"
        )
        self.best: dict[str, Any] | None = None
        self.stale = 0
        self.stopping = self.stopped = False
        self._saved_at = self._validated_at = 0.0
        self.average = MovingAverage(self.network, config.ema)
        decayed = [p for p in network.parameters() if p.ndim > 1]
        plain = [p for p in network.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.999),
            fused=self.device.type == "cuda",
        )
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.host = torch.Generator().manual_seed(config.seed)
        self.step = 0
        self.elapsed_s = 0.0
        self.agreed_s = 0.0
        self.history: list[dict[str, float]] = []
        if state_path.exists():
            self._resume()

    def progress(self) -> float:
        """Share of the budget that is used, 0 to 1."""
        shares = [0.0]
        if self.config.budget_s is not None:
            alone = not dist.is_initialized()
            passed = self.elapsed_s if alone else self.agreed_s
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

    def run(self) -> ClickNetwork:
        """Train to the end of the budget (or ``stop_after_s``); return the average."""
        start = self.clock()
        before = self.elapsed_s
        self._saved_at = self._validated_at = start
        self._prepare()
        while self.progress() < 1.0 and not self.stopped:
            loss, reached = self._descend()
            self.average.update(self.network)
            now = self.clock()
            self.elapsed_s = before + now - start
            if self.step % self.config.average_every == 0:
                self._agree()
            if self.step % self.config.note_every == 0:
                self._note(float(loss), [float(v) for v in reached])
            self._validate_and_save(now)
            limit = self.config.stop_after_s
            if limit is not None and now - start > limit:
                break
            start += self._wait_or_stop()
        self.validate()
        self.save()
        if self.best is not None:
            self.average.network.load_state_dict(self.best["network"])
        return self.average.network

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

    def _validate_and_save(self, now: float) -> None:
        if now - self._validated_at > self.config.validate_every_s:
            self.validate()
            self._validated_at = self.clock()
        if now - self._saved_at > self.config.save_every_s:
            self.save()
            self._saved_at = self.clock()

    def _wait_or_stop(self) -> float:
        """Ask whoever watches; return the seconds waited, which cost no budget."""
        waited = 0.0
        if self.watch is not None:
            asked = self.clock()
            self.stopping |= not self.watch(self)
            waited = self.clock() - asked
        if self.stopping and not self._is_shared():
            self.stopped = True
        return waited

    def _descend(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss, reached = torch.zeros((), device=self.device), []
        for share in self._batches():
            result = self._evaluate(self.network, self.config.rounds)
            torch.autograd.backward(self.scaler.scale(result.loss * share))
            loss = loss + result.loss.detach() * share
            reached.append(result.iou)
        if self._is_shared():
            loss = self._share_gradients(loss)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        return loss, [torch.stack(v).mean() for v in zip(*reached, strict=True)]

    def _is_shared(self) -> bool:
        return self.config.synchronous and dist.is_initialized()

    def _batches(self) -> Iterator[float]:
        """Yield each batch's share of the gradient, its random sources being set."""
        own = self.config.accumulate
        if own == 1 and not self.config.synchronous:
            yield 1.0
            return
        world = dist.get_world_size() if self._is_shared() else 1
        first = own * dist.get_rank() if self._is_shared() else 0
        for number in range(first, first + own):
            seed = (1_000_003 * self.config.seed + self.step) * 4096 + number
            self.generator.manual_seed(seed)
            self.host.manual_seed(seed)
            yield 1 / (own * world)

    def _share_gradients(self, loss: torch.Tensor) -> torch.Tensor:
        """Add the processes' gradients up; agree on the clock and on stopping."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        clock = self.elapsed_s / dist.get_world_size()
        said = torch.tensor([float(loss), clock, float(self.stopping)])
        flat = torch.cat([g.reshape(-1) for g in grads] + [said.to(self.device)])
        dist.all_reduce(flat)
        parts = torch.split(flat, [*(g.numel() for g in grads), 3])
        for parameter, part in zip(trained, parts[:-1], strict=True):
            parameter.grad = part.view_as(parameter).clone()
        self.agreed_s = float(parts[-1][1])
        self.stopped = bool(parts[-1][2] > 0)
        return parts[-1][0]

    def _evaluate(self, network: ClickNetwork, rounds: RoundsConfig) -> StepResult:
        """Draw a batch and run a network, in training mode, through its rounds."""
        grid, count = self.grid_and_batch()
        batch = self.draw(count, grid)
        half = self._half()
        with torch.autocast(self.device.type, half, enabled=half is not None):
            return train_step(network, batch, rounds, self.generator, self.host)

    def draw(self, count: int, grid: int) -> WindowBatch:
        """Draw windows as a step sees them: recombined and varied."""
        config = self.config
        batch = self.atlas.draw(count, grid, self.generator, config.windows)
        if config.suem is not None:
            batch = self._recombined(batch, config.suem)
        image = vary(batch.image, self.generator, config.photometry)
        image = image.contiguous(memory_format=torch.channels_last)
        return replace(batch, image=image)

    def settle_norms(self, batches: int) -> None:
        """Take the average's normalisation statistics anew, over many batches.

        The running statistics that training leaves behind belong to the last few
        batches and to weights that moved; the averaged weights deserve their own. On
        the validation split this alone saved the shipped model half a click. The first
        clicks are run alone, without the rounds that may come before them: with those
        rounds among the statistics a first click's mask is worse by 0.02 of IoU.
        """
        network = self.average.network
        rounds = replace(self.config.rounds, earlier=0)
        with fresh_statistics(network), torch.no_grad():
            for _ in range(batches):
                self._evaluate(network, rounds)

    def _recombined(self, batch: WindowBatch, recipe: SuemRecipe) -> WindowBatch:
        """Copy-paste with further windows; unknown pixels of any of them stay so."""
        valid = batch.valid
        count, grid = batch.mask.shape[0], batch.mask.shape[-1]

        def draw_extra() -> Scene:
            nonlocal valid
            extra = self.atlas.draw(count, grid, self.generator, self.config.windows)
            valid = valid & extra.valid
            return Scene(extra.image, extra.mask)

        source = Scene(batch.image, batch.mask)
        scene = recombine(source, draw_extra, self.generator, recipe)
        others = batch.others & (scene.mask < 0.5)
        real = batch.real
        if real is not None:  # made for this very object
            same = (scene.mask == batch.mask).flatten(1).all(1).view(-1, 1, 1)
            real = torch.where(same, real, torch.full_like(real, -1.0))
        first = batch.first_click
        return WindowBatch(scene.image, scene.mask, others, valid, first, real)

    def _agree(self) -> None:
        """Average weights, normalisation statistics and clocks over the processes."""
        if not dist.is_initialized():
            return
        # the same clock for all, so that all end after the same averaging
        clock = torch.tensor([self.elapsed_s], device=self.device)
        tensors = [clock, *self.network.parameters()]
        tensors += [b for b in self.network.buffers() if b.is_floating_point()]
        with torch.no_grad():
            flat = torch.cat([t.detach().reshape(-1) for t in tensors])
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
            parts = torch.split(flat, [t.numel() for t in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))
        self.agreed_s = float(clock)

    def _note(self, loss: float, reached: list[float]) -> None:
        row = {"step": self.step, "elapsed_s": self.elapsed_s, "loss": loss}
        row |= {f"iou{i}": value for i, value in enumerate(reached)}
        self.history.append(row)
        rounds = " ".join(f"{value:.3f}" for value in reached)
        _log.info(
            "step %d  %.0f s  loss %.4f  iou %s",
            self.step,
            self.elapsed_s,
            loss,
            rounds,
        )

    def validate(self) -> dict[str, float]:
        """Let the robot click in the validation windows; return and note the means."""
        if not self.validation:
            return {}
        network = self.average.network
        half = self._half()
        reached = torch.cat(
            [clicks_to_reach(network, b, autocast=half) for b in self.validation]
        )
        row = {"step": float(self.step), "elapsed_s": self.elapsed_s}
        row |= summary(reached)
        self.history.append(row)
        _log.info("validation %s", {k: round(v, 4) for k, v in row.items()})
        self._remember(row)
        return row

    def _remember(self, row: dict[str, float]) -> None:
        """Keep the weights if they are the best so far, or count how long it was."""
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

    def _half(self) -> torch.dtype | None:
        kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16}
        return kinds.get(self.config.autocast)

    def save(self) -> None:
        """Write the state; with several processes the first one does."""
        if dist.is_initialized() and dist.get_rank():
            return
        state = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "average_count": self.average.count,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "host": self.host.get_state(),
            "history": self.history,
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "stale": self.stale,
        }
        write_state(state, self.state_path)

    def _resume(self) -> None:
        state = torch.load(self.state_path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.count = state["average_count"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.host.set_state(state["host"].cpu())
        self.step = state["step"]
        self.elapsed_s = self.agreed_s = state["elapsed_s"]
        self.history = state["history"]
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.best = state.get("best")
        self.stale = state.get("stale", 0)
        patience = self.config.patience
        self.stopped = patience is not None and self.stale >= patience
        if dist.is_initialized() and dist.get_rank():
            # the state is the first process's; the others draw windows of their own
            own = self.config.seed + self.step
            self.generator.manual_seed(own)
            self.host.manual_seed(own)


def summary(reached: torch.Tensor) -> dict[str, float]:
    """Mean clicks and IoU of (B, rounds) IoUs; never reached counts as rounds."""
    rounds = reached.shape[1]
    out = {}
    for target in (0.85, 0.90):
        hit = reached >= target
        first = torch.where(hit.any(1), hit.float().argmax(1) + 1, rounds)
        out[f"noc{round(100 * target)}"] = float(first.float().mean())
    for n in (1, 3, 5):
        out[f"iou{n}"] = float(reached[:, min(n, rounds) - 1].mean())
    return out
