"""Open an image of any format, lazily: TIFF, OME-Zarr, NPY and pictures.

Every command, the window, training and evaluation read images here. Arrays keep the
file's axis order, as napari shows them.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.addresses import address_of
from napari_cfrseg.io.axes import IN_MEMORY_BYTES, in_memory
from napari_cfrseg.io.named_axes import (
    MOST_BYTES,
    OpenImage,
    axis_names,
    ends_in_channels,
)

TIFF_SUFFIXES = (".tif", ".tiff", ".lsm", ".stk", ".btf", ".tf8")
#: TIFFs by other names, of slide scanners; only read
SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".ptif", ".ptiff")
_TIFFS = (*TIFF_SUFFIXES, *SLIDE_SUFFIXES)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
#: how a TIFF begins, whatever its name
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: files that hold images, in the order in which they are looked for
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, *SLIDE_SUFFIXES, *PICTURE_SUFFIXES, ".npy")
#: names of leading axes in files that name none
_UNNAMED = "qiwvu"
#: held while Pillow's own limit on the size of pictures is lifted
_OPENING = threading.Lock()


def open_image(
    path: Path,
    level: int = 0,
    *,
    levels: int = 1,
    axes: str | None = None,
    as_labels: bool = False,
) -> OpenImage:
    """Open an image; ImageError if there is none, or no such level.

    The path is a TIFF, NPY, PNG, JPEG or BMP, or whatever else Pillow reads; or an
    OME-Zarr folder; or the address of a TIFF or an OME-Zarr on a server
    (``https://…``, ``s3://…``). ``level``
    is of its pyramid, 0 the finest; so many ``levels`` from this one on become one
    pyramid. ``axes`` are the axes' letters as a person names them
    (:meth:`.OpenImage.named`). ``as_labels``: the pixels are object numbers, and a
    palette's colours do not count.
    """
    with reading(path):
        suffix, address = suffix_of(path), address_of(path)
        if address is not None and suffix in (*PICTURE_SUFFIXES, ".npy"):
            raise ImageError("of servers, TIFF and OME-Zarr are read: download it")
        if path.is_dir() or (address is not None and suffix not in _TIFFS):
            from napari_cfrseg.io.ome_zarr import open_zarr

            opened = open_zarr(path, level, levels=levels)
        else:
            opened = _open_file(path, level, levels, as_labels=as_labels)
        kind = np.dtype(opened.array.dtype).kind
        if kind not in "buif" or 0 in opened.shape or len(opened.shape) < 2:
            raise ImageError(
                f"{path} holds {opened.array.dtype} of shape {opened.shape}: expected "
                "numbers along y and x"
            )
    return opened if axes is None else opened.named(axes)


def count_levels(path: Path) -> int:
    """Return how many levels an image's pyramid has; 1: none."""
    if _is_tiff(path):
        from napari_cfrseg.io.tiff import tiff_levels

        return tiff_levels(path)
    if path.is_dir() or address_of(path) is not None:
        from napari_cfrseg.io.ome_zarr import zarr_levels

        return zarr_levels(path)
    return 1


def left_out(path: Path) -> str:
    """Return what of a slide is not shown, in one line; "" where nothing is missing."""
    if not _is_tiff(path):
        return ""
    from napari_cfrseg.io.tiff import tiff_left_out

    return tiff_left_out(path)


def axes_in(path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and lengths of a file's axes, read from its head; () if not there.

    An ImageError says that the file is damaged.
    """
    with reading(path):
        if path.is_dir():
            opened = open_image(path)
            return opened.axes, opened.shape
        if _is_tiff(path):
            from napari_cfrseg.io.tiff import tiff_axes

            return tiff_axes(path)
    return (), ()


def open_labels(path: Path) -> OpenImage:
    """Open an image of object numbers and leave out axes of length 1.

    An ImageError says why it cannot be read, or that it is a picture in colours.
    """
    opened = open_image(path, as_labels=True).arranged()
    if opened.is_rgb:
        msg = f"{path} is a picture in colours; expected one object number per pixel"
        raise ImageError(msg)
    return opened


def read_image(path: Path) -> NDArray[Any]:
    """Read an image: (…, Y, X) or (…, Y, X, C), axes of length 1 left out."""
    with reading(path):
        return open_image(path).arranged().read()


def read_small(array: Any, path: Path) -> Any:
    """Return an array's pixels where they are few, and not on a server."""
    if address_of(path) is not None:
        return array
    if math.prod(array.shape) * np.dtype(array.dtype).itemsize > IN_MEMORY_BYTES:
        return array
    with reading(path):
        return np.asarray(array)


def read_labels(path: Path) -> NDArray[np.integer]:
    """Read an image of object numbers; fractions are an ImageError, too."""
    with reading(path):
        return whole_numbers(open_labels(path).read(), str(path))


def whole_numbers(labels: NDArray[Any], where: str) -> NDArray[np.integer]:
    """Return object numbers as integers, also where they were saved as floats."""
    if labels.dtype.kind == "f":
        if not (np.isfinite(labels).all() and (np.mod(labels, 1) == 0).all()):
            msg = f"{where}: labels hold fractions; expected one number per pixel"
            raise ImageError(msg)
        return labels.astype(np.int64)
    if labels.dtype.kind not in "bui":
        raise ImageError(f"{where}: labels of type {labels.dtype}; expected integers")
    return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels


def suffix_of(path: Path) -> str:
    """Return the ending that says a file's format; a query of an address is none."""
    address = address_of(path)
    name = path.name if address is None else address.partition("?")[0]
    return Path(name).suffix.lower()


def stem_of(path: Path) -> str:
    """Return a file's name without the ending of its format."""
    return path.stem.removesuffix(".ome")


def image_files(folder: Path) -> dict[str, Path]:
    """Return the images in a folder by their stems, sorted; OME-Zarr among them."""
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in (*IMAGE_SUFFIXES, ".zarr")
    ]
    found.sort(key=lambda path: (*IMAGE_SUFFIXES, ".zarr").index(path.suffix.lower()))
    by_stem = {stem_of(path): path for path in reversed(found)}
    return dict(sorted(by_stem.items()))


def check_regular(path: Path) -> None:
    """Raise ImageError unless there is a regular file: a pipe would block."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: no such image") from error
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path} is no regular file")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError that names the file."""
    name = address_of(path) or str(path)
    try:
        yield
    except ImageError as error:
        said = str(error).replace(str(path), name)
        if name not in said:
            said = f"{name} cannot be read: {said}"
        raise ImageError(said) from error
    except Exception as error:  # decoders of broken files raise whatever they like
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"{name} cannot be read as an image: {said}") from error


def _open_file(path: Path, level: int, levels: int, *, as_labels: bool) -> OpenImage:
    if _is_tiff(path):
        from napari_cfrseg.io.tiff import open_tiff

        return open_tiff(path, level, levels=levels, as_labels=as_labels)
    if level + levels > 1:
        raise ImageError(f"{path} has no pyramid level {max(level, 1)}")
    if suffix_of(path) == ".npy":
        return _open_npy(path)
    return _open_picture(path, as_labels)


def _is_tiff(path: Path) -> bool:
    """Whether a file is a TIFF: by its name or, on this machine, its first bytes."""
    if path.is_dir():
        return False
    is_named, is_far = suffix_of(path) in _TIFFS, address_of(path) is not None
    if not is_far:
        check_regular(path)
    if is_named or is_far:
        return is_named
    with path.open("rb") as file:
        return file.read(4) in _TIFF_MARKS


def _open_npy(path: Path) -> OpenImage:
    try:
        array = in_memory(np.lib.format.open_memmap(path, mode="r"))
    except ValueError as error:  # NumPy's own line may advise to unpickle the file
        msg = f"{path} is no array of numbers, or its header is damaged"
        raise ImageError(msg) from error
    channels = ends_in_channels(array.shape)
    leading = _UNNAMED[: array.ndim - 2 - channels]
    return OpenImage(array, (*leading, *axis_names(2 + channels, channels)))


def _open_picture(path: Path, as_labels: bool) -> OpenImage:
    from PIL import Image

    with _OPENING:  # only the header is read; the size is checked below
        most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            picture = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = most
    with picture:
        # Pillow decodes the whole picture, and the array is a copy of it
        needed = math.prod(picture.size) * (2 if picture.mode in ("1", "L", "P") else 8)
        if needed > memory_bytes() / 2:
            raise ImageError(
                f"{path} is a picture of {math.prod(picture.size) / 1e6:.0f} million "
                f"pixels, which takes {needed / 1e9:.1f} GB to read, more than half of "
                f"this machine's memory: save it as a tiled TIFF or OME-Zarr"
            )
        array, is_rgb = _pixels_of(picture, as_labels=as_labels)
    return OpenImage(array, axis_names(array.ndim, array.ndim == 3), is_rgb=is_rgb)


def memory_bytes() -> int:
    """Return the size of this machine's memory; 8 GB where the system hides it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return MOST_BYTES


def _pixels_of(picture: Any, *, as_labels: bool) -> tuple[Any, bool]:
    """Return a picture's pixels, and whether they are colours."""
    mode = picture.mode
    if mode == "P" and as_labels:
        return np.array(picture), False
    if mode in ("LA", "La"):
        return np.array(picture.convert("L")), False
    simple = mode in ("1", "L", "I", "F", "RGB", "RGBA") or mode.startswith("I;16")
    array = np.array(picture if simple else picture.convert("RGB"))
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    return array, array.ndim == 3


# -- fingerprints --------------------------------------------------------------------

#: Arrays of at most this many values are read whole.
WHOLE_VALUES = 1 << 18
BLOCK_PX = 64
_PLANES, _BLOCKS = 8, 3


def fingerprint(array: Any, has_channels: bool = False) -> str:
    """Return a SHA-256 of an image's shape, dtype and a sample of its pixels.

    At most nine blocks on each of at most eight planes are read, so that an image of a
    terabyte costs a few chunks. It does not matter how the pixels are stored. The array
    is (…, Y, X), or (…, Y, X, C) with ``has_channels``; NumPy, or lazy with ``shape``,
    ``dtype`` and slicing.
    """
    shape = tuple(int(n) for n in array.shape)
    dtype = np.dtype(array.dtype).newbyteorder("=")
    digest = hashlib.sha256(f"{shape} {dtype.name}".encode())
    if int(np.prod(shape)) <= WHOLE_VALUES:
        _add(digest, array[(slice(None),) * len(shape)])
        return digest.hexdigest()
    depth = len(shape) - 2 - has_channels
    leading, (height, width) = shape[:depth], shape[depth : depth + 2]
    boxes = itertools.product(_starts(height), _starts(width))
    places = [(slice(y, y + BLOCK_PX), slice(x, x + BLOCK_PX)) for y, x in boxes]
    for flat in _spread(int(np.prod(leading)), _PLANES):
        plane = tuple(int(i) for i in np.unravel_index(flat, leading)) if depth else ()
        for rows, columns in places:
            _add(digest, array[(*plane, rows, columns)])
    return digest.hexdigest()


def _add(digest: Any, values: Any) -> None:
    block = np.ascontiguousarray(np.asarray(values))
    little = block.astype(block.dtype.newbyteorder("<"), copy=False)
    digest.update(little.tobytes())


def _starts(length: int) -> list[int]:
    return _spread(max(length - BLOCK_PX, 0) + 1, _BLOCKS)


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` whole numbers from 0 to ``count - 1``, evenly."""
    if count <= most:
        return list(range(count))
    return sorted({i * (count - 1) // (most - 1) for i in range(most)})
