"""A probability map kept only where it is not zero: its cost is the object's."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import (
    Box,
    Window,
    mask_box,
    overlap,
    paste,
    shape_of,
    slices,
    union,
)

#: Probability below which the patch's rim is trimmed away.
FLOOR = 1 / 256


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Probability inside a box of the plane, zero elsewhere."""

    plane: tuple[int, int]  #: (Y, X) of the whole plane
    y0: int
    x0: int
    #: (h, w) float32 in [0, 1] from pixel (y0, x0) on, read-only; h, w may be 0
    probability: NDArray[np.float32]

    def __post_init__(self) -> None:
        self.probability.setflags(write=False)

    @classmethod
    def empty(cls, plane: tuple[int, int]) -> Patch:
        """Zero everywhere."""
        return cls(plane, 0, 0, np.zeros((0, 0), dtype=np.float32))

    @classmethod
    def from_mask(cls, mask: NDArray[Any]) -> Patch:
        """Probability 1 in a (Y, X) mask."""
        box = mask_box(mask)
        plane = (int(mask.shape[0]), int(mask.shape[1]))
        if box is None:
            return cls.empty(plane)
        return cls(plane, box[0], box[1], mask[slices(box)].astype(np.float32))

    @classmethod
    def softened(cls, plane: tuple[int, int], mask: MaskPatch) -> Patch:
        """Probability above 0.5 in a mask, below it outside, soft along its outline.

        Over a twenty-fifth of the object's side, at least a pixel: it is corrected in
        fewer clicks than 0 and 1 (``benchmarks/suggestions.md``).
        """
        if not mask.area:
            return cls.empty(plane)
        width = max(1.0, 0.04 * math.sqrt(mask.area))
        far = math.ceil(5 * width)
        y0, x0, y1, x1 = mask.box
        box = overlap((y0 - far, x0 - far, y1 + far, x1 + far), (0, 0, *plane))
        inside = mask.window(box)
        away = ndimage.distance_transform_edt(inside)
        away -= ndimage.distance_transform_edt(~inside)
        away -= np.where(inside, 0.5, -0.5)  # from pixel centres to the outline
        return cls(plane, box[0], box[1], expit(away / width).astype(np.float32))

    @property
    def box(self) -> Box:
        """(y0, x0, y1, x1), ends exclusive."""
        height, width = self.probability.shape
        return self.y0, self.x0, self.y0 + height, self.x0 + width

    # A plane to crop from: what lies outside the box reads as zero.

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of the whole plane."""
        return self.plane

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """float32."""
        return np.dtype(np.float32)

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.float32]:
        rows = range(*key[0].indices(self.plane[0]))
        columns = range(*key[1].indices(self.plane[1]))
        out = np.zeros((len(rows), len(columns)), dtype=np.float32)
        y0, x0, y1, x1 = self.box
        inner_rows, inner_columns = _within(rows, y0, y1), _within(columns, x0, x1)
        if inner_rows and inner_columns:
            top, left = rows[inner_rows[0]], columns[inner_columns[0]]
            part = self.probability[top - y0 :: rows.step, left - x0 :: columns.step]
            out[
                inner_rows[0] : inner_rows[-1] + 1,
                inner_columns[0] : inner_columns[-1] + 1,
            ] = part[: len(inner_rows), : len(inner_columns)]
        return out

    def read(self, box: Box) -> NDArray[np.float32]:
        """Return a copy of the probability in a box of the plane."""
        return self[box[0] : box[2], box[1] : box[3]]

    def within(self, box: Box) -> Patch:
        """Return the probability inside a box of the plane, zero elsewhere."""
        y0, x0, y1, x1 = shared = overlap(self.box, box)
        if y0 >= y1 or x0 >= x1:
            return Patch.empty(self.plane)
        return Patch(self.plane, y0, x0, self.read(shared))

    def at_pixels(self, pixels: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the probability of (N, 2) pixels."""
        y, x = (pixels - (self.y0, self.x0)).T
        height, width = self.probability.shape
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        found = np.zeros(len(pixels))
        found[inside] = self.probability[y[inside], x[inside]]
        return found

    def with_box(self, box: Box, values: NDArray[np.float32]) -> Patch:
        """Replace what lies in a box of the plane; the rest stays."""
        if values.size == 0:
            return self
        y0, x0, y1, x1 = union(self.box, box)
        if (y0, x0, y1, x1) == box:
            return Patch(self.plane, y0, x0, values).trimmed()
        merged = self.read((y0, x0, y1, x1))
        merged[slices(box, (y0, x0, y1, x1))] = values
        return Patch(self.plane, y0, x0, merged).trimmed()

    def trimmed(self) -> Patch:
        """Cut the rim that is below 1/256 away."""
        box = mask_box(self.probability >= FLOOR)
        if box is None:
            return Patch.empty(self.plane)
        y0, x0, y1, x1 = box
        if (y1 - y0, x1 - x0) == self.probability.shape:
            return self
        kept = self.probability[y0:y1, x0:x1]
        if 2 * kept.size < self.probability.size:  # a view would hold on to it all
            kept = kept.copy()
        return Patch(self.plane, self.y0 + y0, self.x0 + x0, kept)

    def mask_box(self, threshold: float) -> Box | None:
        """Return the box of probability > threshold, None where nothing is."""
        box = mask_box(self.probability > threshold)
        if box is None:
            return None
        y0, x0, y1, x1 = box
        return y0 + self.y0, x0 + self.x0, y1 + self.y0, x1 + self.x0


def logits_of(probability: NDArray[Any], least: float) -> NDArray[np.float32]:
    """Return logits; probabilities nearer to 0 or 1 than ``least`` count as that."""
    kept = np.clip(probability, least, 1 - least)
    logits: NDArray[np.float32] = np.log(kept / (1 - kept)).astype(np.float32)
    return logits


class Shelf:
    """Puts older arrays into temporary files; what holds them reads them from there."""

    def __init__(self, most_bytes: int = 4_000_000) -> None:
        self._most = most_bytes
        self._held: list[tuple[object, str]] = []
        self._bytes = 0

    def add(self, owner: object, *names: str) -> None:
        """Leave an owner's arrays in memory until newer ones take their place."""
        for name in names:
            array = getattr(owner, name)
            if array is not None and array.size:
                self._held.append((owner, name))
                self._bytes += array.nbytes
        if self._bytes > self._most:
            half = len(self._held) // 2
            with suppress(OSError):  # a full disk: they stay in memory
                _put_away(self._held[:half])
            del self._held[:half]
            self._bytes = sum(getattr(one, name).nbytes for one, name in self._held)


def _put_away(held: Sequence[tuple[object, str]]) -> None:
    """Let owners have their arrays in a file that goes when they all have gone."""
    arrays = [np.ascontiguousarray(getattr(one, name)) for one, name in held]
    if not arrays:
        return
    starts = [0, *np.cumsum([-(-array.nbytes // 8) * 8 for array in arrays]).tolist()]
    with tempfile.TemporaryFile() as file:
        for start, array in zip(starts, arrays, strict=False):
            file.seek(start)
            file.write(array.data)
        file.truncate(starts[-1])
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for start, array, (one, name) in zip(starts, arrays, held, strict=False):
        own = np.frombuffer(mapped, array.dtype, array.size, start)
        object.__setattr__(one, name, own.reshape(array.shape))


def _within(positions: range, start: int, stop: int) -> range:
    """Return the indices of the positions that lie in [start, stop)."""
    first = max(0, -(-(start - positions.start) // positions.step))
    last = min(len(positions), -(-(stop - positions.start) // positions.step))
    return range(first, max(first, last))


def put_back(before: Patch, probability: NDArray[np.float32], window: Window) -> Patch:
    """Replace the window's part of a patch by the network's answer.

    Only the box of the answer that is not near zero is resampled: the cost follows
    the object, and what is cut off is below 1/256.
    """
    inside = window.clipped(before.plane)
    replaced = overlap(before.box, inside)
    cells = mask_box(probability >= FLOOR)
    if cells is None:
        return before.with_box(replaced, np.zeros(shape_of(replaced), np.float32))
    # One cell more on each side: interpolation reaches half a cell beyond a cell.
    scale = window.px_per_cell
    box = (
        window.y0 + int((cells[0] - 1) * scale),
        window.x0 + int((cells[1] - 1) * scale),
        window.y0 + int((cells[2] + 1) * scale) + 1,
        window.x0 + int((cells[3] + 1) * scale) + 1,
    )
    box = overlap(box, inside)
    pasted = paste(probability, window, box)
    np.clip(pasted, 0, 1, out=pasted)
    whole = union(replaced, box)
    if whole == box:
        return before.with_box(box, pasted)
    values = np.zeros(shape_of(whole), np.float32)
    values[slices(box, whole)] = pasted
    return before.with_box(whole, values)
