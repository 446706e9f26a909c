"""Labels of planes too large for one array: in tiles, with coarser levels of them.

Cost and memory follow what was annotated and not the size of the plane. A coarse pixel
shows the largest label of the 2 × 2 pixels it stands for, so that small objects stay
visible at every zoom.

Zarr arrays in memory would do the same, but hand each access to another thread: 1 to
6 ms for what takes 0.05 ms here, a dozen times at each click.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_cfrseg.geometry.masks import LabelRuns, Plane
from napari_cfrseg.geometry.windows import Box, overlap, slices, union
from napari_cfrseg.io.axes import LazyArray, per_axis

#: side of a tile
TILE_PX = 256
_VIEW_PX = 64
#: tiles that are kept unpacked
_MOST_OPEN = 128
#: scattered pixels are written in blocks of this side
_BLOCK_PX = 2048
#: longest side of a plane whose labels are one array
LONGEST_SIDE_PX = 8192
#: coarser levels of at most so many pixels are one array
_PLAIN_PX = 1 << 22
#: so many pixels are not written one by one
MANY_PX = 1 << 22

_Index = tuple[int, ...]


def is_large(plane_shape: Sequence[int]) -> bool:
    """Whether the labels of such a plane are kept in tiles."""
    return max(plane_shape) > LONGEST_SIDE_PX


class Tiles(LazyArray):
    """An array of (…, Y, X), 0 where nothing was written, in packed tiles.

    It is read by an index or a slice for each axis, and written by an index for each
    leading axis and two slices.
    """

    def __init__(self, shape: Sequence[int], dtype: DTypeLike) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        #: napari reads views extended to these, so that not each shift reads again
        self.chunks = (*(1,) * (self.ndim - 2), _VIEW_PX, _VIEW_PX)
        self._packed: dict[_Index, bytes] = {}
        self._open: OrderedDict[_Index, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(Y, X)."""
        return self.shape[-2], self.shape[-1]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        whole = per_axis(key, self.ndim)
        places = [range(n)[part] for part, n in zip(whole, self.shape, strict=True)]
        ranges = [p if isinstance(p, range) else range(p, p + 1) for p in places]
        rows, columns = ranges[-2:]
        leading = [len(r) for r in ranges[:-2]]
        found = np.zeros((*leading, len(rows), len(columns)), self.dtype)
        if found.size:
            (y0, y1), (x0, x1) = (sorted((r[0], r[-1])) for r in (rows, columns))
            box = (y0, x0, y1 + 1, x1 + 1)
            for place in np.ndindex(*leading):
                plane = tuple(r[i] for r, i in zip(ranges, place, strict=False))
                if rows.step == columns.step == 1:
                    self._read(plane, box, found[place])
                    continue
                every = np.zeros((box[2] - box[0], box[3] - box[1]), self.dtype)
                self._read(plane, box, every)
                found[place] = every[:: rows.step, :: columns.step]
        ints = tuple(slice(None) if isinstance(p, range) else 0 for p in places)
        return np.asarray(found[ints])

    def __setitem__(self, key: tuple[Any, ...], values: Any) -> None:
        *plane, rows, columns = key
        box = (rows.start, columns.start, rows.stop, columns.stop)
        for tile, shared in self._tiles_at(tuple(plane), box):
            part = values[slices(shared, box)]
            with self._lock:
                pixels = self._unpacked(tile)
                if pixels is None and not part.any():
                    continue
                if pixels is None:
                    pixels = np.zeros((TILE_PX, TILE_PX), self.dtype)
                pixels[slices(shared, self._box(tile))] = part
                self._keep(tile, pixels if part.any() or pixels.any() else None)

    def tiles(self, plane: Plane = (), side: int = TILE_PX) -> Iterator[Box]:
        """Return the boxes in which a plane holds labels, row by row.

        They lie on a grid of ``side``, a multiple of TILE_PX.
        """
        with self._lock:
            held = [t for t in (*self._packed, *self._open) if t[:-2] == plane]
        each = side // TILE_PX
        for row, column in sorted({(t[-2] // each, t[-1] // each) for t in held}):
            y, x = row * side, column * side
            yield overlap((y, x, y + side, x + side), (0, 0, *self.plane_shape))

    def planes(self) -> tuple[Plane, ...]:
        """Return the planes that hold labels, in order."""
        with self._lock:
            return tuple(sorted({t[:-2] for t in self._packed.keys() | self._open}))

    @staticmethod
    def _box(tile: _Index) -> Box:
        y, x = tile[-2] * TILE_PX, tile[-1] * TILE_PX
        return y, x, y + TILE_PX, x + TILE_PX

    def _tiles_at(self, plane: Plane, box: Box) -> Iterator[tuple[_Index, Box]]:
        """Return the tiles under a box, and what they share with it."""
        spans = (range(box[i] // TILE_PX, -(-box[i + 2] // TILE_PX)) for i in (0, 1))
        for place in product(*spans):
            yield (*plane, *place), overlap(box, self._box(place))

    def _read(self, plane: Plane, box: Box, found: NDArray[Any]) -> None:
        """Put what a box holds into an array of zeros."""
        for tile, shared in self._tiles_at(plane, box):
            with self._lock:
                pixels = self._unpacked(tile)
                if pixels is not None:
                    found[slices(shared, box)] = pixels[slices(shared, self._box(tile))]

    def _unpacked(self, tile: _Index) -> NDArray[Any] | None:
        if tile in self._open:
            self._open.move_to_end(tile)
            return self._open[tile]
        packed = self._packed.pop(tile, None)
        if packed is None:
            return None
        pixels = np.frombuffer(zlib.decompress(packed), self.dtype)
        pixels = pixels.reshape(TILE_PX, TILE_PX).copy()
        self._keep(tile, pixels)
        return pixels

    def _keep(self, tile: _Index, pixels: NDArray[Any] | None) -> None:
        """Keep a tile; without pixels it is dropped."""
        if pixels is None:
            self._open.pop(tile, None)
            return
        self._open[tile] = pixels
        if len(self._open) > _MOST_OPEN:
            oldest, values = self._open.popitem(last=False)
            self._packed[oldest] = zlib.compress(values.tobytes(), 1)


class TiledLabels(Tiles):
    """The labels of large planes, of an integer type.

    With ``pyramid`` coarser levels are kept, down to one that one tile holds.
    ``levels`` are this array, then the coarser ones; ``writes`` says how often
    something was written.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: DTypeLike = np.int32,
        *,
        pyramid: bool = False,
    ) -> None:
        super().__init__(shape, dtype)
        self.writes = 0
        self.levels: list[Any] = [self]
        while pyramid and max(self.levels[-1].shape[-2:]) > TILE_PX:
            fine = self.levels[-1].shape
            side = (*fine[:-2], *(-(-n // 2) for n in fine[-2:]))
            is_small = math.prod(side) <= _PLAIN_PX
            # napari reads a plane's coarsest level once, so it must be one array
            self.levels.append((np.zeros if is_small else Tiles)(side, self.dtype))

    def __setitem__(self, key: tuple[Any, ...], values: Any) -> None:
        """Write a box, single pixels or a whole plane.

        After an index for each leading axis come two slices, or arrays of rows and
        columns, or nothing: then ``values`` are the tiled labels of the plane.
        """
        if isinstance(values, Tiles):
            for box in values.tiles():
                self[(*key, *slices(box))] = values[slices(box)]
            return
        *plane, rows, columns = key
        if isinstance(rows, np.ndarray):
            self._scatter(tuple(plane), rows, columns, values)
            return
        self.writes += 1
        super().__setitem__(key, values)
        box = (rows.start, columns.start, rows.stop, columns.stop)
        self._halve(tuple(plane), [box])

    def _halve(self, plane: Plane, boxes: Iterable[Box]) -> None:
        """Update the coarser levels where boxes of a plane were written."""
        for fine, coarse in pairwise(self.levels):
            joined: dict[tuple[int, int], Box] = {}  # those of one tile are one box
            for y0, x0, y1, x1 in boxes:
                box = (y0 // 2, x0 // 2, -(-y1 // 2), -(-x1 // 2))
                tile = box[0] // TILE_PX, box[1] // TILE_PX
                joined[tile] = union(joined[tile], box) if tile in joined else box
            boxes = list(joined.values())
            for y0, x0, y1, x1 in boxes:
                below = fine[(*plane, *slices((2 * y0, 2 * x0, 2 * y1, 2 * x1)))]
                coarse[(*plane, *slices((y0, x0, y1, x1)))] = _halved(below)

    def with_pyramid(self) -> TiledLabels:
        """Return a copy with coarser levels, in as few bits as the labels need."""
        held = {plane: list(self.tiles(plane)) for plane in self.planes()}
        keys: list[Any] = [
            (*p, *slices(box)) for p, found in held.items() for box in found
        ]
        highest = max((int(self[key].max()) for key in keys), default=0)
        dtype = np.uint16 if highest < 2**16 else np.int32
        copy = TiledLabels(self.shape, dtype, pyramid=True)
        for key in keys:
            Tiles.__setitem__(copy, key, self[key])
        for plane, found in held.items():
            copy._halve(plane, found)
        return copy

    def levels_down_to(self, side: int) -> list[Any]:
        """Return a copy and its coarser levels, down to one of at most ``side``."""
        levels = self.with_pyramid().levels
        last = sum(max(level.shape[-2:]) > side for level in levels)
        return levels[: last + 1]

    def _scatter(
        self, plane: Plane, y: NDArray[Any], x: NDArray[Any], values: NDArray[Any]
    ) -> None:
        """Write pixels, however far apart they are."""
        blocks = (y // _BLOCK_PX) * -(-self.shape[-1] // _BLOCK_PX) + x // _BLOCK_PX
        order = np.argsort(blocks, kind="stable")
        ends = np.flatnonzero(np.diff(blocks[order])) + 1
        for part in np.split(order, ends) if order.size else ():
            rows, columns = y[part], x[part]
            box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
            key = (*plane, *slices(box))
            block = self[key]
            inside = rows - box[0], columns - box[1]
            if not np.array_equal(block[inside], values[part]):
                block[inside] = values[part]
                self[key] = block

    def runs(self, plane: Plane = ()) -> LabelRuns:
        """Return a plane's labels as runs; the same as of one dense array."""
        shape = self.plane_shape
        empty = np.zeros((0, 0), np.int32)
        parts = [LabelRuns.from_labels(empty, empty != 0, shape)]
        for box in self.tiles(plane):
            tile = self[(*plane, *slices(box))]
            parts.append(LabelRuns.from_labels(tile, tile != 0, shape, box[:2]))
        starts = np.concatenate([p.starts for p in parts])
        order = np.argsort(starts)
        starts = starts[order]
        lengths = np.concatenate([p.lengths for p in parts])[order]
        after = np.concatenate([p.after for p in parts])[order]
        goes_on = (starts[1:] == starts[:-1] + lengths[:-1]) & (after[1:] == after[:-1])
        first = np.flatnonzero(np.concatenate(([True], ~goes_on))[: starts.size])
        joined = np.add.reduceat(lengths, first) if first.size else lengths
        return LabelRuns(shape, starts[first], joined, after[first], plane=plane)


#: (…, Y, X) labels of planes of any size
AnyLabels: TypeAlias = NDArray[Any] | TiledLabels


def empty_labels(shape: Sequence[int]) -> AnyLabels:
    """Return int32 zeros of (…, Y, X), in tiles where the planes are large."""
    return TiledLabels(shape) if is_large(shape[-2:]) else np.zeros(shape, np.int32)


def read_box(labels: AnyLabels, plane: Plane, box: Box) -> NDArray[Any]:
    """Return the labels in a box of a plane."""
    key: Any = (*plane, *slices(box))
    return np.asarray(labels[key])


def write_runs(labels: Any, plane: Plane, runs: LabelRuns) -> None:
    """Write runs to a plane of (…, Y, X) labels; many pixels in bands of rows.

    SPEED: the index of each pixel takes 16 bytes, and tiles have to be sorted by it.
    """
    if runs.size < MANY_PX:
        labels[(*plane, *runs.indices())] = runs.values()
        return
    for box, held, values in runs.bands(TILE_PX):
        key = (*plane, *slices(box))
        labels[key] = np.where(held, values, labels[key])


def label_runs(labels: AnyLabels, plane: Plane = ()) -> LabelRuns:
    """Return a plane of (…, Y, X) labels as runs."""
    if isinstance(labels, TiledLabels):
        return labels.runs(plane)
    found = labels[plane]
    return LabelRuns.from_labels(found, found != 0, found.shape, plane=plane)


def labelled_tiles(
    labels: Any, plane: Plane, sides: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], NDArray[Any]]]:
    """Yield (row, column) and pixels of a plane's tiles that hold labels.

    They lie on a grid of ``sides``, each a multiple of TILE_PX or the plane's own; at
    its edges they are filled up with 0.
    """
    if isinstance(labels, Tiles):
        corners = [box[:2] for box in labels.tiles(plane, max(sides))]
    else:
        down, across = (
            range(0, n, s) for n, s in zip(labels.shape[-2:], sides, strict=True)
        )
        corners = [(y, x) for y in down for x in across]
    for y, x in corners:
        box = (y, x, y + sides[0], x + sides[1])
        pixels = labels[(*plane, *slices(box))]
        if pixels.any():
            room = [(0, side - n) for side, n in zip(sides, pixels.shape, strict=True)]
            pixels = np.pad(pixels, room) if pixels.shape != sides else pixels
            yield (y // sides[0], x // sides[1]), pixels


def filled_pixels(*labels: AnyLabels) -> list[NDArray[np.int32]]:
    """Return the pixels at the places where any of several labels may hold some.

    They have one shape. Of tiled ones only the tiles are read.
    """
    tiled = [found for found in labels if isinstance(found, TiledLabels)]
    if not tiled:
        return [np.asarray(found) for found in labels]
    keys = sorted(
        {
            (plane, box)
            for found in tiled
            for plane in found.planes()
            for box in found.tiles(plane)
        }
    )
    empty = np.zeros(0, np.int32)
    return [
        np.concatenate([empty, *(read_box(f, p, b).ravel() for p, b in keys)])
        for f in labels
    ]


def pixel_counts(values: NDArray[np.integer]) -> dict[int, int]:
    """Return how many pixels each label above 0 has, by ascending label.

    The cost follows the pixels, however large the labels are.
    """
    row = values.reshape(1, -1)
    return LabelRuns.from_labels(row, row > 0, row.shape).areas()


def _halved(values: NDArray[Any]) -> NDArray[Any]:
    """Return the maximum of each 2 × 2 pixels of the last two axes."""
    odd = [(0, 0)] * (values.ndim - 2) + [(0, n % 2) for n in values.shape[-2:]]
    even = np.pad(values, odd) if any(n for _, n in odd) else values
    rows = np.maximum(even[..., ::2, :], even[..., 1::2, :])
    found: NDArray[Any] = np.maximum(rows[..., ::2], rows[..., 1::2])
    return found
