"""TIFF of every common kind: OME, ImageJ, tiled, compressed, pyramids; read lazily."""

from __future__ import annotations

import math
import re
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.addresses import address_of
from napari_cfrseg.io.axes import ArrayView, Pyramid, in_memory, view_of
from napari_cfrseg.io.named_axes import OpenImage, axis_names, unit_name
from napari_cfrseg.io.server_files import ServerFile
from napari_cfrseg.io.tiff_file_sets import check_alone, check_files, missing_planes
from napari_cfrseg.io.tiff_pieces import Pages, Pieces, Rows, is_in_pieces

#: larger pages are read tile by tile, or strip by strip, where they are stored so
_SMALL_PAGE_BYTES, _WHOLE_PAGE_BYTES = 1 << 25, 1 << 28
#: files that say that they have more planes are damaged: a list of them is made
_MOST_PLANES = 1 << 20
#: what must be decoded at once may be this large
MOST_CHUNK_BYTES = 1 << 31
#: TIFF's codes of pixels that are decoded to RGB, and of other colours
_COLOURS, _YCBCR, _INKS = {2, 6}, 6, 5
_NOT_RGB = {5: "CMYK", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32845: "LogLuv"}
#: compressions that leave YCbCr as it is: none, LZW, deflate, PackBits, LZMA, Zstandard
_KEEPING = {1, 5, 8, 32946, 32773, 34925, 50000}
_PALETTE = 3
#: OME-XML's element for the pixels of an image
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")


def open_tiff(
    path: Path, level: int, *, levels: int = 1, as_labels: bool = False
) -> OpenImage:
    """Open the main image of a TIFF, on a server too, without decoding its pixels.

    ``level`` is of its pyramid, 0 the finest; so many ``levels`` from it on become one
    pyramid. ``as_labels`` returns the numbers of a palette's colours, not the colours.
    """
    held = _HeldOpen(path)
    file = held.file
    try:
        _check_pages_end(file)
        if held.server is not None:
            check_alone(file)
        main = _main_series(file)
        check_files(file, main)
        if level + levels > len(main.levels):
            missing = max(level, len(main.levels))
            raise ImageError(f"{path} has no pyramid level {missing}")
        series = main.levels[level]
        _check_codec(series.keyframe)
        _check_colours(series.keyframe)
        axes, is_rgb = _axes_of(series)
        spacing, units = _calibration(file, main, axes, series.shape)
        page = series.keyframe
        palette = page.colormap if int(page.photometric) == _PALETTE else None
        arrays = [_pixels(held, main, level + i, path) for i in range(levels)]
        array = Pyramid(arrays) if levels > 1 else arrays[0]
    except BaseException:
        file.close()
        raise
    if palette is not None:
        if not as_labels:
            table = (np.asarray(palette).T >> 8).astype(np.uint8)
            values = OpenImage(array, axes).read()
            array = table[np.minimum(values, len(table) - 1)]
            axes, is_rgb = (*axes, "c"), True
    elif array.shape[-1] == 2 and axes[-1] == "c" and not is_rgb:
        has_alpha = any(int(kind) in (1, 2) for kind in page.extrasamples)
        axes = axes[:-1] if has_alpha else axes
        array = view_of(array, range(len(axes)))
    image = OpenImage(array, axes, spacing, units, is_rgb)
    return image.with_axes(range(len(axes)))


def tiff_axes(path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and lengths of the main image's axes."""
    with _briefly(path) as file:
        series = _main_series(file)
        return _axes_of(series)[0], tuple(int(n) for n in series.shape)


def tiff_levels(path: Path) -> int:
    """Return how many levels the main image's pyramid has; 1: none."""
    with _briefly(path) as file:
        return len(_main_series(file).levels)


def tiff_left_out(path: Path) -> str:
    """Return what of a slide is not shown, in one line; "" where nothing is missing."""
    with _briefly(path) as file:
        main, said = _main_series(file), []
        rest = [s for s in file.series if s is not main]
        others = sum(len(s.levels) > 1 or s.shape == main.shape for s in rest)
        if others:
            size = " × ".join(map(str, main.shape))
            said.append(f"of {others + 1} images the one of {size} is shown.")
        if file.is_bif:
            said.append(
                "Ventana's scanners let tiles overlap: they are shown side by side, so "
                "objects on the seams may look doubled."
            )
        if missing := missing_planes(file, main):
            said.append(missing)
    return f"{path.name}: {' '.join(said)}" if said else ""


def _main_series(file: Any) -> Any:
    """Return the first image, or the slide of a file that begins with its overview."""
    for pixels in _PIXELS.findall(file.ome_metadata or "" if file.is_ome else ""):
        sizes = re.findall(r"\bSize[ZCT]\s*=\s*[\"'](\d{1,18})", pixels)
        if math.prod(map(int, sizes)) > _MOST_PLANES:
            raise ImageError(
                f"it says it has {' × '.join(sizes)} planes: it is damaged"
            )
    if not file.series:
        raise ImageError("it holds no image that can be read")
    first, *others = file.series
    if len(first.levels) > 1 and not file.is_scn:
        return first
    pyramids = [s for s in others if len(s.levels) > 1]
    return max((first, *pyramids), key=lambda s: math.prod(s.shape))


def _check_pages_end(file: Any) -> None:
    """Raise ImageError where a damaged file's list of pages leads back to itself."""
    form, handle = file.tiff, file.filehandle
    handle.seek(8 if form.is_bigtiff else 4)
    seen: set[int] = set()
    while len(word := handle.read(form.offsetsize)) == form.offsetsize:
        (place,) = struct.unpack(form.offsetformat, word)
        if place in seen:
            msg = f"its list of pages is damaged: it comes back to byte {place}"
            raise ImageError(msg)
        if not 0 < place < handle.size:
            break
        seen.add(place)
        handle.seek(place)
        count = handle.read(form.tagnosize)
        if len(count) < form.tagnosize:
            break
        (tags,) = struct.unpack(form.tagnoformat, count)
        handle.seek(place + form.tagnosize + tags * form.tagsize)


def _check_colours(page: Any) -> None:
    """Raise ImageError where pixels are colours that would be taken for RGB."""
    kind = int(page.photometric)
    name = _NOT_RGB.get(kind)
    if kind == _INKS and page.tags.valueof("InkSet", 1) != 1:
        return  # inks of other names are channels
    if kind == _YCBCR and (page.planarconfig != 1 or page.compression in _KEEPING):
        name = "YCbCr"
    if name is not None:
        raise ImageError(f"its colours are {name}: save it as RGB")


def _check_codec(page: Any) -> None:
    """Raise ImageError where a page's pixels cannot be decoded here."""
    try:
        page.decode(None, 0)
    except ValueError as error:
        name = getattr(page.compression, "name", page.compression)
        msg = (
            f"its pixels are compressed as {name}, which cannot be decoded here: "
            "update imagecodecs, or save it with another compression"
        )
        raise ImageError(msg) from error


def _axes_of(series: Any) -> tuple[tuple[str, ...], bool]:
    """Return the axes' names, and whether "c" holds colours."""
    letters = series.axes.lower()
    if len(letters) < 2:
        raise ImageError(f"it has {len(letters)} axes: at least y and x are needed")
    if len(set(letters)) < len(letters) or not {"y", "x"} <= set(letters):
        return axis_names(len(letters), letters[-1] == "s"), letters[-1] == "s"
    if "s" not in letters:
        return tuple(letters), False
    # colours may come with channels beside them
    names = ["channel" if n == "c" else n for n in letters]
    names[letters.index("s")] = "c"
    return tuple(names), int(series.keyframe.photometric) in _COLOURS


class _HeldOpen:
    """Keeps a file open until the last array that reads it is gone.

    ``server`` is the file where it is on a server, else None.
    """

    def __init__(self, path: Path) -> None:
        import tifffile

        address = address_of(path)
        self.server = None if address is None else ServerFile(address)
        self.file = file = tifffile.TiffFile(path if address is None else self.server)
        file.filehandle.set_lock(True)  # levels are read from several threads
        weakref.finalize(self, file.close)


@contextmanager
def _briefly(path: Path) -> Iterator[Any]:
    held = _HeldOpen(path)
    try:
        yield held.file
    finally:
        held.file.close()


def _pixels(held: _HeldOpen, main: Any, level: int, path: Path) -> Any:
    """Return an array, mapped or lazy where it is large; it keeps the file open."""
    import tifffile

    series = main.levels[level]
    size = math.prod(series.shape) * series.dtype.itemsize
    is_far = held.server is not None
    in_others = series.is_multifile or series.keyframe.parent is not held.file
    if level == 0 and not is_far and not in_others and series.dataoffset and size:
        number = held.file.series.index(main)
        mapped = tifffile.memmap(path, series=number, mode="r").reshape(series.shape)
        return in_memory(mapped)
    page_shape = tuple(int(n) for n in series.keyframe.shape)
    depth = len(series.shape) - len(page_shape)
    page_bytes = math.prod(page_shape) * series.dtype.itemsize
    is_slow = (is_far or page_bytes > _SMALL_PAGE_BYTES) and not in_others
    in_pages = len(series.pages) == math.prod(series.shape[:depth])
    lazy: Any
    if is_far and size and series.dataoffset is not None and "YX" in series.axes:
        lazy = Rows(held, series)
    elif is_slow and is_in_pieces(series, depth):
        lazy = Pieces(held, series, depth)
    elif in_pages and page_bytes <= _WHOLE_PAGE_BYTES:
        lazy = Pages(held, series, depth)
    else:
        import zarr

        lazy = zarr.open_array(main.aszarr(level=level), mode="r")
        weakref.finalize(lazy, lambda _: None, held)
    check_chunks(lazy)
    return ArrayView(lazy, range(lazy.ndim), {}, str(path))


def check_chunks(array: Any) -> None:
    """Raise ImageError where a lazy array cannot be read in pieces that fit."""
    size = math.prod(array.chunks) * np.dtype(array.dtype).itemsize
    if size > MOST_CHUNK_BYTES:
        raise ImageError(
            f"its pixels are stored in pieces of {size / 1e9:.1f} GB, at most "
            f"{MOST_CHUNK_BYTES / 1e9:.1f} GB can be read: save it in tiles"
        )


def _calibration(
    file: Any, main: Any, axes: tuple[str, ...], shape: tuple[int, ...]
) -> tuple[tuple[float, ...] | None, tuple[str, ...] | None]:
    """Return spacing and units of each axis, (None, None) where nothing is known."""
    sizes: dict[str, tuple[float, str]] = {}
    if file.is_ome:
        sizes = _ome_sizes(file.ome_metadata, file.series.index(main))
    elif file.is_imagej:
        sizes = _imagej_sizes(file)
    elif any((file.is_svs, file.is_ndpi, file.is_qpi, file.is_scn, file.is_bif)):
        size = _slide_size(file, main.shape)
        sizes = dict.fromkeys("yx", (size, "micrometer"))
    elif file.is_lsm:
        said = file.lsm_metadata or {}
        voxel = ((a, said.get(f"VoxelSize{a.upper()}", 0)) for a in "zyx")
        sizes = {a: (float(v) * 1e6, "micrometer") for a, v in voxel if v > 0}
    sizes = {a: s for a, s in sizes.items() if math.isfinite(s[0]) and s[0] > 0}
    if not {"y", "x"} <= set(sizes):
        return None, None
    sizes.setdefault("z", sizes["x"])
    known = [sizes.get(axis, (1.0, "pixel")) for axis in axes]
    coarser = [
        n / max(m, 1) if axis in ("y", "x") else 1.0
        for axis, n, m in zip(axes, main.shape, shape, strict=True)
    ]
    spacing = tuple(s * c for (s, _), c in zip(known, coarser, strict=True))
    return spacing, tuple(unit for _, unit in known)


def _slide_size(file: Any, shape: tuple[int, ...]) -> float:
    """Return the size of a scanner's pixel in µm; NaN where it is not said."""
    first = file.pages.first
    if file.is_ndpi or file.is_qpi:  # Hamamatsu, Akoya
        per_um: float = first.get_resolution("micrometer")[0]
        return 1 / per_um if per_um else math.nan
    if file.is_scn:  # Leica: the field of view in nm
        for image in re.findall(r"<image\b.*?</image>", first.description, re.DOTALL):
            pixels = re.search(r"<pixels\b[^>]*?\bsizeX=\"(\d+)\"", image)
            view = re.search(r"<view\b[^>]*?\bsizeX=\"(\d+)\"", image)
            if pixels and view and int(pixels[1]) in shape:
                return int(view[1]) / int(pixels[1]) / 1000
        return math.nan
    if file.is_svs:  # Aperio
        said, pattern = first.description, r"\|\s*MPP\s*=\s*([^|]+)"
    else:  # Ventana, on its label's page or the first level's
        tags = (page.tags.valueof(700) for page in file.pages[:3])
        said = "".join(x.decode(errors="replace") for x in tags if type(x) is bytes)
        pattern = r"\bScanRes=[\"']([\d.]+)"
    found = re.search(pattern, said)
    return math.nan if found is None else _number(found[1])


def _ome_sizes(xml: str | None, number: int) -> dict[str, tuple[float, str]]:
    pixels = _PIXELS.findall(xml or "")
    if not pixels:
        return {}
    one = pixels[min(number, len(pixels) - 1)]
    said = dict(re.findall(r"\b(\w+)\s*=\s*[\"']([^\"']*)[\"']", one))
    found = {}
    names = {axis: (f"PhysicalSize{axis.upper()}", "µm") for axis in "zyx"}
    for axis, (name, unit) in (names | {"t": ("TimeIncrement", "s")}).items():
        if name in said:
            size, unit = _number(said[name]), said.get(f"{name}Unit", unit)
            found[axis] = size, unit_name(unit)
    return found


def _imagej_sizes(file: Any) -> dict[str, tuple[float, str]]:
    said = file.imagej_metadata or {}
    unit = unit_name(said.get("unit"))
    found = {}
    for axis in "yx":
        tag = file.pages[0].tags.get(f"{axis.upper()}Resolution")
        if tag is not None:
            over, under = tag.value
            found[axis] = (under / over if over else 0.0), unit
    if found and "spacing" in said:
        found["z"] = abs(_number(said["spacing"])), unit
    if found and "finterval" in said:
        found["t"] = _number(said["finterval"]), unit_name(said.get("tunit", "sec"))
    is_said = unit != "pixel" or any(size != 1 for size, _ in found.values())
    return found if is_said else {}


def _number(text: object) -> float:
    try:
        return float(str(text))
    except ValueError:
        return math.nan
