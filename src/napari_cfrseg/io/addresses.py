"""Images on a server: what is an address, and where a Zarr array lies.

An address such as ``https://host/slide.zarr`` goes through the program as a Path, which
makes one slash of two; here it gets them back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_cfrseg.errors import ImageError, said_of

#: a server that says nothing for so long is given up
SILENCE_S = 30.0
#: aiohttp's errors where a connection ends too early
_BROKEN_OFF = ("ClientPayloadError", "ServerDisconnectedError")
#: what S3 answers, and what botocore raises before it asks, with the remedy
_OF_S3 = {
    "NoSuchBucket": "there is no such bucket: check the address",
    "NoCredentialsError": "there are no credentials for S3: set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "InvalidAccessKeyId": "S3 does not know these credentials: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "S3 refuses the key: check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "these credentials may not read it: ask its owner",
    "EndpointConnectionError": "no server answers there: check the connection, and "
    "AWS_ENDPOINT_URL",
}


def address_of(path: Path) -> str | None:
    """Return the address that a path was made of; None: it is a path on this machine.

    Examples
    --------
    >>> address_of(Path("https://host/slide.zarr"))
    'https://host/slide.zarr'
    >>> address_of(Path("C:/slide.zarr")) is address_of(Path("slide.zarr")) is None
    True
    """
    scheme, found, rest = path.as_posix().partition(":/")
    known = found and len(scheme) > 1 and scheme.isalnum()
    return f"{scheme}://{rest.lstrip('/')}" if known else None


def absolute(path: Path) -> Path:
    """Return a path that is true in every folder; an address is."""
    return path.absolute() if address_of(path) is None else path


def whereabouts(array: Any) -> str | None:
    """Return the folder or address of a Zarr array; None: it has none that is public.

    An address with a password or a signature is not: it would be written into files.
    """
    store: Any = getattr(array, "store", None)
    store = getattr(store, "_store", store)
    root, server = getattr(store, "root", None), getattr(store, "fs", None)
    if isinstance(root, Path):
        return str(root / array.path)
    if server is None:
        return None
    address = str(server.unstrip_protocol(store.path)).rstrip("/")
    is_public = "@" not in address and "?" not in address
    return f"{address}/{array.path}".rstrip("/") if is_public else None


def remote_store(address: str) -> Any:
    """Return a Zarr store on a server; ImageError if what reads it is not installed."""
    from zarr.storage import FsspecStore

    with needing(address):
        return FsspecStore.from_url(address, server_options(address), read_only=True)


def server_options(address: str) -> dict[str, Any]:
    """Return how fsspec asks a server, for how long it waits among it."""
    if not address.startswith("http"):
        return {}
    import aiohttp

    wait = aiohttp.ClientTimeout(
        total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S
    )
    plain = {"Accept-Encoding": "identity"}  # lengths are those of the file
    return {"client_kwargs": {"timeout": wait, "headers": plain}}


@contextmanager
def needing(address: str) -> Iterator[None]:
    """Turn a missing package that reads from servers into an ImageError."""
    try:
        yield
    except ImportError as error:
        msg = f'{address} is on a server: pip install "napari-cfrseg[remote]"'
        raise ImageError(msg) from error


@contextmanager
def answering(address: str) -> Iterator[None]:
    """Turn whatever an unanswered question raises into an ImageError of one line."""
    try:
        yield
    except Exception as error:  # each kind of server has errors of its own
        raise ImageError(f"{address}: {_why(error)}") from error


def _why(error: BaseException) -> str:
    """Return why a server did not answer; what fsspec makes of it hides the reason."""
    while error.__cause__ is not None:
        error = error.__cause__
    kind, status = type(error).__name__, getattr(error, "status", None)
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        kind = str(answer.get("Error", {}).get("Code"))
    if kind in _OF_S3:
        return _OF_S3[kind]
    if status == 404 or (status is None and isinstance(error, FileNotFoundError)):
        return "there is no such file on the server"
    if status is not None:
        return f"the server answers {status} ({getattr(error, 'message', '')})"
    if isinstance(error, TimeoutError):
        return f"the server has not answered for {SILENCE_S:.0f} s: try again"
    if isinstance(error, ConnectionResetError) or kind in _BROKEN_OFF:
        return "the server broke its answer off: try again"
    return said_of(error)[:200]
