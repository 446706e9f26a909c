"""A session on a whole slide in a real window: clicked, saved, replayed, reopened."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr
from closed_form import FloodNetwork
from gui_window import PLUGIN, Window
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers._source import Source
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from slides import EMPTY, SPOT_PX, SVS_PX, SVS_UM, build_slide, build_svs, tissue
from sync_runner import HeldRunner

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.gui.segment.working_image import WorkingImage
from napari_cfrseg.gui.session.session_layers import get_slide_reader
from napari_cfrseg.io.images import open_image
from napari_cfrseg.io.tiled_labels import TiledLabels, label_runs
from napari_cfrseg.session.session import Session

SIDE = 40_000


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, int]]:
    path = tmp_path_factory.mktemp("slide") / "slide.zarr"
    return path, build_slide(path, SIDE, spots=2)[-1]


def test_each_level_is_the_mean_of_the_one_below(slide) -> None:
    path, (y, x) = slide
    group = zarr.open_group(str(path), mode="r")
    assert np.array_equal(group["0"][y : y + SPOT_PX, x : x + SPOT_PX], tissue())
    assert (group["0"][5_000, 30_000] == EMPTY).all()
    fine = group["2"][y // 4 : y // 4 + 256, x // 4 : x // 4 + 256].astype(float)
    coarse = group["3"][y // 8 : y // 8 + 128, x // 8 : x // 8 + 128]
    mean = fine.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(mean - coarse).max() < 1
    assert open_image(path, levels=7).array.shape == (SIDE, SIDE, 3)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, int]]:
    path = tmp_path_factory.mktemp("scan") / "scan.svs"
    return path, build_svs(path, 3 * SVS_PX, spots=2)[-1]


def test_a_slide_as_aperio_s_scanners_write_it(scan) -> None:
    """JPEG tiles with separate tables; thumbnail, label and macro beside the levels."""
    path, (y, x) = scan
    reader = get_slide_reader(str(path))
    assert reader is not None
    ((levels, described, kind),) = reader(str(path))
    assert kind == "image"
    assert described["rgb"]
    assert [one.shape for one in levels] == [
        (3 * SVS_PX // f, 3 * SVS_PX // f, 3) for f in (1, 4, 16)
    ]
    assert described["scale"] == (SVS_UM, SVS_UM)
    assert described["units"] == ("micrometer", "micrometer")
    found = np.asarray(levels[0][y : y + SPOT_PX, x : x + SPOT_PX]).astype(int)
    assert np.abs(found - tissue()).mean() < 8
    assert np.abs(np.asarray(levels[0][:64, -64:]).astype(int) - EMPTY).max() < 8


@pytest.fixture(scope="module")
def zarr_2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, int]]:
    path = tmp_path_factory.mktemp("zarr_2") / "slide.zarr"
    return path, build_slide(path, SIDE, spots=2, version="0.4")[-1]


class Flaky(SimpleHTTPRequestHandler):
    """Serves files, to S3's clients, too; answers as ``trouble`` says."""

    trouble = ""

    def do_GET(self) -> None:
        if self.trouble == "busy":
            self.send_error(503)
        elif self.trouble == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        elif "list-type=2" in self.path:  # S3 asks what is below a name
            answer = b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        else:
            time.sleep(0.005)
            super().do_GET()

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix("/bucket"))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["http", "https", "s3"])
def far(request, slide, tmp_path, monkeypatch) -> Iterator[zarr.Group]:
    """The slide on a server of our own, opened as a person would."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("fsspec")
    handler = partial(Flaky, directory=str(slide[0].parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        options: dict[str, object] = {}
        url = f"{request.param}://127.0.0.1:{found.server_port}/slide.zarr"
        if request.param == "https":
            found.socket = encrypted(found.socket, tmp_path)
            options = {"ssl": False}  # the certificate is nobody's
        elif request.param == "s3":
            # patience of minutes is not what is tested
            monkeypatch.setattr(pytest.importorskip("s3fs").S3FileSystem, "retries", 1)
            options = {
                "anon": True,
                "endpoint_url": f"http://127.0.0.1:{found.server_port}",
                "config_kwargs": {"retries": {"max_attempts": 1}},
            }
            url = "s3://bucket/slide.zarr"
        threading.Thread(target=found.serve_forever, daemon=True).start()
        store = zarr.storage.FsspecStore.from_url(
            url, storage_options=options, read_only=True
        )
        yield zarr.open_group(store, mode="r")
        found.shutdown()
    Flaky.trouble = ""


def encrypted(socket: socket.socket, folder: Path) -> ssl.SSLSocket:
    """Let a server speak TLS, with a certificate made for it."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -keyout {key}"
    command = [program, *made.split(), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context.wrap_socket(socket, server_side=True)


def test_pixels_that_are_not_those_of_the_file_are_read_from_the_layer(slide) -> None:
    path, _ = slide
    group = zarr.open_group(str(path), mode="r")
    levels = [dask.array.from_zarr(group[str(i)]) for i in range(8)]
    named = Source(path=str(path))
    same, other = Image(levels, multiscale=True), Image([255 - a for a in levels])
    for layer in (same, other):
        layer._source = named
    assert not hasattr(WorkingImage.of(same).data.levels[0], "dask")
    assert hasattr(WorkingImage.of(other).data.levels[0], "dask")


def test_a_slide_on_a_server_that_fails_at_times(slide, far) -> None:
    _, (y, x) = slide
    viewer, told = ViewerModel(), []
    image = viewer.add_image([far[str(i)] for i in range(8)], multiscale=True)
    controller = Controller(
        viewer,
        image,
        HeldRunner(),
        lambda: Segmenter(FloodNetwork(), device="cpu"),
        lambda _, text: told.append(text),
    )
    controller.clicked((y + 425, x + 172))
    assert len(controller.view.objects) == 1
    for trouble in ("busy", "cut"):
        Flaky.trouble = trouble
        controller.new_object()
        controller.clicked((500, 700))
        assert len(told) == 1
        assert "cannot be decoded" in told.pop()
        assert len(controller.view.objects) == 1
    Flaky.trouble = ""
    controller.clicked((500, 700))
    assert len(controller.view.objects) == 2
    assert not told
    controller.close()


def overview_shows(layer, place) -> bool:
    """Whether object 1 is in a coarse pixel at a place, or in one beside it.

    napari asks the one whose corner, not whose middle, is nearest.
    """
    px = 2**layer.data_level
    around = product((-px, 0, px), repeat=2)
    return any(layer.get_value(np.add(place, by))[1] == 1 for by in around)


@pytest.mark.gui
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["zarr_2", "scan"])
def test_a_slide_is_annotated_at_full_resolution(
    request, make_napari_viewer, qtbot, npe2pm, plugin_settings, tmp_path, monkeypatch,
    kind,
) -> None:  # fmt: skip
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "user"))
    for distribution in (PLUGIN, "napari"):
        npe2pm.register(PluginManifest.from_distribution(distribution))
    path, (y, x) = request.getfixturevalue(kind)
    viewer = make_napari_viewer(show=True)
    reader = PLUGIN if kind == "scan" else "napari"
    viewer.open(str(path), plugin=reader, layer_type="image", name="slide")
    window = Window(viewer, qtbot)
    read = window.dock.controller.image.data.levels
    assert not any(hasattr(level, "dask") for level in read)
    place = window.image.data_to_world((y + 430, x + 160))
    viewer.scene.camera.center, viewer.scene.camera.zoom = (
        place,
        2.0 / window.image.scale[0],
    )
    window.settle()
    window.click(y + 425, x + 172)
    tiles = window.labels.data[0]
    assert isinstance(tiles, TiledLabels)
    assert tiles[y + 425, x + 172] == 1
    clicked = tiles.runs()
    assert 50 < clicked.size < 2_000
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not tiles.runs().size
    both = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    window.press(Qt.Key.Key_Z, both)
    assert tiles.runs() == clicked
    window.labels.brush_size = 9
    window.labels.selected_label = 1
    viewer.layers.selection.active = window.labels
    window.labels.mode = "paint"
    window.drag((y + 460, x + 150), (y + 460, x + 200))
    assert tiles[y + 460, x + 170] == 1
    shown = label_runs(tiles)
    viewer.scene.camera.zoom /= 200
    window.settle()
    assert window.labels.data_level > 2
    window.until(lambda: overview_shows(window.labels, (y + 425, x + 172)))
    session = tmp_path / "slide.cfrseg.json"
    controller = window.dock.controller
    keeper = window.dock._keepers[controller]
    keeper.save(session)
    assert label_runs(controller.annotator.labels()) == shown
    check_exports(keeper, tmp_path, (y, x), shown)
    replayed = Session.open(session).apply()
    assert isinstance(replayed, TiledLabels)
    assert label_runs(replayed) == shown
    viewer.layers.clear()
    window.until(lambda: window.dock.controller is None)
    viewer.open(str(session), plugin=PLUGIN)
    window.until(lambda: window.dock.controller is not None)
    window.until(lambda: not window.view.loading and bool(window.view.objects))
    window.settle()
    assert label_runs(window.labels.data[0]) == shown


def check_exports(keeper, folder: Path, spot: tuple[int, int], shown) -> None:
    """Export in three formats, and find the labels in each."""
    (y, x), area = spot, int(shown.size)
    for name in ("labels.ome.tif", "labels.zarr"):
        found = open_image(keeper.export(folder / name)).array
        part = np.asarray(found[y : y + SPOT_PX, x : x + SPOT_PX])
        assert np.count_nonzero(part) == area
        assert part[460, 170] == 1
    path = keeper.export(folder / "labels.geojson")
    (one,) = json.loads(path.read_text())["features"]
    rings = np.concatenate([np.reshape(r, (-1, 2)) for r in flat(one["geometry"])])
    assert (abs(rings[:, 0] - x - 172) < 60).all()
    assert (abs(rings[:, 1] - y - 440) < 60).all()


def flat(geometry: dict[str, object]) -> list[object]:
    """Return a polygon's rings, or those of several."""
    parts = geometry["coordinates"]
    return parts if geometry["type"] == "Polygon" else [r for p in parts for r in p]
