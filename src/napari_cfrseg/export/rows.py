"""What exports need to know of objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object: its label, name, colour (``#rrggbb``) and, if said, class."""

    object_id: int
    name: str
    colour: str = "#ffffff"
    object_class: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One object on one plane.

    Attributes
    ----------
    row
        The object.
    plane
        Index of the leading axes.
    offset
        (row, column) of the box's first pixel.
    mask
        (h, w) bool.
    """

    row: ObjectRow
    plane: tuple[int, ...]
    offset: tuple[int, int]
    mask: NDArray[np.bool_]


def regions(
    labels: NDArray[np.integer], rows: tuple[ObjectRow, ...] = ()
) -> list[Region]:
    """Return each object on each plane where it is, by plane and label.

    Parameters
    ----------
    labels
        (…, Y, X) integers, 0 = background.
    rows
        What is known of the objects; others are called "Object N".
    """
    known = {row.object_id: row for row in rows}
    found = []
    for plane in np.ndindex(labels.shape[:-2]):
        ids, compact = np.unique(labels[plane], return_inverse=True)
        compact = compact.reshape(labels.shape[-2:]) + 1
        for index, box in enumerate(ndimage.find_objects(compact)):
            label = int(ids[index])
            if box is None or label <= 0:
                continue
            row = known.get(label, ObjectRow(label, f"Object {label}"))
            offset = (int(box[0].start), int(box[1].start))
            mask = labels[plane][box] == label
            found.append(Region(row, plane, offset, mask))
    return found


@dataclass(frozen=True, slots=True)
class ClickRow:
    """One click: whose, where, which sign."""

    object_id: int
    name: str
    click_id: int
    plane: tuple[int, ...]
    yx: tuple[float, float]
    is_positive: bool
