"""Planes across other axes: an array with its axes in another order, still unread.

An order says which of an array's axes comes where: with ``(1, 0, 2)`` a (Z, Y, X) stack
is walked along Y, and its planes are (Z, X). The last two are a plane's rows and
columns; a channel axis stays last and is not counted. ``()`` is the array's own order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Order = tuple[int, ...]
ValueT = TypeVar("ValueT")


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
    if len(array.shape) - len(order) not in (0, 1) or not is_order(order, len(order)):
        msg = f"axes {order} of an array of shape {tuple(array.shape)}: no such order"
        raise ValueError(msg)
    if isinstance(array, np.ndarray):
        return array.transpose((*order, *range(len(order), array.ndim)))
    return Turned(array, order)


class Turned:
    """A lazy array with its axes in another order.

    What is asked of it is asked of the array itself: how fast a plane is read depends
    on how the array is chunked.
    """

    def __init__(self, array: Any, order: Order) -> None:
        self._array = array
        self._order = (*order, *range(len(order), len(array.shape)))
        self.shape = tuple(int(array.shape[i]) for i in self._order)
        self.dtype = np.dtype(array.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by whole numbers and slices, one per axis from the first on."""
        key = key if isinstance(key, tuple) else (key,)
        whole = (*key, *([slice(None)] * (self.ndim - len(key))))
        own: list[Any] = [None] * self.ndim
        for place, axis in enumerate(self._order):
            own[axis] = whole[place]
        found = np.asarray(self._array[tuple(own)])
        kept = [axis for i, axis in enumerate(self._order) if _is_slice(whole[i])]
        return found.transpose([sorted(kept).index(axis) for axis in kept])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[(slice(None),)], dtype=dtype)


def _is_slice(part: Any) -> bool:
    return isinstance(part, slice)
