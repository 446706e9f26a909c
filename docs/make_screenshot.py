"""Make docs/screenshot.png: the bundled demo clicks, made in a real window.

Run with a display (on a server: ``xvfb-run -a -s "-screen 0 1600x1000x24"``)::

    python docs/make_screenshot.py [--size 1280x800] [--output docs/screenshot.png]
    python docs/make_screenshot.py --suggest --output docs/suggestions.png
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

from napari_cfrseg.annotation.events import ObjectLocked
from napari_cfrseg.gui.manifest import DOCK, PLUGIN, sample_layers
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.gui.segment.dock import ClickDock
from napari_cfrseg.samples import load_demo

_PATIENCE_S = 900


def wait_until(condition: Callable[[], bool]) -> None:
    """Let Qt work until the condition holds."""
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        QApplication.processEvents()
        time.sleep(0.01)


def ready(dock: ClickDock) -> Controller:
    """Wait for the model; return the controller."""
    wait_until(lambda: dock.controller is not None)
    controller = dock.controller
    if controller is None:
        raise RuntimeError
    wait_until(lambda: not controller.view.loading)
    return controller


def annotate(dock: ClickDock) -> None:
    """Make the demo's clicks through the clicks' layer, one object after the other."""
    controller = ready(dock)
    for clicks in load_demo().objects:
        controller.new_object()
        for click in clicks:
            controller.set_polarity(click.is_positive)
            controller.clicks.layer.add(click.yx)
            wait_until(lambda: controller.view.pending == 0)
    controller.set_polarity(True)
    controller.submit(ObjectLocked(1, True))
    wait_until(lambda: controller.view.pending == 0)
    controller.clicks.layer.selected_data = set()


def main() -> None:
    """Open the window, annotate, save the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1400x900", help="window, WIDTHxHEIGHT")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("screenshot.png")
    )
    parser.add_argument("--suggest", action="store_true", help="with suggestions")
    arguments = parser.parse_args()
    width, height = (int(n) for n in arguments.size.split("x"))
    viewer = napari.Viewer(title="napari")
    viewer.window.resize(width, height)
    ((image, said, _),) = sample_layers(load_demo().sample)
    viewer.add_image(image, **said)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    annotate(dock)
    viewer.reset_view()
    controller = dock.controller
    if arguments.suggest and controller is not None:
        controller.suggestions.start()
        wait_until(lambda: not controller.view.suggestions.running)
        wait_until(lambda: controller.view.pending == 0)
    end = time.monotonic() + 1
    wait_until(lambda: time.monotonic() > end)
    viewer.screenshot(str(arguments.output), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
