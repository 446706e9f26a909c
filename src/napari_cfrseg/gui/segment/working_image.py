"""Which pixels are worked on: an image layer's, its axes named and in working order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.segment.layer_axes import (
    axes_of,
    channel_layers,
    chosen_channels,
    sides_of,
)
from napari_cfrseg.gui.segment.lazy_pixels import LazyPixels
from napari_cfrseg.io.axes import (
    Order,
    Pyramid,
    WithAxis,
    across,
    back,
    channels_of,
    plane_of,
    stacked,
    turned,
    view_of,
)
from napari_cfrseg.io.images import fingerprint, open_image
from napari_cfrseg.io.tiled_labels import is_large

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

#: where an image layer's metadata say in which order its session has the axes
METADATA_ORDER = "cfrseg_order"


@dataclass(slots=True, eq=False)
class WorkingImage:
    """The pixels of Image layers that are worked on, and where they lie.

    An axis of channels is no axis of the planes: the network gets the chosen channels
    together. Our own layers (labels, clicks) do without it where it comes first, since
    napari lines axes up from the last; else theirs has length 1, stretched over all
    channels.
    """

    layer: Image  #: says where the pixels lie
    names: tuple[str, ...]  #: of the layer's axes
    #: all channels of one image where they are several layers, else the layer alone;
    #: which channels are used, of the layers or along the layer's axis
    layers: tuple[Image, ...]
    channels: tuple[int, ...]
    #: the array with its axes in the working order: leading axes, a plane's rows and
    #: columns, and C for RGB or several channels; a pyramid where it is large
    data: Any
    shape: tuple[int, ...]  #: its shape without C
    #: which of the layer's axes, channels left out, comes where in ``data``; (): as the
    #: layer has them, with Y and X last
    order: Order = ()

    @classmethod
    def of(cls, layer: Image, viewer: ViewerModel | None = None) -> WorkingImage:
        """Work on the planes that the viewer shows, at the finest level.

        Of a large image the coarser levels are read, too.
        """
        names = axes_of(layer)
        axis = channel_axis(layer, names)
        layers = [layer]
        if viewer is not None and axis is None:
            layers = channel_layers(viewer, layer)
        chosen = chosen_channels(layer, layers, axis)
        order = () if viewer is None else working_order(viewer, layer, axis)
        if len(layers) > 1:
            parts = [layer_pixels(layers[i], order) for i in chosen]
            data = parts[0] if len(parts) == 1 else stacked(parts)
        else:
            data = layer_pixels(layer, order, axis)
            data = data if axis is None else channels_of(data, axis, chosen)
        data = turned(data, order)
        count = layer.ndim - (axis is not None)
        shape = tuple(int(n) for n in data.shape[:count])
        return cls(layer, names, tuple(layers), chosen, data, shape, order)

    @property
    def channel_axis(self) -> int | None:
        """The layer's axis that counts channels, None if it has none."""
        return channel_axis(self.layer, self.names)

    @property
    def is_shown(self) -> bool:
        """Whether any of its layers is visible."""
        return any(layer.visible for layer in self.layers)

    @property
    def is_rgb(self) -> bool:
        """Whether C holds the colours of one light."""
        return _is_rgb(self.layer)

    @property
    def has_channels(self) -> bool:
        """Whether ``data`` ends in C."""
        return len(self.data.shape) > len(self.shape)

    @property
    def rgb(self) -> bool | None:
        """Whether C holds colours; None to leave it to the engine (there is no C)."""
        return self.is_rgb if self.has_channels else None

    def plane(self, index: Plane) -> Any:
        """Return a plane's pixels, (Y, X) or (Y, X, C), without reading them."""
        return plane_of(self.data, index)

    # -- axes ------------------------------------------------------------------------

    @property
    def axes(self) -> Order:
        """Which of the layer's axes each of ``shape`` is."""
        counted = [i for i in range(len(self.names)) if i != self.channel_axis]
        return tuple(counted[i] for i in self.order or range(len(counted)))

    @property
    def own_axes(self) -> Order:
        """Which axis of our layers each of ``shape`` is."""
        shift = 1 if self.channel_axis == 0 else 0
        return tuple(axis - shift for axis in self.axes)

    @property
    def own_ndim(self) -> int:
        """Number of our layers' axes."""
        return len(self.names) - (self.channel_axis == 0)

    @property
    def plane_names(self) -> tuple[str, ...]:
        """Return the names of ``shape``'s axes."""
        return tuple(self.names[axis] for axis in self.axes)

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(Y, X)."""
        return self.shape[-2], self.shape[-1]

    def of_layer(
        self, index: Sequence[float] | NDArray[np.float64]
    ) -> tuple[float, ...]:
        """Turn a place given along the layer's axes into the working order."""
        return tuple(float(index[axis]) for axis in self.axes)

    def to_layer(self, index: Sequence[Any]) -> tuple[Any, ...]:
        """Turn a place in the working order into the layer's axes; channel 0."""
        return _placed(index, self.axes, len(self.names), 0)

    def of_own(self, index: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
        """Turn a place given along our layers' axes into the working order."""
        return tuple(float(index[axis]) for axis in self.own_axes)

    def to_own(self, index: Sequence[Any], other: Any = 0) -> tuple[Any, ...]:
        """Turn a place (a shape: ``other`` 1) in the working order into our layers'."""
        return _placed(index, self.own_axes, self.own_ndim, other)

    def own_array(self, array: Any) -> Any:
        """Return an array in the working order with our layers' axes, unread."""
        array = turned(array, back(self.order))
        if self.channel_axis in (None, 0):
            return array
        if isinstance(array, np.ndarray):
            return np.expand_dims(array, self.channel_axis)
        return WithAxis(array, self.channel_axis)

    def of_own_array(self, array: Any) -> Any:
        """Return an array of our layers' in the working order, unread."""
        return view_of(array, self.own_axes)

    # -- place -----------------------------------------------------------------------

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a pixel along each axis of ``shape``, in the layer's units."""
        return tuple(abs(s) or 1.0 for s in self.of_layer(np.asarray(self.layer.scale)))

    @property
    def units(self) -> tuple[Any, ...]:
        """The unit of each of these sizes."""
        return tuple(self.layer.units[axis] for axis in self.axes)

    @property
    def pixel_size(self) -> tuple[float, str]:
        """Volume of a voxel and its unit, else area of a pixel; (1, "px"): unknown.

        A stack has voxels where all three sizes are in one unit, and time is none.
        """
        units = [f"{unit:~}" for unit in self.units]
        moments = "t" in self.plane_names[:-2]
        for count, power in ((3, "³"), (2, "²")):
            unit, *others = units[-count:]
            known = {*others} == {unit} and unit not in ("pixel", "px", "")
            if known and (count == 2 or (len(units) == 3 and not moments)):
                return float(np.prod(self.spacing[-count:])), unit + power
        return 1.0, "px"

    def placement(self) -> dict[str, Any]:
        """Return the arguments that put a layer of our own on these pixels."""
        from napari.utils.transforms import CompositeAffine

        layer, axis = self.layer, self.channel_axis
        placed = {
            "scale": layer.scale,
            "translate": layer.translate,
            "rotate": layer.rotate,
            "shear": layer.shear,
            "affine": layer.affine,
            "units": layer.units,
            "axis_labels": layer.axis_labels,
        }
        if axis == 0:
            rest = list(range(1, layer.ndim))
            moved = {n: placed[n] for n in ("scale", "translate", "rotate", "shear")}
            own = CompositeAffine(**moved, ndim=layer.ndim).set_slice(rest)
            placed.update({name: getattr(own, name) for name in moved})
            placed["affine"] = layer.affine.set_slice(rest)
            placed["units"] = tuple(layer.units[i] for i in rest)
            placed["axis_labels"] = tuple(layer.axis_labels[i] for i in rest)
        elif axis is not None:
            # a layer of our own, standing in for the image, is stretched already
            count = sides_of(layer)[axis] if hasattr(layer, "rgb") else 1
            scale, translate = np.array(layer.scale), np.array(layer.translate)
            translate[axis] += scale[axis] * (count - 1) / 2
            scale[axis] *= count
            placed.update(scale=scale, translate=translate)
        return placed

    def anchor(self) -> Layer:
        """Return a layer that lies where our own layers do."""
        from napari.layers import Points

        if self.channel_axis is None:
            return self.layer
        return Points(ndim=self.own_ndim, **self.placement())


def _placed(
    index: Sequence[Any], axes: Order, ndim: int, other: Any
) -> tuple[Any, ...]:
    """Return values at the given ones of ``ndim`` axes, and ``other`` at the rest."""
    found = [other] * ndim
    for axis, value in zip(axes, index, strict=True):
        found[axis] = value
    return tuple(found)


def channel_axis(layer: Image, names: Sequence[str]) -> int | None:
    """Return the axis of a layer that counts channels; None: it has none."""
    return names.index("c") if "c" in names and not _is_rgb(layer) else None


def _is_rgb(layer: Layer) -> bool:
    """Whether a layer shows colours; one of our own may stand in for the image."""
    return bool(getattr(layer, "rgb", False))


def layer_pixels(layer: Image, order: Order = (), axis: int | None = None) -> Any:
    """Return a layer's finest level, or its pyramid where planes of it are large.

    ``order`` is that of :class:`WorkingImage`, ``axis`` counts channels.
    """
    levels = list(layer.data) if layer.multiscale else [layer.data]
    sides = [n for i, n in enumerate(sides_of(layer)[: layer.ndim]) if i != axis]
    rows, columns = (sides[i] for i in (order or range(len(sides)))[-2:])
    if len(levels) > 1 and is_large((rows, columns)):
        return Pyramid([_lazy(level) for level in _as_in_the_file(layer, levels)])
    return _lazy(levels[0])


def _lazy(array: Any) -> Any:
    return array if isinstance(array, np.ndarray) else LazyPixels(array)


def _as_in_the_file(layer: Image, levels: list[Any]) -> Sequence[Any]:
    """Return a pyramid's levels as our reader opens them, where those are the same.

    SPEED: dask takes 20 times as long to read a part of an array of many chunks.
    """
    path = layer.source.path
    if path is None or not hasattr(levels[0], "dask"):
        return levels
    try:
        found = open_image(Path(path), levels=len(levels)).array.levels
    except CfrSegError:
        return levels
    kinds = [[(tuple(a.shape), a.dtype) for a in some] for some in (levels, found)]
    if kinds[0] != kinds[1]:
        return levels
    marks = [fingerprint(some[-1], _is_rgb(layer)) for some in (levels, found)]
    return found if marks[0] == marks[1] else levels


def shown_order(
    viewer: ViewerModel, layer: Image, axis: int | None = None
) -> Order | None:
    """Return the order whose planes of a layer the viewer shows; ``axis``: channels.

    None where it shows none: in 3-D, or along channels or an axis that the layer does
    not have. Which of the two axes runs down the screen does not matter.
    """
    dims = viewer.dims
    missing = dims.ndim - layer.ndim
    counted = [i for i in range(layer.ndim) if i != axis]
    shown = [one - missing for one in dims.displayed]
    if len(shown) != 2 or not set(shown) <= set(counted):
        return None
    return across((counted.index(shown[0]), counted.index(shown[1])), len(counted))


def working_order(viewer: ViewerModel, layer: Image, axis: int | None = None) -> Order:
    """Return the order to work in: the session's, else that of the planes shown."""
    said = layer.metadata.get(METADATA_ORDER)
    return tuple(said) if said is not None else shown_order(viewer, layer, axis) or ()


def is_turned(viewer: ViewerModel, image: WorkingImage) -> bool:
    """Whether a viewer shows other planes of an image than those worked on."""
    where = image.layer, image.channel_axis
    if shown_order(viewer, *where) is None:
        return False
    return working_order(viewer, *where) != image.order


def show_planes_of(viewer: ViewerModel, image: WorkingImage) -> None:
    """Turn a 2-D view that shows other planes than those worked on."""
    dims = viewer.dims
    found = shown_order(viewer, image.layer, image.channel_axis)
    if dims.ndisplay == 2 and found != image.order:
        missing = dims.ndim - image.layer.ndim
        channels = [] if image.channel_axis is None else [image.channel_axis]
        own = [*channels, *image.axes]
        dims.order = (*range(missing), *(missing + axis for axis in own))
