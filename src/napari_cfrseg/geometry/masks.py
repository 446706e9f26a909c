"""Sparse masks and label edits of a plane.

:class:`MaskPatch` is what is computed on: a bool array cropped to the box it fills.
:class:`LabelRuns` is what events, files and undo keep: runs of pixels along the rows,
so its size follows an object's outline and not its area. A run is (start, length);
``start`` is the row-major index of its first pixel in the (Y, X) plane.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cfrseg.geometry.windows import (
    Box,
    mask_box,
    overlap,
    shape_of,
    slices,
    union,
)

Plane = tuple[int, ...]
"""Index of a 2-D plane: one integer per axis that is not displayed; () for 2-D."""

BoolMask = NDArray[np.bool_]
LabelArray = NDArray[np.int32]

#: Largest label an int32 array holds.
MOST_LABEL = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class MaskPatch:
    """A mask cropped to its bounding box.

    ``offset`` is the (row, column) of the box's first pixel in the plane; ``mask`` is
    (h, w) bool, (0, 0) for an empty mask.
    """

    offset: tuple[int, int]
    mask: BoolMask

    @classmethod
    def empty(cls) -> MaskPatch:
        """Return the mask with no pixel."""
        return cls((0, 0), np.zeros((0, 0), dtype=np.bool_))

    @classmethod
    def from_mask(
        cls, mask: NDArray[np.bool_], offset: tuple[int, int] = (0, 0)
    ) -> MaskPatch:
        """Crop a mask whose first pixel is ``offset`` to the box it fills."""
        mask = np.asarray(mask, dtype=np.bool_)
        box = mask_box(mask)
        if box is None:
            return cls.empty()
        return cls((offset[0] + box[0], offset[1] + box[1]), mask[slices(box)].copy())

    @property
    def box(self) -> Box:
        """(y0, x0, y1, x1), ends exclusive."""
        (y, x), (h, w) = self.offset, self.mask.shape
        return y, x, y + h, x + w

    @property
    def area(self) -> int:
        """Number of pixels set."""
        return int(np.count_nonzero(self.mask))

    def window(self, box: Box) -> BoolMask:
        """Return the part of the mask within a box of the plane, as (h, w) bool."""
        out = np.zeros(shape_of(box), np.bool_)
        shared = overlap(self.box, box)
        out[slices(shared, box)] = self.mask[slices(shared, self.box)]
        return out

    def __contains__(self, pixel: tuple[int, int]) -> bool:
        y, x = pixel[0] - self.offset[0], pixel[1] - self.offset[1]
        height, width = self.mask.shape
        return 0 <= y < height and 0 <= x < width and bool(self.mask[y, x])

    def holds(self, pixels: NDArray[np.integer[Any]]) -> BoolMask:
        """Return which of (N, 2) pixels (row, column) are set, (N,) bool."""
        y0, x0, y1, x1 = self.box
        held: BoolMask = np.all((pixels >= (y0, x0)) & (pixels < (y1, x1)), axis=1)
        held[held] = self.mask[tuple((pixels[held] - (y0, x0)).T)]
        return held

    def to_mask(self, shape: tuple[int, int]) -> BoolMask:
        """Return the mask on the whole plane, (Y, X) bool."""
        return self.window((0, 0, shape[0], shape[1]))

    def edited(self, added: MaskPatch, removed: MaskPatch) -> MaskPatch:
        """Return this mask with pixels added, then removed."""
        box = box_of(self, added)
        if box is None:
            return MaskPatch.empty()
        mask = (self.window(box) | added.window(box)) & ~removed.window(box)
        return MaskPatch.from_mask(mask, (box[0], box[1]))


def box_of(*masks: MaskPatch) -> Box | None:
    """Return the smallest box holding every mask that is not empty, or None."""
    boxes = [mask.box for mask in masks if mask.mask.size]
    return union(*boxes) if boxes else None


def overlap_iou(first: MaskPatch, second: MaskPatch) -> float:
    """Intersection over union; 1 for two empty masks."""
    box = box_of(first, second)
    if box is None:
        return 1.0
    a, b = first.window(box), second.window(box)
    return float(np.count_nonzero(a & b) / np.count_nonzero(a | b))


@dataclass(frozen=True, slots=True, eq=False)
class LabelRuns:
    """Labels given to some pixels of a plane; compares and hashes by value.

    Runs that overlap, leave the plane or are not in order raise ValueError, and so does
    a label that is too large.
    """

    shape: tuple[int, int]  #: (Y, X) of the plane
    #: int64: flat first index and number of pixels of each run, in ascending order
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    #: int32: each run's label, and that before the edit where it is known
    after: NDArray[np.int32]
    before: NDArray[np.int32] | None = None
    #: index of the plane, if the holder of the runs does not store it
    plane: Plane = ()

    def __post_init__(self) -> None:
        starts, lengths = _integers(self.starts), _integers(self.lengths)
        after = _integers(self.after)
        if not starts.size == lengths.size == after.size:
            raise ValueError("starts, lengths and labels must have one entry per run")
        if after.size and (after.max() > MOST_LABEL or after.min() < -MOST_LABEL):
            msg = f"label {after.max()} is larger than any label can be ({MOST_LABEL})"
            raise ValueError(msg)
        ends = starts + lengths
        limits = np.append(starts[1:], self.shape[0] * self.shape[1])
        wrong = (starts < 0) | (lengths < 1) | (ends > limits) | (ends < starts)
        if starts.size and wrong.any():
            first = int(wrong.argmax())
            raise ValueError(
                f"run ({starts[first]}, {lengths[first]}) overlaps another or leaves "
                f"the plane of shape {self.shape}"
            )
        object.__setattr__(self, "starts", starts)
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "after", after.astype(np.int32))

    @classmethod
    def from_labels(
        cls,
        labels: NDArray[np.integer],
        changed: NDArray[np.bool_],
        shape: tuple[int, ...],
        offset: tuple[int, int] = (0, 0),
        before: NDArray[np.integer] | None = None,
        plane: Plane = (),
    ) -> LabelRuns:
        """Describe the pixels of a (h, w) box, from ``offset`` on, that ``changed``."""
        box = mask_box(np.asarray(changed)) or (0, 0, 0, 0)
        labels, changed = labels[slices(box)], changed[slices(box)]
        before = None if before is None else before[slices(box)]
        joins = changed[:, :-1] & changed[:, 1:]
        for values in (labels, before):
            if values is not None:
                joins &= values[:, :-1] == values[:, 1:]
        y, x = np.nonzero(changed & ~np.pad(joins, ((0, 0), (1, 0))))
        ends = np.nonzero(changed & ~np.pad(joins, ((0, 0), (0, 1))))[1] + 1
        starts = (y + offset[0] + box[0]) * shape[1] + x + offset[1] + box[1]
        lengths = ends - x
        after = np.asarray(labels[y, x], np.int64)
        old = None if before is None else np.asarray(before[y, x], np.int32)
        # a run that fills its row goes on in the next one
        first = np.ones(starts.size, np.bool_)
        first[1:] = starts[1:] != starts[:-1] + lengths[:-1]
        for values in (after, old):
            if values is not None:
                first[1:] |= np.diff(values) != 0
        kept = np.flatnonzero(first)
        return cls(
            (int(shape[0]), int(shape[1])),
            starts[kept],
            np.add.reduceat(lengths, kept) if kept.size else lengths,
            after[kept],  # type: ignore[arg-type]  # made int32 once it is checked
            None if old is None else old[kept],
            plane,
        )

    @classmethod
    def between(
        cls,
        plane: Plane,
        shape: tuple[int, ...],
        box: Box,
        before: LabelArray,
        after: LabelArray,
    ) -> LabelRuns:
        """Return what changed in a box, from its labels before and after."""
        offset = (box[0], box[1])
        return cls.from_labels(after, before != after, shape, offset, before, plane)

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_]) -> LabelRuns:
        """Give label 1 to the pixels of a (Y, X) bool mask."""
        mask = np.asarray(mask, np.bool_)
        return cls.from_labels(mask.astype(np.int32), mask, mask.shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelRuns) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        before = None if self.before is None else self.before.tobytes()
        numbers = (self.starts, self.lengths, self.after)
        return (self.plane, self.shape, before, *(n.tobytes() for n in numbers))

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(self.lengths.sum())

    def indices(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (rows, columns) of the pixels."""
        y, x = np.divmod(_expand(self.starts, self.lengths), self.shape[1])
        return y, x

    def values(self) -> NDArray[np.int32]:
        """Return the label of each pixel, in the order of :meth:`indices`."""
        return np.repeat(self.after, self.lengths)

    def mask(self) -> MaskPatch:
        """Return the pixels, whatever their labels."""
        return _patch(self.starts, self.lengths, self.shape[1])

    def masks(self) -> dict[int, MaskPatch]:
        """Return the pixels of each label, by ascending label."""
        order = np.argsort(self.after, kind="stable")
        labels, first = np.unique(self.after[order], return_index=True)
        return {
            int(label): _patch(self.starts[runs], self.lengths[runs], self.shape[1])
            for label, runs in zip(labels, np.split(order, first[1:]), strict=False)
        }

    def areas(self) -> dict[int, int]:
        """Return the number of pixels of each label."""
        labels, which = np.unique(self.after, return_inverse=True)
        counts = np.bincount(which, self.lengths, labels.size).astype(np.int64)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))

    def bands(
        self, height: int
    ) -> Iterator[tuple[Box, NDArray[np.bool_], NDArray[np.int32]]]:
        """Yield bands of rows: a box, which of its pixels are in runs, and labels."""
        rows, columns, lengths, each = _in_rows(
            self.starts, self.lengths, self.shape[1]
        )
        ends = np.searchsorted(rows, np.arange(0, self.shape[0] + height, height))
        for number, (first, end) in enumerate(pairwise(ends.tolist())):
            if first < end:
                y0, x0 = number * height, int(columns[first:end].min())
                x1 = int((columns + lengths)[first:end].max())
                y1 = min(y0 + height, self.shape[0])
                at = (rows[first:end] - y0, columns[first:end] - x0, lengths[first:end])
                shape = (y1 - y0, x1 - x0)
                held = _painted(shape, *at, np.ones(1, np.int8)).astype(np.bool_)
                labels = _painted(shape, *at, self.after[each[first:end]])
                yield (y0, x0, y1, x1), held, labels

    def inverted(self) -> LabelRuns:
        """Return the edit that takes this one back; ``before`` must be known."""
        if self.before is None:
            raise ValueError("the labels before the edit are not known")
        return replace(self, after=self.before, before=self.after)


def _integers(values: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)


def _patch(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], width: int
) -> MaskPatch:
    """Return the cropped mask of runs of pixels in a plane of some width."""
    if starts.size == 0:
        return MaskPatch.empty()
    rows, columns, lengths, _ = _in_rows(starts, lengths, width)
    y0, x0 = int(rows[0]), int(columns.min())
    shape = int(rows[-1]) + 1 - y0, int((columns + lengths).max()) - x0
    places = rows - y0, columns - x0, lengths
    return MaskPatch(
        (y0, x0), _painted(shape, *places, np.ones(1, np.int8)).astype(bool)
    )


def _in_rows(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], width: int
) -> tuple[NDArray[np.int64], ...]:
    """Cut runs at the ends of rows: rows, columns, lengths, and whose each is."""
    rows, more = starts // width, (starts + lengths - 1) // width - starts // width
    each = np.repeat(np.arange(rows.size), more + 1)
    rows = rows[each] + _expand(np.zeros_like(more), more + 1)
    first = np.maximum(starts[each], rows * width)
    ends = np.minimum((starts + lengths)[each], (rows + 1) * width)
    return rows, first - rows * width, ends - first, each


def _painted(
    shape: tuple[int, int],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    lengths: NDArray[np.int64],
    values: NDArray[Any],
) -> NDArray[Any]:
    """Return an array of (h, w) with a value in each of the runs, else 0."""
    steps = np.zeros((shape[0], shape[1] + 1), values.dtype)
    steps[rows, columns] += values
    steps[rows, columns + lengths] -= values
    return np.add.accumulate(steps, axis=1, out=steps)[:, :-1]


def _expand(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the flat indices of every pixel of the runs."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
