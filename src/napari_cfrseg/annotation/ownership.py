"""Which object a pixel's label goes to, and edits that can be taken back.

Masks of objects may overlap; a label is one object's. An object whose mask changes

* takes, of its new mask, the background, and under the rule ``overwrite`` also what
  other objects have, except locked ones;
* gives back what its mask no longer holds: to the unlocked object worked on last among
  those whose mask holds the pixel, else to the background. So a leak over a neighbour
  leaves no hole in it when it is corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.geometry.masks import LabelArray, LabelRuns, MaskPatch, Plane
from napari_cfrseg.geometry.windows import Box, slices, union

Heirs = Callable[[], Iterable[tuple[int, MaskPatch]]]


def claim(
    labels: LabelArray,
    box: Box,
    object_id: int,
    new: MaskPatch,
    rule: OverlapRule,
    is_locked: Callable[[int], bool],
    heirs: Heirs,
) -> LabelArray:
    """Return the labels of a box after an object's mask changed.

    Parameters
    ----------
    labels
        (h, w) int32 labels of the box now; not changed.
    box
        The box in the plane; holds the old and the new mask.
    object_id, new
        The object and its new mask.
    rule
        Whether it may take other objects' pixels.
    is_locked
        Whether an object is locked.
    heirs
        The other unlocked objects and their masks, worked on last first;
        called only if a pixel is released.
    """
    mask = new.window(box)
    owned = labels == object_id
    takes = mask & (labels == 0)
    if rule is OverlapRule.OVERWRITE:
        others = mask & ~owned & (labels != 0)
        if others.any():
            protected = [i for i in np.unique(labels[others]) if is_locked(int(i))]
            takes |= others & ~np.isin(labels, protected)
    after = np.where(takes, np.int32(object_id), labels)
    released = owned & ~mask
    if released.any():
        after[released] = 0
        for heir, heir_mask in heirs():
            inherits = released & heir_mask.window(box)
            after[inherits] = heir
            released &= ~inherits
            if not released.any():
                break
    return after


class LabelDraft:
    """Edits of label planes during one act: kept as one patch, or rolled back.

    Parameters
    ----------
    labels_of
        Returns the (Y, X) int32 labels of a plane, which are edited in place.
    """

    def __init__(self, labels_of: Callable[[Plane], LabelArray]) -> None:
        self._labels_of = labels_of
        self._before: dict[Plane, tuple[Box, LabelArray]] = {}

    def reserve(self, plane: Plane, box: Box) -> None:
        """Keep what a box holds before it is edited (grows an earlier box)."""
        kept = self._before.get(plane)
        if kept is not None:
            box = union(kept[0], box)
            if box == kept[0]:
                return
        before = self._labels_of(plane)[slices(box)].copy()
        if kept is not None:
            before[slices(kept[0], box)] = kept[1]
        self._before[plane] = (box, before)

    def write(self, plane: Plane, box: Box, labels: NDArray[np.int32]) -> None:
        """Write the labels of a box."""
        self.reserve(plane, box)
        self._labels_of(plane)[slices(box)] = labels

    def patches(self, only: Iterable[Plane] | None = None) -> tuple[LabelRuns, ...]:
        """Return what changed since the draft began, one patch for each plane."""
        patches = []
        for plane in self._before if only is None else only:
            if plane not in self._before:
                continue
            box, before = self._before[plane]
            labels = self._labels_of(plane)
            patch = LabelRuns.between(
                plane, labels.shape, box, before, labels[slices(box)]
            )
            if patch.size:
                patches.append(patch)
        return tuple(patches)

    def roll_back(self) -> None:
        """Put everything back as it was."""
        for plane, (box, before) in self._before.items():
            self._labels_of(plane)[slices(box)] = before
        self._before.clear()
