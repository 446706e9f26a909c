"""Axes in any order, over arrays that are read piece by piece.

An order gives the place of each of an array's axes: with ``(1, 0, 2)`` a (Z, Y, X)
stack is walked along Y, and its planes are (Z, X). The last two are a plane's rows and
columns; a channel axis stays last and is not counted. ``()`` is the array's own order.
"""

from __future__ import annotations

import errno
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import ImageError

Order = tuple[int, ...]
ValueT = TypeVar("ValueT")

#: a mapped file of at most this many bytes is read
IN_MEMORY_BYTES = 1 << 29


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
            raise ImageError(
                f"image of shape {tuple(array.shape)}: no index {index} of axis {axis}"
            )
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


def channels_of(array: Any, axis: int, chosen: Sequence[int]) -> Any:
    """Return some channels of an array, along a new last axis; of one, without it.

    ``axis`` is the one that counts the channels; nothing is read.
    """
    if isinstance(array, Pyramid):
        return Pyramid([channels_of(level, axis, chosen) for level in array.levels])
    rest = [i for i in range(len(array.shape)) if i != axis]
    parts = [view_of(array, rest, {axis: index}) for index in chosen]
    return parts[0] if len(parts) == 1 else stacked(parts)


def stacked(parts: Sequence[Any]) -> Any:
    """Return arrays of one shape, or pyramids, as channels along a new last axis."""
    if all(isinstance(part, Pyramid) for part in parts):
        levels = zip(*(part.levels for part in parts), strict=True)
        return Pyramid([ChannelStack(level) for level in levels])
    return ChannelStack(parts)


def _check_present(array: Any, found: NDArray[Any]) -> None:
    """Raise an error for a Zarr array that is gone.

    Its pieces are missing then, and Zarr takes missing pieces for empty ones. A server
    is asked where nothing else was found.
    """
    store = getattr(array, "store", None)
    inner: Any = getattr(store, "_store", store)
    root = getattr(inner, "root", None)
    if isinstance(root, Path) and not (root / array.path).exists():
        raise FileNotFoundError(errno.ENOENT, "the folder is gone", str(root))
    if hasattr(inner, "fs") and np.all(found == array.fill_value):
        import zarr

        try:
            zarr.open_array(store, path=array.path, mode="r")
        except (FileNotFoundError, ValueError) as error:
            msg = f"nothing is there any more at {inner.path}/{array.path}"
            raise FileNotFoundError(errno.ENOENT, msg) from error


def in_memory(array: NDArray[Any]) -> NDArray[Any]:
    """Read a mapped array that is not large: its file may change later."""
    if array.nbytes > IN_MEMORY_BYTES:
        return array
    return np.array(array, array.dtype.newbyteorder("="))


class LazyArray(ABC):
    """An array whose pixels are read when it is sliced."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

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
        return self.size * self.dtype.itemsize

    @abstractmethod
    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by whole numbers and slices, one per axis from the first on."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[(slice(None),) * self.ndim], dtype=dtype)


class ArrayView(LazyArray):
    """A lazy array with axes left out or in another order.

    Only what is sliced is read, with one request to the array itself, which has
    ``shape``, ``dtype`` and slicing: how fast that is depends on how it is chunked.
    ``axes`` are those that are kept, in order, ``fixed`` has the index of each other
    one. What cannot be decoded is an ImageError where ``source`` names the file.
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
        self.shape = tuple(int(array.shape[i]) for i in self._axes)
        self.dtype = np.dtype(array.dtype)

    def narrowed(self, axes: Sequence[int], fixed: Mapping[int, int]) -> ArrayView:
        """Return a view of this view, on the same array."""
        own = {self._axes[axis]: index for axis, index in fixed.items()}
        kept = [self._axes[axis] for axis in axes]
        return ArrayView(self._array, kept, {**self._fixed, **own}, self._source)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by whole numbers and slices, one per axis from the first on."""
        whole = per_axis(key, self.ndim)
        own: list[Any] = [self._fixed.get(i) for i in range(len(self._array.shape))]
        for part, axis in zip(whole, self._axes, strict=True):
            own[axis] = part if isinstance(part, slice) else int(part)
        try:
            found = np.asarray(self._array[tuple(own)])
            _check_present(self._array, found)
        except ImageError:
            raise
        except Exception as error:
            if not self._source:
                raise
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise ImageError(f"{self._source} cannot be decoded: {said}") from error
        kept = [
            axis
            for part, axis in zip(whole, self._axes, strict=True)
            if isinstance(part, slice)
        ]
        return found.transpose([sorted(kept).index(axis) for axis in kept])


class Pyramid(LazyArray):
    """An array with coarser copies of itself; reads like the finest of them.

    ``levels`` have the same axes, the finest first.
    """

    def __init__(self, levels: Sequence[Any]) -> None:
        self.levels = tuple(levels)
        self.shape = tuple(int(n) for n in self.levels[0].shape)
        self.dtype = np.dtype(self.levels[0].dtype)

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
        """Return the coarsest level whose pixels are at most so wide, in finest pixels.

        Also returns how many pixels of a (Y, X) plane each of its pixels stands for.
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


def _factor(fine: int, coarse: int) -> float:
    """Return what shrank one side to another: a whole number where one explains it."""
    whole = round(fine / coarse)
    return float(whole) if abs(whole * coarse - fine) < whole else fine / coarse


def per_axis(key: Any, ndim: int) -> tuple[Any, ...]:
    """Return an index with an entry for each of ``ndim`` axes."""
    key = key if isinstance(key, tuple) else (key,)
    at = key.index(Ellipsis) if Ellipsis in key else len(key)
    rest = key[at + 1 :]
    return (*key[:at], *[slice(None)] * (ndim - at - len(rest)), *rest)


class ChannelStack(LazyArray):
    """Arrays of one shape, read as channels along a new last axis.

    There is one for each channel; NumPy, or lazy with ``shape``, ``dtype`` and slicing.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = tuple(parts)
        self.shape = (*(int(n) for n in parts[0].shape), len(self._parts))
        self.dtype = np.result_type(*(np.dtype(part.dtype) for part in parts))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by whole numbers and slices, one per axis from the first on."""
        *places, wanted = per_axis(key, self.ndim)
        if not isinstance(wanted, slice):
            return np.asarray(self._parts[wanted][tuple(places)], self.dtype)
        read = [np.asarray(part[tuple(places)]) for part in self._parts[wanted]]
        return np.stack(read, -1).astype(self.dtype, copy=False)


class WithAxis(LazyArray):
    """A lazy array with one more axis, of length 1.

    ``axis`` is its number in the result.
    """

    def __init__(self, array: Any, axis: int) -> None:
        self._array, self._axis = array, axis
        shape = [int(n) for n in array.shape]
        self.shape = (*shape[:axis], 1, *shape[axis:])
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by whole numbers and slices, one per axis from the first on."""
        key = per_axis(key, self.ndim)
        rest = (*key[: self._axis], *key[self._axis + 1 :])
        found = np.asarray(self._array[rest])
        before = sum(isinstance(part, slice) for part in key[: self._axis])
        one = (*[slice(None)] * before, key[self._axis])
        return np.asarray(np.expand_dims(found, before)[one])
