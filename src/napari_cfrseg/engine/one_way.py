"""A late click only adds or only removes.

The network draws the whole object anew at every click. The first clicks find the object
that is wanted; once its outline is being mended, drawing anew spoils elsewhere what was
right. So from some click on, a positive click on what the mask lacks may only add, a
negative one on what it has too much only remove; every other pixel keeps the
probability it had (not max or min of both: that creeps a little further at each click).

Not part of either paper. What was painted by hand therefore stays, too, when the object
is clicked further.
"""

from __future__ import annotations

import numpy as np

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.patch import Patch, union

#: The click of an object from which on this holds, chosen on validation images
#: (``benchmarks/default_model.md``).
FROM_CLICK = 4


def one_way(before: Patch, after: Patch, click: Click, threshold: float) -> Patch:
    """Keep a click from changing the mask against its own sign.

    Parameters
    ----------
    before, after
        The probability before the newest click and after it.
    click
        The newest click. Where ``before`` already agrees with it, it corrects nothing
        in particular, and ``after`` is returned as it is.
    threshold
        Where the mask is cut (probability > threshold), in [0, 1).
    """
    if (before.at(click.pixel) > threshold) == click.is_positive:
        return after
    box = union(before.box, after.box)
    old, new = before.read(box), after.read(box)
    was, now_is = old > threshold, new > threshold
    changed = (was != now_is) & (now_is == click.is_positive)
    return after.with_box(box, np.where(changed, new, old))
