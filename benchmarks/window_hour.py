"""A scripted hour in the window: real clicks, import, save, kill -9, recover, export.

Clicks with the mouse on the bundled micrographs (five kinds), a correction after every
second object, in a stack and in a time-lapse: objects are clicked on one plane, carried
to all, and corrected on the least sure one. Imports labels, saves, exports, compares
with a replay of the file, ends the process with SIGKILL in the middle of an unsaved
session, and reopens that and a saved one in a new window. Prints what went wrong, and
the longest time the window did not answer, by what was done (ms on the clock, and of
the window's own thread, which a busy machine does not change); the script's own replays
are left out::

    xvfb-run -a python benchmarks/window_hour.py --clicks 300 [--data DATA]

``DATA`` has ``stacks/bbbc050_mouse_embryo`` and ``stacks/mcf10_nuclei_timelapse``;
without it both are made up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import napari
import numpy as np
import tifffile
from gui_gap import Ticker, run_until
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_cfrseg.gui.manifest import DOCK, PLUGIN, layer_of
from napari_cfrseg.gui.segment.dock import ClickDock
from napari_cfrseg.gui.session.layer_imports import import_labels
from napari_cfrseg.samples import load_sample
from napari_cfrseg.session.format import SUFFIX
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.unsaved_sessions import unsaved_sessions

KINDS = ("glioblastoma_phase", "powder_sem", "superalloy_sem", "axon_sem",
         "ganglioneuroblastoma_fluo")  # fmt: skip


#: clicks on objects of a stack, each on its middle plane
STACK_OBJECTS = 4


def moving_discs(planes: int = 12, size: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Return (planes, size, size) pixels and labels of discs that move and shrink."""
    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[:planes, :size, :size].astype(np.float32)
    labels = np.zeros(z.shape, np.uint16)
    for number, (cy, cx) in enumerate(((35, 40), (40, 110), (110, 45), (115, 115)), 1):
        away = np.hypot(y - cy - z, x - cx - 0.5 * z)
        labels[away < 18 - 0.8 * np.abs(z - planes / 2)] = number
    grey = 40 + 120 * (labels > 0) + rng.normal(0, 6, z.shape)
    return grey.clip(0, 255).astype(np.uint8), labels


def volumes(data: Path | None) -> dict[str, tuple[np.ndarray, np.ndarray, str]]:
    """Return pixels, labels and the first axis of a stack and of a time-lapse."""
    if data is None:
        return {"stack": (*moving_discs(), "z"), "time-lapse": (*moving_discs(), "t")}
    found = {}
    for name, folder, axis in (
        ("stack", "bbbc050_mouse_embryo", "z"),
        ("time-lapse", "mcf10_nuclei_timelapse", "t"),
    ):
        images = data / "stacks" / folder / "images"
        path = sorted(p for p in images.iterdir() if not p.name.startswith("test"))[-1]
        labels = path.parent.with_name("labels") / path.name
        found[name] = tifffile.imread(path), tifffile.imread(labels), axis
    return found


class Hands:
    """A window with the dock, and a mouse."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.longest_ms: dict[str, list[int]] = {}
        sys.excepthook = lambda *error: self.problems.append(f"traceback: {error[1]!r}")
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 720)
        _, dock = self.viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
        self.dock: ClickDock = dock
        QApplication.processEvents()
        self.ticker = Ticker()
        self.canvas = next(
            widget
            for widget in dock.window().findChildren(QWidget)
            if type(widget).__module__.startswith("vispy.")
        )

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Remember the longest time the window does not answer meanwhile."""
        self.ticker.restart()
        yield
        self.ticker.read_s()
        self.wait()
        now = [round(1000 * seconds) for seconds in self.ticker.read_s()]
        known = self.longest_ms.get(what, [0, 0])
        self.longest_ms[what] = [max(pair) for pair in zip(known, now, strict=True)]

    def open(self, name: str) -> None:
        """Show a micrograph and choose it."""
        data, kwargs, _ = layer_of(load_sample(name))
        self.show(data, **kwargs)

    def show(self, data: np.ndarray, **kwargs: Any) -> None:
        """Show an image and choose it."""
        with self.doing("open an image" if self.longest_ms else "load the model"):
            layer = self.viewer.add_image(data, **kwargs)
            self.dock.image_choice.value = layer
            self.wait()
            self.viewer.reset_view()

    def press(
        self, key: Qt.Key, modifier: Any = Qt.KeyboardModifier.NoModifier
    ) -> None:
        """Press a key on the canvas."""
        QTest.keyClick(self.canvas, key, modifier)
        self.wait()

    def wait(self) -> None:
        """Wait until the model is loaded and no click is on its way."""

        def is_ready() -> bool:
            found = self.dock.controller
            waits = found is None or found.view.loading or found.view.pending
            return not (waits or found.view.progress[1])

        run_until(is_ready)

    def place(self, y: float, x: float) -> QPoint:
        """Return where a pixel is on the canvas."""
        controller, camera = self.dock.controller, self.viewer.scene.camera
        index = controller.image.to_layer((*controller.current_plane, y, x))
        world = np.asarray(controller.image.layer.data_to_world(index))[-2:]
        middle = np.array([self.canvas.height(), self.canvas.width()]) / 2
        row, column = (world - np.asarray(camera.center[-2:])) * camera.zoom + middle
        return QPoint(round(column), round(row))

    def move(self, y: float, x: float) -> None:
        """Move the pointer to a pixel; QTest's own moves may come late."""
        place, button = QPointF(self.place(y, x)), Qt.MouseButton.NoButton
        kind, no_key = QEvent.Type.MouseMove, Qt.KeyboardModifier.NoModifier
        QApplication.sendEvent(
            self.canvas, QMouseEvent(kind, place, place, button, button, no_key)
        )

    def click(self, y: float, x: float, *, right: bool = False) -> None:
        """Click on a pixel; it must become a point, or the dock must say why not."""
        controller = self.dock.controller
        before, status = len(controller.clicks.rows), controller.view.status
        button = Qt.MouseButton.RightButton if right else Qt.MouseButton.LeftButton
        place = self.place(y, x)
        self.move(y, x)
        QTest.mousePress(self.canvas, button, pos=place)
        QTest.mouseRelease(self.canvas, button, pos=place)
        self.wait()
        if len(controller.clicks.rows) == before and controller.view.status == status:
            self.problems.append(f"dead click at {y:.0f}, {x:.0f}")

    def annotate(self, count: int, seed: int) -> None:
        """Click on ``count`` places; every third click is a correction."""
        rng = np.random.default_rng(seed)
        height, width = self.dock.controller.image.plane_shape
        with self.doing("clicks"):
            for number in range(count):
                y, x = rng.uniform(0.1, 0.9, 2) * (height, width)
                if number % 3 != 2:
                    self.dock.controller.new_object()
                self.click(y, x, right=number % 3 == 2)

    def carry(self, labels: np.ndarray, count: int) -> None:
        """Click objects on their middle planes, carry them, correct the least sure."""
        stack = self.dock.controller.stack
        numbers = np.unique(labels)[1:]
        for number in numbers[:: max(1, len(numbers) // count)][:count]:
            planes, _, _ = np.nonzero(labels == number)
            plane = int(np.median(planes))
            self.press(Qt.Key.Key_N)
            stack.jump(plane)
            ys, xs = np.nonzero(labels[plane] == number)
            with self.doing("clicks"):
                self.click(ys[len(ys) // 2], xs[len(xs) // 2])
            with self.doing("propagate"):
                self.press(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
            with self.doing("correct a plane"):
                self.dock.stack.worst.click()
                self.wait()
                y, x = (
                    stack.suggestion()[1].yx if stack.view.worst is not None else (0, 0)
                )
                self.click(y, x)
            with self.doing("propagate"):
                self.press(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)

    def finish(self, path: Path) -> None:
        """Save and export, and compare with a replay of the file."""
        keeper = self.dock.sessions.keeper
        with self.doing("save"):
            keeper.save(path, keep_pixels=True)
        for ending in (".csv", ".measurements.csv", ".ome.tif"):
            with self.doing(f"export {ending}"):
                target = path.with_name(path.name.replace(SUFFIX, ending))
                keeper.export_later(target)
                run_until(lambda: not self.dock.controller.view.status.endswith("…"))
                if not target.exists():
                    self.problems.append(f"{target.name} was not exported")
        replayed = Session.open(path).apply()
        if not np.array_equal(np.asarray(replayed), labels_of(self)):
            self.problems.append(f"{path.name}: the replay gives other labels")


def labels_of(hands: Hands) -> np.ndarray:
    return np.asarray(hands.dock.controller.labels.layer.data)


def work(folder: Path, clicks: int, data: Path | None) -> None:
    """Do the hour's work, and die of SIGKILL at its end."""
    hands = Hands()
    share = clicks // (len(KINDS) + 1)
    for seed, kind in enumerate(KINDS):
        hands.open(kind)
        hands.annotate(share, seed)
        image = hands.dock.controller.image
        discs = np.zeros(image.plane_shape, np.uint16)
        discs[5:20, 5:20] = 1
        layer = hands.viewer.add_labels(discs, scale=image.layer.scale)
        with hands.doing("import"):
            import_labels(hands.dock.controller, layer)
        layer.visible = False
        hands.finish(folder / f"{kind}{SUFFIX}")
    for kind, (pixels, labels, axis) in volumes(data).items():
        hands.viewer.layers.clear()
        hands.show(pixels, name=kind, axis_labels=(axis, "y", "x"))
        hands.carry(labels, STACK_OBJECTS)
        hands.finish(folder / f"{kind}{SUFFIX}")
    hands.viewer.layers.clear()
    hands.open(KINDS[1])
    hands.annotate(share, 99)
    np.save(folder / "before.npy", labels_of(hands))
    report = {"problems": hands.problems, "longest_ms": hands.longest_ms}
    (folder / "report.json").write_text(json.dumps(report))
    os.kill(os.getpid(), signal.SIGKILL)


def recover(folder: Path) -> None:
    """Reopen what was not saved, and a saved stack; the labels must be the same."""
    hands = Hands()
    (path,) = unsaved_sessions()
    hands.open(KINDS[1])  # a bundled micrograph: no file the session could name
    hands.dock.open_session(path)
    run_until(lambda: bool(hands.dock.controller.view.objects))
    hands.wait()
    if not np.array_equal(np.load(folder / "before.npy"), labels_of(hands)):
        hands.problems.append("labels differ after kill -9")
    hands.viewer.layers.clear()
    saved = folder / f"stack{SUFFIX}"
    hands.dock.open_session(saved)
    run_until(lambda: hands.dock.controller is not None)
    run_until(lambda: bool(hands.dock.controller.view.objects))
    hands.wait()
    if not np.array_equal(np.asarray(Session.open(saved).apply()), labels_of(hands)):
        hands.problems.append("labels differ after reopening")
    print(json.dumps(hands.problems), flush=True)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=300)
    parser.add_argument("--data", type=Path, help="a folder with stacks")
    parser.add_argument("--step", choices=("work", "recover"))
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.step == "work":
        work(arguments.folder, arguments.clicks, arguments.data)
    if arguments.step == "recover":
        recover(arguments.folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        surroundings = {**os.environ, "CFRSEG_SESSIONS": str(folder / "sessions")}
        command = [sys.executable, __file__, "--folder", name]
        clicks = ["--clicks", str(arguments.clicks)]
        if arguments.data is not None:
            clicks += ["--data", str(arguments.data.absolute())]
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
