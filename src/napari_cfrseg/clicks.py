"""Clicks on a plane, and the forms they are given in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Click:
    """One click on a plane."""

    yx: tuple[float, float]  #: (row, column); pixel centres are integers
    is_positive: bool = True  #: whether the pixel belongs to the object
    #: (row, column) of the pixel the click lies in (halves round up)
    pixel: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            y, x = (float(v) for v in self.yx)
        except (TypeError, ValueError) as error:
            msg = f"click at {self.yx!r}: expected (row, column)"
            raise ValueError(msg) from error
        if not (math.isfinite(y) and math.isfinite(x)):
            msg = f"click at {self.yx!r}: coordinates must be finite numbers"
            raise ValueError(msg)
        object.__setattr__(self, "yx", (y, x))
        object.__setattr__(self, "is_positive", bool(self.is_positive))
        object.__setattr__(self, "pixel", (math.floor(y + 0.5), math.floor(x + 0.5)))


@dataclass(slots=True, eq=False)
class _Rows:
    """Coordinates and signs of clicks: arrays that lists share as they grow.

    A list is a view of the first rows; ``used`` rows are taken.
    """

    yx: NDArray[np.float64]
    pixels: NDArray[np.intp]
    positive: NDArray[np.bool_]
    used: int

    @classmethod
    def of(cls, clicks: Sequence[Click]) -> _Rows:
        yx = np.array([click.yx for click in clicks], np.float64).reshape(-1, 2)
        positive = np.array([click.is_positive for click in clicks], np.bool_)
        return cls(yx, np.floor(yx + 0.5).astype(np.intp), positive, len(clicks))

    def followed_by(self, click: Click, length: int) -> _Rows:
        """Return rows whose first ``length`` are these, and then a click's."""
        rows = self
        if length < self.used or length == len(self.yx):  # a branch, or full
            room = ((0, length // 2 + 64), (0, 0))
            rows = _Rows(
                np.pad(self.yx[:length], room),
                np.pad(self.pixels[:length], room),
                np.pad(self.positive[:length], room[0]),
                length,
            )
        rows.yx[length], rows.pixels[length] = click.yx, click.pixel
        rows.positive[length] = click.is_positive
        rows.used = length + 1
        return rows

    def without(self, index: np.intp, length: int) -> _Rows:
        """Return the first ``length`` rows except one."""
        kept = np.delete(np.arange(length), index)
        return _Rows(self.yx[kept], self.pixels[kept], self.positive[kept], length - 1)


class ClickList(tuple[Click, ...]):
    """Clicks, and their coordinates as arrays that are made once.

    What a click costs must not grow with the thousands before it, so nothing loops
    over them in Python where an array does, and :meth:`followed_by` makes no array.
    """

    @classmethod
    def of(cls, clicks: Iterable[Click]) -> ClickList:
        """Return clicks as such a list."""
        return clicks if isinstance(clicks, cls) else cls(clicks)

    def followed_by(self, click: Click) -> ClickList:
        """Return these clicks and one more."""
        longer = ClickList((*self, click))
        longer._rows = self._rows.followed_by(click, len(self))
        before = self.effective
        y, x = before.pixels.T
        for index in np.flatnonzero((y == click.pixel[0]) & (x == click.pixel[1])):
            before = before.without(index)
        longer._fewer = None if before is self else before.followed_by(click)
        return longer

    def without(self, index: np.intp) -> ClickList:
        """Return these clicks, no two of which are on one pixel, except one."""
        shorter = ClickList((*self[:index], *self[index + 1 :]))
        shorter._rows = self._rows.without(index, len(self))
        shorter._fewer = None
        return shorter

    @cached_property
    def _rows(self) -> _Rows:
        return _Rows.of(self)

    @property
    def yx(self) -> NDArray[np.float64]:
        """(N, 2) rows and columns."""
        return self._rows.yx[: len(self)]

    @property
    def pixels(self) -> NDArray[np.intp]:
        """(N, 2) rows and columns of the pixels they lie in."""
        return self._rows.pixels[: len(self)]

    @property
    def positive(self) -> NDArray[np.bool_]:
        """(N,) signs."""
        return self._rows.positive[: len(self)]

    @cached_property
    def _fewer(self) -> ClickList | None:
        by_pixel = {click.pixel: click for click in self}
        if len(by_pixel) == len(self):
            return None
        by_pixel.clear()
        for click in self:
            by_pixel.pop(click.pixel, None)
            by_pixel[click.pixel] = click
        only = ClickList(by_pixel.values())
        only._fewer = None
        return only

    @property
    def effective(self) -> ClickList:
        """At most one click per pixel, the latest, in order."""
        return self if self._fewer is None else self._fewer


def effective_clicks(clicks: Iterable[Click]) -> ClickList:
    """Drop clicks that a later click on the same pixel replaced; keep the order."""
    return ClickList.of(clicks).effective


def as_clicks(
    points: Sequence[Click] | ArrayLike, labels: ArrayLike | None = None
) -> tuple[Click, ...]:
    """Return clicks given as such, or as an array of points with their labels.

    Points are Clicks or (N, 2) numbers, (row, column) of each; labels (N,) bool, or 1
    and 0: positive or negative, by default all positive. Others are a ValueError,
    labels with Clicks, which have their signs, a TypeError.

    Examples
    --------
    >>> as_clicks([[4, 5], [9, 2]], labels=[1, 0])[1]
    Click(yx=(9.0, 2.0), is_positive=False)
    """
    rows: Any = points
    if isinstance(points, ClickList) and labels is None:
        return points
    if all(isinstance(click, Click) for click in rows):
        if labels is not None and len(rows):
            msg = "labels are for points given as an array; a Click has its own sign"
            raise TypeError(msg)
        return tuple(rows)
    yx = np.asarray(rows, dtype=np.float64)
    if yx.ndim != 2 or yx.shape[1] != 2:
        msg = f"points of shape {yx.shape}: expected Clicks or (N, 2) rows of (y, x)"
        raise ValueError(msg)
    signs = np.ones(len(yx)) if labels is None else np.asarray(labels)
    if signs.shape != (len(yx),) or not np.isin(signs, (0, 1)).all():
        msg = f"labels {labels!r}: expected {len(yx)} of 1 (positive) or 0 (negative)"
        raise ValueError(msg)
    return tuple(
        Click((y, x), bool(sign))
        for (y, x), sign in zip(yx.tolist(), signs, strict=True)
    )


def check_inside(click: Click, shape: tuple[int, int]) -> None:
    """Refuse a click outside a (Y, X) plane: ValueError."""
    y, x = click.pixel
    if not (0 <= y < shape[0] and 0 <= x < shape[1]):
        raise ValueError(
            f"click at ({click.yx[0]:g}, {click.yx[1]:g}) lies outside the image of "
            f"{shape[0]} rows and {shape[1]} columns"
        )


def points_array(
    clicks: Iterable[Click], *, slots: int | None = None
) -> NDArray[np.float32]:
    """Return clicks as the networks read them: (2N, 3) float32 ``[y, x, order]``.

    First the positives, then the negatives, unused rows −1. ``slots`` is N, by default
    as many as the larger sign needs, at least one. Coordinates are on the grid already.
    """
    listed = ClickList.of(clicks)
    return points_rows(listed.yx, listed.positive, slots)


def points_rows(
    yx: NDArray[np.float64], positive: NDArray[np.bool_], slots: int | None = None
) -> NDArray[np.float32]:
    """Return places, (N, 2), and signs, (N,), as :func:`points_array` does."""
    signs = [np.flatnonzero(positive), np.flatnonzero(~positive)]
    needed = max(len(signs[0]), len(signs[1]), 1)
    count = needed if slots is None else slots
    if count < needed:
        raise ValueError(f"{needed} clicks of one sign do not fit in {count} slots")
    points = np.full((2 * count, 3), -1.0, dtype=np.float32)
    for start, order in zip((0, count), signs, strict=True):
        rows = slice(start, start + len(order))
        points[rows, :2], points[rows, 2] = yx[order], order
    return points
