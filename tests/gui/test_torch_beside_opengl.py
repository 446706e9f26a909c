"""torch and what it brings can be imported after a window is open."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import pathlib, sys
from qtpy import API_NAME
from vispy import app, gloo
app.use_app(API_NAME.lower())
canvas = app.Canvas(show=True)
gloo.clear()
app.process_events()
from napari_cfrseg.gui.segment.model_loading import import_triton_apart
from napari_cfrseg.gui.segment.model_loading import load_torch_apart
import_triton_apart()
load_torch_apart()
if sys.platform == "linux":
    assert "torch" not in sys.modules
    assert "libtorch_cpu" in pathlib.Path("/proc/self/maps").read_text()
import napari_cfrseg.engine.segmenter, torchvision, timm, torch._dynamo
assert sys.platform != "linux" or "triton" in sys.modules
print("alive")
"""


@pytest.mark.gui
def test_importing_torch_beside_opengl_does_not_end_the_process(qapp):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "alive", done.stderr[-2000:]
