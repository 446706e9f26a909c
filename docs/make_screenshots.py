"""Make a picture of every state of the docks, at three sizes, in both themes.

Run with a display (on a server: ``xvfb-run -a -s "-screen 0 2600x1500x24"``)::

    python docs/make_screenshots.py FOLDER [--size 1280x720 …] [--theme dark …]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import napari
import numpy as np
from make_screenshot import annotate, ready, wait_until
from make_stacks_picture import CLICKS, nuclei
from make_stacks_picture import annotate as propagate

from napari_cfrseg.gui.manifest import DOCK, PLUGIN, sample_layers
from napari_cfrseg.gui.segment.dock import ClickDock
from napari_cfrseg.gui.segment.resting_pointer import Resting
from napari_cfrseg.samples import load_demo

SIZES = ("1280x720", "1360x880", "2560x1440")
THEMES = ("dark", "light")
FINETUNE = "Fine-tune on your labels"


def states(viewer: napari.Viewer) -> Iterator[str]:
    """Bring the window from one state to the next; yield each one's name."""
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    yield "empty"
    ((image, said, _),) = sample_layers(load_demo().sample)
    viewer.add_image(image, **said)
    controller = ready(dock)
    viewer.reset_view()
    yield "ready"
    annotate(dock)
    yield "objects"
    dock.sections["outline"].expand(animate=False)
    dock.settings.resting.value = Resting.OUTLINE
    rest(viewer, dock, (250, 330))
    yield "outline"
    dock.settings.resting.value = Resting.PREPARE
    dock.sections["outline"].collapse(animate=False)
    controller.suggestions.start()
    wait_until(lambda: not controller.view.suggestions.running)
    yield "suggested"
    controller.choose(2)
    controller.clicks.layer.selected_data = {0, 1}
    yield "selected"
    controller.clicks.layer.selected_data = set()
    other = viewer.add_image(np.asarray(image)[::-1], name="another image")
    other.scale = said.get("scale", (1, 1))
    controller.clicked(other.data_to_world((100, 100)))
    yield "covered"
    viewer.layers.remove(other)
    controller.choose(1)
    controller.clicked(viewer.layers[0].data_to_world((5, 5)))
    wait_until(lambda: controller.view.pending == 0)
    yield "refused"
    viewer.layers.clear()
    yield from states_of_stacks(viewer, dock)


def states_of_stacks(viewer: napari.Viewer, dock: ClickDock) -> Iterator[str]:
    """Go on with a stack, channels and the dock for fine-tuning."""
    stack = nuclei()
    viewer.add_image(stack, name="nuclei", axis_labels=("z", "y", "x"))
    dock.image_choice.value = viewer.layers["nuclei"]
    controller = ready(dock)
    propagate(controller, CLICKS)
    viewer.reset_view()
    yield "stack"
    viewer.layers.clear()
    pair = np.stack([stack, stack[:, ::-1]], axis=1)
    viewer.add_image(pair, name="two channels", axis_labels=("z", "c", "y", "x"))
    dock.image_choice.value = viewer.layers["two channels"]
    ready(dock)
    viewer.reset_view()
    yield "channels"
    viewer.window.add_plugin_dock_widget(PLUGIN, FINETUNE)
    yield "finetune"


def rest(viewer: napari.Viewer, dock: ClickDock, yx: tuple[float, float]) -> None:
    """Let the pointer rest on a pixel, and wait for the outline."""
    viewer.cursor.position = dock.controller.image.layer.data_to_world(yx)
    for moved in viewer.mouse_move_callbacks:
        moved(viewer, None)
    settle(1.5)


def settle(seconds: float = 0.7) -> None:
    """Let the window draw."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end)


def main() -> None:
    """Go through the states; in each, save a picture per size and theme."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", action="append", help="window, WIDTHxHEIGHT")
    parser.add_argument("--theme", action="append", choices=THEMES)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    viewer = napari.Viewer(title="napari")
    for state in states(viewer):
        for size in arguments.size or SIZES:
            viewer.window.resize(*(int(n) for n in size.split("x")))
            for theme in arguments.theme or THEMES:
                viewer.theme = theme
                settle()
                target = arguments.folder / f"{state}-{size}-{theme}.png"
                viewer.screenshot(str(target), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
