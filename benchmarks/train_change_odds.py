r"""Teach a network which changes of late clicks are right (``ChangeOdds``).

    python benchmarks/train_change_odds.py DATA OUT.safetensors [--start default] \
        [--per-set 60] [--push -0.28 -0.08 0.12 0.32] [--clicks FILE.npz] \
        [--more FILE …]

Robots, every second one human-like, click objects of the training side with the
network to start from. Every late click's cells are measured as the engine measures
them; a small network learns, cell by cell, whether the change is right. All other
weights stay as they are. ``--push`` replaces the network's late push, also in OUT.
``--clicks`` keeps what was measured, ``--more`` learns from such files, too: a second
round, clicked with the first one's weights, meets the masks those weights make.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine import click_round, one_way
from napari_cfrseg.engine.corrections import violated
from napari_cfrseg.engine.probability_patch import Patch
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation import metrics
from napari_cfrseg.evaluation.datasets import BenchmarkObject, group_by_plane
from napari_cfrseg.evaluation.datasets.choice import micro_objects
from napari_cfrseg.evaluation.robots import ExactRobot, HumanRobot
from napari_cfrseg.geometry.windows import Window, crop
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.blocks.extensions import ChangeOdds
from napari_cfrseg.model.cfrnet import CfrNet

SPLIT = Path(__file__).parent / "split.json"
MAX_CLICKS, GOOD_IOU = 14, 0.94
#: most cells of one click to learn from
CELLS = 250
#: an object of so many cells has weight 1 per cell, smaller ones more, up to 40
USUAL_CELLS, LARGEST_WEIGHT = 1000.0, 40.0
EPOCHS, BATCH, LEARNING_RATE = 7, 2048, 5e-3


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells that late clicks may change."""

    numbers: NDArray[np.float32]  #: (N, 14)
    right: NDArray[np.bool_]  #: (N,) whether the change is right
    weight: NDArray[np.float32]  #: (N,)

    @classmethod
    def joined(cls, parts: list[Cells]) -> Cells:
        """Join the cells of many clicks."""
        fields = ("numbers", "right", "weight")
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in fields))


def with_odds(
    network: CfrNet, odds: ChangeOdds, mid: int, push: list[float] | None
) -> CfrNet:
    """Return a network with these odds and another push, the rest the same."""
    pushes = network.late_push if push is None else tuple(push)
    config = replace(network.config, change_width=mid, late_push=pushes)
    new = CfrNet(config)
    kept = {k: v for k, v in network.state_dict().items() if "change_odds" not in k}
    added = {f"change_odds.{k}": v for k, v in odds.state_dict().items()}
    new.load_state_dict(kept | added)
    return new.eval()


class Recorder:
    """Runs the engine's ``settle`` and notes what late clicks may change."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.truth_mask: NDArray[np.bool_] = np.zeros((0, 0), bool)
        self.parts: list[Cells] = []
        self._rng = rng
        self._settle = one_way.settle

    def settle(
        self,
        before: Patch,
        probability: NDArray[np.float32],
        window: Window,
        clicks: list[Click],
        **others: Any,
    ) -> Any:
        """Note a late click's cells, then settle it."""
        late = len(clicks) >= one_way.FROM_CLICK
        if late and violated(before, clicks[-1:], others["threshold"]):
            self._note(before, probability, window, clicks)
        return self._settle(before, probability, window, clicks, **others)

    def _note(
        self,
        before: Patch,
        probability: NDArray[np.float32],
        window: Window,
        clicks: list[Click],
    ) -> None:
        feedback = crop(before, window)[0]
        numbers, cells = one_way.measure(probability, feedback, window, clicks)
        truth = crop(Patch.from_mask(self.truth_mask), window)[0] > 0.5
        right = truth[cells] == clicks[-1].is_positive
        count = min(CELLS, len(right))
        if not count:
            return
        area = np.count_nonzero(self.truth_mask) / window.px_per_cell**2
        weight = min(len(right) / count * USUAL_CELLS / area, LARGEST_WEIGHT)
        some = self._rng.choice(len(right), count, replace=False)
        weights = np.full(count, weight, np.float32)
        self.parts.append(Cells(numbers[some], right[some], weights))


def collect(segmenter: Segmenter, objects: list[BenchmarkObject]) -> Cells:
    """Click the objects and measure every late click."""
    rng = np.random.default_rng(0)
    recorder = Recorder(rng)
    # the engine offers no other place that sees an answer before it is settled
    vars(click_round)["settle"] = recorder.settle
    for number, (item, plane) in enumerate(_planes(segmenter, objects)):
        truth, ignored = item.mask_in(plane), plane.ignore_mask
        recorder.truth_mask = truth
        robot = (
            HumanRobot(truth, ignored, rng=rng)
            if number % 2
            else ExactRobot(truth, ignored)
        )
        clicks: list[Click] = []
        shown = None
        for _ in range(MAX_CLICKS):
            clicks.append(robot.next_click(None if shown is None else shown.mask))
            shown = segmenter.predict(clicks, previous=shown)
            if metrics.iou(shown.mask, truth, ignored) > GOOD_IOU:
                break
        if number % 50 == 0:
            print(f"{number} of {len(objects)} objects", flush=True)
    vars(click_round)["settle"] = one_way.settle
    return Cells.joined(recorder.parts)


def _planes(
    segmenter: Segmenter, objects: list[BenchmarkObject]
) -> Iterator[tuple[BenchmarkObject, Any]]:
    for group in group_by_plane(objects):
        plane = group[0].source.read_plane(group[0].image_name, group[0].plane)
        segmenter.set_image(plane.image)
        for item in group:
            yield item, plane


def learn(mid: int, cells: Cells) -> tuple[ChangeOdds, float]:
    """Fit odds to measured cells; also return the last epoch's mean loss."""
    torch.manual_seed(0)
    odds = ChangeOdds(mid)
    mean, spread = cells.numbers.mean(0), cells.numbers.std(0) + 1e-3
    numbers = torch.from_numpy((cells.numbers - mean) / spread)
    right = torch.from_numpy(cells.right).float()
    weight = torch.from_numpy(cells.weight / cells.weight.mean())
    steps = EPOCHS * (len(numbers) // BATCH)
    optimizer = torch.optim.AdamW(odds.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    total = 0.0
    for _ in range(EPOCHS):
        total, order = 0.0, torch.randperm(len(numbers))
        for some in order[: len(numbers) // BATCH * BATCH].split(BATCH):
            losses = functional.binary_cross_entropy_with_logits(
                odds(numbers[some]), right[some], reduction="none"
            )
            loss = (losses * weight[some]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
    first = odds.weigh[0]
    with torch.no_grad():  # it gets the numbers as they are measured
        first.weight /= torch.from_numpy(spread)
        first.bias -= first.weight @ torch.from_numpy(mean)
    return odds, total / (len(numbers) // BATCH)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", default="default")
    parser.add_argument("--per-set", type=int, default=60)
    parser.add_argument("--mid", type=int, default=32)
    parser.add_argument("--push", type=float, nargs="+")
    parser.add_argument("--clicks", type=Path, help="keeps what was measured")
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    old, metadata = checkpoint.load(checkpoint.resolve(options.start))
    if not isinstance(old, CfrNet):
        raise SystemExit(f"{options.start} is of another family than the default")
    parts = [Cells(**np.load(file)) for file in options.more]
    if options.per_set:
        objects = micro_objects(
            options.data, SPLIT, "train", max_per_set=options.per_set
        )
        parts.append(collect(Segmenter(old, device="cpu"), objects))
        if options.clicks:
            np.savez(options.clicks, **asdict(parts[-1]))
    cells = Cells.joined(parts)
    odds, loss = learn(options.mid, cells)
    network = with_odds(old, odds, options.mid, options.push)
    metadata = replace(metadata, architecture=network.architecture(), validation={})
    checkpoint.save(options.out, network, metadata)
    print(f"{len(cells.right)} cells, loss {loss:.4f}: {options.out}")


if __name__ == "__main__":
    main()
