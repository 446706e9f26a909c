"""Measure how long clicks take while a fine-tuning runs, by how it is started.

    python benchmarks/clicks_while_training.py [--clicks 8] [--rounds 3]

Starts the training loop of a fine-tuning on a bundled micrograph in every way below,
each in a session of its own as the dock does, and lets one of them run at a time
(signals stop the others) while this process makes first and further clicks on another
micrograph; "alone" is measured in between. Prints a Markdown table of the clicks' times
and of the training steps per second that were left. POSIX only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.samples import load_sample
from napari_cfrseg.training_job import yield_to_others

HALF = max(1, (os.cpu_count() or 2) // 2)
#: how the training is started: "nice" or "yield" to others, and threads
WAYS: Mapping[str, tuple[str, int | None]] = {
    "as it was": ("", None),
    "half of the threads": ("", HALF),
    "nice 19": ("nice", None),
    "background": ("yield", None),
    "background, half of the threads": ("yield", HALF),
}


def train(way: str, folder: Path) -> None:
    """Train until killed; write the number of steps into a file after each."""
    priority, threads = WAYS[way]
    import torch

    from cfrseg_training.configuration import default_config
    from cfrseg_training.loop.atlas import Atlas, Sample
    from cfrseg_training.loop.trainer import Trainer
    from napari_cfrseg.model import weights_file

    if threads is not None:
        torch.set_num_threads(threads)
    sample = load_sample("axon_sem")
    image = np.repeat(sample.image[..., None], 3, axis=2)
    labels = sample.labels.astype(np.int32)
    network, _ = weights_file.load(weights_file.resolve("default"))

    def watch(trainer: Trainer) -> bool:
        if trainer.step == 1:  # so that beginning takes no time
            lower_priority(priority)
        (folder / "steps").write_text(str(trainer.step))
        return True

    atlas = Atlas([Sample(image, labels, "axons", "axons")])
    config = default_config(1e6)
    Trainer(network, atlas, config, folder / "state.pt", watch=watch).run()


def lower_priority(how: str) -> None:
    """Do to all threads what ``nice`` or ``--background`` does at the start."""
    if how == "yield":
        yield_to_others()
    for thread in Path("/proc/self/task").iterdir() if how else ():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)


class Training:
    """A training that runs only when it is let."""

    def __init__(self, way: str, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--train", str(folder), "--ways", way],
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


def click_times(segmenter: Segmenter, clicks: int) -> list[tuple[float, ...]]:
    """Return seconds of a first and a second click on so many objects."""
    sample = load_sample("glioblastoma_phase")
    numbers = np.random.default_rng(0).permutation(np.unique(sample.labels)[1:])
    times = []
    for number in numbers[:clicks]:
        ys, xs = np.nonzero(sample.labels == number)
        middle = len(ys) // 2
        segmenter.set_image(sample.image)  # nothing embedded before
        began = time.perf_counter()
        first = segmenter.predict([Click((float(ys[middle]), float(xs[middle])))])
        between = time.perf_counter()
        last = Click((float(ys[0]), float(xs[0])))
        segmenter.predict([*first.clicks, last], previous=first)
        times.append((between - began, time.perf_counter() - between))
    return times


def print_table(
    times: Mapping[str, list[tuple[float, ...]]], steps: Mapping[str, list[float]]
) -> None:
    """Print medians and 90 % quantiles of every way."""
    print("| training | first click s, median (90 %) | next click s | steps per s |")
    print("|---|--:|--:|--:|")
    for way, seconds in times.items():
        cells = [
            f"{np.median(column):.2f} ({np.quantile(column, 0.9):.2f})"
            for column in np.array(seconds).T
        ]
        rate = f"{np.mean(steps[way]):.2f}" if way in steps else "–"
        print(f"| {way} | {cells[0]} | {cells[1]} | {rate} |")
    print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()}))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.ways[0], options.train)
        return
    segmenter = Segmenter.load("default")
    click_times(segmenter, 1)  # warm up
    trainings: dict[str, Training] = {}
    times: dict[str, list[tuple[float, ...]]] = {}
    steps: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        try:
            for way in options.ways:
                trainings[way] = Training(way, Path(name) / str(len(trainings)))
            for training in trainings.values():
                training.wait()
            for way in options.rounds * ("alone", *trainings):
                mine = times.setdefault(way, [])
                if way == "alone":
                    mine += click_times(segmenter, options.clicks)
                    continue
                training, began = trainings[way], time.monotonic()
                before = training.steps()
                training.go_on()
                time.sleep(0.5)
                mine += click_times(segmenter, options.clicks)
                training.stop()
                done = (training.steps() - before) / (time.monotonic() - began)
                steps.setdefault(way, []).append(done)
        finally:
            for training in trainings.values():
                training.process.kill()
                training.process.wait()
    print_table(times, steps)


if __name__ == "__main__":
    main()
