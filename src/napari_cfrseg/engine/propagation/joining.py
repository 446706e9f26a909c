"""Where masks of two sides or of two objects meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from napari_cfrseg.engine.masks import LabelArray, MaskPatch
from napari_cfrseg.engine.propagation.shapes import Field, Floats, box_of
from napari_cfrseg.engine.propagation.step import TAKEN, Answer
from napari_cfrseg.window import Box


def mixed(below: Field, above: Field, t: float) -> Field:
    """Return the logits of both sides, weighted by nearness."""
    box = (
        min(below.box[0], above.box[0]),
        min(below.box[1], above.box[1]),
        max(below.box[2], above.box[2]),
        max(below.box[3], above.box[3]),
    )
    return Field(box, (1 - t) * below.over(box) + t * above.over(box))


def compete(answers: list[Answer]) -> None:
    """Give each pixel that two objects want to the one that wants it more."""
    for i, first in enumerate(answers):
        for second in answers[i + 1 :]:
            _settle(first.logits, second.logits)


def _settle(first: Field, second: Field) -> None:
    y0, x0 = max(first.box[0], second.box[0]), max(first.box[1], second.box[1])
    y1, x1 = min(first.box[2], second.box[2]), min(first.box[3], second.box[3])
    if y0 >= y1 or x0 >= x1:
        return
    a, b = _part(first, (y0, x0, y1, x1)), _part(second, (y0, x0, y1, x1))
    both = (a > 0) & (b > 0)
    keeps = a >= b
    b[both & keeps] = TAKEN
    a[both & ~keeps] = TAKEN


def _part(values: Field, box: Box) -> Floats:
    y, x = values.box[:2]
    return values.values[box[0] - y : box[2] - y, box[1] - x : box[3] - x]


def sibling_labels(
    others: Sequence[tuple[int, MaskPatch]],
) -> Callable[[Box], LabelArray] | None:
    """Return labels of the other objects' masks, where they were last."""
    if not others:
        return None

    def labels(box: Box) -> LabelArray:
        out = np.zeros((box[2] - box[0], box[3] - box[1]), np.int32)
        area = (slice(box[0], box[2]), slice(box[1], box[3]))
        for object_id, mask in others:
            found = box_of(mask)
            if found is not None and found[0] < box[2] and found[2] > box[0]:
                out[mask.window(area)] = object_id
        return out

    return labels
