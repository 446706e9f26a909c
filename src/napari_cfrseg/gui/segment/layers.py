"""napari layers: which pixels are worked on, and layers that lie exactly on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.io.axes import Order, across, back, put, turned

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Points

#: where an image layer's metadata say in which order its session has the axes
METADATA_ORDER = "cfrseg_order"
#: labels the Labels layer's 16 bits hold
MOST_OBJECTS = 65_535
#: longest side of a pyramid level that is worked on: what one texture can show
LONGEST_SIDE_PX = 8192


class LazyPlane:
    """A plane of an array that is read by slices only (zarr, HDF5, tensorstore)."""

    def __init__(self, data: Any, plane: Plane) -> None:
        self._data = data
        self._plane = plane
        self.shape = tuple(int(n) for n in data.shape[len(plane) :])
        self.dtype = data.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a rectangle."""
        key = key if isinstance(key, tuple) else (key,)
        return np.asarray(self._data[(*self._plane, *key)])


@dataclass(frozen=True, slots=True, eq=False)
class WorkingImage:
    """The pixels of an Image layer that are worked on, and where they lie.

    Attributes
    ----------
    layer
        The layer; never changed.
    level
        Pyramid level, 0 where there is none.
    data
        That level's array with its axes in the working order: leading axes, a plane's
        rows and columns, and C for RGB.
    shape
        Its shape without C.
    order
        Which of the layer's axes comes where in ``data``; (): as the layer has them,
        with Y and X last.
    """

    layer: Image
    level: int
    data: Any
    shape: tuple[int, ...]
    order: Order = ()

    @classmethod
    def of(cls, layer: Image, order: Order = ()) -> WorkingImage:
        """Choose the finest level that one texture can show."""
        level = 0
        if layer.multiscale:
            sides = [max(put(s[: layer.ndim], order)[-2:]) for s in layer.level_shapes]
            fits = [i for i, side in enumerate(sides) if side <= LONGEST_SIDE_PX]
            level = fits[0] if fits else len(sides) - 1
        data = turned(layer.data[level] if layer.multiscale else layer.data, order)
        shape = tuple(int(n) for n in data.shape[: layer.ndim])
        return cls(layer, level, data, shape, order)

    @property
    def axes(self) -> Order:
        """Which of the layer's axes each of ``shape`` is."""
        return self.order or tuple(range(len(self.shape)))

    def of_layer(
        self, index: Sequence[float] | NDArray[np.float64]
    ) -> tuple[float, ...]:
        """Turn a place given along the layer's axes into the working order."""
        return put(tuple(float(v) for v in index), self.order)

    def to_layer(self, index: Sequence[Any]) -> tuple[Any, ...]:
        """Turn a place, or a shape, in the working order into the layer's axes."""
        return put(index, back(self.order))

    def names(self) -> tuple[str, ...]:
        """Return the axes' names in the working order; z, y, x where there are none."""
        said = [str(name) for name in self.layer.axis_labels]
        if any(n.removeprefix("axis ").lstrip("-").isdigit() or not n for n in said):
            known = ("z", "y", "x")[-len(said) :]
            more = len(said) - len(known)
            said = [*(f"axis {i}" for i in range(more)), *known]
            if more:
                said[more] = f"axis {more}"
        return put(tuple(said), self.order)

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(Y, X)."""
        return self.shape[-2], self.shape[-1]

    @property
    def rgb(self) -> bool | None:
        """True for RGB(A), None to leave it to the engine (there is no C axis)."""
        return True if self.layer.rgb else None

    def plane(self, index: Plane) -> Any:
        """Return a plane's pixels, (Y, X) or (Y, X, C), without reading them."""
        if isinstance(self.data, np.ndarray):
            return self.data[index]
        return LazyPlane(self.data, index)

    def placement(self) -> dict[str, Any]:
        """Return the arguments that put another layer exactly on these pixels."""
        layer = self.layer
        scale = np.asarray(layer.scale, float)
        translate = np.asarray(layer.translate, float)
        if self.level:
            factors = np.asarray(layer.downsample_factors[self.level], float)
            centre = layer.data_to_world((factors - 1) / 2)
            origin = layer.data_to_world(np.zeros(layer.ndim))
            scale = scale * factors
            # a coarse pixel's centre is the centre of the fine pixels it stands for
            shift = np.asarray(centre) - np.asarray(origin)
            linear = layer.affine.linear_matrix
            translate = translate + np.linalg.solve(linear, shift)
        return {
            "scale": scale,
            "translate": translate,
            "rotate": layer.rotate,
            "shear": layer.shear,
            "affine": layer.affine,
            "units": layer.units,
            "axis_labels": layer.axis_labels,
        }


def make_labels(image: WorkingImage, name: str) -> Labels:
    """Return an empty Labels layer on an image's pixels."""
    from napari.layers import Labels
    from napari.layers.base import LayerLock

    layer = Labels(
        # napari shows 16-bit labels as they are; wider ones it converts at each change
        np.zeros(image.to_layer(image.shape), np.uint16),
        name=name,
        opacity=0.45,
        **image.placement(),
    )
    layer.locked = LayerLock.DELETION
    return layer


def make_points(image: WorkingImage, name: str) -> Points:
    """Return a Points layer on an image's pixels, with the clicks' feature columns."""
    from napari.layers import Points
    from napari.layers.base import LayerLock

    ndim = len(image.shape)
    columns = ("polarity", "object", "click")
    features = {column: np.array([], dtype=object) for column in columns}
    layer = Points(
        np.zeros((0, ndim)),
        ndim=ndim,
        name=name,
        features=features,
        feature_defaults={"polarity": "positive", "object": "", "click": ""},
        size=max(3.0, min(image.plane_shape) / 64),
        canvas_size_limits=(10, 15),
        border_width=0.05,
        border_color="white",
        **image.placement(),
    )
    layer.locked = LayerLock.DELETION
    return layer


def shown_order(viewer: ViewerModel, layer: Any) -> Order | None:
    """Return the order whose planes of a layer the viewer shows.

    None where it shows none: in 3-D, or along an axis that the layer does not have.
    Which of the two axes runs down the screen does not matter.
    """
    dims = viewer.dims
    missing = dims.ndim - layer.ndim
    axes = [axis - missing for axis in dims.displayed]
    if len(axes) != 2 or min(axes) < 0:
        return None
    return across((axes[0], axes[1]), layer.ndim)


def working_order(viewer: ViewerModel, layer: Any) -> Order:
    """Return the order to work in: the session's, else that of the planes shown."""
    said = layer.metadata.get(METADATA_ORDER)
    return tuple(said) if said is not None else shown_order(viewer, layer) or ()


def show_planes_of(viewer: ViewerModel, image: WorkingImage) -> None:
    """Turn a 2-D view that shows other planes than those worked on."""
    dims, found = viewer.dims, shown_order(viewer, image.layer)
    if dims.ndisplay == 2 and found != image.order:
        missing = dims.ndim - image.layer.ndim
        dims.order = (*range(missing), *(missing + axis for axis in image.axes))


def split_index(
    index: Sequence[float] | NDArray[np.float64],
) -> tuple[Plane, tuple[float, float]]:
    """Split a layer coordinate into the plane's index and (row, column) on it."""
    *leading, y, x = (float(v) for v in index)
    return tuple(int(np.floor(v + 0.5)) for v in leading), (y, x)


def world_to_index(layer: Any, world: Sequence[float]) -> NDArray[np.float64]:
    """Return a world position in a layer's own (fractional) array indices."""
    own = np.asarray(world, float)[-layer.ndim :]
    return np.asarray(layer.world_to_data(own), float)


def to_rgba(colour: str) -> tuple[float, float, float, float]:
    """Return ``#rrggbb`` as four numbers in [0, 1], opaque."""
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return r, g, b, 1.0
