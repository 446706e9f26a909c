"""Axes of an Image layer, and the layers that are channels of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.io.images import axes_in
from napari_cfrseg.io.named_axes import axis_names, default_channels, ends_in_channels

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

#: where an image layer's metadata say what its axes are, and which channels are used
METADATA_AXES = "cfrseg_axes"
METADATA_CHANNELS = "cfrseg_channels"
#: the same in other programs' words
_NAMES = {
    **dict.fromkeys(("z", "depth", "slice", "slices", "plane", "planes"), "z"),
    **dict.fromkeys(("t", "time", "times", "frame", "frames"), "t"),
    **dict.fromkeys(("c", "ch", "channel", "channels"), "c"),
    **dict.fromkeys(("y", "row", "rows"), "y"),
    **dict.fromkeys(("x", "col", "column", "columns"), "x"),
}
_PLANES = {"z": "z planes", "t": "time points", "c": "channels"}
#: shorter, for more than one
_SHORT = {**_PLANES, "z": "z", "t": "times"}
#: leading axes that may be named in any order
_MOST_LEADING = 3
#: a longer last axis is no axis of channels
_MOST_LAST = 32


def axes_of(layer: Image) -> tuple[str, ...]:
    """Return a name for each of a layer's axes: y, x, and z, t, c where they are known.

    A person's word counts first, then the layer's labels and metadata, its file, and
    its units; of a layer of which nothing is known, leading axes are (t,) z.
    """
    ndim = int(layer.ndim)
    for said in (
        layer.metadata.get(METADATA_AXES),
        layer.axis_labels,
        layer.metadata.get("axes"),
        _in_the_file(layer),
    ):
        names = _known(said, ndim, bool(layer.rgb))
        if names is not None:
            return names
    has_channels = not layer.rgb and ends_in_channels(sides_of(layer))
    names = axis_names(ndim, has_channels)
    for axis, unit in enumerate(layer.units):
        if "[time]" in getattr(unit, "dimensionality", {}):
            names = _renamed(names, axis, "t")
    return names


def sides_of(layer: Image) -> tuple[int, ...]:
    """Return the shape of a layer's finest level, RGB's axis among it."""
    shape = layer.level_shapes[0] if layer.multiscale else layer.data.shape
    return tuple(int(n) for n in shape)


def _known(said: Any, ndim: int, rgb: bool) -> tuple[str, ...] | None:
    """Return names in our words; None where they are none of ``ndim`` axes.

    Beside colours (``rgb``) an axis of channels is an axis of planes.
    """
    if not isinstance(said, Sequence) or len(said) != ndim:
        return None
    words = [one.get("name", "") if isinstance(one, Mapping) else one for one in said]
    found = [_NAMES.get(str(word).lower(), "") for word in words]
    unnamed = [i for i, name in enumerate(found) if not name]
    if any(found) and not {"y", "x"} & set(found) and len(unnamed) > 1:
        found[unnamed[-2]], found[unnamed[-1]] = "y", "x"
    named = [name for name in found if name]
    fits = len(set(named)) == len(named) and {"y", "x"} <= set(named)
    if not fits or found.index("y") > found.index("x"):
        return None
    if rgb and "c" in found:
        found[found.index("c")] = ""
    spare = [n for n in axis_names(ndim + 5, has_channels=False) if n not in named]
    return tuple(name or spare.pop(0) for name in found)


def _renamed(names: Sequence[str], axis: int, name: str) -> tuple[str, ...]:
    """Give one axis a name; another one of that name gets its."""
    swapped = {name: names[axis], names[axis]: name}
    return tuple(swapped.get(n, n) for n in names)


def _in_the_file(layer: Image) -> tuple[str, ...] | None:
    """Return the names that the layer's file has for its axes; None: it has none."""
    path = layer.source.path
    if path is None or layer.ndim < 3 or not Path(path).exists():
        return None
    try:
        names, shape = axes_in(Path(path))
    except CfrSegError:
        return None
    wanted = sides_of(layer)[: layer.ndim]
    if layer.rgb and names[-1:] == ("c",):
        names, shape = names[:-1], shape[:-1]
    long = [i for i, n in enumerate(shape) if n > 1]
    for kept in (range(len(shape)), long, *_without_one(names)):
        if tuple(shape[i] for i in kept) == wanted:
            return tuple(names[i] for i in kept)
    return None


def _without_one(names: Sequence[str]) -> list[list[int]]:
    """Return the axes that are left where one is split off; channels are first."""
    axes = range(len(names))
    order = sorted(axes, key=lambda i: names[i] != "c")
    return [[i for i in axes if i != axis] for axis in order]


def meanings_of(
    now: tuple[str, ...], sides: Sequence[int], rgb: bool
) -> list[tuple[str, ...]]:
    """Return what a layer's axes can be, what they are taken for now among them.

    Empty for a plane: there is nothing to say. ``sides`` are the axes' lengths;
    ``rgb``: colours come after the axes.
    """
    if len(now) < 3:
        return []
    depth = len(now) - 2
    if depth > _MOST_LEADING:
        swapped = [_renamed(now, axis, "c") for axis in range(depth)]
        return list(dict.fromkeys([now, *swapped]))
    found = [(*names, "y", "x") for names in permutations("tzc", depth)]
    if not rgb and sides[-1] <= _MOST_LAST:
        found += [(*names, "y", "x", "c") for names in permutations("tz", depth - 1)]
    return found if now in found else [now, *found]


def described(names: Sequence[str], shape: Sequence[int]) -> str:
    """Return what axes are, in words.

    Examples
    --------
    >>> described(("t", "c", "y", "x"), (10, 2, 64, 64))
    '10 times × 2 channels'
    """
    words = _PLANES if len(names) == 3 else _SHORT
    parts = [
        f"{n} {words.get(name, 'planes')}"
        for name, n in zip(names, shape, strict=False)
        if name not in "yx"
    ]
    return " × ".join(parts) + (" (last axis)" if names[-1] == "c" else "")


def along(name: str) -> str:
    """Return the words for walking along an axis."""
    return {"t": "Over time"}.get(name, f"Along {name}")


def channel_layers(viewer: ViewerModel, layer: Image) -> list[Image]:
    """Return the layers that are channels of one image with a layer, itself among them.

    ``layer`` has no axis of channels. The others have its shape, lie where it lies, and
    come from the same file or are blended with each other, as napari shows an image
    that it split (``channel_axis``).
    """
    from napari.layers import Image

    alone = [layer]
    if layer.rgb:
        return alone
    found = [
        other
        for other in viewer.layers
        if other is layer or (type(other) is Image and _fits(layer, other))
    ]
    path = layer.source.path
    same_file = path is not None and all(one.source.path == path for one in found)
    blended = all(one.blending == "additive" for one in found[1:])
    return found if len(found) > 1 and (same_file or blended) else alone


def _fits(layer: Image, other: Image) -> bool:
    """Whether another layer has the shape and the place of a layer."""
    if other.rgb or other.ndim != layer.ndim or other.multiscale != layer.multiscale:
        return False
    levels = [
        one.level_shapes if one.multiscale else one.data.shape for one in (layer, other)
    ]
    same = np.array_equal(levels[0], levels[1])
    corners = [np.zeros(layer.ndim), *np.eye(layer.ndim)]
    return same and all(
        np.allclose(layer.data_to_world(c), other.data_to_world(c)) for c in corners
    )


def chosen_channels(
    layer: Image, layers: Sequence[Image], axis: int | None
) -> tuple[int, ...]:
    """Return which channels are used: a person's choice, else those visible.

    ``layers`` are those of :func:`channel_layers`, or the layer alone with its axis of
    channels. Of more than four the first three are taken; the layer itself is always
    among those of several layers.
    """
    count = len(layers) if axis is None else sides_of(layer)[axis]
    open_ones = list(range(count))
    if len(layers) > 1:
        open_ones = [i for i, x in enumerate(layers) if x is layer or _is_seen(x)]
    said = layer.metadata.get(METADATA_CHANNELS)
    if said and len(said) == len(set(said)) and all(0 <= int(i) < count for i in said):
        return tuple(int(i) for i in said)
    found = [open_ones[i] for i in default_channels(len(open_ones))]
    own = layers.index(layer)
    if len(layers) > 1 and own not in found:
        found[-1] = own
    return tuple(sorted(found))


def _is_seen(layer: Image) -> bool:
    """Whether a channel is shown, and its contrast limits leave something of it."""
    low, high = layer.contrast_limits
    first, last = layer.contrast_limits_range
    return bool(layer.visible and layer.opacity > 0 and low < last and high > first)
