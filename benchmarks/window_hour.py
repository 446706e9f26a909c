"""A scripted hour in the window: real clicks, import, save, kill -9, recover, export.

Clicks with the mouse on the bundled micrographs (five kinds), a correction after every
second object; imports labels, saves, exports, compares with a replay of the file, ends
the process with SIGKILL in the middle of an unsaved session, and reopens that in a new
window. Prints what went wrong, and the longest time the window did not answer::

    OMP_WAIT_POLICY=PASSIVE xvfb-run -a python benchmarks/window_hour.py --clicks 300

The longest time counts the script's own work on the window's thread, too: opening an
image, saving, exporting and replaying a session in it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import napari
import numpy as np
from gui_gap import Ticker, run_until
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_cfrseg.gui.manifest import DOCK, PLUGIN, layer_of
from napari_cfrseg.gui.segment.dock import ClickDock
from napari_cfrseg.gui.session.session_layers import import_labels
from napari_cfrseg.samples import load_sample
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.unsaved_sessions import unsaved_sessions

KINDS = ("glioblastoma_phase", "powder_sem", "superalloy_sem", "axon_sem",
         "ganglioneuroblastoma_fluo")  # fmt: skip


class Hands:
    """A window with the dock, and a mouse."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        sys.excepthook = lambda *error: self.problems.append(f"traceback: {error[1]!r}")
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 720)
        _, dock = self.viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
        self.dock: ClickDock = dock
        QApplication.processEvents()
        self.canvas = next(
            widget
            for widget in dock.window().findChildren(QWidget)
            if type(widget).__module__.startswith("vispy.")
        )

    def open(self, name: str) -> None:
        """Show a micrograph and choose it."""
        data, kwargs, _ = layer_of(load_sample(name))
        layer = self.viewer.add_image(data, **kwargs)
        self.dock.image_choice.value = layer
        self.wait()
        self.viewer.reset_view()
        run_until(lambda: self.viewer.scene.camera.zoom > 0)

    def wait(self) -> None:
        """Wait until the model is loaded and no click is on its way."""

        def is_ready() -> bool:
            found = self.dock.controller
            return found is not None and not (found.view.loading or found.view.pending)

        run_until(is_ready)

    def click(self, y: float, x: float, *, right: bool = False) -> None:
        """Click on a pixel; it must become a point, or the dock must say why not."""
        controller = self.dock.controller
        before, status = len(controller.clicks.rows), controller.view.status
        camera = self.viewer.scene.camera
        world = np.asarray(controller.image.layer.data_to_world((y, x)))[-2:]
        middle = np.array([self.canvas.height(), self.canvas.width()]) / 2
        row, column = (world - np.asarray(camera.center[-2:])) * camera.zoom + middle
        button = Qt.MouseButton.RightButton if right else Qt.MouseButton.LeftButton
        place = QPoint(round(column), round(row))
        QTest.mouseMove(self.canvas, place)
        QTest.mousePress(self.canvas, button, pos=place)
        QTest.mouseRelease(self.canvas, button, pos=place)
        self.wait()
        if len(controller.clicks.rows) == before and controller.view.status == status:
            self.problems.append(f"dead click at {y:.0f}, {x:.0f}")

    def annotate(self, count: int, seed: int) -> None:
        """Click on ``count`` places; every third click is a correction."""
        rng = np.random.default_rng(seed)
        height, width = self.dock.controller.image.plane_shape
        for number in range(count):
            y, x = rng.uniform(0.1, 0.9, 2) * (height, width)
            if number % 3 != 2:
                self.dock.controller.new_object()
            self.click(y, x, right=number % 3 == 2)


def labels_of(hands: Hands) -> np.ndarray:
    return np.asarray(hands.dock.controller.labels.layer.data)


def work(folder: Path, clicks: int) -> None:
    """Do the hour's work, and die of SIGKILL at its end."""
    hands = Hands()
    ticker = Ticker()
    hands.open(KINDS[0])
    ticker.restart()
    share = clicks // (len(KINDS) + 1)
    for seed, kind in enumerate(KINDS):
        if seed:
            hands.open(kind)
        hands.annotate(share, seed)
        image = hands.dock.controller.image
        discs = np.zeros(image.plane_shape, np.uint16)
        discs[5:20, 5:20] = 1
        layer = hands.viewer.add_labels(discs, scale=image.layer.scale)
        import_labels(hands.dock.controller, layer)
        layer.visible = False
        hands.wait()
        keeper = hands.dock.sessions.keeper
        keeper.save(folder / f"{kind}.cfrseg.json", keep_pixels=True)
        for ending in (".csv", ".measurements.csv", ".ome.tif"):
            keeper.export(folder / f"{kind}{ending}")
        session = Session.open(folder / f"{kind}.cfrseg.json")
        replayed = session.apply()
        if not np.array_equal(np.asarray(replayed), labels_of(hands)):
            hands.problems.append(f"{kind}: the replay gives other labels")
    longest = ticker.longest_s
    hands.open(KINDS[1])
    hands.annotate(share, 99)
    np.save(folder / "before.npy", labels_of(hands))
    report = {"problems": hands.problems, "longest_gap_ms": round(1000 * longest)}
    (folder / "report.json").write_text(json.dumps(report))
    os.kill(os.getpid(), signal.SIGKILL)


def recover(folder: Path) -> None:
    """Reopen what was not saved; its labels must be those of before."""
    hands = Hands()
    (path,) = unsaved_sessions()
    hands.open(KINDS[1])  # a bundled micrograph: no file the session could name
    hands.dock.open_session(path)
    run_until(lambda: bool(hands.dock.controller.view.objects))
    hands.wait()
    if not np.array_equal(np.load(folder / "before.npy"), labels_of(hands)):
        hands.problems.append("labels differ after kill -9")
    print(json.dumps(hands.problems), flush=True)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=300)
    parser.add_argument("--step", choices=("work", "recover"))
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.step == "work":
        work(arguments.folder, arguments.clicks)
    if arguments.step == "recover":
        recover(arguments.folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        surroundings = {**os.environ, "CFRSEG_SESSIONS": str(folder / "sessions")}
        command = [sys.executable, __file__, "--folder", name]
        clicks = ["--clicks", str(arguments.clicks)]
        subprocess.run([*command, "--step", "work", *clicks], env=surroundings)
        report = json.loads((folder / "report.json").read_text())
        reopened = subprocess.run(
            [*command, "--step", "recover"],
            env=surroundings,
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = reopened.stdout.strip().splitlines()
        report["problems"] += json.loads(lines[-1]) if lines else ["not reopened"]
        report["clicks"] = arguments.clicks
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
