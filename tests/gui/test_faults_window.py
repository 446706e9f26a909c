"""Faults while one works: one message each, nothing lost, and the next click works."""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr
from closed_form import FloodNetwork
from gui_window import PLACEMENT, PLUGIN, PlanesWindow, Window, squares
from napari.settings import get_plugin_settings
from napari.utils.notifications import notification_manager
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox
from served import Stalling, served, serving

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import SessionError
from napari_cfrseg.gui.segment import dock as dock_module
from napari_cfrseg.gui.segment import lazy_pixels
from napari_cfrseg.gui.segment.layers import camera_of
from napari_cfrseg.gui.session.session_panel import picture_path
from napari_cfrseg.io.images import open_image
from napari_cfrseg.io.label_exports import write_ome_zarr
from napari_cfrseg.io.tiled_labels import TiledLabels, label_runs
from napari_cfrseg.session.session import Session, objects_after

pytestmark = pytest.mark.gui
FIRST, SECOND = (60, 60), (60, 180)


class Greedy(FloodNetwork):
    """Asks for more memory than there is, while told to."""

    trouble: Callable[[], object] | None = None

    def embed_image(self, image):
        if Greedy.trouble is not None:
            Greedy.trouble()
        return super().embed_image(image)


@pytest.fixture
def open_window(make_napari_viewer, qtbot, npe2pm, monkeypatch, tmp_path):
    """Open the dock on an array, with a closed-form network."""
    npe2pm.register(PluginManifest.from_distribution(PLUGIN))
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "sessions"))

    def load(_: str) -> Segmenter:
        return Segmenter(Greedy(0.2), device="cpu")

    monkeypatch.setattr(dock_module.ClickDock.__init__, "__defaults__", (load, None))
    opened = []

    def made(pixels) -> Window:
        viewer = make_napari_viewer(show=True)
        if isinstance(pixels, list):
            viewer.add_image(pixels, multiscale=True, contrast_limits=(0, 255))
            opened.append(Window(viewer, qtbot))
        elif len(pixels.shape) > 2:
            viewer.add_image(pixels, name="stack")
            viewer.dims.set_current_step(0, 0)
            opened.append(PlanesWindow(viewer, qtbot))
        else:
            opened.append(Window(viewer, qtbot, pixels))
        return opened[-1]

    yield made
    Greedy.trouble = None
    for window in opened:
        window.dock.let_go()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "served" / "cells.zarr"
    array = zarr.create_array(path, shape=(160, 240), chunks=(80, 120), dtype="u1")
    array[:] = squares()
    return path


def messages(since: int = 0) -> list[str]:
    return [note.message for note in list(notification_manager.records)[since:]]


def next_object(window: Window, at: tuple[int, int]) -> list[str]:
    """Click on the next object; return what the person was told."""
    before = len(messages())
    window.dock.controller.new_object()
    window.click(*at)
    return messages(before)


def check(
    window: Window, fail: Callable[[], None], mend: Callable[[], None], said: str
) -> None:
    """Click before, during and after a fault."""
    assert next_object(window, FIRST) == []
    area = window.area(1)
    assert area > 1000
    fail()
    (told,) = next_object(window, SECOND)
    assert said in told
    assert "\n" not in told
    assert len(told) < 300
    assert [row.object_id for row in window.view.objects] == [1]
    assert window.area(1) == area == (window.labels.data != 0).sum()
    assert len(window.points.data) == 1
    writer = window.dock.controller.annotator.writer
    assert len(objects_after(writer.content.events)) == 1
    mend()
    assert next_object(window, SECOND) == []
    assert [row.object_id for row in window.view.objects] == [1, 2]
    assert window.area(2) > 1000
    writer.save()
    found = objects_after(Session.open(writer.path).content.events)
    assert [one.click_count for one in found] == [1, 1]


def test_a_damaged_piece_of_a_store(open_window, store):
    window = open_window(zarr.open_array(store, mode="r"))
    pieces = [p for p in (store / "c").rglob("*") if p.is_file()]
    whole = {path: path.read_bytes() for path in pieces}

    def fail() -> None:
        for path, content in whole.items():
            path.write_bytes(content[: len(content) // 2] + b"\xff" * 9)

    def mend() -> None:
        for path, content in whole.items():
            path.write_bytes(content)

    check(window, fail, mend, "cannot be decoded")


def test_pieces_of_another_size(open_window, tmp_path):
    """Nothing is packed, so nothing but the size is wrong."""
    path, options = tmp_path / "cells.zarr", {"chunks": (80, 120), "dtype": "u1"}
    array = zarr.create_array(path, shape=(160, 240), compressors=None, **options)
    array[:] = squares()
    whole = {p: p.read_bytes() for p in (path / "c").rglob("*") if p.is_file()}

    def fail() -> None:
        for piece, content in whole.items():
            piece.write_bytes(content[: len(content) // 2])

    def mend() -> None:
        for piece, content in whole.items():
            piece.write_bytes(content)

    check(open_window(zarr.open_array(path, mode="r")), fail, mend, "decoded")


def test_a_slide_s_file_is_written_to_while_open(open_window, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_cfrseg.io.tiff._SMALL_PAGE_BYTES", 0)
    monkeypatch.setattr("napari_cfrseg.io.tiff_pieces._KEPT_BYTES", 0)
    path = tmp_path / "cells.tif"
    options = {"tile": (64, 64), "compression": "zlib"}
    tifffile.imwrite(path, squares(), metadata=None, **options)
    window = open_window(open_image(path).array)
    before, whole = path.stat(), path.read_bytes()

    def mend() -> None:
        path.write_bytes(whole)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    fail = partial(path.write_bytes, whole[: len(whole) // 2])
    check(window, fail, mend, "changed after it was opened")


def test_a_store_deleted_while_open(open_window, store):
    """Zarr takes missing pieces for empty ones: the click would be on black."""
    kept = store.with_name("kept")
    shutil.copytree(store, kept)
    window = open_window(zarr.open_array(store, mode="r"))
    fail = partial(shutil.rmtree, store)
    check(window, fail, lambda: shutil.copytree(kept, store), "gone")


def test_a_server_that_stalls_in_the_middle_of_an_answer(open_window, store):
    aiohttp = pytest.importorskip("aiohttp")
    patience = {"timeout": aiohttp.ClientTimeout(sock_read=1)}
    with served(store, client_kwargs=patience) as array:
        check(
            open_window(array),
            lambda: setattr(Stalling, "stalled", True),
            lambda: setattr(Stalling, "stalled", False),
            "cannot be decoded",
        )


def test_a_server_that_refuses_to_answer(open_window, store):
    with served(store) as array:
        check(
            open_window(array),
            lambda: setattr(Stalling, "refused", 503),
            lambda: setattr(Stalling, "refused", 0),
            "503",
        )


def give_up(window, how: str) -> None:
    """End what waits for the store, by Esc or by the button beside the message."""
    if how == "button":
        window.dock.status.remedy.click()
    else:
        window.press(Qt.Key.Key_Escape)


@pytest.mark.parametrize("how", ["early key", "key", "button"])
def test_a_click_on_a_store_that_never_answers_is_given_up(
    open_window, store, monkeypatch, how
):
    """The next click works although the first read never ends."""
    monkeypatch.setattr(lazy_pixels, "SLOW_S", 0.3)
    with served(store) as array:
        window = open_window(array)
        assert next_object(window, FIRST) == []
        Stalling.held, Stalling.stalled = threading.Event(), True
        window.dock.controller.new_object()
        window.click(*SECOND, settle=False)
        if how != "early key":
            window.until(lambda: "has not answered" in window.view.status)
            assert window.view.remedy.text == "Give up"
        Stalling.stalled = False
        give_up(window, how)
        window.settle()  # although the read goes on
        assert [row.object_id for row in window.view.objects] == [1]
        assert len(window.points.data) == 1
        assert window.view.remedy is None
        assert next_object(window, SECOND) == []
        assert [row.object_id for row in window.view.objects] == [1, 2]
        assert window.area(2) > 1000
        writer = window.dock.controller.annotator.writer
        assert len(objects_after(writer.content.events)) == 2


def write_stack(path: Path) -> Path:
    """Write nine equal planes, each a piece of its own."""
    array = zarr.create_array(
        path, shape=(9, 160, 240), chunks=(1, 160, 240), dtype="u1"
    )
    array[:] = np.broadcast_to(squares(), array.shape)
    return path


@pytest.fixture
def far_stack(tmp_path: Path) -> Iterator[zarr.Array]:
    """Serve a stack whose planes are pieces of their own."""
    with served(write_stack(tmp_path / "served" / "stack.zarr")) as found:
        yield found


@contextmanager
def trouble_at(
    window: Window, calls: int, begin: Callable[[], object]
) -> Iterator[None]:
    """Let the store fail once the network has embedded some more windows."""
    network = window.dock.controller.annotator._computer._segmenter.network
    due = network.calls["embed_image"] + calls

    def trouble() -> None:
        if network.calls["embed_image"] >= due:
            begin()

    Greedy.trouble = trouble
    yield
    Greedy.trouble = None


def test_a_propagation_that_waits_for_a_store_keeps_its_planes(
    open_window, far_stack, monkeypatch
):
    """Esc while it waits: what was done before is one act, recorded and replayed."""
    monkeypatch.setattr(lazy_pixels, "SLOW_S", 0.3)
    window = open_window(far_stack)
    controller = window.dock.controller
    window.click(*FIRST)
    before = window.labels.data.copy()
    Stalling.held = threading.Event()
    with trouble_at(window, 3, lambda: setattr(Stalling, "stalled", True)):
        controller.stack.forward()
        window.until(lambda: "has not answered" in window.view.status)
        window.press(Qt.Key.Key_Escape)
    Stalling.stalled = False
    kept = [cell.kind for cell in window.view.stack.cells].count("carried")
    assert 0 < kept < 8
    assert controller.annotator.writer.content.events[-1].results == kept
    assert (window.labels.data[: kept + 1] == before[0]).all()
    controller.undo()
    window.settle()
    assert (window.labels.data == before).all()
    Stalling.held.set()
    controller.stack.forward()
    window.settle()
    assert (window.labels.data == before[0]).all()


def test_a_propagation_that_comes_to_a_damaged_plane_keeps_its_planes(
    open_window, tmp_path
):
    path = write_stack(tmp_path / "stack.zarr")
    window = open_window(zarr.open_array(path, mode="r"))
    window.click(*FIRST)
    before = window.labels.data.copy()
    (path / "c" / "6" / "0" / "0").write_bytes(b"no piece")
    window.dock.controller.stack.forward()
    window.settle()
    assert "plane 6" in window.view.status
    assert "kept" in window.view.status
    kinds = "".join(cell.kind[0] for cell in window.view.stack.cells)
    assert kinds == "acccccnnn"
    window.dock.controller.undo()
    window.settle()
    assert (window.labels.data == before).all()


@pytest.mark.parametrize("how", ["key", "button"])
def test_suggestions_say_that_a_store_does_not_answer(
    open_window, store, monkeypatch, how
):
    monkeypatch.setattr(lazy_pixels, "SLOW_S", 0.3)
    with served(store) as array:
        window = open_window(array)
        assert next_object(window, FIRST) == []
        Stalling.held, Stalling.stalled = threading.Event(), True
        window.press(Qt.Key.Key_F)
        window.until(lambda: "has not answered" in window.view.status)
        assert window.view.suggestions.running
        Stalling.stalled = False
        give_up(window, how)
        window.until(lambda: not window.view.suggestions.running)
        assert window.view.progress == (0, 0)
        assert next_object(window, SECOND) == []
        assert [row.object_id for row in window.view.objects] == [1, 2]


class Noted:
    """A lazy array that notes which threads read it, and may be slow."""

    dtype, ndim, shape, size = np.dtype(np.uint8), 2, (160, 240), 160 * 240

    def __init__(self) -> None:
        self.readers: set[str] = set()
        self.slow: threading.Event | None = None

    def __getitem__(self, key: object) -> np.ndarray:
        self.readers.add(threading.current_thread().name)
        if self.slow is not None:
            self.slow.wait(300)
        return squares()[key]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:, :]


def test_the_window_s_thread_reads_no_lazy_pixels(open_window, tmp_path, monkeypatch):
    """napari reads what it shows; after that a slow store must not stop the window."""
    pixels = Noted()
    window = open_window(pixels)
    pixels.readers.clear()
    assert next_object(window, FIRST) == []
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert next_object(window, SECOND) == []
    keeper = window.dock.sessions.keeper
    assert keeper.lacks_file
    keeper.save(tmp_path / "far.cfrseg.json")
    keeper.export_later(tmp_path / "far.ome.tif")
    window.until(lambda: "Exported" in window.view.status)
    save_with_image(window, monkeypatch, tmp_path / "whole.cfrseg.json")
    window.until(lambda: "Saved" in window.view.status)
    assert np.array_equal(tifffile.imread(tmp_path / "whole.tif"), squares())
    pixels.slow = threading.Event()
    window.dock.sessions._keep_picture()
    window.until(lambda: "cfrseg-picture" in pixels.readers)
    window.dock.sessions._keep_picture()  # the first is still waiting: no second one
    pixels.slow.set()
    target = picture_path(keeper.writer.content.identity)
    window.until(target.is_file)
    assert pixels.readers == {"cfrseg-reader", "cfrseg-picture"}


def test_a_session_on_lazy_pixels_is_opened_by_the_worker(open_window, tmp_path):
    """The pixels that are shown are compared with the session's, not by the window."""
    pixels, path = Noted(), tmp_path / "far.cfrseg.json"
    window = open_window(pixels)
    assert next_object(window, FIRST) == []
    area = window.area(1)
    window.dock.sessions.keeper.save(path)
    window.viewer.layers.clear()
    window.until(lambda: window.dock.controller is None)
    window.image = window.viewer.add_image(pixels, name="again", **PLACEMENT)
    window.until(lambda: window.dock.controller is not None)
    window.until(lambda: not window.view.loading)
    window.settle()
    pixels.readers.clear()
    window.dock.open_session(path)
    window.until(lambda: bool(window.view.objects))
    window.settle()
    assert window.area(1) == area
    assert window.viewer.layers[0].name == "again"
    assert pixels.readers == {"cfrseg-reader"}


def test_a_session_on_a_server_is_opened_by_its_address(open_window, tmp_path):
    """A script gave Zarr arrays to the layer; they know where they lie."""
    pixels, path = TiledLabels((1000, 9000), np.uint16), tmp_path / "far.cfrseg.json"
    pixels[480:540, 4480:4540] = np.full((60, 60), 200, np.uint16)
    write_ome_zarr(tmp_path / "served" / "slide.zarr", pixels, axes=("y", "x"))
    with serving(tmp_path / "served") as host:
        group = zarr.open_group(f"{host}/slide.zarr", mode="r")
        window = open_window([group[str(level)] for level in range(5)])
        camera_of(window.viewer).center, camera_of(window.viewer).zoom = (510, 4510), 2
        window.settle()
        assert next_object(window, (510, 4510)) == []
        before = label_runs(window.labels.data[0])
        assert 3_000 < before.size < 4_000
        window.dock.sessions.keeper.save(path)
        said = Session.open(path).image
        assert (said.path, said.levels) == (f"{host}/slide.zarr", 5)
        window.viewer.layers.clear()
        window.until(lambda: window.dock.controller is None)
        Stalling.refused = 403
        with pytest.raises(SessionError, match=f"{host}.*403.*open the image yourself"):
            window.dock.open_session(path)
        Stalling.refused = 0
        window.dock.open_session(path)
        window.until(lambda: window.dock.controller is not None)
        window.until(lambda: not window.view.loading and bool(window.view.objects))
        window.settle()
        assert label_runs(window.labels.data[0]) == before
        window.dock.sessions.keeper.save(tmp_path / "elsewhere" / "moved.cfrseg.json")
        moved = Session.open(tmp_path / "elsewhere" / "moved.cfrseg.json")
        assert moved.image == said
        again = moved.apply(segmenter=Segmenter(FloodNetwork(0.2), device="cpu"))
        assert label_runs(again) == before


def save_with_image(window: Window, monkeypatch, path: Path) -> None:
    """Save as… under a name; yes to whether the image is to be saved, too."""
    yes = QMessageBox.StandardButton.Yes
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    monkeypatch.setattr(QMessageBox, "question", lambda *_: yes)
    window.dock.sessions.save_button.click()


def test_saving_an_image_that_does_not_come_is_given_up(
    open_window, tmp_path, monkeypatch
):
    """The session stays where it was; the next act and the next save work."""
    pixels = Noted()
    window = open_window(pixels)
    assert next_object(window, FIRST) == []
    keeper, path = window.dock.sessions.keeper, tmp_path / "far.cfrseg.json"
    before = keeper.writer.path
    pixels.slow = threading.Event()
    save_with_image(window, monkeypatch, path)
    assert "Saving far.cfrseg.json" in window.view.status
    window.until(lambda: window.view.progress == (0, 1))
    window.until(lambda: window.view.remedy is not None)
    assert window.view.remedy.text == "Give up"
    window.press(Qt.Key.Key_Escape)
    window.until(lambda: window.view.status == "far.cfrseg.json was not saved.")
    assert not list(tmp_path.glob("*far*"))
    assert keeper.writer.path == before
    pixels.slow.set()
    assert next_object(window, SECOND) == []
    save_with_image(window, monkeypatch, path)
    window.until(lambda: "Saved" in window.view.status)
    assert keeper.writer.path == path
    assert keeper.writer.content.image.path == "far.tif"
    assert window.view.progress == (0, 0)


def test_memory_that_runs_out(open_window):
    window = open_window(squares())

    def fail(kind=np) -> None:
        Greedy.trouble = lambda: kind.empty(2**55)

    check(window, fail, lambda: setattr(Greedy, "trouble", None), "enough memory")
    fail(torch)
    (told,) = next_object(window, (140, 20))
    assert "enough memory" in told
    assert "\n" not in told
    assert [row.object_id for row in window.view.objects] == [1, 2]


def test_a_cap_on_the_memory(open_window):
    window = open_window(squares())
    stages = window.dock.controller.annotator._computer._segmenter._stages

    def cap(most: int | None) -> None:
        stages.cap = most

    check(window, lambda: cap(1_000), lambda: cap(None), "CFRSEG_MEMORY_GB")


@pytest.mark.parametrize("device", ["cuda:63", "cpu"])
def test_the_preferences_choose_device_and_precision(
    make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch, tmp_path, device
):
    """A device that is not there is one line; what computed is in the session."""
    npe2pm.register(PluginManifest.from_distribution(PLUGIN))
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "sessions"))
    chosen = get_plugin_settings(PLUGIN).click
    chosen.device, chosen.precision = device, "bfloat16"
    before = len(messages())
    window = Window(make_napari_viewer(show=True), qtbot, squares())
    if device == "cpu":
        window.click(*FIRST)
        content = window.dock.controller.annotator.writer.content
        assert (content.settings.device, content.settings.precision) == (
            "cpu",
            "bfloat16",
        )
        assert "cpu: as asked for" in window.view.placement
    else:
        (told,) = messages(before)
        assert told == window.view.status
        assert "'cuda:63' is not there" in told
        assert "\n" not in told
    window.dock.let_go()


def test_a_computation_that_is_ended_from_outside(open_window):
    window = open_window(squares())

    def fail() -> None:
        Greedy.trouble = lambda: end(threading.current_thread())

    check(window, fail, lambda: setattr(Greedy, "trouble", None), "ended from outside")


def test_a_worker_that_died_is_replaced(open_window):
    """The thread ends while it waits; the next click gets another one."""
    window = open_window(squares())
    assert next_object(window, FIRST) == []
    (thread,) = [t for t in threading.enumerate() if "cfrseg-worker" in t.name]
    end(thread)
    # it notices once it wakes up: nothing to do, but something in its queue
    window.dock._runner._executor.submit(lambda: None)
    window.until(lambda: not thread.is_alive())
    assert next_object(window, SECOND) == []
    assert [row.object_id for row in window.view.objects] == [1, 2]


def end(thread: threading.Thread) -> None:
    """Let a thread meet SystemExit at its next step."""
    exit_there = ctypes.py_object(SystemExit)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), exit_there
    )
