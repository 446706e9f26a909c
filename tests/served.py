"""A server on this machine that stalls and refuses, for the tests."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zarr


class Stalling(SimpleHTTPRequestHandler):
    """Serves files; stalls in the middle of an answer while ``stalled`` is set.

    Where there is ``held``, an answer that stalled stays so until it is set. Parts of
    files are sent (``Range``) unless ``whole`` is set.
    """

    sent_bytes = 0  #: of all files, so far
    counting = threading.Lock()
    before: Callable[[], object] = staticmethod(int)  #: called before each answer
    whole = False

    stalled = False
    held: threading.Event | None = None
    refused = 0  #: the status of all answers, where it is not 0

    def do_GET(self) -> None:
        if Stalling.refused:
            self.send_error(Stalling.refused)
            return
        Stalling.before()
        if not Stalling.stalled:
            self._send()
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

    def _send(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        if asked is None or Stalling.whole:
            self.send_response(200)
        else:
            first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with Stalling.counting:  # before the reader has them: it may look at once
            Stalling.sent_bytes += len(data)
        with suppress(ConnectionError):
            self.wfile.write(data)

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
            Stalling.stalled, Stalling.refused, Stalling.whole = False, 0, False
            Stalling.before = int
            if Stalling.held is not None:
                Stalling.held.set()
            Stalling.held = None
            server.shutdown()
            hang_up()


def hang_up() -> None:
    """Close the connections to servers: those for Zarr do not close themselves."""
    from fsspec.implementations.http import HTTPFileSystem

    for files in list(HTTPFileSystem._cache.values()):
        if session := files._session:
            closed = asyncio.run_coroutine_threadsafe(session.close(), session._loop)
            closed.result(60)
    HTTPFileSystem.clear_instance_cache()


@contextmanager
def bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve a folder's files as S3 does, on this machine; yields their address."""
    reason = "needs a server that answers as S3 does: pip install 'moto[server]'"
    server = pytest.importorskip("moto.server", reason=reason).ThreadedMotoServer(
        "127.0.0.1", port=0, verbose=False
    )
    s3fs = pytest.importorskip("s3fs")
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("ENDPOINT_URL", f"http://{host}:{port}"),
            ("ACCESS_KEY_ID", "known"),
            ("SECRET_ACCESS_KEY", "secret"),
            ("DEFAULT_REGION", "us-east-1"),
            ("EC2_METADATA_DISABLED", "true"),
        ):
            monkeypatch.setenv(f"AWS_{name}", value)
        s3fs.S3FileSystem.clear_instance_cache()
        files = s3fs.S3FileSystem()
        with suppress(FileExistsError):  # of a test before
            files.mkdir("slides")
        for path in folder.rglob("*"):
            if path.is_file():
                files.put(str(path), f"slides/{path.relative_to(folder).as_posix()}")
        yield "s3://slides"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()
