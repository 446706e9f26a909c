"""Images on a slow server in a real window, which answers meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from closed_form import FloodNetwork
from gui_window import PLUGIN, Window
from napari.utils.notifications import notification_manager
from npe2 import PluginManifest
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QProgressDialog, QPushButton
from served import Stalling, bucket, serving

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment import dock as dock_module
from napari_cfrseg.gui.segment.layers import camera_of
from napari_cfrseg.gui.session import server_layers
from napari_cfrseg.session.session import Session

pytestmark = pytest.mark.gui


class Ticks:
    """Has a server answer only once the window has answered several times meanwhile."""

    def __init__(self) -> None:
        self.asked = self.count = 0
        self.stopped = False  #: whether the window waited for the server
        self._timer = QTimer(interval=5)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        self.count += 1

    def wait(self) -> None:
        """Wait in the server's thread."""
        self.asked += 1
        due, end = self.count + 20, time.monotonic() + 60
        while self.count < due and not self.stopped:
            self.stopped = time.monotonic() > end
            time.sleep(0.005)


@pytest.fixture
def viewer(make_napari_viewer, npe2pm, monkeypatch, tmp_path):
    npe2pm.register(PluginManifest.from_distribution(PLUGIN))
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "sessions"))

    def load(_: str) -> Segmenter:
        return Segmenter(FloodNetwork(0.2), device="cpu")

    monkeypatch.setattr(dock_module.ClickDock.__init__, "__defaults__", (load, None))
    return make_napari_viewer(show=True)


def write_pyramid(path: Path, side: int) -> np.ndarray:
    """Write two levels with one object, and return the finest."""
    pixels = np.random.default_rng(0).integers(0, 20, (side, side), np.uint16)
    pixels[200:260, 300:360] += 200
    path.parent.mkdir()
    levels = pixels, pixels[::2, ::2]
    if path.suffix == ".zarr":
        group = zarr.open_group(path, mode="w", zarr_format=2)
        datasets = []
        for number, level in enumerate(levels):
            group.create_array(str(number), data=level, chunks=(128, 128))
            scale = {"type": "scale", "scale": [0.5 * 2**number] * 2}
            said = {"path": str(number), "coordinateTransformations": [scale]}
            datasets.append(said)
        axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
        one = {"version": "0.4", "axes": axes, "datasets": datasets}
        group.attrs["multiscales"] = [one]
        return pixels
    with tifffile.TiffWriter(path) as file:
        options = {"tile": (128, 128), "compression": "zlib"}
        file.write(levels[0], subifds=1, metadata={"axes": "YX"}, **options)
        file.write(levels[1], subfiletype=1, **options)
    return pixels


@pytest.fixture
def field(tmp_path: Path) -> np.ndarray:
    """A field of which a view shows the coarser level, in a file to be served."""
    return write_pyramid(tmp_path / "served" / "slide.ome.tif", 4096)


def told() -> list[str]:
    return [note.message for note in notification_manager.records]


def shown(layer) -> np.ndarray:
    """Return the pixels that napari shows of a layer now."""
    return np.asarray(layer._slice.image.raw)


def saved_far(viewer, qtbot, address: str, path: Path) -> tuple[Window, int]:
    """Click an object of an image on a server, save, close the image.

    Returns the window and the object's area.
    """
    viewer.open(address, plugin=PLUGIN)
    window = Window(viewer, qtbot)
    window.click(230, 330)
    area = window.area(1)
    assert 3_500 < area < 3_700
    window.dock.sessions.keeper.save(path)
    assert Session.open(path).image.path == address
    viewer.layers.clear()
    window.until(lambda: window.dock.controller is None)
    return window, area


@pytest.mark.parametrize("name", ["slide.ome.tif", "slide.ome.zarr"])
def test_a_session_on_a_slow_server_opens_while_the_window_answers(
    viewer, qtbot, tmp_path, name
):
    path = tmp_path / "far.cfrseg.json"
    write_pyramid(tmp_path / "served" / name, 512)
    with serving(tmp_path / "served") as host:
        window, area = saved_far(viewer, qtbot, f"{host}/{name}", path)
        ticks = Ticks()
        Stalling.before = ticks.wait
        window.dock.open_session(path)
        assert ticks.asked
        camera_of(viewer).zoom = 4
        window.until(lambda: window.dock.controller is not None)
        window.until(lambda: not window.view.loading and bool(window.view.objects))
        window.until(lambda: shown(viewer.layers[0]).any())
        assert window.area(1) == area
        assert not ticks.stopped
        Stalling.before = int
        window.settle()


def test_an_address_that_ends_in_a_slash_names_its_layers(viewer, tmp_path):
    write_pyramid(tmp_path / "served" / "slide.zarr", 512)
    with serving(tmp_path / "served") as host:
        for end in ("", "/"):
            viewer.open(f"{host}/slide.zarr{end}", plugin=PLUGIN)
        assert [layer.name for layer in viewer.layers] == ["slide", "slide [1]"]


def test_a_session_on_s3_is_made_and_reopened(viewer, qtbot, tmp_path, monkeypatch):
    path = tmp_path / "far.cfrseg.json"
    write_pyramid(tmp_path / "served" / "slide.ome.tif", 512)
    with bucket(tmp_path / "served", monkeypatch) as address:
        window, area = saved_far(viewer, qtbot, f"{address}/slide.ome.tif", path)
        window.dock.open_session(path)
        window.until(lambda: window.dock.controller is not None)
        window.until(lambda: not window.view.loading and bool(window.view.objects))
        assert window.area(1) == area
        window.dock.let_go()


def test_opening_is_given_up_by_cancel(viewer, field, tmp_path):
    with serving(tmp_path / "served") as host:
        answers, looks = threading.Event(), QTimer(interval=50)
        Stalling.before = answers.wait

        def cancel() -> None:
            for dialog in QApplication.topLevelWidgets():
                if isinstance(dialog, QProgressDialog) and dialog.isVisible():
                    looks.stop()
                    assert host in dialog.labelText()
                    dialog.findChild(QPushButton).click()

        looks.timeout.connect(cancel)
        looks.start()
        assert viewer.open(f"{host}/slide.ome.tif", plugin=PLUGIN) == []
        assert len(viewer.layers) == 0
        answers.set()
        (layer,) = viewer.open(f"{host}/slide.ome.tif", plugin=PLUGIN)
        assert np.array_equal(np.asarray(layer.data[0]), field)


@pytest.mark.parametrize("name", ["slide.ome.tif", "slide.ome.zarr"])
def test_what_is_in_view_comes_from_a_slow_server_later(viewer, qtbot, tmp_path, name):
    field = write_pyramid(tmp_path / "served" / name, 4096)
    with serving(tmp_path / "served") as host:
        (layer,) = viewer.open(f"{host}/{name}", plugin=PLUGIN)
        assert layer.multiscale
        assert layer.contrast_limits == [0, 19]
        ticks, answers = Ticks(), threading.Event()
        Stalling.before = lambda: answers.wait() and ticks.wait()
        camera_of(viewer).center, camera_of(viewer).zoom = (230, 330), 8
        qtbot.waitUntil(lambda: layer.data_level == 0)
        assert shown(layer).any()  # the coarser level
        assert not fine(layer, field)
        answers.set()
        qtbot.waitUntil(lambda: fine(layer, field))
        assert not ticks.stopped


def fine(layer, field) -> bool:
    """Whether napari shows the finest level's own pixels."""
    (y, x), (bottom, right) = layer.corner_pixels[:, -2:]
    return np.array_equal(shown(layer), field[y : bottom + 1, x : right + 1])


def test_a_view_that_does_not_come_is_said_once(
    viewer, field, qtbot, tmp_path, monkeypatch
):
    """And comes by itself once the server answers again."""
    monkeypatch.setattr(server_layers, "_AGAIN_MS", 300)
    with serving(tmp_path / "served") as host:
        (layer,) = viewer.open(f"{host}/slide.ome.tif", plugin=PLUGIN)
        before = len(told())
        Stalling.refused = 503
        for zoom in (4, 8):
            camera_of(viewer).center, camera_of(viewer).zoom = (230, 330), zoom
            qtbot.waitUntil(lambda: len(told()) > before)
            qtbot.wait(700)
            assert not fine(layer, field)
        assert len(told()) == before + 1
        assert "503" in told()[-1]
        Stalling.refused = 0
        qtbot.waitUntil(lambda: fine(layer, field))


def test_others_get_the_pixels_of_such_a_layer(viewer, field, tmp_path):
    """A filter or an export in the window's thread must not get what is shown."""
    with serving(tmp_path / "served") as host:
        (layer,) = viewer.open(f"{host}/slide.ome.tif", plugin=PLUGIN)
        assert np.array_equal(np.asarray(layer.data[0][200:300]), field[200:300])
        saved = tmp_path / "copy.npy"
        np.save(saved, viewer.layers[0].data[1])
        assert np.array_equal(np.load(saved), field[::2, ::2])
