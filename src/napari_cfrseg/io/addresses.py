"""Images on a server: what is an address, and where a Zarr array lies.

An address such as ``https://host/slide.zarr`` goes through the program as a Path, which
makes one slash of two; here it gets them back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_cfrseg.errors import ImageError

#: a server that says nothing for so long is given up
_SILENCE_S = 30.0


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

    options: dict[str, Any] = {}
    try:
        if address.startswith("http"):
            import aiohttp

            wait = aiohttp.ClientTimeout(total=None, sock_read=_SILENCE_S)
            options = {"client_kwargs": {"timeout": wait}}
        return FsspecStore.from_url(address, options, read_only=True)
    except ImportError as error:
        msg = f'{address} is on a server: pip install "napari-cfrseg[remote]"'
        raise ImageError(msg) from error
