"""Clicks, and what can be said of them without pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Click:
    """One click on a plane.

    Attributes
    ----------
    yx
        (row, column) in pixels of the plane; pixel centres are integers.
    is_positive
        True: this belongs to the object. False: this does not.
    """

    yx: tuple[float, float]
    is_positive: bool = True

    def __post_init__(self) -> None:
        y, x = (float(v) for v in self.yx)
        if not (math.isfinite(y) and math.isfinite(x)):
            msg = f"click at {self.yx!r}: coordinates must be finite numbers"
            raise ValueError(msg)
        object.__setattr__(self, "yx", (y, x))
        object.__setattr__(self, "is_positive", bool(self.is_positive))

    @property
    def pixel(self) -> tuple[int, int]:
        """The (row, column) of the pixel the click lies in (halves round up)."""
        return math.floor(self.yx[0] + 0.5), math.floor(self.yx[1] + 0.5)


def effective_clicks(clicks: Iterable[Click]) -> tuple[Click, ...]:
    """Drop clicks that a later click on the same pixel replaced; keep the order."""
    by_pixel: dict[tuple[int, int], Click] = {}
    for click in clicks:
        by_pixel.pop(click.pixel, None)
        by_pixel[click.pixel] = click
    return tuple(by_pixel.values())


def check_inside(click: Click, shape: tuple[int, int]) -> None:
    """Refuse a click outside a (Y, X) plane.

    Raises
    ------
    ValueError
        Naming the click and the plane's rows and columns.
    """
    y, x = click.pixel
    if not (0 <= y < shape[0] and 0 <= x < shape[1]):
        msg = (
            f"click at {click.yx} lies outside the image: rows 0 to {shape[0] - 1}, "
            f"columns 0 to {shape[1] - 1}"
        )
        raise ValueError(msg)


def points_array(
    clicks: Iterable[Click], *, slots: int | None = None
) -> NDArray[np.float32]:
    """Lay clicks out as the networks read them.

    Parameters
    ----------
    clicks
        Clicks in the order they were made, coordinates already on the grid.
    slots
        Number N of slots per sign; by default as many as the larger sign needs, at
        least one.

    Returns
    -------
    (2N, 3) float32 rows ``[y, x, order]``: positives, then negatives, unused −1.
    """
    ordered = list(enumerate(clicks))
    signs = [
        [(order, c) for order, c in ordered if c.is_positive],
        [(order, c) for order, c in ordered if not c.is_positive],
    ]
    needed = max(len(signs[0]), len(signs[1]), 1)
    count = needed if slots is None else slots
    if count < needed:
        msg = f"{needed} clicks of one sign do not fit in {count} slots"
        raise ValueError(msg)
    points = np.full((2 * count, 3), -1.0, dtype=np.float32)
    for start, sign in zip((0, count), signs, strict=True):
        for row, (order, click) in enumerate(sign, start):
            points[row] = (*click.yx, order)
    return points
