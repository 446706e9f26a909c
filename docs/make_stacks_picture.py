"""Make docs/stacks.png: objects carried through a stack, in a real window.

Run with a display (on a server: ``xvfb-run -a -s "-screen 0 1600x1000x24"``)::

    python docs/make_stacks_picture.py [--output docs/stacks.png]
    python docs/make_stacks_picture.py --stack nuclei.tif --click 13,59,35

The picture in the documentation is of ``train_Emb01_t401.tif`` (BBBC050), clicked at
20,32,78, 15,87,34, 11,70,87, 19,72,60, 29,99,59 and 26,78,52, with ``--voxel
1.75,0.8,0.8``.
Without ``--stack`` it is synthetic (nuclei that move, grow and end), so that the
picture needs no data; the network is the default one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import napari
import numpy as np
import tifffile
from make_screenshot import ready, wait_until
from numpy.typing import NDArray
from scipy import ndimage

from napari_cfrseg.gui.manifest import DOCK, PLUGIN
from napari_cfrseg.gui.segment.controller import Controller

#: in the synthetic stack
CLICKS = [(14, 60, 52), (18, 110, 60), (15, 112, 108)]


def nuclei(planes: int = 30, size: int = 160) -> NDArray[np.uint8]:
    """Return (planes, size, size) pixels of five blurred, noisy ellipsoids."""
    rng = np.random.default_rng(5)
    z, y, x = np.mgrid[:planes, :size, :size].astype(np.float32)
    out = np.full((planes, size, size), 18.0, np.float32)
    for cz, cy, cx, radius in (
        (14, 60, 52, 22),
        (12, 58, 100, 20),
        (18, 110, 60, 19),
        (15, 112, 108, 24),
        (6, 30, 130, 14),
    ):
        texture = ndimage.gaussian_filter(rng.normal(0, 1, out.shape), (1, 3, 3))
        shift = 0.5 * (z - cz)
        r = np.hypot((y - cy - shift) / radius, (x - cx) / (0.85 * radius))
        inside = np.hypot(r, (z - cz) / (0.5 * radius)) < 1
        out[inside] = (95 + 220 * texture)[inside]
    out = ndimage.gaussian_filter(out, (0.7, 1.2, 1.2))
    return (out + rng.normal(0, 5, out.shape)).clip(0, 255).astype(np.uint8)


def annotate(controller: Controller, clicks: list[tuple[float, ...]]) -> None:
    """Click nuclei on one plane each, and carry them both ways."""
    for z, y, x in clicks:
        controller.new_object()
        controller.stack.jump(round(z))
        controller.clicks.layer.add((z, y, x))
        wait_until(lambda: controller.view.pending == 0)
    controller.stack.choose_all(True)
    controller.stack.both()
    wait_until(lambda: controller.view.pending == 0)
    controller.stack.choose_all(False)
    controller.select(1)
    controller.stack.jump_to_worst()


def numbers(text: str) -> tuple[float, ...]:
    """Read ``1,2,3``."""
    return tuple(float(part) for part in text.split(","))


def main() -> None:
    """Open the window, propagate, save the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1400x1000", help="window, WIDTHxHEIGHT")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("stacks.png")
    )
    parser.add_argument("--stack", type=Path, help="a TIFF, (z, y, x)")
    parser.add_argument("--voxel", type=numbers, default=(1.0, 0.5, 0.5))
    parser.add_argument("--click", type=numbers, action="append", help="z,y,x")
    arguments = parser.parse_args()
    width, height = (int(n) for n in arguments.size.split("x"))
    viewer = napari.Viewer(title="napari")
    viewer.window.resize(width, height)
    stack = nuclei() if arguments.stack is None else tifffile.imread(arguments.stack)
    viewer.add_image(
        stack,
        name="nuclei",
        contrast_limits=np.percentile(stack, (1, 99.9)).tolist(),
        scale=arguments.voxel,
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
    )
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    annotate(ready(dock), arguments.click or CLICKS)
    viewer.reset_view()
    end = time.monotonic() + 1
    wait_until(lambda: time.monotonic() > end)
    viewer.screenshot(str(arguments.output), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
