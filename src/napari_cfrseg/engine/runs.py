"""Runs of pixels as arrays: flat row-major indices to (start, length), and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def runs_of(
    flat: NDArray[np.int64], *values: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return first positions (into ``flat``) and lengths of runs of equal values."""
    if flat.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    breaks = np.diff(flat) != 1
    for value in values:
        breaks |= np.diff(value) != 0
    first = np.concatenate(([0], np.flatnonzero(breaks) + 1))
    lengths = np.diff(np.concatenate((first, [flat.size])))
    return first.astype(np.int64), lengths.astype(np.int64)


def flat_of(
    mask: NDArray[np.bool_], offset: tuple[int, int], width: int
) -> NDArray[np.int64]:
    """Return the flat plane indices, ascending, of the pixels set in a box."""
    y, x = np.nonzero(mask)
    flat: NDArray[np.int64] = (y + offset[0]).astype(np.int64) * width + x + offset[1]
    return flat


def expand(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the flat indices of every pixel of the runs."""
    if starts.size == 0:
        return np.zeros(0, np.int64)
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
