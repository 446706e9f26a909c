"""How long clicks take in the window: after a rest of the pointer, beside a training.

Clicks with the mouse on objects of a bundled micrograph, from the press to the labels
on the layer. Every second first click comes after the pointer rested there; with
``--training`` the training loop of a fine-tuning runs during every second round, in a
process of its own and in the background as the dock starts it. Prints a Markdown table
of medians (90 % quantiles), and how long the window did not answer at most::

    xvfb-run -a python benchmarks/window_clicks.py --clicks 24 [--training]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from gui_gap import run_until
from hands import Hands

from napari_cfrseg.gui.segment.resting_pointer import REST_MS
from napari_cfrseg.samples import load_sample
from napari_cfrseg.training_job import yield_to_others

SAMPLE = "glioblastoma_phase"


def train(folder: Path) -> None:
    """Train until killed; write the number of steps into a file after each."""
    from cfrseg_training.configuration import default_config
    from cfrseg_training.loop.atlas import Atlas, Sample
    from cfrseg_training.loop.trainer import Trainer
    from napari_cfrseg.model import weights_file

    sample = load_sample("axon_sem")
    image = np.repeat(sample.image[..., None], 3, axis=2)
    labels = sample.labels.astype(np.int32)
    network, _ = weights_file.load(weights_file.resolve("default"))

    def watch(trainer: Trainer) -> bool:
        if trainer.step == 1:  # as the dock's command does, but after the beginning
            yield_to_others()
            for thread in Path("/proc/self/task").iterdir():
                os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)
        (folder / "steps").write_text(str(trainer.step))
        return True

    atlas = Atlas([Sample(image, labels, "axons", "axons")])
    state = folder / "state.pt"
    Trainer(network, atlas, default_config(1e6), state, watch=watch).run()


class Training:
    """A fine-tuning's loop in a process of its own, run only when it is let."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--train", str(folder)],
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            start_new_session=True,
        )

    def wait(self) -> None:
        """Wait for its first step and stop it."""
        while not self.steps():
            if self.process.poll() is not None:
                raise SystemExit(f"a training ended: {self.process.args!r}")
            time.sleep(0.2)
        self.stop()

    def steps(self) -> int:
        """Return the number of steps so far."""
        path = self.folder / "steps"
        text = path.read_text() if path.exists() else ""
        return int(text or 0)

    def stop(self) -> None:
        """Let it wait."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run."""
        self.process.send_signal(signal.SIGCONT)


def rest(seconds: float) -> None:
    """Let the window's events run for a while."""
    end = time.perf_counter() + seconds
    run_until(lambda: time.perf_counter() >= end)


def one_object(
    hands: Hands, ys: np.ndarray, xs: np.ndarray, rests: bool
) -> list[float]:
    """Click in an object's middle and at its edge; return seconds of both clicks."""
    hands.dock.controller.new_object()
    seconds = []
    for index in (len(ys) // 2, 0):
        y, x = float(ys[index]), float(xs[index])
        hands.move(y, x)
        rest((REST_MS + 600) / 1000 if rests else 0.03)
        start = time.perf_counter()
        hands.click(y, x)
        seconds.append(time.perf_counter() - start)
    hands.dock.controller.delete_selected()  # the next ones meet no neighbours
    hands.wait()
    return seconds


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=24, help="objects of each kind")
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train)
        return
    measure(options.clicks, beside_training=options.training)


def measure(clicks: int, *, beside_training: bool) -> None:
    labels = load_sample(SAMPLE).labels
    numbers = np.random.default_rng(0).permutation(np.unique(labels)[1:])
    hands = Hands()
    ticker = hands.ticker
    hands.open(SAMPLE)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    gaps: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as name:
        training = Training(Path(name) / "job") if beside_training else None
        if training is not None:
            training.wait()
        try:
            for turn in range(2 * clicks * (1 if training is None else 2)):
                beside = "alone" if turn % 4 < 2 or training is None else "training"
                if training is not None and turn % 2 == 0:
                    training.go_on() if beside == "training" else training.stop()
                    rest(0.3)
                ys, xs = np.nonzero(labels == numbers[turn // 2 % len(numbers)])
                ticker.restart()
                first, further = one_object(hands, ys, xs, bool(turn % 2))
                gaps[beside] = max(gaps[beside], ticker.longest_s)
                kind = "after a rest" if turn % 2 else "without"
                times[beside, f"first click, {kind}"].append(first)
                times[beside, f"next click, {kind}"].append(further)
        finally:
            if training is not None:
                training.process.kill()
                training.process.wait()
    print("| beside | click | clicks | ms, median (90 %) |\n|---|---|--:|--:|")
    for (beside, kind), found in sorted(times.items()):
        half, most = 1000 * np.quantile(found, (0.5, 0.9))
        print(f"| {beside} | {kind} | {len(found)} | {half:.0f} ({most:.0f}) |")
    print({beside: f"longest gap {1000 * gap:.0f} ms" for beside, gap in gaps.items()})
    print(hands.problems or "no traceback, no dead click")


if __name__ == "__main__":
    main()
