"""Image files in, masks and pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.atomic import atomic_path

_TIFF = {".tif", ".tiff", ".lsm", ".stk"}


def read_plane(path: Path, plane: int | None) -> NDArray[Any]:
    """Read one plane of an image file.

    Parameters
    ----------
    path
        TIFF, PNG, JPEG or whatever else Pillow reads.
    plane
        Which plane of a stack, counted from 0 over all leading axes; None where there
        is only one.

    Returns
    -------
    (Y, X) or (Y, X, C) array in the file's own dtype.

    Raises
    ------
    ImageError
        If the file is no image, or ``plane`` is missing or too large.
    """
    stack = _read_tiff(path) if path.suffix.lower() in _TIFF else _read_picture(path)
    count = stack.shape[0]
    if plane is None and count > 1:
        msg = f"{path} has {count} planes: choose one with --plane 0 … {count - 1}"
        raise ImageError(msg)
    index = plane or 0
    if not 0 <= index < count:
        msg = f"{path} has no plane {index}: choose one of 0 … {count - 1}"
        raise ImageError(msg)
    array: NDArray[Any] = stack[index]
    return array[..., 0] if array.shape[-1] == 1 else array


def _read_tiff(path: Path) -> NDArray[Any]:
    """(planes, Y, X, C)."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            array, axes = series.asarray(), list(series.axes)
    except (tifffile.TiffFileError, IndexError, ValueError, OSError) as error:
        msg = f"{path} cannot be read as TIFF: {error}"
        raise ImageError(msg) from error
    if not {"Y", "X"} <= set(axes):
        msg = f"{path} has axes {''.join(axes)}: Y and X are needed"
        raise ImageError(msg)
    channel = next((a for a in "SC" if a in axes), None)
    if channel is None:
        array, channel = array[..., np.newaxis], "S"
        axes.append("S")
    last = [axes.index("Y"), axes.index("X"), axes.index(channel)]
    leading = [i for i in range(array.ndim) if i not in last]
    array = array.transpose([*leading, *last])
    planes: NDArray[Any] = array.reshape(-1, *array.shape[-3:])
    return planes


def _read_picture(path: Path) -> NDArray[Any]:
    """(1, Y, X, C)."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            palette = picture.mode in {"P", "CMYK", "YCbCr", "LA", "PA"}
            array = np.asarray(picture.convert("RGB") if palette else picture)
    except OSError as error:
        msg = f"{path} cannot be read as an image: {error}"
        raise ImageError(msg) from error
    return array.reshape(1, *array.shape[:2], -1)


def write_labels(path: Path, labels: NDArray[Any]) -> None:
    """Write (Y, X) integer labels, whole or not at all.

    Parameters
    ----------
    path
        ``.tif`` or ``.tiff``: deflate TIFF; anything else Pillow writes: a picture in
        which the objects are white.
    labels
        Instance numbers, 0 = background.
    """
    if path.suffix.lower() in _TIFF:
        import tifffile

        with atomic_path(path) as temporary:
            tifffile.imwrite(temporary, labels, compression="zlib")
        return
    write_picture(path, ((labels > 0) * 255).astype(np.uint8))


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a (Y, X) or (Y, X, 3) uint8 picture, whole or not at all.

    Parameters
    ----------
    path
        Its suffix says the format.
    pixels
        The picture.
    """
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)
