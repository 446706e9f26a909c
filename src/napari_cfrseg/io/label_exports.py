"""Export labels as OME-TIFF, OME-Zarr or picture, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg import __version__
from napari_cfrseg.errors import ImageError, OutputError
from napari_cfrseg.io.atomic import (
    atomic_path,
    behind_links,
    check_output,
    check_spares,
    temporary_beside,
)
from napari_cfrseg.io.images import TIFF_SUFFIXES
from napari_cfrseg.io.named_axes import length_sign, time_sign, unit_name
from napari_cfrseg.io.object_exports import ExportedObject
from napari_cfrseg.io.tiled_labels import AnyLabels, TiledLabels, labelled_tiles

#: OME's names of dimensions that TIFF knows
_OME_AXES = "tcz"
#: pictures that keep every pixel: of one plane only
_PICTURES = (".png", ".bmp")
#: larger ones are refused: they are written whole, and few programs read them
_MOST_PICTURE_PX = 1 << 28
#: side of the pieces that labels are written in, those of large planes and others
_TILE_PX, _CHUNK_PX = 512, 1024


def check_labels_output(
    path: Path, shape: Sequence[int], image: Path, *, overwrite: bool
) -> None:
    """Raise OutputError unless labels of a shape (…, Y, X) can be written there.

    What would replace the image that they are of is refused, or its folder.
    """
    check_spares(path, image)
    planes, pixels = math.prod(shape[:-2]), math.prod(shape[-2:])
    suffix = path.suffix.lower()
    is_zarr = suffix == ".zarr"
    if not is_zarr and suffix not in (*TIFF_SUFFIXES, *_PICTURES):
        raise OutputError(f"{path}: expected the ending .tif, .zarr, .png or .bmp")
    if suffix in _PICTURES and planes > 1:
        msg = f"{path}: a picture holds one plane; write {planes} as .tif or .zarr"
        raise OutputError(msg)
    if suffix in _PICTURES and pixels > _MOST_PICTURE_PX:
        raise OutputError(
            f"{path}: a picture of {pixels / 1e6:.0f} million pixels, at most "
            f"{_MOST_PICTURE_PX / 1e6:.0f}: write .tif or .zarr, which have levels"
        )
    check_output(path, overwrite=overwrite, is_folder=is_zarr)


def compact_dtype(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return labels as uint16 if they fit, else as int32."""
    highest = int(labels.max()) if labels.size else 0
    return labels.astype(np.uint16 if highest < 2**16 else np.int32)


def write_ome_tiff(
    path: str | os.PathLike[str],
    labels: AnyLabels,
    *,
    axes: Sequence[str] | None = None,
    spacing: Sequence[float] | None = None,
    units: Sequence[str] | None = None,
) -> None:
    """Write (…, Y, X) integer labels as a deflate OME-TIFF; of large planes a pyramid.

    ``axes``, ``spacing`` and ``units`` have one value for each axis of ``labels``.
    """
    import tifffile

    names = _tiff_axes(labels.ndim, axes)
    metadata: dict[str, Any] = {"axes": names.upper(), "Name": "labels"}
    if spacing is not None:
        said = units or ["pixel"] * labels.ndim
        for name, size, unit in zip(names, spacing, said, strict=True):
            if name in "zyx":
                metadata[f"PhysicalSize{name.upper()}"] = float(size)
                metadata[f"PhysicalSize{name.upper()}Unit"] = length_sign(unit)
            elif name == "t" and (sign := time_sign(unit)):
                metadata |= {"TimeIncrement": float(size), "TimeIncrementUnit": sign}
    if isinstance(labels, TiledLabels):
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            write_tiled_tiff(file, labels, metadata)
        return
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            compact_dtype(labels),
            ome=True,
            photometric="minisblack",
            compression="zlib",
            metadata=metadata,
        )


def _tiff_axes(ndim: int, axes: Sequence[str] | None) -> str:
    """One letter for each axis that OME-TIFF allows: Y and X last."""
    depth = ndim - 2
    if depth > len(_OME_AXES):
        msg = f"labels with {ndim} axes: OME-TIFF has five at most; use OME-Zarr"
        raise ImageError(msg)
    wanted = [name.lower() for name in (axes or ())[:depth]]
    if len({*wanted} & {*_OME_AXES}) < depth:
        wanted = [*_OME_AXES[len(_OME_AXES) - depth :]]
    return "".join(wanted) + "yx"


def write_labels(
    path: Path,
    labels: AnyLabels,
    *,
    axes: Sequence[str] | None = None,
    spacing: Sequence[float] | None = None,
    units: Sequence[str] | None = None,
    origin: Sequence[float] | None = None,
) -> None:
    """Write (…, Y, X) integer labels, 0 = background, whole or not at all.

    ``.tif`` is a deflate OME-TIFF; ``.zarr`` an OME-Zarr; anything else that Pillow
    writes a picture in which the objects are white.
    ``axes``, ``spacing`` and ``units`` have one value for each axis of ``labels``; so
    has ``origin``, the place of the first pixel's centre, which OME-Zarr keeps.
    """
    if path.suffix.lower() == ".zarr":
        write_ome_zarr(
            path, labels, axes=axes, spacing=spacing, units=units, origin=origin
        )
        return
    if path.suffix.lower() in TIFF_SUFFIXES:
        write_ome_tiff(path, labels, axes=axes, spacing=spacing, units=units)
        return
    write_picture(path, ((np.asarray(labels) > 0) * 255).astype(np.uint8))


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a (Y, X) or (Y, X, 3) uint8 picture; the path's ending says the format."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def write_ome_zarr(
    path: str | os.PathLike[str],
    labels: AnyLabels,
    rows: Sequence[ExportedObject] = (),
    *,
    axes: Sequence[str] | None = None,
    spacing: Sequence[float] | None = None,
    units: Sequence[str] | None = None,
    origin: Sequence[float] | None = None,
) -> None:
    """Write labels as an OME-Zarr image-label (NGFF 0.5), with names and colours.

    The path ends in ``.zarr``, and what is there is replaced. Labels are (…, Y, X)
    integers, 0 = background; ``rows`` have the objects' names and colours, ``axes``,
    ``spacing``, ``units`` and ``origin`` (the place of the first pixel's centre) a
    value for each axis. Large planes get coarser levels.
    """
    target = behind_links(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    names = list(axes) if axes is not None else list("tczyx"[-labels.ndim :])
    levels: list[Any]
    if isinstance(labels, TiledLabels):
        levels, side = labels.levels_down_to(_TILE_PX), _TILE_PX
    else:
        levels, side = [compact_dtype(labels)], _CHUNK_PX
    said = {"ome": _ngff(names, spacing, units, origin, rows, len(levels))}
    try:
        _write_node(temporary, "group", attributes=said)
        for number, level in enumerate(levels):
            _write_array(temporary / str(number), level, side, names)
        _replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_node(folder: Path, kind: str, **said: Any) -> None:
    """Write the metadata of a group or an array of Zarr 3."""
    folder.mkdir()
    text = json.dumps({"zarr_format": 3, "node_type": kind, **said}, indent=2)
    (folder / "zarr.json").write_text(text, encoding="utf-8")


def _write_array(folder: Path, level: Any, side: int, names: Sequence[str]) -> None:
    """Write a (…, Y, X) array of Zarr 3; chunks without labels are no files.

    SPEED: Zarr's own writer hands each chunk and each file to another thread, 1 ms a
    time on an idle machine and 8 ms on a busy one; a pyramid has thirty of them.
    """
    import imagecodecs

    dtype = level.dtype.newbyteorder("<")
    sides = tuple(min(n, side) for n in level.shape[-2:])
    chunk_shape = (*(1,) * (level.ndim - 2), *sides)
    _write_node(
        folder,
        "array",
        shape=level.shape,
        data_type=dtype.name,
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
        chunk_key_encoding={"name": "default", "configuration": {"separator": "/"}},
        fill_value=0,
        codecs=[
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
        ],
        dimension_names=names,
        attributes={},
    )
    for plane in np.ndindex(level.shape[:-2]):
        for (row, column), pixels in labelled_tiles(level, plane, sides):
            chunk = folder.joinpath("c", *map(str, plane), str(row), str(column))
            chunk.parent.mkdir(parents=True, exist_ok=True)
            little = pixels.astype(dtype, copy=False).tobytes()
            chunk.write_bytes(imagecodecs.zstd_encode(little, level=0))


def _replace_folder(temporary: Path, target: Path) -> None:
    """Put a folder in another's place, or a file's; a reader finds the old or new.

    Of several processes that do so at once the last one wins.
    """
    old, is_there = temporary_beside(target, "-old"), False
    while not is_there:
        with suppress(FileNotFoundError):
            target.rename(old)
        try:
            temporary.rename(target)
            is_there = True
        except OSError:
            if not target.exists():
                raise
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)


def _ngff(
    names: list[str],
    spacing: Sequence[float] | None,
    units: Sequence[str] | None,
    origin: Sequence[float] | None,
    rows: Sequence[ExportedObject],
    levels: int,
) -> dict[str, Any]:
    kinds = {"t": "time", "c": "channel"}
    axes = []
    for index, name in enumerate(names):
        axis = {"name": name, "type": kinds.get(name, "space")}
        if units is not None and units[index] not in ("", "pixel"):
            known = unit_name(units[index])
            axis["unit"] = units[index] if known == "pixel" else known
        axes.append(axis)
    size = [1.0] * len(names) if spacing is None else [float(s) for s in spacing]
    start = [0.0] * len(names) if origin is None else [float(s) for s in origin]
    datasets = []
    for level in range(levels):
        factors = [2.0**level if name in ("y", "x") else 1.0 for name in names]
        scale = [s * f for s, f in zip(size, factors, strict=True)]
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        # a coarse pixel's centre is that of the pixels it stands for
        each = zip(start, size, factors, strict=True)
        shift = [first + s * (f - 1) / 2 for first, s, f in each]
        if any(shift):
            steps.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    return {
        "version": "0.5",
        "multiscales": [{"name": "labels", "axes": axes, "datasets": datasets}],
        "image-label": {
            "version": "0.5",
            "colors": [
                {"label-value": row.object_id, "rgba": [*row.rgb, 255]} for row in rows
            ],
            "properties": [
                {
                    "label-value": row.object_id,
                    "name": row.name,
                    **({"class": row.object_class} if row.object_class else {}),
                }
                for row in rows
            ],
        },
    }


# -- BigTIFF -------------------------------------------------------------------------

#: TIFF's numbers for the types of values
_TYPES = {"S1": 2, "u2": 3, "u4": 4, "u8": 16}
_DEFLATE, _BLACK_IS_ZERO, _ONE_PLANE = 8, 1, 1
_UNSIGNED, _SIGNED = 1, 2
#: where a file's head says the place of its first directory
_FIRST_LINK = 8
_Tags = dict[int, NDArray[Any]]


def write_tiled_tiff(
    file: BinaryIO, labels: TiledLabels, metadata: Mapping[str, Any]
) -> None:
    """Write (…, Y, X) labels as a deflate BigTIFF; ``metadata`` are tifffile's.

    A TIFF lists every tile of a plane, whether it holds labels or not: 51,000 of them
    in a pyramid of 100,000². The lists are arrays here, and all tiles without labels
    are one block that is written once: libtiff refuses tiles that are left out.
    """
    from tifffile import OmeXml

    levels = labels.levels_down_to(_TILE_PX)
    shape, dtype = levels[0].shape, levels[0].dtype
    count = math.prod(shape[:-2])
    said = OmeXml(Creator=f"napari-cfrseg {__version__}")
    said.addimage(dtype, shape, (count, 1, 1, *shape[-2:], 1), **metadata)
    text = said.tostring().encode() + b"\0"

    file.write(b"II" + struct.pack("<HHHQ", 43, 8, 0, 0))
    link = _FIRST_LINK  # where the place of the next directory goes
    empty = _append(file, np.zeros((_TILE_PX, _TILE_PX), dtype))
    for plane in np.ndindex(shape[:-2]):
        finest, *coarser = (_write_pixels(file, x, plane, empty) for x in levels)
        places = [_write_directory(file, {254: _longs(1), **t}) for t in coarser]
        finest[330] = np.array(places, "<u8")
        if link == _FIRST_LINK:
            finest[270] = np.frombuffer(text, "S1")
        place = _write_directory(file, finest)
        file.seek(link)
        file.write(struct.pack("<Q", place))
        file.seek(0, 2)
        link = place + 8 + 20 * len(finest)


def _write_pixels(
    file: BinaryIO, level: Any, plane: tuple[int, ...], empty: tuple[int, int]
) -> _Tags:
    """Write the tiles of a level's plane that hold labels; return its tags.

    ``empty`` are place and size of the block for the others.
    """
    height, width = level.shape[-2:]
    grid = -(-height // _TILE_PX), -(-width // _TILE_PX)
    offsets = np.full(grid, empty[0], "<u8")
    counts = np.full(grid, empty[1], "<u4")
    for tile, pixels in labelled_tiles(level, plane, (_TILE_PX, _TILE_PX)):
        offsets[tile], counts[tile] = _append(file, pixels)
    return {
        256: _longs(width),
        257: _longs(height),
        258: _shorts(8 * level.dtype.itemsize),
        259: _shorts(_DEFLATE),
        262: _shorts(_BLACK_IS_ZERO),
        277: _shorts(1),
        284: _shorts(_ONE_PLANE),
        322: _longs(_TILE_PX),
        323: _longs(_TILE_PX),
        324: offsets,
        325: counts,
        339: _shorts(_UNSIGNED if level.dtype.kind == "u" else _SIGNED),
    }


def _append(file: BinaryIO, pixels: NDArray[Any]) -> tuple[int, int]:
    """Write a tile; return where it is and its bytes."""
    little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    place, packed = file.tell(), zlib.compress(little.tobytes(), 1)
    file.write(packed + bytes(len(packed) % 2))
    return place, len(packed)


def _write_directory(file: BinaryIO, tags: _Tags) -> int:
    """Write a directory of tags that ends the file so far; return where it is."""
    entries = b""
    for code, value in sorted(tags.items()):
        data = value.tobytes()
        kind, count = _TYPES[value.dtype.str[1:]], value.size
        if len(data) > 8:
            place = file.tell()
            file.write(data + bytes(len(data) % 2))
            data = struct.pack("<Q", place)
        entries += struct.pack("<HHQ8s", code, kind, count, data)
    start = file.tell()
    file.write(struct.pack("<Q", len(tags)) + entries + bytes(8))
    return start


def _shorts(value: int) -> NDArray[Any]:
    return np.array([value], "<u2")


def _longs(value: int) -> NDArray[Any]:
    return np.array([value], "<u4")
