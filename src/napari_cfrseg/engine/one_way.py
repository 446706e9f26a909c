"""A late click only adds or only removes, and clicks of one sign in a row reach wider.

The network draws the whole object anew at every click. The first clicks find the object
that is wanted; once its outline is being mended, drawing anew spoils elsewhere what was
right. So from some click on, a positive click on what the mask lacks may only add, a
negative one on what it has too much only remove; every other pixel keeps the
probability it had (not max or min of both: that creeps a little further at each click).

Correction after correction of one sign says more than each of them: the whole outline
is drawn tighter, or wider, than this person draws it. The network's logits are then
moved in the clicks' direction before they are cut.

Not part of either paper. What was painted by hand stays, too, when the object is
clicked further.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.patch import FLOOR, Patch, union

#: The click of an object from which on this holds, and what is added to the logits (in
#: the click's direction) at the first, second, and any further correction of one sign
#: in a row. Chosen on validation images (``benchmarks/default_model.md``).
FROM_CLICK = 4
PUSH = (0.1, 0.4, 0.6)


def one_way(
    before: Patch, after: Patch, clicks: Sequence[Click], threshold: float
) -> Patch:
    """Keep the newest click from changing the mask against its own sign.

    Parameters
    ----------
    before, after
        The probability before the newest click and after it.
    clicks
        The object's clicks, the newest last. Where ``before`` already agrees with the
        newest, it corrects nothing in particular, and ``after`` is returned as it is.
    threshold
        Where the mask is cut (probability > threshold), in [0, 1).
    """
    click = clicks[-1]
    if (before.at(click.pixel) > threshold) == click.is_positive:
        return after
    box = union(before.box, after.box)
    push = PUSH[min(in_a_row(clicks), len(PUSH)) - 1]
    old = before.read(box)
    new = _moved(after.read(box), push if click.is_positive else -push)
    was, now_is = old > threshold, new > threshold
    changed = (was != now_is) & (now_is == click.is_positive)
    for other in clicks:  # the push must not run over what was clicked
        y, x = other.pixel[0] - box[0], other.pixel[1] - box[1]
        within = 0 <= y < changed.shape[0] and 0 <= x < changed.shape[1]
        if within and other.is_positive != click.is_positive:
            changed[y, x] = False
    return after.with_box(box, np.where(changed, new, old))


def in_a_row(clicks: Sequence[Click]) -> int:
    """Return how many of the last clicks have the newest one's sign, at least 1.

    The first click says where the object is, not how its outline runs: it does not
    count.
    """
    count = 0
    for click in reversed(clicks[1:]):
        if click.is_positive != clicks[-1].is_positive:
            break
        count += 1
    return max(1, count)


def _moved(probability: NDArray[np.float32], logits: float) -> NDArray[np.float32]:
    """Add to the logits; what is next to nothing stays nothing."""
    odds = probability * np.float32(np.exp(logits))
    moved: NDArray[np.float32] = odds / (odds + (1 - probability))
    moved[probability < FLOOR] = 0
    return moved
