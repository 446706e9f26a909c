"""Image files, opened lazily: TIFF, OME-Zarr, NPY and pictures.

Arrays keep the file's axis order, as napari shows them; only samples (RGB) lie last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_cfrseg.errors import ImageError

_TIFF = {".tif", ".tiff", ".lsm", ".stk"}
#: a mapped file of at most so many bytes is read
_IN_MEMORY_BYTES = 1 << 29
_AXIS_NAMES = "tzqiwvuabdefghjklmnoprs"


@dataclass(frozen=True, slots=True, eq=False)
class OpenImage:
    """An image's pixels and axes.

    Attributes
    ----------
    array
        NumPy or lazy, in the file's order.
    axes
        One name per axis, "c" last where the last axis counts colours.
    spacing, units
        Of all axes but a last "c"; None: unknown.
    """

    array: Any
    axes: tuple[str, ...]
    spacing: tuple[float, ...] | None = None
    units: tuple[str, ...] | None = None

    @property
    def has_channels(self) -> bool:
        """Whether the last axis counts colours."""
        return self.axes[-1] == "c"


def axis_names(ndim: int, has_channels: bool) -> tuple[str, ...]:
    """Return names for axes nothing is known of: …, z, y, x, c."""
    depth = ndim - 2 - has_channels
    names = ("z",) if depth == 1 else tuple(_AXIS_NAMES[:depth])
    return (*names, "y", "x", *(["c"] if has_channels else []))


def open_image(path: Path, level: int = 0) -> OpenImage:
    """Open TIFF, OME-Zarr, NPY, PNG or whatever else Pillow reads.

    Parameters
    ----------
    path
        The file, or an OME-Zarr folder.
    level
        Pyramid level, 0 the finest.

    Raises
    ------
    ImageError
        It is not there, no image, or has no such level.
    """
    if path.is_dir():
        return _open_zarr(path, level)
    if not path.is_file():
        msg = f"{path}: no such image"
        raise ImageError(msg)
    suffix = path.suffix.lower()
    try:
        if suffix in _TIFF:
            return _open_tiff(path, level)
        if level:
            msg = f"{path} has no pyramid level {level}"
            raise ImageError(msg)
        if suffix == ".npy":
            array = _in_memory(np.load(path, mmap_mode="r", allow_pickle=False))
            return OpenImage(array, axis_names(array.ndim, _is_colour(array.shape)))
        return _open_picture(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        msg = f"{path} cannot be read as an image: {' '.join(str(error).split())[:200]}"
        raise ImageError(msg) from error


def _in_memory(array: Any) -> Any:
    """Read what is not large."""
    return np.asarray(array).copy() if array.nbytes <= _IN_MEMORY_BYTES else array


def _is_colour(shape: tuple[int, ...]) -> bool:
    return len(shape) > 2 and shape[-1] in (3, 4)


class TiffPlanes:
    """Planes of a TIFF, decoded one at a time when they are asked for."""

    def __init__(self, path: Path, level: int) -> None:
        import tifffile

        self._path = path
        self._level = level
        with tifffile.TiffFile(path) as file:
            series = _level_of(file, level, path)
            self.shape = tuple(int(n) for n in series.shape)
            self.dtype = np.dtype(series.dtype)
            self._page_ndim = len(series.keyframe.shape)
        self._kept: tuple[int, Any] | None = None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> Any:
        key = key if isinstance(key, tuple) else (key,)
        depth = self.ndim - self._page_ndim
        leading, rest = key[:depth], key[depth:]
        if len(leading) < depth or any(isinstance(i, slice) for i in leading):
            shape = self.shape[:depth]
            pages = [self._page(i) for i in range(int(np.prod(shape)))]
            return np.stack(pages).reshape(self.shape)[key]
        flat = int(np.ravel_multi_index([int(i) for i in leading], self.shape[:depth]))
        return self._page(flat)[rest]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        whole = self[()] if self.ndim == self._page_ndim else self[(slice(None),)]
        return np.asarray(whole, dtype=dtype)

    def _page(self, flat: int) -> Any:
        import tifffile

        kept = self._kept  # another thread may read another page meanwhile
        if kept is None or kept[0] != flat:
            with tifffile.TiffFile(self._path) as file:
                page = _level_of(file, self._level, self._path).pages[flat]
                kept = self._kept = (flat, page.asarray())
        return kept[1]


def _level_of(file: Any, level: int, path: Path) -> Any:
    levels = file.series[0].levels
    if level >= len(levels):
        msg = f"{path} has no pyramid level {level}"
        raise ImageError(msg)
    return levels[level]


def _open_tiff(path: Path, level: int) -> OpenImage:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = _level_of(file, level, path)
            names = tuple(series.axes.lower())
            ndim = len(series.shape)
            mappable = level == 0 and series.dataoffset is not None
            pages = len(series.pages)
            page_ndim = len(series.keyframe.shape)
    except tifffile.TiffFileError as error:
        msg = f"{path} cannot be read as TIFF: {error}"
        raise ImageError(msg) from error
    if ndim < 2:
        msg = f"{path} has {ndim} axes: at least y and x are needed"
        raise ImageError(msg)
    has_colours = names[-1] == "s"
    axes = axis_names(ndim, has_colours)
    if len(set(names)) == ndim and "c" not in names[-1:]:
        axes = (*names[:-1], "c") if has_colours else names
    array: Any
    if mappable:
        mapped = tifffile.memmap(path, mode="r")
        array = _in_memory(mapped.reshape(series.shape))
    elif pages == int(np.prod(series.shape[: ndim - page_ndim])):
        array = TiffPlanes(path, level)
    else:
        array = tifffile.imread(path, level=level)
    return OpenImage(array, axes)


def _open_picture(path: Path) -> OpenImage:
    from PIL import Image

    with Image.open(path) as picture:
        simple = picture.mode in {"1", "L", "I", "F", "I;16", "RGB", "RGBA"}
        array = np.asarray(picture if simple else picture.convert("RGB"))
    return OpenImage(array, axis_names(array.ndim, array.ndim == 3))


def _open_zarr(path: Path, level: int) -> OpenImage:
    try:
        import zarr
    except ImportError as error:
        msg = f"{path}: reading OME-Zarr needs zarr (python -m pip install zarr)"
        raise ImageError(msg) from error
    try:
        group: Any = zarr.open(str(path), mode="r")
        said = group.attrs.asdict()
        said = said.get("ome", said)
        scales = said["multiscales"][0]
        datasets = scales["datasets"]
        array = group[datasets[level]["path"]]
        axes = tuple(str(a["name"]).lower() for a in scales["axes"])
        units = tuple(str(a.get("unit", "pixel")) for a in scales["axes"])
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        msg = f"{path} cannot be read as OME-Zarr ({json.dumps(str(error))[:200]})"
        raise ImageError(msg) from error
    return OpenImage(array, axes, _zarr_spacing(datasets[level], len(axes)), units)


def _zarr_spacing(dataset: Any, ndim: int) -> tuple[float, ...] | None:
    for step in dataset.get("coordinateTransformations", ()):
        values = step.get("scale")
        if isinstance(values, list) and len(values) == ndim and min(values) > 0:
            return tuple(float(v) for v in values)
    return None
