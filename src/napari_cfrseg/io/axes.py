"""Axes by name and in any order, over arrays that are read piece by piece.

An order gives the place of each of an array's axes: with ``(1, 0, 2)`` a (Z, Y, X)
stack is walked along Y, and its planes are (Z, X). The last two are a plane's rows and
columns; a channel axis stays last and is not counted. ``()`` is the array's own order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import ImageError

Order = tuple[int, ...]
ValueT = TypeVar("ValueT")

#: names given to leading axes of which nothing is known
_SPARE_NAMES = "tzqiwvuabdefghjklmnopr"
#: channels that a network reads
MOST_CHANNELS = 4
#: a mapped file of at most so many bytes is read
IN_MEMORY_BYTES = 1 << 29
#: an array is read whole up to this size
MOST_BYTES = 1 << 33


def is_order(order: Sequence[int], ndim: int) -> bool:
    """Whether an order is one of all of ``ndim`` axes."""
    return sorted(order) == list(range(ndim))


def across(axes: tuple[int, int], ndim: int) -> Order:
    """Return the order whose planes have two of an array's axes, rows first."""
    leading = [i for i in range(ndim) if i not in axes]
    order = (*leading, *sorted(axes))
    return () if order == tuple(range(ndim)) else order


def back(order: Order) -> Order:
    """Return the order that undoes one."""
    return tuple(order.index(i) for i in range(len(order)))


def put(values: Sequence[ValueT], order: Order) -> tuple[ValueT, ...]:
    """Put one value per axis into an order; values beyond it stay last."""
    return (*(values[i] for i in order), *values[len(order) :])


def turned(array: Any, order: Order) -> Any:
    """Return an array with its axes in another order; a lazy one is not read."""
    if not order:
        return array
    ndim = len(array.shape)
    if ndim - len(order) not in (0, 1) or not is_order(order, len(order)):
        msg = f"axes {order} of an array of shape {tuple(array.shape)}: no such order"
        raise ValueError(msg)
    return view_of(array, (*order, *range(len(order), ndim)))


def plane_of(array: Any, plane: Sequence[int]) -> Any:
    """Return the plane at an index of the leading axes, unread if the array is lazy."""
    fixed = dict(enumerate(plane))
    return view_of(array, range(len(fixed), len(array.shape)), fixed)


def select_from(array: Any, select: Sequence[tuple[int, int]]) -> Any:
    """Take one index along an axis, for each (axis, index) in turn; reads nothing."""
    for axis, index in select:
        ndim = len(array.shape)
        if axis >= ndim or index >= array.shape[axis]:
            msg = (
                f"image of shape {tuple(array.shape)}: no index {index} of axis {axis}"
            )
            raise ImageError(msg)
        array = view_of(array, [i for i in range(ndim) if i != axis], {axis: index})
    return array


def view_of(
    array: Any, axes: Sequence[int], fixed: Mapping[int, int] | None = None
) -> Any:
    """Return some axes of an array, in any order, at fixed indices of the others.

    ``array`` is NumPy, or lazy with ``shape``, ``dtype`` and slicing. Axes of length 1
    that are left out need no index.
    """
    index = {i: 0 for i in range(len(array.shape)) if i not in axes}
    index.update(fixed or {})
    if isinstance(array, np.ndarray):
        key = tuple(index.get(i, slice(None)) for i in range(array.ndim))
        left = sorted(axes)
        return array[key].transpose([left.index(axis) for axis in axes])
    if isinstance(array, ArrayView | Pyramid):
        return array.narrowed(axes, index)
    return ArrayView(array, axes, index)


def in_memory(array: NDArray[Any]) -> NDArray[Any]:
    """Read a mapped array that is not large: its file may change later."""
    if array.nbytes > IN_MEMORY_BYTES:
        return array
    return np.array(array, array.dtype.newbyteorder("="))


class ArrayView:
    """A lazy array with axes left out or in another order.

    Only what is sliced is read, with one request to the array itself: how fast that is
    depends on how the array is chunked.

    Parameters
    ----------
    array
        With ``shape``, ``dtype`` and slicing.
    axes, fixed
        Those that are kept, in order, and the index of each other one.
    source
        The file it is read from: what cannot be decoded is then an ImageError.
    """

    def __init__(
        self,
        array: Any,
        axes: Sequence[int],
        fixed: Mapping[int, int],
        source: str = "",
    ) -> None:
        self._source = source
        self._array = array
        self._axes = tuple(axes)
        self._fixed = dict(fixed)
        self.shape: tuple[int, ...] = tuple(int(array.shape[i]) for i in self._axes)
        self.dtype = np.dtype(array.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size when read whole."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def narrowed(self, axes: Sequence[int], fixed: Mapping[int, int]) -> ArrayView:
        """Return a view of this view, on the same array."""
        own = {self._axes[axis]: index for axis, index in fixed.items()}
        kept = [self._axes[axis] for axis in axes]
        return ArrayView(self._array, kept, {**self._fixed, **own}, self._source)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by whole numbers and slices, one per axis from the first on."""
        key = key if isinstance(key, tuple) else (key,)
        whole = (*key, *([slice(None)] * (self.ndim - len(key))))
        own: list[Any] = [self._fixed.get(i) for i in range(len(self._array.shape))]
        for part, axis in zip(whole, self._axes, strict=True):
            own[axis] = part if isinstance(part, slice) else int(part)
        try:
            found = np.asarray(self._array[tuple(own)])
        except ImageError:
            raise
        except Exception as error:
            if not self._source:
                raise
            said = " ".join(str(error).split())[:200] or type(error).__name__
            msg = f"{self._source} cannot be decoded: {said}"
            raise ImageError(msg) from error
        kept = [
            axis
            for part, axis in zip(whole, self._axes, strict=True)
            if isinstance(part, slice)
        ]
        return found.transpose([sorted(kept).index(axis) for axis in kept])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[(slice(None),) * self.ndim], dtype=dtype)


class Pyramid:
    """An array with coarser copies of itself; reads like the finest of them.

    Parameters
    ----------
    levels
        The finest first; with the same axes.
    """

    def __init__(self, levels: Sequence[Any]) -> None:
        self.levels = tuple(levels)
        self.shape: tuple[int, ...] = tuple(int(n) for n in self.levels[0].shape)
        self.dtype = np.dtype(self.levels[0].dtype)
        self.ndim = len(self.shape)

    def narrowed(self, axes: Sequence[int], fixed: Mapping[int, int]) -> Pyramid:
        """Return a view of each level; coarser ones may have fewer planes."""
        return Pyramid(
            [
                view_of(
                    level,
                    axes,
                    {
                        axis: index * int(level.shape[axis]) // self.shape[axis]
                        for axis, index in fixed.items()
                    },
                )
                for level in self.levels
            ]
        )

    def fitting(self, px_per_pixel: float) -> tuple[Any, tuple[float, float]]:
        """Return the coarsest level of which a pixel stands for so many, or fewer.

        Returns
        -------
        The level, and how many pixels of a (Y, X) plane each of its pixels stands for.
        """
        found: tuple[Any, tuple[float, float]] = self.levels[0], (1.0, 1.0)
        for level in self.levels[1:]:
            down, across = (
                _factor(fine, int(coarse))
                for fine, coarse in zip(self.shape[:2], level.shape, strict=False)
            )
            if max(down, across) <= px_per_pixel:
                found = level, (down, across)
        return found

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.asarray(self.levels[0][key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.levels[0], dtype=dtype)


def _factor(fine: int, coarse: int) -> float:
    """Return what shrank one side to another: a whole number where one explains it."""
    whole = round(fine / coarse)
    return float(whole) if abs(whole * coarse - fine) < whole else fine / coarse


def axis_names(ndim: int, has_channels: bool) -> tuple[str, ...]:
    """Return names for axes nothing is known of: …, z, y, x, c."""
    depth = ndim - 2 - has_channels
    names = ("z",) if depth == 1 else tuple(_SPARE_NAMES[:depth])
    return (*names, "y", "x", *(["c"] if has_channels else []))


@dataclass(frozen=True, slots=True, eq=False)
class OpenImage:
    """An image's pixels and axes.

    Attributes
    ----------
    array
        NumPy or lazy, in the file's order.
    axes
        One name per axis: "y", "x", "z", "t", "c" where they are known.
    spacing, units
        Of all axes but a last "c"; None: unknown.
    is_rgb
        Whether the axis "c" holds the colours of one light, as the file says.
    """

    array: Any
    axes: tuple[str, ...]
    spacing: tuple[float, ...] | None = None
    units: tuple[str, ...] | None = None
    is_rgb: bool = False

    @classmethod
    def unnamed(cls, array: Any) -> OpenImage:
        """Return an image of whose axes nothing is known; 3 or 4 of uint8 are RGB."""
        names = tuple(f"axis {i}" for i in range(len(array.shape)))
        return cls(array, names, is_rgb=array.dtype == np.uint8)

    @property
    def has_channels(self) -> bool:
        """Whether the last axis counts channels."""
        return self.axes[-1] == "c"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(int(n) for n in self.array.shape)

    def named(self, axes: str) -> OpenImage:
        """Return the image with its axes named by a person.

        A letter for each axis, or for each longer than 1: Y and X, and Z, T, C
        (channels), S (colours) or any other; ImageError if they do not fit.
        """
        names = axes.lower()
        long = [i for i, n in enumerate(self.shape) if n > 1]
        image = self
        if len(names) == len(long) != len(self.axes):
            image = _kept(self, long)
        shape = " × ".join(map(str, self.shape))
        if len(names) != len(image.axes):
            msg = f"axes {axes!r} do not fit an image of {shape}: one letter per axis"
            raise ImageError(msg)
        colours = "s" in names and "c" not in names
        names = names.replace("s", "c") if colours else names
        if len(set(names)) != len(names) or not {"x", "y"} <= set(names):
            msg = f"axes {axes!r}: each letter once, Y and X among them"
            raise ImageError(msg)
        sizes = image.spacing
        if sizes is not None:
            sizes = (*sizes, 1.0)[: len(names) - (names[-1] == "c")]
        units = image.units
        if units is not None:
            units = (*units, "pixel")[: len(names) - (names[-1] == "c")]
        return OpenImage(image.array, tuple(names), sizes, units, colours)

    def arranged(self, keep: str = "") -> OpenImage:
        """Return the image as (…, Y, X) or (…, Y, X, C), axes of length 1 left out.

        Of axes that ``keep`` does not name the first index is taken; "" keeps all.
        """
        shape, names = self.shape, self.axes
        y, x = names.index("y"), names.index("x")
        channel = None
        if "c" in names:
            channel = len(names) - 1 if self.has_channels else names.index("c")
        rest = [
            i
            for i, n in enumerate(shape)
            if n > 1 and i not in (y, x, channel) and (not keep or names[i] in keep)
        ]
        last = [] if channel is None or shape[channel] == 1 else [channel]
        return _kept(self, [*rest, y, x, *last])

    def placement(self, axes: str) -> dict[str, tuple[Any, ...] | None]:
        """Return axes, spacing and units of some axes, as writers of labels take."""
        at = [self.axes.index(name) for name in axes]
        sizes, units = self.spacing, self.units
        return {
            "axes": tuple(axes),
            "spacing": None if sizes is None else tuple(sizes[i] for i in at),
            "units": None if units is None else tuple(units[i] for i in at),
        }

    def read(self) -> NDArray[Any]:
        """Return all pixels; ImageError if unreadable or more than 8 GB."""
        size = math.prod(self.shape) * np.dtype(self.array.dtype).itemsize
        if size > MOST_BYTES:
            msg = (
                f"{size / 1e9:.1f} GB of pixels: at most {MOST_BYTES / 1e9:.1f} GB are "
                "read at once"
            )
            raise ImageError(msg)
        return np.asarray(self.array)

    def with_channels(self, chosen: Sequence[int]) -> OpenImage:
        """Return an arranged image with some of its channels; one leaves no axis.

        A channel that it does not have is an ImageError.
        """
        count = self.shape[-1] if self.has_channels else 1
        if not chosen or not all(0 <= i < count for i in chosen):
            msg = f"channels {list(chosen)}: the image has {count}, counted from 0"
            raise ImageError(msg)
        if not self.has_channels:
            return self
        if len(chosen) == 1:
            last = len(self.axes) - 1
            array = view_of(self.array, range(last), {last: chosen[0]})
            return replace(self, array=array, axes=self.axes[:-1], is_rgb=False)
        array = _Channels(self.array, chosen)
        return replace(self, array=array, is_rgb=self.is_rgb and len(chosen) > 2)

    def fitted(self, shape: tuple[int, ...], where: str) -> OpenImage:
        """Arrange the image as its labels are: their axes, then channels, at most 4.

        An axis of known name is not taken for channels. Where no order fits ``shape``,
        an ImageError says so of ``where``, the image's name.
        """
        image = self.arranged() if "y" in self.axes else self
        found = image.shape
        if found == shape:
            return image
        candidates = [i for i, name in enumerate(image.axes) if name not in "tzyx"]
        for axis in sorted(candidates, key=lambda i: (image.axes[i] != "c", -i)):
            rest = [i for i in range(len(found)) if i != axis]
            if tuple(found[i] for i in rest) == shape and found[axis] <= MOST_CHANNELS:
                names = list(image.axes)
                names[axis] = "c"
                return _kept(replace(image, axes=tuple(names)), [*rest, axis])
        msg = (
            f"{where}: the image has shape {found} (axes {' '.join(image.axes)}), its "
            f"labels {shape}; expected the same, or one axis of at most "
            f"{MOST_CHANNELS} channels more"
        )
        raise ImageError(msg)

    def plane(self, *index: int) -> NDArray[Any]:
        """Read one plane of an arranged image.

        Channels that are no colours come with 16 bits where they have 8: of 8 bits,
        three or four are taken for RGB(A).
        """
        pixels = np.asarray(self.array[index or slice(None)])
        if self.has_channels and not self.is_rgb and pixels.dtype == np.uint8:
            return pixels.astype(np.uint16)
        return pixels


class _Channels:
    """Some channels of an array whose last axis they are."""

    def __init__(self, array: Any, chosen: Sequence[int]) -> None:
        self._array = array
        self._chosen = tuple(chosen)
        self.shape = (*(int(n) for n in array.shape[:-1]), len(self._chosen))
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        places = (*key, *([slice(None)] * len(self.shape)))[: len(self.shape) - 1]
        read = [np.asarray(self._array[(*places, i)]) for i in self._chosen]
        return np.stack(read, -1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[()], dtype=dtype)


def _kept(image: OpenImage, axes: Sequence[int]) -> OpenImage:
    """Return an image with some of its axes, in this order."""
    names = tuple(image.axes[i] for i in axes)
    counted = axes[: len(axes) - (names[-1] == "c")]
    sizes, units = image.spacing, image.units
    return replace(
        image,
        array=view_of(image.array, axes),
        axes=names,
        spacing=None if sizes is None else tuple((*sizes, 1.0)[i] for i in counted),
        units=None if units is None else tuple((*units, "pixel")[i] for i in counted),
        is_rgb=image.is_rgb and "c" in names,
    )
