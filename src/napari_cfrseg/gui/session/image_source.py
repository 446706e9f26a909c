"""Which file a layer's pixels are in, and how a session describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.gui.segment.layers import WorkingImage
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.io.axes import back, put, turned
from napari_cfrseg.io.files import axis_names, open_image
from napari_cfrseg.io.fingerprint import fingerprint
from napari_cfrseg.session.content import SUFFIX, ImageReference
from napari_cfrseg.session.session_image import reference_of


def layer_reference(image: WorkingImage, folder: Path) -> ImageReference:
    """Describe a layer's pixels for a session in a folder.

    The file the layer was read from is named only if it holds these pixels, whole or
    at one index of one axis (a channel that was split off).
    """
    layer = image.layer
    rgb = bool(layer.rgb)
    described: dict[str, Any] = {
        "folder": folder,
        "rgb": rgb,
        "spacing": layer_spacing(image),
        "units": layer_units(image),
        "level": image.level,
        "axes": put(axis_names(len(image.data.shape), rgb), image.order),
        "order": image.order,
    }
    source = getattr(layer.source, "path", None)
    if source:
        select = _selection(Path(source), image)
        if select is not None:
            return reference_of(image.data, path=source, select=select, **described)
    return reference_of(image.data, **described)


def write_pixels(image: WorkingImage, session: Path) -> ImageReference:
    """Write an image that is in no file beside a session, as TIFF, and describe it.

    Raises
    ------
    OSError
        It cannot be written.
    """
    import tifffile

    target = session.with_name(session.name.removesuffix(SUFFIX) + ".tif")
    data, rgb = np.asarray(turned(image.data, back(image.order))), bool(image.layer.rgb)
    with atomic_path(target) as temporary:
        tifffile.imwrite(temporary, data, photometric="rgb" if rgb else "minisblack")
    return reference_of(
        image.data,
        path=target,
        folder=session.parent,
        rgb=rgb,
        spacing=layer_spacing(image),
        units=layer_units(image),
        order=image.order,
    )


def _selection(path: Path, image: WorkingImage) -> tuple[tuple[int, int], ...] | None:
    """Return what to take of a file to get a layer's pixels; None: it has others."""
    try:
        array = open_image(path, image.level).array
    except CfrSegError:
        return None
    order = image.order
    wanted = put(tuple(int(n) for n in image.data.shape), back(order))
    found = tuple(int(n) for n in array.shape)
    rgb = bool(image.layer.rgb)
    mark = fingerprint(image.data, rgb)
    if found == wanted:
        return () if fingerprint(turned(array, order), rgb) == mark else None
    for axis in range(len(found) - 2):
        if found[:axis] + found[axis + 1 :] == wanted:
            for index in range(found[axis]):
                part = np.asarray(array[(slice(None),) * axis + (index,)])
                if fingerprint(turned(part, order), rgb) == mark:
                    return ((axis, index),)
    return None


def layer_spacing(image: WorkingImage) -> tuple[float, ...]:
    """Return the size of a pixel along each working axis, in the layer's units."""
    scale = np.asarray(image.placement()["scale"])
    return tuple(abs(s) or 1.0 for s in image.of_layer(scale))


def layer_units(image: WorkingImage) -> tuple[str, ...]:
    """Return the layer's units, one for each working axis."""
    return put(tuple(str(unit) for unit in image.layer.units), image.order)
