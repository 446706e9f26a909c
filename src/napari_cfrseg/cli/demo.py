"""``cfrseg demo``: open a bundled micrograph, or apply bundled clicks to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from napari_cfrseg.cli.options import DeviceOption, JsonOption, ModelOption
from napari_cfrseg.errors import DeviceError, counted
from napari_cfrseg.io.atomic import check_folder
from napari_cfrseg.samples import load_demo, load_sample

EXAMPLES = """\b
Examples:
  cfrseg demo
  cfrseg demo --headless out
"""


def demo(
    headless: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            file_okay=False,
            help="Open no window: apply the bundled clicks and write to this folder.",
        ),
    ] = None,
    model: ModelOption = "default",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Open napari with a bundled micrograph, ready to click.

    With --headless OUT, apply a short bundled list of clicks instead, write
    OUT/labels.tif and OUT/overlay.png, and print each object's IoU against the
    bundled annotation.
    """
    if headless is None:
        _open_window()
    else:
        _apply_clicks(headless, model, device, as_json=as_json)


def _open_window() -> None:
    problem = display_problem()
    if problem is not None:
        msg = f"{problem}; 'cfrseg demo --headless OUT' works without a window"
        raise DeviceError(msg)
    from napari_cfrseg.gui.manifest import open_demo

    open_demo(load_sample(load_demo().sample))


def _apply_clicks(out: Path, model: str, device: str, *, as_json: bool) -> None:
    from napari_cfrseg.engine.segmenter import Segmenter
    from napari_cfrseg.evaluation import metrics
    from napari_cfrseg.io.label_exports import write_labels, write_picture
    from napari_cfrseg.overlay import draw_overlay

    check_folder(out)
    bundled = load_demo()
    sample = load_sample(bundled.sample)
    segmenter = Segmenter.load(model, device=device)
    segmenter.set_image(sample.image)
    labels = np.zeros(sample.labels.shape, dtype=np.uint16)
    measured = []
    for number, clicks in enumerate(bundled.objects, start=1):
        mask = segmenter.predict(clicks).mask
        labels[mask & (labels == 0)] = number  # earlier objects keep their pixels
        found = labels == number
        iou = metrics.iou(found, sample.labels == sample.labels[clicks[0].pixel])
        area = int(np.count_nonzero(found))
        measured.append(
            {"object": number, "clicks": len(clicks), "area_px": area, "iou": iou}
        )
        if not as_json:
            clicked = counted(len(clicks), "click")
            typer.echo(f"object {number}: {clicked}, {area} px, IoU {iou:.3f}")
    write_labels(out / "labels.tif", labels)
    write_picture(
        out / "overlay.png", draw_overlay(sample.image, labels, bundled.objects)
    )
    if as_json:
        typer.echo(json.dumps({"output": str(out), "objects": measured}))
        return
    typer.echo(f"{sample.title}: wrote {out / 'labels.tif'} and {out / 'overlay.png'}")
    typer.echo(f"image: {sample.attribution} ({sample.licence})")


_PROBE = """
from qtpy.QtGui import QOpenGLContext
from qtpy.QtWidgets import QApplication
application = QApplication([])
if not QOpenGLContext().create():
    raise SystemExit("OpenGL is not available")
"""
_TIMEOUT_S = 60


def display_problem() -> str | None:
    """Return in one line why no window can be opened, None if one can."""
    if find_spec("napari") is None:
        return 'napari is not installed (python -m pip install "napari-cfrseg[all]")'
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"Qt did not answer within {_TIMEOUT_S} s"
    if probe.returncode == 0:
        return None
    return f"Qt cannot open a window here ({_reason(probe.stderr)})"


def _reason(stderr: str) -> str:
    """Pick the line that names the cause."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    causes = (
        "is needed",
        "cannot open shared object",
        "could not connect",
        "Could not find the Qt platform plugin",
    )
    for line in lines:
        if any(words in line for words in causes):
            return line
    return lines[-1] if lines else "it ended without a message"
