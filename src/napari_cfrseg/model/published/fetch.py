"""Download published checkpoints by name, on request only.

Without a network the message names the file to bring. A broken download is kept next
to its target and resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from napari_cfrseg.errors import CheckpointError

#: called with the bytes that are here and the bytes there will be (0: unknown)
Progress = Callable[[int, int], None]

#: small: a broken connection loses at most this much
_CHUNK = 1 << 16
_TIMEOUT_S = 30
_RITM = "https://github.com/saic-vul/ritm_interactive_segmentation/releases/download"
_DRIVE = "https://drive.google.com"


@dataclass(frozen=True, slots=True)
class Published:
    """Address and licence of a checkpoint."""

    name: str  #: its name here, and the model's once imported
    url: str  #: of the file, or of the page to fetch it from by hand
    licence: str  #: of the weights
    sha256: str | None = None  #: of the file; None where it is not known
    #: True where the page offers no plain file (a drive's confirmation page, a split
    #: archive)
    by_hand: bool = False


#: licences of published weights
MAE = "CC-BY-NC-4.0 (fine-tuned from MAE weights)"
UNLICENSED = "none given: all rights reserved"

_FILES = (
    "sbd_h18_itermask",
    "coco_lvis_h18_baseline",
    "coco_lvis_h18s_itermask",
    "coco_lvis_h18_itermask",
    "coco_lvis_h32_itermask",
)
_VIT = f"{_DRIVE}/drive/folders/1qpK0gtAPkVMF7VC42UA9XF4xMWr5KJmL"
_ICL = "https://github.com/TitorX/CFR-ICL-Interactive-Segmentation/releases"
_SIZES = ("base", "large", "huge")
#: name, page and licence
_PAGES = (
    *((f"cocolvis_vit_{size}", _VIT, MAE) for size in _SIZES),
    *((f"sbd_vit_{size}", _VIT, MAE) for size in _SIZES),
    ("cocolvis_icl_vit_huge", _ICL, "CC-BY-NC-4.0"),
    ("fcfi_r101_sbd", f"{_DRIVE}/file/d/1bxfaDRZAv7qNfHZXtVeNken2ndpFJ7BF", UNLICENSED),
    (
        "fcfi_h18s_cocolvis",
        f"{_DRIVE}/file/d/1RzUKXWIydewf6qZy48HyLoU21arOVZg2",
        UNLICENSED,
    ),
)
PUBLISHED = {
    **{name: Published(name, f"{_RITM}/v1.0/{name}.pth", "MIT") for name in _FILES},
    **{page[0]: Published(*page, by_hand=True) for page in _PAGES},
}


def published(name: str) -> Published:
    """Return a published checkpoint by name; CheckpointError if there is none."""
    if name not in PUBLISHED:
        msg = f"no published checkpoint {name!r}; there are {', '.join(PUBLISHED)}"
        raise CheckpointError(msg)
    return PUBLISHED[name]


def fetch(source: Published, folder: Path, *, progress: Progress | None = None) -> Path:
    """Download a published checkpoint into a folder as ``<name>.pth``; return its path.

    A complete file is not fetched again. A broken download is resumed, if the server
    can. Raises CheckpointError if it cannot be reached, breaks off, has the wrong
    SHA-256, or must be fetched by hand.
    """
    if source.by_hand:
        raise CheckpointError(
            f"{source.name} has no plain download; get it from {source.url} with a "
            "browser, then: cfrseg models import FILE"
        )
    import pooch

    pooch.get_logger().setLevel("WARNING")  # the caller shows progress
    known = None if source.sha256 is None else f"sha256:{source.sha256}"
    target = f"{source.name}.pth"
    downloader = _Resuming(folder / f"{target}.part", progress)
    try:
        path = pooch.retrieve(
            source.url, known, fname=target, path=folder, downloader=downloader
        )
    except ValueError as error:
        if known is None:  # pooch knows neither the address's protocol nor a hash
            msg = f"{source.url}: not an address that can be fetched ({error})"
            raise CheckpointError(msg) from error
        # the hash differs; pooch has deleted the file
        raise CheckpointError(
            f"{source.url}: the file's SHA-256 is not the expected {source.sha256}; "
            "it was deleted. Try again; if this repeats, the file was changed."
        ) from error
    except OSError as error:
        # requests' errors are OSErrors, too
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{source.url}: cannot be reached or broke off ({reason}). "
            "Try again to resume, or on a machine without network bring the file and "
            "run: cfrseg models import FILE"
        ) from error
    return Path(path)


@dataclass(frozen=True, slots=True)
class _Resuming:
    """A pooch downloader that keeps the bytes that arrived and requests the rest."""

    partial: Path
    progress: Progress | None

    def __call__(self, url: str, output_file: str, _: object) -> None:
        import requests

        have = self.partial.stat().st_size if self.partial.is_file() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        how = {"headers": headers, "stream": True, "timeout": _TIMEOUT_S}
        with requests.get(url, **how) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                # all of it was here already: let the hash judge
                self.partial.replace(output_file)
                return
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                have = 0  # the server starts over
            total = have + int(response.headers.get("Content-Length", 0))
            with self.partial.open("ab" if have else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    if self.progress is not None:
                        self.progress(have, total)
        if have < total:
            raise OSError(f"{have} of {total} bytes arrived")
        self.partial.replace(output_file)
