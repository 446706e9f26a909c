"""Channels of an image: several arrays read as one, and which of many are used.

The network reads three channels. One is given three times, two come with their mean,
and of four the last two are averaged (see :mod:`.plane_image`). Of more, the first
three are used unless a person chooses others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import ImageError

#: channels that a person can choose together
MOST_CHANNELS = 4
#: of more channels than can be chosen, so many are used
USED_OF_MANY = 3


def default_channels(count: int) -> tuple[int, ...]:
    """Return which of ``count`` channels are used without a choice.

    Examples
    --------
    >>> default_channels(4), default_channels(5)
    ((0, 1, 2, 3), (0, 1, 2))
    """
    return tuple(range(count if count <= MOST_CHANNELS else USED_OF_MANY))


def ends_in_channels(shape: Sequence[int]) -> bool:
    """Whether the last of unnamed axes counts channels: planes of it would be slits."""
    return len(shape) > 2 and shape[-1] <= MOST_CHANNELS < min(shape[-3:-1])


def check_channels(chosen: Sequence[int], count: int) -> tuple[int, ...]:
    """Return chosen channels; an ImageError says why they cannot be used together."""
    if not chosen or not all(0 <= i < count for i in chosen):
        msg = f"channels {list(chosen)}: the image has {count}, counted from 0"
        raise ImageError(msg)
    if len(chosen) > MOST_CHANNELS or len(set(chosen)) < len(chosen):
        msg = f"channels {list(chosen)}: choose up to {MOST_CHANNELS} different ones"
        raise ImageError(msg)
    return tuple(chosen)


def _per_axis(key: Any, ndim: int) -> tuple[Any, ...]:
    """Return an index with an entry for each of ``ndim`` axes."""
    key = key if isinstance(key, tuple) else (key,)
    return (*key, *([slice(None)] * (ndim - len(key))))


class ChannelStack:
    """Arrays of one shape, read as channels along a new last axis.

    There is one for each channel; NumPy, or lazy with ``shape``, ``dtype`` and slicing.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = tuple(parts)
        self.shape = (*(int(n) for n in parts[0].shape), len(self._parts))
        self.dtype = np.result_type(*(np.dtype(part.dtype) for part in parts))
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by whole numbers and slices, one per axis from the first on."""
        *places, wanted = _per_axis(key, self.ndim)
        if not isinstance(wanted, slice):
            return np.asarray(self._parts[wanted][tuple(places)], self.dtype)
        read = [np.asarray(part[tuple(places)]) for part in self._parts[wanted]]
        return np.stack(read, -1).astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[()], dtype=dtype)


class WithAxis:
    """A lazy array with one more axis, of length 1.

    ``axis`` is its number in the result.
    """

    def __init__(self, array: Any, axis: int) -> None:
        self._array, self._axis = array, axis
        shape = [int(n) for n in array.shape]
        self.shape = (*shape[:axis], 1, *shape[axis:])
        self.dtype = np.dtype(array.dtype)
        self.ndim, self.size = len(self.shape), math.prod(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by whole numbers and slices, one per axis from the first on."""
        key = _per_axis(key, self.ndim)
        rest = (*key[: self._axis], *key[self._axis + 1 :])
        found = np.asarray(self._array[rest])
        if not isinstance(key[self._axis], slice):
            return found
        before = sum(isinstance(part, slice) for part in key[: self._axis])
        return np.expand_dims(found, before)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[()], dtype=dtype)
