"""Time a session on a small field and on a whole slide with the same tissue.

    xvfb-run -a python benchmarks/slide_work.py [--side 100000] [--threads 2] [--svs]

A real viewer opens an OME-Zarr pyramid (with ``--svs`` a scanner's TIFF, its side a
multiple of 4096), ten nuclei are clicked, taken back, painted, saved, exported,
reopened and replayed. Each field runs in a process of its own; memory is the highest
resident size beyond what napari held with the image shown, before torch was imported.
Undo and redo are medians of seven.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from slides import SPOT_PX, SVS_PX, build_slide, build_svs

SMALL = 2048
#: where nuclei are, in pixels of the tissue
NUCLEI = (
    (36, 316), (62, 149), (350, 79), (425, 172), (503, 452),
    (36, 707), (62, 874), (350, 944), (425, 851), (673, 79),
)  # fmt: skip


class Work:
    """A viewer with the dock on one image, and how long each act took."""

    def __init__(self, path: Path, spot: tuple[int, int], threads: int) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        self.path, self.spot = path, spot
        self.seconds: dict[str, float] = {}
        self.viewer = napari.Viewer()
        self.app: Any = QApplication.instance()
        reader = "napari-cfrseg" if path.suffix == ".svs" else "napari"
        self.viewer.open(str(path), plugin=reader, layer_type="image", name="slide")
        self.look(zoom=1.0)
        self.before = _peak_bytes()
        import torch

        torch.set_num_threads(threads)
        self.dock: Any = None

    def look(self, zoom: float) -> None:
        """Show the tissue."""
        layer, (y, x) = self.viewer.layers[0], self.spot
        place = layer.data_to_world((y + SPOT_PX / 4, x + SPOT_PX / 4))
        self.viewer.scene.camera.center = place
        self.viewer.scene.camera.zoom = zoom / layer.scale[0]
        self.pump()

    def pump(self, until: Callable[[], bool] = lambda: True) -> None:
        """Let the window work until something is so."""
        self.app.processEvents()
        while not until():
            self.app.processEvents()
            time.sleep(0.0005)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure an act until all it set off is done and drawn."""
        start = time.perf_counter()
        yield
        self.pump(self.is_idle)
        self.seconds[name] = time.perf_counter() - start

    def is_idle(self) -> bool:
        """Whether nothing is waiting."""
        view = self.dock.controller.view
        return not (view.pending or view.loading or view.progress[1])

    def is_reopened(self) -> bool:
        """Whether the session's objects are all there."""
        controller = self.dock.controller
        return bool(controller and controller.objects and self.is_idle())

    def open_dock(self) -> None:
        """Open the dock; its network is loaded."""
        dock = "Segment with clicks"
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-cfrseg", dock)
        self.pump(lambda: self.dock.controller is not None)

    def click(self, nucleus: tuple[int, int]) -> None:
        """Begin an object with a click."""
        controller = self.dock.controller
        controller.new_object()
        place = [float(s + n) for s, n in zip(self.spot, nucleus, strict=True)]
        controller.clicked(controller.image.layer.data_to_world(place))

    def brush(self) -> None:
        """Paint a stroke on the newest object."""
        layer = self.dock.controller.labels.layer
        layer.brush_size = 9
        y, x = self.spot
        layer.paint((y + 250.0, x + 250.0), layer.selected_label)

    def run(self, folder: Path) -> dict[str, Any]:
        """Do everything; return seconds by act, pixels of the objects and bytes."""
        with self.timed("open"):
            self.open_dock()
        for number, nucleus in enumerate(NUCLEI, start=1):
            with self.timed(f"click {number}"):
                self.click(nucleus)
        controller = self.dock.controller
        keeper = self.dock._keepers[controller]  # noqa: SLF001
        areas = [o.on(()).mask.area for o in controller.annotator.objects.values()]
        several: dict[str, list[float]] = {"undo": [], "redo": []}
        for _ in range(7):
            for act, found in several.items():
                with self.timed(act):
                    getattr(controller, act)()
                found.append(self.seconds[act])
        self.seconds.update({act: median(found) for act, found in several.items()})
        with self.timed("brush"):
            self.brush()
        session = folder / "slide.cfrseg.json"
        with self.timed("save"):
            keeper.save(session)
        for ending in (".zarr", ".ome.tif", ".geojson"):
            with self.timed(f"export {ending}"):
                keeper.export(folder / f"labels{ending}")
        runs = controller.annotator.snapshot(0).labels
        worked = _peak_bytes() - self.before
        del controller, keeper  # as nothing in a window would keep them
        self.viewer.layers.clear()
        self.pump(lambda: self.dock.controller is None)
        with self.timed("reopen"):
            self.viewer.open(str(session), plugin="napari-cfrseg")
            self.pump(self.is_reopened)
        again = self.dock.controller.annotator.snapshot(0).labels
        self._replay(session)
        return {
            "seconds": self.seconds,
            "areas": areas,
            "same": list(map(list, map(_key, runs))) == [list(_key(r)) for r in again],
            "worked": worked,
            "before": self.before,
            "peak": _peak_bytes() - self.before,
        }

    def _replay(self, path: Path) -> None:
        from napari_cfrseg.session.references import load_segmenter
        from napari_cfrseg.session.session import Session

        session = Session.open(path)
        segmenter = load_segmenter(session.content)
        start = time.perf_counter()
        session.apply(segmenter=segmenter)
        self.seconds["replay"] = time.perf_counter() - start


def _key(runs: Any) -> tuple[Any, ...]:
    return (*runs.starts.tolist(), *runs.lengths.tolist(), *runs.after.tolist())


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(side: int, threads: int, is_svs: bool) -> dict[str, Any]:
    """Run one field in a process of its own."""
    command = [sys.executable, __file__, "--one", str(side), "--threads", str(threads)]
    command += ["--svs"] if is_svs else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def one(side: int, threads: int, is_svs: bool) -> None:
    """Work on one field and print what was measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CFRSEG_SESSIONS"] = str(folder / "sessions")
        path = folder / ("slide.svs" if is_svs else "slide.zarr")
        spots = (build_svs if is_svs else build_slide)(path, side, spots=2)
        work = Work(path, spots[-1], threads)
        result = work.run(folder)
        work.viewer.close()
    print(json.dumps(result), flush=True)
    os._exit(0)  # napari's threads may keep the process


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=1, help="the fastest counts")
    parser.add_argument("--svs", action="store_true", help="a scanner's TIFF")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.threads, options.svs)
    if options.svs:
        options.side -= options.side % SVS_PX
    found = {
        side: [
            measure(side, options.threads, options.svs and side != SMALL)
            for _ in range(options.runs)
        ]
        for side in (SMALL, options.side)
    }
    print(f"| act | {SMALL}² ms | {options.side}² ms | ratio |\n|---|--:|--:|--:|")
    for act in found[SMALL][0]["seconds"]:
        small, large = (
            1e3 * min(run["seconds"][act] for run in found[side])
            for side in (SMALL, options.side)
        )
        print(f"| {act} | {small:.0f} | {large:.0f} | {large / small:.2f} |")
    for side, runs in found.items():
        print(
            f"{side}²: areas {runs[0]['areas']}, reopened the same: {runs[0]['same']}, "
            f"napari {runs[0]['before'] / 1e9:.2f} GB, beyond it while working "
            f"{runs[0]['worked'] / 1e9:.2f} GB, with a replay "
            f"{runs[0]['peak'] / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    main()
