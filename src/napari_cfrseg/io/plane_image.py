"""Prepare a plane of any type for the network: channels, grey values, windows.

Any integer, float or boolean plane, (Y, X) or (Y, X, C) with 1–4 channels or RGB(A),
becomes three channels in [0, 1]. The range comes from robust percentiles of a sample
taken once, when the image is set; a session keeps it, so a replay sees the same pixels.
An object far outside it widens it for itself. Nothing ever reads a whole lazy image.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import ImageError
from napari_cfrseg.geometry.windows import PlaneLike, Window, crop
from napari_cfrseg.io.axes import ArrayView, Pyramid

#: Percentiles painted black and white; outliers beyond them saturate.
LOW_PERCENT, HIGH_PERCENT = 0.1, 99.9
#: Pixels looked at to find them.
SAMPLE_PX = 1_000_000
#: A lazy image is sampled in this many tiles per axis, so many of them at once.
_TILES, _AT_ONCE = 6, 12
#: An object is outside the range that by this part of it exceeds it, in the median of
#: the pixels next to a click; then this far around the click is looked at.
_BEYOND, _NEXT_PX, _AROUND_PX = 0.25, 1, 64
#: so far around a first click a lazy image is read at once: its windows of 256 pixels
#: lie within, off the click by what their grids and the search for a centre take
_NEAR_PX = 144


@dataclass(frozen=True, slots=True)
class Scaling:
    """The values painted black and white, one per channel of the image (no alpha).

    Finite, low ≤ high; a channel where they are equal carries nothing, and is black.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        pairs = list(zip(self.low, self.high, strict=True))
        if not pairs or not all(
            math.isfinite(a) and math.isfinite(b) and a <= b for a, b in pairs
        ):
            msg = f"scaling {self.low} … {self.high}: finite numbers, low ≤ high"
            raise ValueError(msg)

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Scale (h, w, C) pixels to float32 in [0, 1]; NaN and −inf become 0."""
        wide = values.dtype.itemsize >= 4
        real: NDArray[np.floating[Any]] = values.astype(
            np.float64 if wide else np.float32
        )
        low = np.asarray(self.low, dtype=real.dtype)
        span = np.asarray(self.high, dtype=real.dtype) - low
        gain = np.divide(1, span, out=np.zeros_like(span), where=span > 0)
        with np.errstate(invalid="ignore", over="ignore"):
            real = (real - low) * gain
        if values.dtype.kind == "f":
            np.nan_to_num(real, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
        np.clip(real, 0, 1, out=real)
        if not np.all(span > 0):  # ∞ · 0 above
            real[..., span <= 0] = 0
        return real.astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class PlaneImage:
    """A plane ready to be read window by window."""

    array: PlaneLike  #: (Y, X) or (Y, X, C), as the caller gave it; never copied
    channels: int  #: channels used: 1–4, alpha left out
    rgb: bool  #: whether the channels are colours of one light, scaled jointly
    scaling: Scaling  #: the values painted black and white

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X)."""
        return int(self.array.shape[0]), int(self.array.shape[1])

    def crop(self, window: Window) -> NDArray[np.float32]:
        """Sample a window: (3, grid, grid) float32 in [0, 1].

        Of a pyramid the coarsest level is read that has a pixel for each cell.
        """
        array, factors = self.array, (1.0, 1.0)
        if isinstance(array, Pyramid):
            array, factors = array.fitting(window.px_per_cell)
        return _three(crop(array, window, self._convert, factors))

    def read(self) -> NDArray[np.float32]:
        """Read the whole plane: (Y, X, 3) float32 in [0, 1]."""
        values = np.asarray(self.array[: self.shape[0], : self.shape[1]])
        values = values[..., None] if values.ndim == 2 else values
        planes = _three(self._convert(values).transpose(2, 0, 1))
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def seeing(self, *pixels: tuple[int, int]) -> PlaneImage:
        """Return the plane with black and white for objects that hold (y, x) pixels.

        Of an almost empty field the sample shows noise or nothing, and an object much
        brighter or darker would be lost: they are moved as far as its surroundings
        ask. An object within them changes nothing.
        """
        image = self
        for pixel in pixels:
            now = list(zip(image.scaling.low, image.scaling.high, strict=True))
            near = self._around(pixel, _NEXT_PX)
            lost = [_is_outside(n, *pair) for n, pair in zip(near.T, now, strict=True)]
            if not any(lost):
                continue
            found = _ranges(self._around(pixel, _AROUND_PX), joint=self.rgb)
            pairs = [
                (min(one[0], new[0]), max(one[1], new[1]))
                if new is not None and (is_lost or self.rgb)
                else one
                for one, new, is_lost in zip(now, found, lost, strict=True)
            ]
            image = replace(image, scaling=Scaling(*zip(*pairs, strict=True)))
        return image

    def begin_at(self, pixel: tuple[int, int]) -> None:
        """Expect a first click at a (y, x) pixel.

        It looks at several windows within each other: what they read of a lazy image
        next to the click then comes with one request.
        """
        finest = self.array
        if isinstance(finest, Pyramid):
            finest = finest.levels[0]
        if isinstance(finest, _ReadOnce):
            finest.expect(pixel)

    def _around(self, pixel: tuple[int, int], reach: int) -> NDArray[Any]:
        """Return the (N, channels) pixels at most ``reach`` rows and columns away."""
        (y, x), (height, width) = pixel, self.shape
        rows = slice(max(y - reach, 0), min(y + reach + 1, height))
        columns = slice(max(x - reach, 0), min(x + reach + 1, width))
        values = np.asarray(self.array[rows, columns])
        layers = 1 if values.ndim == 2 else values.shape[2]
        return values.reshape(-1, layers)[:, : self.channels]

    def _convert(self, values: NDArray[Any]) -> NDArray[np.float32]:
        return self.scaling.apply(values[:, :, : self.channels])


class _ReadOnce(ArrayView):
    """A lazy plane of which what lies around one pixel is read once, when needed."""

    #: which box, and its pixels once they were read: always changed together
    _near: tuple[tuple[slice, slice], NDArray[Any] | None] | None = None

    def expect(self, pixel: tuple[int, int]) -> None:
        """Read around this pixel next; what was read before is forgotten."""
        y, x = (
            slice(max(at - _NEAR_PX, 0), min(at + _NEAR_PX, n))
            for at, n in zip(pixel, self.shape, strict=False)
        )
        self._near = (y, x), None

    def __getitem__(self, key: Any) -> NDArray[Any]:
        now = self._near
        if now is None or not _lies_within(key, now[0]):
            return super().__getitem__(key)
        box, near = now
        if near is None:
            near = super().__getitem__(box)
            self._near = box, near
        rows, columns = (
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip(key, box, strict=True)
        )
        return near[rows, columns]


def _lies_within(key: Any, box: tuple[slice, slice]) -> bool:
    return (
        isinstance(key, tuple)
        and len(key) == len(box)
        and all(
            isinstance(part, slice)
            and part.step in (None, 1)
            and None not in (part.start, part.stop)
            and whole.start <= part.start <= part.stop <= whole.stop
            for part, whole in zip(key, box, strict=True)
        )
    )


def _three(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make three channels of (C, Y, X) with 1 to 4.

    One is repeated; of two, the third is their mean; of four, the third is the mean of
    the last two.
    """
    count = len(planes)
    if count == 1:
        return np.repeat(planes, 3, axis=0)
    if count == 3:
        return planes
    rest = planes if count == 2 else planes[2:]
    return np.concatenate([planes[:2], rest.mean(axis=0, keepdims=True)])


def open_plane(
    image: PlaneLike, *, rgb: bool | None = None, scaling: Scaling | None = None
) -> PlaneImage:
    """Look at an image once and return how its pixels will be read.

    The image is (Y, X) or (Y, X, C) with C 1–4; bool, integer or float; NumPy, or lazy
    with ``shape``, ``dtype`` and slicing (dask, zarr). ``rgb``: 3 or 4 channels are
    RGB(A), scaled jointly so that colours stay, alpha dropped (None: yes for uint8).
    ``scaling`` are the values painted black and white; by default the 0.1th and 99.9th
    percentile of at most about a million pixels. A constant image is painted black.
    Raises ImageError for a wrong shape or dtype, an empty image, or no finite pixel.
    """
    array = _as_plane(image)
    layers = 1 if len(array.shape) == 2 else int(array.shape[2])
    dtype = np.dtype(array.dtype)
    if rgb is None:
        rgb = layers in (3, 4) and dtype == np.uint8
    if rgb and layers not in (3, 4):
        msg = f"an RGB image has 3 or 4 channels; this one has shape {array.shape}"
        raise ImageError(msg)
    channels = 3 if rgb else layers
    if scaling is None:
        scaling = _measure(array, channels, joint=rgb)
    elif len(scaling.low) != channels:
        msg = f"scaling for {len(scaling.low)} channels; the image has {channels}"
        raise ImageError(msg)
    return PlaneImage(array, channels, rgb, scaling)


def _as_plane(image: Any) -> PlaneLike:
    if not (hasattr(image, "shape") and hasattr(image, "dtype")):
        image = np.asarray(image)
    shape = tuple(int(n) for n in image.shape)
    kind = np.dtype(image.dtype).kind
    if kind not in "buif":
        msg = f"pixels of type {image.dtype}: expected bool, integer or float"
        raise ImageError(msg)
    if len(shape) not in (2, 3) or (len(shape) == 3 and not 1 <= shape[2] <= 4):
        raise ImageError(
            f"image of shape {shape}: expected (Y, X) or (Y, X, C) with 1 to 4 "
            "channels; give one plane of a stack"
        )
    if 0 in shape:
        raise ImageError(f"image of shape {shape} has no pixels")
    plane: PlaneLike = _guarded(image)
    return plane


def _guarded(array: Any) -> Any:
    """Return an array whose errors, of a disk or a network, are ImageErrors."""
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, Pyramid):
        return Pyramid([_guarded(level) for level in array.levels])
    return _ReadOnce(array, range(len(array.shape)), {}, "the image")


def _sample(array: PlaneLike) -> NDArray[Any]:
    """(N, C) pixels spread over the plane, at most about ``SAMPLE_PX`` of them."""
    height, width = (int(n) for n in array.shape[:2])
    layers = 1 if len(array.shape) == 2 else int(array.shape[2])
    budget = SAMPLE_PX // layers
    if height * width <= budget:
        return np.asarray(array[0:height, 0:width]).reshape(-1, layers)
    if isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        step = math.ceil(math.sqrt(height * width / budget))
        return array[::step, ::step].reshape(-1, layers)
    # Strides would load every chunk of a lazy image: read tiles instead.
    tile = max(1, math.isqrt(budget) // _TILES)

    def read(place: tuple[int, int]) -> NDArray[Any]:
        y, x = place
        return np.asarray(array[y : y + tile, x : x + tile]).reshape(-1, layers)

    # a server takes as long to answer one request as several
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="cfrseg-sample")
    try:
        blocks = [
            pool.submit(copy_context().run, read, place)
            for place in _tile_places(array, tile)
        ]
        return np.concatenate([block.result() for block in blocks])
    finally:
        pool.shutdown(cancel_futures=True)


def _tile_places(array: PlaneLike, tile: int) -> list[tuple[int, int]]:
    """Return where to look: evenly, or where a pyramid's top shows other values.

    Of a slide most is empty, and tiles laid evenly would miss what is on it.
    """
    height, width = (int(n) for n in array.shape[:2])
    if (
        isinstance(array, Pyramid)
        and math.prod(array.levels[-1].shape) <= 4 * SAMPLE_PX
    ):
        top = np.asarray(array.levels[-1], np.float64)
        grey = np.nan_to_num(
            top.reshape(*top.shape[:2], -1).mean(-1), posinf=0, neginf=0
        )
        order = np.argsort(grey, axis=None, kind="stable")
        values = np.linspace(grey.min(), grey.max(), _TILES**2)
        found = order[np.searchsorted(grey.ravel()[order], values)]
        rows, columns = np.unravel_index(np.unique(found), grey.shape)
        return [
            (
                min(int(y * height / grey.shape[0]), max(height - tile, 0)),
                min(int(x * width / grey.shape[1]), max(width - tile, 0)),
            )
            for y, x in zip(rows, columns, strict=True)
        ]
    return list(product(_tile_starts(height, tile), _tile_starts(width, tile)))


def _tile_starts(length: int, tile: int) -> list[int]:
    room = max(length - tile, 0)
    return sorted({round(room * i / (_TILES - 1)) for i in range(_TILES)})


def _measure(array: PlaneLike, channels: int, *, joint: bool) -> Scaling:
    if np.dtype(array.dtype) == bool:
        return Scaling((0.0,) * channels, (1.0,) * channels)
    ranges = _ranges(_sample(array)[:, :channels], joint=joint)
    if all(found is None for found in ranges):
        raise ImageError("the image has no finite pixel (all NaN or infinite)")
    pairs = [found or (0.0, 0.0) for found in ranges]
    return Scaling(tuple(low for low, _ in pairs), tuple(high for _, high in pairs))


def _ranges(pixels: NDArray[Any], *, joint: bool) -> list[tuple[float, float] | None]:
    """Return black and white of each channel of (N, C) pixels, or of all together."""
    if joint:
        return [_range(pixels.ravel())] * pixels.shape[1]
    return [_range(channel) for channel in pixels.T]


def _is_outside(values: NDArray[Any], low: float, high: float) -> bool:
    """Whether an object's pixels are far darker than black or brighter than white."""
    finite = values[np.isfinite(values)]
    if low == high or not finite.size:
        return low == high
    middle, room = float(np.median(finite)), _BEYOND * (high - low)
    return not low - room <= middle <= high + room


def _range(values: NDArray[Any]) -> tuple[float, float] | None:
    real = values.astype(np.float64, copy=False)
    if values.dtype.kind == "f":
        real = real[np.isfinite(real)]
    if real.size == 0:
        return None
    low, high = np.percentile(real, (LOW_PERCENT, HIGH_PERCENT))
    if low == high:  # all but a few pixels are alike: the few are what there is to see
        low, high = real.min(), real.max()
    return float(low), float(high)
