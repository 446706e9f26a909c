"""Describe the pixels of image layers for a session: which file, and what of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import CfrSegError, SessionError
from napari_cfrseg.gui.segment.working_image import (
    METADATA_ORDER,
    WorkingImage,
    layer_pixels,
)
from napari_cfrseg.io.addresses import address_of, whereabouts
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.io.axes import Pyramid, back, select_from, turned, view_of
from napari_cfrseg.io.images import (
    TIFF_SUFFIXES,
    count_levels,
    fingerprint,
    open_image,
    reading,
)
from napari_cfrseg.io.tiled_labels import is_large
from napari_cfrseg.session.format import SUFFIX, ImageReference
from napari_cfrseg.session.references import check_same, reference_of, relative_path
from napari_cfrseg.session.session_file import parse_at

if TYPE_CHECKING:
    from napari.layers import Image, Layer

#: (axis, index) pairs as a session has them
Select = tuple[tuple[int, int], ...]
#: where a session's image layer says which file it was found in; None: not known
METADATA_IMAGE = "cfrseg_image"
#: where a layer's metadata say which session it came with
METADATA_KEY = "cfrseg_session"
#: where a layer's metadata say what it held when its dock was closed
_AS_CLOSED = "cfrseg_as_closed"


def remember_session(image: WorkingImage, session: Path) -> None:
    """Let an image's layer say which session there is of it, for when it is opened."""
    said = image.layer.metadata
    said.setdefault(METADATA_IMAGE, None)
    said.update({METADATA_KEY: str(session), METADATA_ORDER: image.order})


def note_as_closed(layer: Layer) -> None:
    """Let a layer of a dock that is closed say what it holds."""
    if not getattr(layer, "multiscale", False):
        layer.metadata[_AS_CLOSED] = _checksum(layer)


def is_as_closed(layer: Layer) -> bool:
    """Return whether a layer holds what it did when its dock, if any, was closed."""
    return layer.metadata.get(_AS_CLOSED) in (None, _checksum(layer))


def _checksum(layer: Layer) -> int:
    return zlib.crc32(np.ascontiguousarray(layer.data).data)


def forget_session(layer: Layer) -> None:
    """Let a layer be one that came with no session."""
    for key in (METADATA_KEY, METADATA_IMAGE, METADATA_ORDER):
        layer.metadata.pop(key, None)


def session_of(layer: Layer) -> Path | None:
    """Return the session that there is of an image layer, None where there is none.

    napari copies the metadata of our labels to what it makes of them.
    """
    from napari.layers import Image

    path = layer.metadata.get(METADATA_KEY)
    own = type(layer) is Image and METADATA_IMAGE in layer.metadata
    return Path(path) if own and isinstance(path, str | Path) else None


def session_to_go_on(
    image: WorkingImage, layers: Iterable[Layer]
) -> tuple[Path | None, str]:
    """Return the session that an image's layer names, or why to begin another.

    One whose other layers are all gone, or of other pixels, is forgotten.
    """
    path = session_of(image.layer)
    if path is None:
        return None, ""
    own = [x for x in layers if x.metadata.get(METADATA_KEY) == str(path)]
    is_there = any(layer is not image.layer for layer in own)
    if is_there and (not isinstance(image.data, np.ndarray) or is_of(path, image)):
        return path, ""
    forget_session(image.layer)
    said = f"was not made on the pixels of “{image.layer.name}”"
    said = f"{path.name} {said if path.exists() else 'is gone'}"
    return None, f"{said}: the next click begins a new one." if is_there else ""


def is_of(session: Path, image: WorkingImage) -> bool:
    """Return whether a session was made on an image's pixels; they are read."""
    with suppress(CfrSegError):
        check_same(parse_at(session).image, image.data, image.layer.name)
        return True
    return False


def known_reference(
    image: WorkingImage, known: ImageReference | None, folder: Path
) -> ImageReference:
    """Describe an image for a session in a folder, which may describe it by now."""
    path = image.layer.metadata.get(METADATA_IMAGE)
    if known is None:
        return layer_reference(image, folder)
    if path is None and not isinstance(image.data, np.ndarray):
        # it was compared with its file, on the worker, when the session began
        if known.path is None:
            return known
        path = file_of(image.layer)
    if path is None:
        return layer_reference(image, folder)
    return replace(known, path=relative_path(Path(path), folder))


def layer_reference(image: WorkingImage, folder: Path) -> ImageReference:
    """Describe an image's pixels for a session in a folder.

    The file that a layer was read from is named only if it holds these pixels, whole or
    at one index of one axis (a channel that was split off).
    """
    found = _place_in_file(image)
    return reference_of(image.data, folder=folder, **_described(image), **found)


def write_pixels(
    image: WorkingImage,
    session: Path,
    report: Callable[[tuple[int, int]], None] = lambda _: None,
) -> ImageReference:
    """Write an image that is in no file beside a session, as TIFF, and describe it.

    It is read plane by plane; ``report`` gets (planes written, of how many), and what
    it raises ends the writing. An OSError says that it cannot be written, a
    SessionError that it is too large.
    """
    import tifffile

    if is_large(image.plane_shape):
        raise SessionError("the image is too large to be saved with the session")
    target = session.with_name(session.name.removesuffix(SUFFIX) + ".tif")
    data = turned(image.data, back(image.order))
    shape = tuple(int(n) for n in data.shape)
    leading = shape[: len(shape) - 2 - image.has_channels]
    channels: dict[str, Any] = {}
    parts: Sequence[tuple[int | slice, ...]] = [(slice(None),) if image.is_rgb else ()]
    if image.has_channels and not image.is_rgb:
        channels = {"channels": (0, tuple(range(shape[-1])))}
        parts = [(i,) for i in range(shape[-1])]
        shape = (shape[-1], *shape[:-1])
    places = list(product(parts, np.ndindex(*leading)))

    def pages() -> Iterator[NDArray[Any]]:
        for number, (part, plane) in enumerate(places):
            report((number, len(places)))
            yield np.asarray(data[(*plane, slice(None), slice(None), *part)])

    options = {"photometric": "rgb" if image.is_rgb else "minisblack"}
    with atomic_path(target) as temporary:
        tifffile.imwrite(temporary, pages(), shape=shape, dtype=data.dtype, **options)
    described = {**_described(image), **channels}
    return reference_of(image.data, path=target, folder=session.parent, **described)


def axes_in_session(image: WorkingImage) -> tuple[str, ...]:
    """Return the axes' names as a session has them, that of channels last."""
    return (*image.plane_names, *(["c"] if image.has_channels else []))


def _described(image: WorkingImage) -> dict[str, Any]:
    """Return what a session says of axes and sizes."""
    return {
        "axes": axes_in_session(image),
        "spacing": image.spacing,
        "units": tuple(str(unit) for unit in image.units),
        "order": image.order,
    }


def _place_in_file(image: WorkingImage) -> dict[str, Any]:
    """Return the file that holds an image, and what to take of it; {}: there is none.

    Layers that are channels must be split off one axis of one file.
    """
    if len(image.layers) == 1:
        return _place_of_one(image)
    used = [image.layers[i] for i in image.channels]
    places = [_found_in_file(layer, image) for layer in used]
    paths = {file_of(layer) for layer in used}
    selects = [() if place is None else place[0] for place in places]
    axes = {select[0][0] for select in selects if select}
    if len(paths) > 1 or len(axes) != 1 or not all(selects):
        return {}
    indices = tuple(select[0][1] for select in selects)
    if len(used) == 1:
        return {"path": file_of(used[0]), "select": selects[0]}
    return {"path": file_of(used[0]), "channels": (axes.pop(), indices)}


def _place_of_one(image: WorkingImage) -> dict[str, Any]:
    found = _found_in_file(image.layer, image)
    if found is None:
        return {}
    (select, kept), axis = found, image.channel_axis
    said: dict[str, Any] = {"path": file_of(image.layer), "select": select}
    if axis is not None and len(image.channels) > 1:
        said["channels"] = kept[axis], image.channels
    elif axis is not None:
        said["select"] = (*select, (kept[axis], image.channels[0]))
    return said


def image_file(layer: Image) -> Path | None:
    """Return the file that a layer's session was found to be made on, or its own."""
    found = layer.metadata.get(METADATA_IMAGE) or file_of(layer)
    return None if found is None else Path(found)


def file_of(layer: Image) -> str | None:
    """Return the file or address that a layer was read from; None: there is none.

    A script gives Zarr arrays without it: they say where they lie, levels of an image
    in one folder.
    """
    path: str | None = layer.source.path
    if path is not None:
        return path
    places = [
        whereabouts(a) for a in (layer.data if layer.multiscale else [layer.data])
    ]
    if None in places:
        return None
    folders = {str(place).rpartition("/")[0] for place in places}
    one_of = folders if layer.multiscale else set(places)
    return one_of.pop() if len(one_of) == 1 else None


def _found_in_file(
    layer: Image, image: WorkingImage
) -> tuple[Select, tuple[int, ...]] | None:
    """Return what to take of a layer's file to get its pixels; None: it has others.

    Second, which axis of that each of the layer's axes is.
    """
    path = file_of(layer)
    if path is None:
        return None
    pixels = layer_pixels(layer, image.order, image.channel_axis)
    try:
        levels = len(pixels.levels) if isinstance(pixels, Pyramid) else 1
        array = open_image(Path(path), levels=levels).array
    except CfrSegError:
        return None
    wanted = tuple(int(n) for n in pixels.shape)
    found = tuple(int(n) for n in array.shape)
    mark = fingerprint(pixels, bool(layer.rgb))

    def is_it(part: Any) -> bool:
        return fingerprint(part, bool(layer.rgb)) == mark

    own = tuple(range(len(wanted)))
    if found == wanted:
        return ((), own) if is_it(array) else None
    long = tuple(i for i, n in enumerate(found) if n > 1)
    if tuple(found[i] for i in long) == wanted:  # axes of length 1 are left out
        return ((), long) if is_it(view_of(array, long)) else None
    for axis in range(len(found)):
        if found[:axis] + found[axis + 1 :] == wanted:
            for index in range(found[axis]):
                if is_it(select_from(array, ((axis, index),))):
                    return ((axis, index),), own
    return None


def read_whole(layer: Image) -> str:
    """Return one line where napari holds a file's finest level only, else ""."""
    path = Path(layer.source.path or "")
    is_whole = not layer.multiscale and isinstance(layer.data, np.ndarray)
    if not is_whole or path.suffix.lower() not in TIFF_SUFFIXES or address_of(path):
        return ""
    if not is_large(layer.data.shape[: layer.ndim][-2:]):
        return ""
    try:
        with reading(path):
            levels = count_levels(path)
    except CfrSegError:
        return ""
    if levels == 1:
        return ""
    return (
        f"{path.name} has {levels} levels, of which napari read the finest one "
        f"whole ({layer.data.nbytes / 1e9:.1f} GB). Rename it to {path.stem}.ptif and "
        "open it with this plugin, which reads what is seen."
    )
