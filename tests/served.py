"""A server on this machine that stalls and refuses, for the tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zarr


class Stalling(SimpleHTTPRequestHandler):
    """Serves files; stalls in the middle of an answer while ``stalled`` is set.

    Where there is ``held``, an answer that stalled stays so until it is set.
    """

    stalled = False
    held: threading.Event | None = None
    refused = 0  #: the status of all answers, where it is not 0

    def do_GET(self) -> None:
        if Stalling.refused:
            self.send_error(Stalling.refused)
            return
        if not Stalling.stalled:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"half of it")
        self.wfile.flush()
        if Stalling.held is not None:
            Stalling.held.wait(300)
        while Stalling.stalled and Stalling.held is None:
            time.sleep(0.02)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(store: Path, **options: object) -> Iterator[zarr.Array]:
    """Open a store through a local server that can stall."""
    with serving(store.parent) as host:
        found = zarr.storage.FsspecStore.from_url(
            f"{host}/{store.name}", storage_options=options, read_only=True
        )
        yield zarr.open_array(found, mode="r")


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder from this machine; give the server's address."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("fsspec")
    handler = partial(Stalling, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            Stalling.stalled, Stalling.refused = False, 0
            if Stalling.held is not None:
                Stalling.held.set()
            Stalling.held = None
            server.shutdown()
