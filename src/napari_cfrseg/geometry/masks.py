"""Masks and label edits as runs of pixels along the rows of a plane.

A run is (start, length): ``start`` is the flat row-major index of its first pixel in
the (Y, X) plane. Runs are what events and undo keep (they grow with the outline of an
object, not with its area); arrays cropped to a bounding box are what is computed on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = tuple[int, ...]
"""Index of a 2-D plane: one integer per axis that is not displayed; () for 2-D."""

BoolMask = NDArray[np.bool_]
LabelArray = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class MaskPatch:
    """A mask cropped to its bounding box.

    Attributes
    ----------
    offset
        (row, column) of the box's first pixel in the plane.
    mask
        (h, w) bool; (0, 0) for an empty mask.
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
        rows = np.flatnonzero(mask.any(axis=1))
        if rows.size == 0:
            return cls.empty()
        y0, y1 = int(rows[0]), int(rows[-1]) + 1
        columns = np.flatnonzero(mask[y0:y1].any(axis=0))
        x0, x1 = int(columns[0]), int(columns[-1]) + 1
        return cls((offset[0] + y0, offset[1] + x0), mask[y0:y1, x0:x1].copy())

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as slices of the plane."""
        (y, x), (h, w) = self.offset, self.mask.shape
        return slice(y, y + h), slice(x, x + w)

    @property
    def area(self) -> int:
        """Number of pixels set."""
        return int(np.count_nonzero(self.mask))

    def contains(self, pixel: tuple[int, int]) -> bool:
        """Return whether the pixel (row, column) is set."""
        y, x = pixel[0] - self.offset[0], pixel[1] - self.offset[1]
        h, w = self.mask.shape
        return 0 <= y < h and 0 <= x < w and bool(self.mask[y, x])

    def window(self, box: tuple[slice, slice]) -> BoolMask:
        """Return the part of the mask within a box of the plane, as (h, w) bool."""
        rows, columns = box
        out = np.zeros(
            (rows.stop - rows.start, columns.stop - columns.start), dtype=np.bool_
        )
        (y0, x0), (h, w) = self.offset, self.mask.shape
        top, bottom = max(y0, rows.start), min(y0 + h, rows.stop)
        left, right = max(x0, columns.start), min(x0 + w, columns.stop)
        if top < bottom and left < right:
            out[
                top - rows.start : bottom - rows.start,
                left - columns.start : right - columns.start,
            ] = self.mask[top - y0 : bottom - y0, left - x0 : right - x0]
        return out

    def to_mask(self, shape: tuple[int, int]) -> BoolMask:
        """Return the mask on the whole plane, (Y, X) bool."""
        return self.window((slice(0, shape[0]), slice(0, shape[1])))

    def edited(self, added: MaskPatch, removed: MaskPatch) -> MaskPatch:
        """Return this mask with pixels added, then removed."""
        box = union_box(self, added)
        if box is None:
            return MaskPatch.empty()
        mask = (self.window(box) | added.window(box)) & ~removed.window(box)
        return MaskPatch.from_mask(mask, (box[0].start, box[1].start))


def union_box(*patches: MaskPatch) -> tuple[slice, slice] | None:
    """Return the smallest box holding every patch that is not empty, or None."""
    boxes = [p.slices for p in patches if p.mask.size]
    if not boxes:
        return None
    return (
        slice(min(b[0].start for b in boxes), max(b[0].stop for b in boxes)),
        slice(min(b[1].start for b in boxes), max(b[1].stop for b in boxes)),
    )


@dataclass(frozen=True, slots=True)
class LabelRuns:
    """Labels given to some pixels of a plane; compares and hashes by value.

    Attributes
    ----------
    shape
        (Y, X) of the plane.
    starts, lengths, values
        One entry per run: flat first index, number of pixels, label.
    """

    shape: tuple[int, int]
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.starts) == len(self.lengths) == len(self.values):
            msg = "starts, lengths and values must have one entry per run"
            raise ValueError(msg)
        size = self.shape[0] * self.shape[1]
        end = 0
        for start, length in zip(self.starts, self.lengths, strict=True):
            if start < end or length < 1 or start + length > size:
                msg = (
                    f"run ({start}, {length}) overlaps another or leaves the plane "
                    f"of shape {self.shape}"
                )
                raise ValueError(msg)
            end = start + length

    @classmethod
    def from_labels(
        cls,
        labels: NDArray[np.integer],
        changed: NDArray[np.bool_],
        shape: tuple[int, int],
        offset: tuple[int, int] = (0, 0),
    ) -> LabelRuns:
        """Describe the pixels of a box where ``changed`` is true.

        Parameters
        ----------
        labels, changed
            (h, w) new labels, and which of them count.
        shape
            (Y, X) of the plane.
        offset
            (row, column) of the box's first pixel.
        """
        flat = flat_of(changed, offset, shape[1])
        values = np.asarray(labels[changed], dtype=np.int32)
        first, lengths = runs_of(flat, values)
        return cls(
            (int(shape[0]), int(shape[1])),
            tuple(flat[first].tolist()),
            tuple(lengths.tolist()),
            tuple(values[first].tolist()),
        )

    def masks(self) -> dict[int, MaskPatch]:
        """Return the pixels of each label, by ascending label."""
        starts = np.asarray(self.starts, np.int64)
        lengths = np.asarray(self.lengths, np.int64)
        values = np.asarray(self.values, np.int64)
        return {
            int(label): patch_from_flat(
                expand(starts[values == label], lengths[values == label]),
                self.shape[1],
            )
            for label in np.unique(values)
        }


@dataclass(frozen=True, slots=True)
class MaskRuns:
    """A mask as runs; compares and hashes by value, fit for events and files."""

    shape: tuple[int, int]
    starts: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_]) -> MaskRuns:
        """Describe a (Y, X) bool mask."""
        return cls.from_patch(MaskPatch.from_mask(mask), mask.shape)

    @classmethod
    def from_patch(cls, patch: MaskPatch, shape: tuple[int, ...]) -> MaskRuns:
        """Describe a cropped mask of a plane of the given shape."""
        flat = flat_of(patch.mask, patch.offset, shape[1])
        first, lengths = runs_of(flat)
        return cls(
            (int(shape[0]), int(shape[1])),
            tuple(flat[first].tolist()),
            tuple(lengths.tolist()),
        )

    def to_patch(self) -> MaskPatch:
        """Return the mask cropped to its bounding box."""
        flat = expand(
            np.asarray(self.starts, np.int64), np.asarray(self.lengths, np.int64)
        )
        return patch_from_flat(flat, self.shape[1])


def patch_from_flat(flat: NDArray[np.int64], width: int) -> MaskPatch:
    """Return the cropped mask of flat plane indices."""
    if flat.size == 0:
        return MaskPatch.empty()
    y, x = np.divmod(flat, width)
    y0, x0 = int(y.min()), int(x.min())
    mask = np.zeros((int(y.max()) - y0 + 1, int(x.max()) - x0 + 1), np.bool_)
    mask[y - y0, x - x0] = True
    return MaskPatch((y0, x0), mask)


@dataclass(frozen=True, slots=True, eq=False)
class LabelPatch:
    """Pixels of one plane that changed their label; all others kept theirs.

    Attributes
    ----------
    plane
        Which plane.
    shape
        (Y, X) of the plane.
    starts, lengths
        int64 runs of changed pixels.
    before, after
        int32, each run's label before and after.
    """

    plane: Plane
    shape: tuple[int, int]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    before: NDArray[np.int32]
    after: NDArray[np.int32]

    @classmethod
    def between(
        cls,
        plane: Plane,
        shape: tuple[int, int],
        box: tuple[slice, slice],
        before: LabelArray,
        after: LabelArray,
    ) -> LabelPatch:
        """Return what changed in a box, from its labels before and after."""
        changed = before != after
        flat = flat_of(changed, (box[0].start, box[1].start), shape[1])
        old, new = before[changed], after[changed]
        first, lengths = runs_of(flat, old, new)
        return cls(plane, shape, flat[first], lengths, old[first], new[first])

    @property
    def size(self) -> int:
        """Number of changed pixels."""
        return int(self.lengths.sum())

    def indices(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (rows, columns) of the changed pixels."""
        y, x = np.divmod(expand(self.starts, self.lengths), self.shape[1])
        return y, x

    def values(self) -> NDArray[np.int32]:
        """Return the new label of each changed pixel, in the order of indices."""
        return np.repeat(self.after, self.lengths)

    def inverted(self) -> LabelPatch:
        """Return the patch that takes this one back."""
        return LabelPatch(
            self.plane, self.shape, self.starts, self.lengths, self.after, self.before
        )


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
