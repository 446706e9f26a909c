"""Train a network as one of the papers did, on one's own labelled images.

Everything comes from the recipe. An epoch is ``epoch_length`` windows, whatever the
number of images. After each one the state is written, from which a run that was stopped
continues.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from cfrseg_training.loop.atlas import Sample, WindowBatch
from cfrseg_training.loop.augmentation import recombined
from cfrseg_training.loop.run_state import write_state, write_weights
from cfrseg_training.papers.published_steps import published_step
from cfrseg_training.papers.recipe import Recipe
from cfrseg_training.papers.recipe_windows import RecipeWindows
from napari_cfrseg.errors import CheckpointError, DatasetError
from napari_cfrseg.model import registry
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.network import ClickNetwork

_log = logging.getLogger(__name__)

#: the name ``start_network`` takes for fresh weights
RANDOM = "random"
#: what of a trainer has a state dictionary
_PARTS = ("network", "optimiser", "schedule", "scaler")


def start_network(recipe: Recipe, base: str | None = None) -> ClickNetwork:
    """Return the recipe's network with the weights training starts from.

    ``base`` is an installed model or weights file of that network, or "random"; by
    default the model of the recipe's own ``start``. Raises CheckpointError if there is
    no such model, or it is another network.
    """
    wanted = registry.named(recipe.network.name).architecture
    chosen = recipe.network.start if base is None else base
    if chosen == RANDOM:
        return registry.build(wanted)
    try:
        network, metadata = checkpoint.load(checkpoint.resolve(chosen))
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; the recipe starts {recipe.network.name} from "
            f"{recipe.network.start}: install it (cfrseg models import FILE --name "
            f"NAME, with --start {recipe.network.name} for a backbone) and name it "
            f"with --base, or give --base {RANDOM}"
        ) from error
    if registry.configure(metadata.architecture) != registry.configure(wanted):
        msg = f"{chosen} is no {recipe.network.name}, which the recipe trains"
        raise CheckpointError(msg)
    return network


def optimiser_of(network: nn.Module, recipe: Recipe) -> torch.optim.Adam:
    """Return the recipe's Adam; each parameter has the longest fitting name's rate.

    Raises ValueError if a name under ``[optimiser.scale]`` fits no parameter.
    """
    part = recipe.optimiser
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in ("", *part.scale)}
    for key, parameter in network.named_parameters():
        fitting = [n for n in part.scale if f"{key}.".startswith(f"{n}.")]
        groups[max(fitting, key=len, default="")].append(parameter)
    if idle := [name for name, members in groups.items() if name and not members]:
        raise ValueError(f"[optimiser.scale]: the network has no {', '.join(idle)}")
    rated = [
        {"params": members, "lr": part.learning_rate * part.scale.get(name, 1.0)}
        for name, members in groups.items()
        if members
    ]
    return torch.optim.Adam(
        rated, betas=part.betas, eps=part.eps, weight_decay=part.weight_decay
    )


def schedule_of(
    optimiser: torch.optim.Optimizer, recipe: Recipe
) -> torch.optim.lr_scheduler.MultiStepLR:
    """Return the recipe's schedule; step it once per epoch."""
    milestones, factor = list(recipe.schedule.milestones), recipe.schedule.factor
    return torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, factor)


@dataclass(frozen=True, slots=True)
class RecipeOutcome:
    """The result of a training by a recipe."""

    recipe: str
    network: str
    epochs: int  #: done
    steps: int  #: of the optimiser
    loss: float  #: of the last batch
    seconds: float
    model: str  #: the weights file


def train_by_recipe(
    recipe: Recipe,
    samples: Sequence[Sample],
    output: Path,
    *,
    trained_on: Sequence[str] = (),
    base: str | None = None,
    minutes: float | None = None,
    seed: int = 0,
) -> RecipeOutcome:
    """Train a recipe's network and write it; a killed run continues from its state.

    ``trained_on`` describes the images, for the file's metadata; for ``base`` see
    ``start_network``. It ends after ``minutes``, by default after the recipe's epochs.
    Raises CheckpointError if there is no such base model or it is another network,
    DatasetError if the images hold nothing the recipe can use, TrainingError if the
    state or the weights cannot be written.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    network = start_network(recipe, base)
    try:
        windows = RecipeWindows(samples, recipe, device)
        state = output.with_suffix(".state.pt")
        trainer = RecipeTrainer(network, windows, state, seed=seed)
        began = time.monotonic()
        trained = trainer.run(stop_after_s=None if minutes is None else 60 * minutes)
    except ValueError as error:
        raise DatasetError(str(error)) from error
    start = base or recipe.network.start
    metadata = checkpoint.Metadata(
        architecture=registry.complete(network.architecture()),
        name=output.stem,
        training_data=[f"recipe {recipe.name}, started from {start}", *trained_on],
        licence="yours, as far as the weights it started from allow",
        seed=seed,
        steps=trainer.steps,
    )
    write_weights(output, trained, metadata, half=False)
    state.unlink(missing_ok=True)
    done = trainer.epoch, trainer.steps, trainer.loss, time.monotonic() - began
    return RecipeOutcome(recipe.name, recipe.network.name, *done, str(output))


class RecipeTrainer:
    """Trains a network in place, on the windows' device, by their recipe.

    An existing state is resumed; without a ``state_path`` none is kept.
    """

    def __init__(
        self,
        network: ClickNetwork,
        windows: RecipeWindows,
        state_path: Path | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.recipe = windows.recipe
        self.windows = windows
        self.network = network.to(windows.device)
        self.optimiser = optimiser_of(network, self.recipe)
        self.schedule = schedule_of(self.optimiser, self.recipe)
        on_gpu = windows.device.type == "cuda"
        self._half = on_gpu and self.recipe.optimiser.mixed_precision
        self.scaler = torch.amp.GradScaler(windows.device.type, enabled=self._half)
        self.generator = torch.Generator(windows.device).manual_seed(seed)
        self.host = torch.Generator().manual_seed(seed)
        self.state_path = state_path
        self.epoch = 0
        self.steps = 0
        self.loss = math.nan
        if state_path is not None and state_path.exists():
            self._resume(state_path)

    def run(
        self, *, epochs: int | None = None, stop_after_s: float | None = None
    ) -> ClickNetwork:
        """Train to the end of the recipe, or ``epochs`` epochs; return the network.

        Rates fall at the recipe's milestones in any case. ``stop_after_s`` ends it
        after so many seconds, in the middle of an epoch if need be.
        """
        part = self.recipe.data
        end = part.epochs if epochs is None else epochs
        per_epoch = max(1, part.epoch_length // part.batch)
        started = time.monotonic()
        while self.epoch < end:
            for index in range(per_epoch):
                self.loss = self._add_gradient()
                if (index + 1) % part.accumulate == 0 or index + 1 == per_epoch:
                    self._descend()
                spent = time.monotonic() - started
                if self.steps % 50 == 0:
                    numbers = self.epoch, spent, self.loss
                    _log.info("epoch %d  %.0f s  loss %.4f", *numbers)
                if stop_after_s is not None and spent > stop_after_s:
                    return self.network.eval()
            self.schedule.step()
            self.epoch += 1
            _log.info("epoch %d of %d done, loss %.4f", self.epoch, end, self.loss)
            self.save()
        return self.network.eval()

    def draw(self) -> WindowBatch:
        """Draw a batch of the recipe: crops, then SUEM among them."""
        plain = partial(self.windows.draw, self.recipe.data.batch, self.host)
        suem = self.recipe.suem
        if not (suem.paste or suem.combine or suem.mix):
            return plain()
        return recombined(plain(), plain, self.generator, suem)

    def _add_gradient(self) -> float:
        batch = self.draw()
        device = self.windows.device.type
        how = self.recipe, self.generator, self.host
        with torch.autocast(device, torch.float16, enabled=self._half):
            loss = published_step(self.network, batch, *how)
        share: Tensor = loss / self.recipe.data.accumulate
        torch.autograd.backward(self.scaler.scale(share))
        return float(loss.detach())

    def _descend(self) -> None:
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.steps += 1

    def save(self) -> None:
        """Write the state, whole or not at all."""
        if self.state_path is None:
            return
        state = {name: getattr(self, name).state_dict() for name in _PARTS}
        state |= {
            "epoch": self.epoch,
            "steps": self.steps,
            "generator": self.generator.get_state(),
            "host": self.host.get_state(),
            "dropout": torch.get_rng_state(),
            "dropout_cuda": torch.cuda.get_rng_state_all(),
        }
        write_state(state, self.state_path)

    def _resume(self, path: Path) -> None:
        state = torch.load(path, map_location=self.windows.device, weights_only=True)
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"].cpu())
        self.host.set_state(state["host"].cpu())
        torch.set_rng_state(state["dropout"].cpu())
        torch.cuda.set_rng_state_all([s.cpu() for s in state["dropout_cuda"]])
        self.epoch, self.steps = state["epoch"], state["steps"]
