"""Fetching from a real HTTP server on this machine: whole, broken, wrong, absent."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model.published.fetch import PUBLISHED, Published, fetch, published

pytest.importorskip("pooch")

CONTENT = bytes(range(256)) * 8000
HASH = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves one file; ``/cut`` promises all of it and breaks off half way once."""

    asked: ClassVar[list[str | None]] = []
    cuts: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.asked.append(span)
        if self.path == "/gone":
            self.send_error(404)
            return
        start = 0
        if span and self.path != "/stubborn":
            start = int(span.removeprefix("bytes=").removesuffix("-"))
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path in ("/cut", "/stubborn") and self.path not in self.cuts:
            self.cuts.append(self.path)
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked.clear()
    Handler.cuts.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=partial(running.serve_forever, 0.01))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def source(url: str, sha256: str | None = HASH) -> Published:
    return Published("some_net", url, "MIT", sha256)


def test_a_good_file_is_fetched_once_and_progress_is_told(
    server: str, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    path = fetch(
        source(f"{server}/good"), tmp_path, progress=lambda a, b: told.append((a, b))
    )
    assert path == tmp_path / "some_net.pth"
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    fetch(source(f"{server}/good"), tmp_path)
    assert len(Handler.asked) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["some_net.pth"]


@pytest.mark.parametrize("path", ["/cut", "/stubborn"])
def test_a_broken_download_is_resumed(server: str, tmp_path: Path, path: str) -> None:
    with pytest.raises(CheckpointError, match=r"broke off .*resume.*models import"):
        fetch(source(server + path), tmp_path)
    assert not (tmp_path / "some_net.pth").exists()
    assert fetch(source(server + path), tmp_path).read_bytes() == CONTENT
    # the second request asked for the rest; a stubborn server sent all of it again
    first, second = Handler.asked
    assert first is None
    assert second is not None
    start = int(second.removeprefix("bytes=").removesuffix("-"))
    assert 0.4 * len(CONTENT) < start <= 0.5 * len(CONTENT)


def test_a_wrong_hash_leaves_nothing_behind(server: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"SHA-256 is not the expected 00"):
        fetch(source(f"{server}/good", "00" * 32), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_address_of_no_known_kind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not an address that can be fetched"):
        fetch(source("nothing://x", None), tmp_path)


def test_a_file_that_is_gone(server: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="404"):
        fetch(source(f"{server}/gone"), tmp_path)


def test_no_network_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    with pytest.raises(CheckpointError, match=r"cannot be reached.*models import FILE"):
        fetch(source(url), tmp_path)


def test_published_names() -> None:
    assert published("coco_lvis_h32_itermask").licence == "MIT"
    with pytest.raises(CheckpointError, match="no published checkpoint 'resnet'"):
        published("resnet")
    assert all(entry.url.startswith("https://") for entry in PUBLISHED.values())


def test_what_no_program_can_fetch_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"browser, then: cfrseg models import"):
        fetch(published("fcfi_r101_sbd"), tmp_path)
