"""How much time of ``cfrseg replay`` is not the network's.

    python benchmarks/replay_throughput.py --sessions 1000

Sessions on a bundled micrograph, shifted by a pixel for each, are made with the default
model and replayed. Everything (opening session and image, fingerprint, focus windows,
crop and paste, labels and record written) is compared with the time spent in the
network's own stages. Memory is the largest that any of the processes had until then,
after a tenth of the sessions and at the end (Linux).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.clicks import Click
from napari_cfrseg.samples import load_sample
from napari_cfrseg.session.format import SessionContent, SessionSettings
from napari_cfrseg.session.references import model_reference, reference_of
from napari_cfrseg.session.replay_many import replay_all
from napari_cfrseg.session.replay_session import ReplayTask
from napari_cfrseg.session.session_writer import SessionWriter


def make_sessions(folder: Path, count: int, objects: int) -> list[Path]:
    """Write sessions of one click on each of some objects."""
    sample = load_sample("powder_sem")
    ids = [int(i) for i in np.unique(sample.labels) if i][:objects]
    centres = [np.argwhere(sample.labels == i).mean(axis=0) for i in ids]
    made = []
    for number in range(count):
        image = np.roll(sample.image, number, axis=1)
        path = folder / f"s{number:04d}.tif"
        tifffile.imwrite(path, image)
        events: list[ev.Event] = []
        for object_id, (y, x) in enumerate(centres, start=1):
            click = Click((round(y), (round(x) + number) % image.shape[1]))
            events.append(ev.ObjectCreated(object_id))
            events.append(
                ev.ClickAdded(object_id, (), click.yx, click.is_positive, object_id)
            )
        content = SessionContent(
            reference_of(image, path=path, folder=folder),
            model_reference("default"),
            SessionSettings(threads=1),
            tuple(events),
        )
        made.append(folder / f"s{number:04d}.cfrseg.json")
        SessionWriter.create(made[-1], content).close()
    return made


def largest_peak_mb() -> int:
    """Return the largest peak memory of this process and its children now running."""
    children = [child.pid for child in multiprocessing.active_children()]
    peaks = [0]
    for process in (os.getpid(), *children):
        status = Path(f"/proc/{process}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        peaks += [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return round(max(peaks) / 1000)


def main() -> None:
    """Measure and print one JSON value."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--objects", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    with TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "out"
        made = make_sessions(folder, chosen.sessions, chosen.objects)
        tasks = [ReplayTask(p, out, p.name.partition(".")[0]) for p in made]
        start, network_s, inside_s = time.perf_counter(), 0.0, 0.0
        memory_mb = []
        for number, result in enumerate(replay_all(tasks, chosen.workers), start=1):
            if result.status != "done":
                raise SystemExit(result.reason)
            if number > chosen.workers:  # the first of each process loads the model
                network_s += result.network_s
                inside_s += result.seconds
            if number in (max(1, len(tasks) // 10), len(tasks)):
                memory_mb.append(largest_peak_mb())
        said = {
            "sessions": len(tasks),
            "workers": chosen.workers,
            "wall_s": round(time.perf_counter() - start, 2),
            "network_s": round(network_s, 2),
            "replay_s": round(inside_s, 2),
            "overhead": round(inside_s / network_s - 1, 4),
            "peak_memory_mb": memory_mb,
        }
        print(json.dumps(said))


if __name__ == "__main__":
    main()
