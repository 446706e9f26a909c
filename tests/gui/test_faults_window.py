"""Faults while one works: one message each, nothing lost, and the next click works."""

from __future__ import annotations

import ctypes
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from closed_form import FloodNetwork
from gui_window import PLUGIN, Window, squares
from napari.utils.notifications import notification_manager
from npe2 import PluginManifest

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment import dock as dock_module
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


class Stalling(SimpleHTTPRequestHandler):
    """Serves files; stalls in the middle of an answer while ``stalled`` is set."""

    stalled = False

    def do_GET(self) -> None:
        if not Stalling.stalled:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"half of it")
        self.wfile.flush()
        while Stalling.stalled:
            time.sleep(0.02)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


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
        opened.append(Window(make_napari_viewer(show=True), qtbot, pixels))
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


def test_a_store_deleted_while_open(open_window, store):
    """Zarr takes missing pieces for empty ones: the click would be on black."""
    kept = store.with_name("kept")
    shutil.copytree(store, kept)
    window = open_window(zarr.open_array(store, mode="r"))
    fail = partial(shutil.rmtree, store)
    check(window, fail, lambda: shutil.copytree(kept, store), "gone")


def test_a_server_that_stalls_in_the_middle_of_an_answer(open_window, store):
    aiohttp = pytest.importorskip("aiohttp")
    pytest.importorskip("fsspec")
    handler = partial(Stalling, directory=str(store.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = zarr.storage.FsspecStore.from_url(
            f"http://127.0.0.1:{server.server_port}/cells.zarr",
            storage_options={
                "client_kwargs": {"timeout": aiohttp.ClientTimeout(sock_read=1)}
            },
            read_only=True,
        )
        window = open_window(zarr.open_array(found, mode="r"))
        try:
            check(
                window,
                lambda: setattr(Stalling, "stalled", True),
                lambda: setattr(Stalling, "stalled", False),
                "cannot be decoded",
            )
        finally:
            Stalling.stalled = False
            server.shutdown()


@pytest.mark.parametrize("kind", [np, torch])
def test_memory_that_runs_out(open_window, kind):
    window = open_window(squares())

    def fail() -> None:
        Greedy.trouble = lambda: kind.empty(2**55)

    check(window, fail, lambda: setattr(Greedy, "trouble", None), "enough memory")


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
