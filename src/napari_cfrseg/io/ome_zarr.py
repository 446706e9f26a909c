"""OME-Zarr (NGFF 0.1 to 0.5), plain Zarr arrays and Bio-Formats' layout, lazily."""

from __future__ import annotations

import math
import stat
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.addresses import address_of, answering, remote_store
from napari_cfrseg.io.axes import ArrayView, Pyramid
from napari_cfrseg.io.named_axes import OpenImage, axis_names, unit_name
from napari_cfrseg.io.tiff import check_chunks

_MARKS = ("zarr.json", ".zgroup", ".zarray")
#: how files of metadata begin
_META = (".z", "za")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((path / name).is_file() for name in _MARKS)


def open_zarr(
    path: Path, level: int = 0, *, levels: int = 1, labels: str | None = None
) -> OpenImage:
    """Open an OME-Zarr image, or its labels; nothing is read.

    The folder, or an address on a server, is an image, its parent as bioformats2raw
    writes it (the first image is taken), or an array; ``level`` is of its pyramid, 0
    the finest; so many ``levels`` from it on become one pyramid. ``labels`` opens the
    image's labels of that name; "" the first listed. Raises ImageError if it is none,
    or has no such level or labels.
    """
    node, where = _root(path), str(path)
    if _is_array(node):
        if level + levels > 1:
            raise ImageError(f"{where} has no pyramid level {max(level, 1)}")
        names = axis_names(node.ndim, has_channels=False)
        return _opened([node], OpenImage(node, names), where)
    group, where = _image_group(node, where)
    if labels is not None:
        group, where = _labels_group(group, labels, where)
    scale = _multiscale(group, where)
    datasets = scale["datasets"]
    if level + levels > len(datasets):
        missing = max(level, len(datasets))
        raise ImageError(f"{where} has no pyramid level {missing}")
    arrays = []
    for said in datasets[level : level + levels]:
        if said["path"] not in group:
            msg = f"{where} names a level {said['path']!r} that is not there"
            raise ImageError(msg)
        arrays.append(group[said["path"]])
    ndim = arrays[0].ndim
    names, units = _axes(scale, ndim, where)
    common = _step(scale, "scale", ndim) or (1.0,) * ndim
    sizes = _step(datasets[level], "scale", ndim)
    if sizes is not None:
        sizes = tuple(a * b for a, b in zip(sizes, common, strict=True))
    own, more = (
        _step(one, "translation", ndim) or (0.0,) * ndim
        for one in (datasets[level], scale)
    )
    origin = tuple(a * b + c for a, b, c in zip(own, common, more, strict=True))
    moved = origin if any(origin) else None
    said = OpenImage(arrays[0], names, sizes, units, origin=moved)
    return _opened(arrays, said, where)


def zarr_levels(path: Path) -> int:
    """Return how many levels an image's pyramid has; 1: none."""
    node = _root(path)
    if _is_array(node):
        return 1
    return len(_multiscale(*_image_group(node, str(path)))["datasets"])


def _is_array(node: Any) -> bool:
    import zarr

    return isinstance(node, zarr.Array)


def _root(path: Path) -> Any:
    """Return the array or group of a folder or an address."""
    import zarr
    from zarr.storage import LocalStore

    address = address_of(path)
    if address is None:
        _check_regular(path)
        if not is_zarr(path):
            raise ImageError(f"{path} is a folder, and no OME-Zarr")
    inner = remote_store(address) if address else LocalStore(path, read_only=True)
    store = _checked_store()(inner)
    with answering(address) if address else nullcontext():
        return zarr.open(store, mode="r")


def _multiscale(group: Any, where: str) -> Mapping[str, Any]:
    """Return what an image's metadata say of its levels."""
    scales = attributes_of(group).get("multiscales")
    if not scales:
        raise ImageError(f"{where} has no multiscales metadata: not an OME-Zarr image")
    first: Mapping[str, Any] = scales[0]
    return first


@cache
def _checked_store() -> Any:
    """Return a store that refuses damaged Blosc pieces: its decoder would crash."""
    from zarr.storage import WrapperStore

    class CheckedStore(WrapperStore):  # type: ignore[misc]  # any store
        is_blosc = False

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            found = await super().get(key, prototype, byte_range)
            if found is None or not self.is_blosc or key.split("/")[-1][:2] in _META:
                return found
            head = bytes(found.as_array_like()[:16])
            if len(head) < 16 or int.from_bytes(head[12:], "little") != len(found):
                msg = f"{key} is damaged: {len(found)} bytes of a Blosc piece"
                raise ImageError(msg)
            return found

    return CheckedStore


def _opened(arrays: Sequence[Any], said: OpenImage, where: str) -> OpenImage:
    """Return lazy arrays as an image, of which ``said`` has a value for every axis."""
    for array in arrays:
        check_chunks(array)
    codecs = [type(codec).__name__ for array in arrays for codec in array.compressors]
    arrays[0].store.is_blosc = any(name.startswith("Blosc") for name in codecs)
    lazy = [ArrayView(array, range(array.ndim), {}, where) for array in arrays]
    array = lazy[0] if len(lazy) == 1 else Pyramid(lazy)
    return replace(said, array=array).with_axes(range(len(said.axes)))


def attributes_of(group: Any) -> Mapping[str, Any]:
    """Return metadata of 0.4 (at the top) and 0.5 (under "ome")."""
    attributes: Mapping[str, Any] = group.attrs.asdict()
    nested = attributes.get("ome", attributes)
    return nested if isinstance(nested, Mapping) else {}


def _image_group(group: Any, where: str) -> tuple[Any, str]:
    said = attributes_of(group)
    if "multiscales" in said:
        return group, where
    if "plate" in said or "well" in said:
        msg = f"{where} is a plate or a well: name one field of it, such as {where}/0"
        raise ImageError(msg)
    listed = [str(name) for name in said.get("series", ())]
    if "bioformats2raw.layout" in said and "OME" in group:
        listed = [str(n) for n in attributes_of(group["OME"]).get("series", ())]
    if "bioformats2raw.layout" in said or listed:
        name = (listed or ["0"])[0]
        return group[name], f"{where}/{name}"
    return group, where


def _labels_group(group: Any, name: str, where: str) -> tuple[Any, str]:
    try:
        name = name or str(attributes_of(group["labels"])["labels"][0])
    except (KeyError, IndexError) as error:
        msg = f"{where} has no labels: expected labels/NAME listed in labels/"
        raise ImageError(msg) from error
    inside = f"labels/{name}"
    if inside not in group:
        raise ImageError(f"{where}/{inside} does not exist")
    return group[inside], f"{where}/{inside}"


def _axes(
    scale: Mapping[str, Any], ndim: int, where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and units; before 0.4 axes were names, before 0.3 five in order."""
    said = scale.get("axes") or "tczyx"[-ndim:]
    listed = [a if isinstance(a, Mapping) else {"name": a} for a in said]
    names = tuple(str(axis["name"]).lower() for axis in listed)
    if len(set(names)) != ndim or len(names) != ndim or not {"y", "x"} <= set(names):
        msg = f"{where} has axes {names}, {ndim} of them; expected y and x among them"
        raise ImageError(msg)
    return names, tuple(unit_name(axis.get("unit")) for axis in listed)


def _step(said: Mapping[str, Any], kind: str, ndim: int) -> tuple[float, ...] | None:
    """Return the first usable "scale" or "translation" of a level or of all levels."""
    least = 0.0 if kind == "scale" else -math.inf
    for step in said.get("coordinateTransformations") or ():
        values = step.get(kind)
        if (
            isinstance(values, list)
            and len(values) == ndim
            and all(isinstance(v, int | float) and least < v < math.inf for v in values)
        ):
            return tuple(float(v) for v in values)
    return None


def _check_regular(path: Path) -> None:
    for name in (*_MARKS, ".zattrs", ".zmetadata"):
        file = path / name
        if file.exists() and not stat.S_ISREG(file.stat().st_mode):
            raise ImageError(f"{file} is no regular file")
