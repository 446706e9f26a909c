"""How long a click takes while a fine-tuning runs, by how the training is started.

    python benchmarks/clicks_while_training.py [--clicks 12] [--rounds 3]

Starts a fine-tuning of a bundled micrograph in every way below, in a session of its
own as the dock does, and stops all but one of them by signals. In turn each one runs
while this process makes first and further clicks on another micrograph; "alone" is
measured in between. Prints a Markdown table of the clicks' times and of the training
steps per second that were left. POSIX only.
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
import tifffile

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.samples import load_sample
from napari_cfrseg.training_job import TrainingJob

NICE = "import os; os.nice(19); "
RUN = "import sys; from cfrseg_training.command import main; main()"
HALF = ("--threads", str(max(1, (os.cpu_count() or 2) // 2)))
#: how the training program is started: Python code and arguments
WAYS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "as it was": (RUN, ()),
    "half of the threads": (
        RUN,
        ("--threads", str(max(1, (os.cpu_count() or 2) // 2))),
    ),
    "nice 19": (NICE + RUN, ()),
    "--background": (RUN, ("--background",)),
    "--background, half of the threads": (RUN, ("--background", *HALF)),
}


def write_data(folder: Path) -> None:
    """Write a micrograph and its labels as two images."""
    sample = load_sample("axon_sem")
    for index in range(4):
        cut = slice(64 * index, 64 * index + 256)
        for part, array in (("images", sample.image), ("labels", sample.labels)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"{index}.tif", array[cut])


class Training:
    """A training program that runs only when it is let."""

    def __init__(self, way: str, folder: Path) -> None:
        code, arguments = WAYS[way]
        request = {
            "base": "default",
            "minutes": 600.0,
            "forgetting": False,
            "output": str(folder / "m.safetensors"),
            "data": {"folders": [str(folder.parent / "data")]},
            "train": {"note_every": 1, "validate_every_s": 1e6, "save_every_s": 1e6},
        }
        self.job = TrainingJob.create("m", request, folder)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "--job", str(self.job.folder), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log.txt").open("wb"),
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            start_new_session=True,
        )
        deadline = time.monotonic() + 900
        while not self.job.curve():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "log.txt").read_text())
            time.sleep(0.2)
        self.stop()

    def stop(self) -> None:
        """Let it wait."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run."""
        self.process.send_signal(signal.SIGCONT)


def click_times(
    segmenter: Segmenter, clicks: int, seed: int
) -> list[tuple[float, ...]]:
    """Return seconds of a first and a second click on so many objects."""
    sample = load_sample("glioblastoma_phase")
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(np.unique(sample.labels)[1:])[:clicks]
    times = []
    for number in numbers:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    segmenter = Segmenter.load("default")
    click_times(segmenter, 2, 0)  # warm up
    trainings: dict[str, Training] = {}
    times: dict[str, list[tuple[float, ...]]] = {}
    steps: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data")
        try:
            for number, way in enumerate(options.ways):
                (folder / str(number)).mkdir()
                trainings[way] = Training(way, folder / str(number))
            for turn in range(options.rounds):
                for way in ("alone", *trainings):
                    training = trainings.get(way)
                    if training is not None:
                        training.go_on()
                        time.sleep(1.0)
                        before = len(training.job.curve())
                    began = time.monotonic()
                    times.setdefault(way, []).extend(
                        click_times(segmenter, options.clicks, turn)
                    )
                    if training is not None:
                        spent = time.monotonic() - began
                        done = len(training.job.curve()) - before
                        steps.setdefault(way, []).append(done / spent)
                        training.stop()
        finally:
            for training in trainings.values():
                training.process.kill()
                training.process.wait()
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


if __name__ == "__main__":
    main()
