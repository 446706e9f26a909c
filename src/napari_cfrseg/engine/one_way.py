"""Late clicks: from the fourth on, each changes the mask in its own direction only.

A positive click only adds, a negative one only removes; the outline follows further
where clicks of one sign come in a row. Which cells follow is weighed by what the click
tells (:func:`weigh_changes`), with networks that learned to. A negative click on a
stray island removes all of it, at any click.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from napari_cfrseg.clicks import Click, ClickList
from napari_cfrseg.engine.corrections import Affinity, honour, violated
from napari_cfrseg.engine.probability_patch import FLOOR, Patch, logits_of, put_back
from napari_cfrseg.geometry.windows import Window, crop, union
from napari_cfrseg.model.blocks.extensions import ChangeOdds
from napari_cfrseg.model.network import LATE_PUSH

#: From this click of an object on, a click changes the mask in its own direction only.
#: Chosen on validation images (``benchmarks/default_model.md``).
FROM_CLICK = 4
#: probabilities nearer to 0 or 1 are not told apart
_LEAST = math.exp(-9)
#: cells whose logit, counted towards the click's sign, is lower never change
_HOPELESS = -3.0


def one_way(
    before: Patch,
    after: Patch,
    clicks: Sequence[Click],
    threshold: float,
    push: Sequence[float] = LATE_PUSH,
) -> Patch:
    """Keep the newest click from changing the mask against its own sign.

    Where the probability ``before`` it already agrees with the newest (last) of the
    clicks, that corrects nothing in particular, and ``after`` is returned as it is.
    ``push`` is explained at :data:`~napari_cfrseg.model.network.LATE_PUSH`.
    """
    click = clicks[-1]
    if not violated(before, [click], threshold):
        return after
    box = union(before.box, after.box)
    move = push[min(in_a_row(clicks), len(push)) - 1]
    old = before.read(box)
    new = _moved(after.read(box), move if click.is_positive else -move)
    was, now_is = old > threshold, new > threshold
    changed = (was != now_is) & (now_is == click.is_positive)
    listed = ClickList.of(clicks)  # pixels clicked with the other sign stay
    others = listed.pixels[listed.positive != click.is_positive] - box[:2]
    changed[tuple(others[_inside(others, changed.shape)].T)] = False
    return after.with_box(box, np.where(changed, new, old))


def drop_island(
    before: Patch, after: Patch, clicks: Sequence[Click], threshold: float
) -> Patch:
    """Remove the whole part of a mask that a negative click is on.

    Only a part that holds no positive click, beside one that holds one: a click on a
    stray island says that all of it is wrong.
    """
    newest = clicks[-1]
    if newest.is_positive or not violated(before, [newest], threshold):
        return after
    parts, _ = ndimage.label(before.probability > threshold)
    listed = ClickList.of(clicks)
    pixels = listed.pixels - (before.y0, before.x0)
    island = parts[tuple(pixels[-1])]
    positive = pixels[listed.positive]
    kept = parts[tuple(positive[_inside(positive, parts.shape)].T)]
    if not kept.any() or (kept == island).any():
        return after
    values = after.read(before.box)
    values[parts == island] = 0
    return after.with_box(before.box, values)


def _inside(pixels: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which of (N, 2) pixels lie in an array of this shape."""
    inside = (pixels >= 0) & (pixels < shape)
    return inside[:, 0] & inside[:, 1]


def in_a_row(clicks: Sequence[Click]) -> int:
    """Return how many of the last clicks have the newest one's sign, at least 1.

    The first click does not count: it shows where the object is, not its outline.
    """
    signs = ClickList.of(clicks).positive
    others = np.flatnonzero(signs[1:] != signs[-1])
    last_other = int(others[-1]) + 1 if others.size else 0
    return max(1, len(signs) - 1 - last_other)


def measure(
    probability: NDArray[np.float32],
    feedback: NDArray[np.float32],
    window: Window,
    clicks: Sequence[Click],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Measure the cells that the newest click may change.

    ``probability`` is the network's answer, ``feedback`` the mask's before, both (grid,
    grid). Returns (N, 14) numbers, in logits counted towards the click's sign and
    logarithms of distances in cells, and the (grid, grid) cells they belong to.
    """
    click, grid = clicks[-1], window.grid
    sign = 1.0 if click.is_positive else -1.0
    now, was = (logits_of(p, _LEAST) * sign for p in (probability, feedback))
    mask = feedback > 0.5
    area = np.count_nonzero(mask)
    free = mask != click.is_positive
    cells = free & (now > _HOPELESS)
    y, x = window.to_grid(click.yx)
    here = tuple(min(max(round(v), 0), grid - 1) for v in (y, x))
    rows, columns = np.nonzero(cells)
    reach = ndimage.distance_transform_edt(free) if not free.all() else free * grid
    mean = now[cells].mean() if len(rows) else 0.0
    grown = np.count_nonzero(free & (now > 0)) / (area + 1)
    numbers = [
        now[cells],
        was[cells],
        np.log1p(np.hypot(rows - y, columns - x)),  # from the click
        np.log1p(reach[cells]),  # from where the mask has the click's label
        np.log1p(reach[here]),  # how deep in the error the click is
        sign,
        min(in_a_row(clicks), 4),
        np.log1p(math.sqrt(area)),
        ndimage.gaussian_filter(now, 2)[cells],
        min(len(clicks), 12),
        math.log(window.px_per_cell),
        now[here],
        mean,
        min(2.0, grown),
    ]
    return np.stack(np.broadcast_arrays(*numbers), axis=1).astype(np.float32), cells


def weigh_changes(
    feedback: NDArray[np.float32],
    probability: NDArray[np.float32],
    window: Window,
    clicks: Sequence[Click],
    odds: ChangeOdds,
) -> NDArray[np.float32]:
    """Return the network's (grid, grid) answer with each possible change weighed.

    A cell that may follow the newest click gets the probability of the change being
    right. ``feedback`` as for :func:`measure`.
    """
    numbers, cells = measure(probability, feedback, window, clicks)
    with torch.inference_mode():
        device = next(odds.parameters()).device
        logits = odds(torch.from_numpy(numbers).to(device)).float().cpu().numpy()
    weighed = probability.copy()
    weighed[cells] = expit(logits if clicks[-1].is_positive else -logits)
    return weighed


def _moved(probability: NDArray[np.float32], logits: float) -> NDArray[np.float32]:
    """Add to the logits; a probability below 1/256 becomes 0."""
    odds = probability * np.float32(np.exp(logits))
    moved: NDArray[np.float32] = odds / (odds + (1 - probability))
    moved[probability < FLOOR] = 0
    return moved


def settle(
    before: Patch,
    probability: NDArray[np.float32],
    window: Window,
    clicks: Sequence[Click],
    *,
    threshold: float = 0.5,
    affinity: Affinity | None = None,
    push: Sequence[float] = LATE_PUSH,
    odds: ChangeOdds | None = None,
    feedback: NDArray[np.float32] | None = None,
) -> tuple[Patch, tuple[Click, ...]]:
    """Return the object's probability after a click, and the clicks that needed help.

    The network's (grid, grid) answer is pasted, clicks are honoured, and late ones
    weighed and confined; training with the product's rounds runs it, too. ``feedback``
    is ``before`` on the window's grid, if it was cropped already; the rest is as for
    :func:`~napari_cfrseg.engine.corrections.honour`, :func:`one_way` and
    :func:`weigh_changes`.
    """
    is_late = len(clicks) >= FROM_CLICK
    if is_late and odds is not None and violated(before, clicks[-1:], threshold):
        was = crop(before, window)[0] if feedback is None else feedback
        probability = weigh_changes(was, probability, window, clicks, odds)
    honoured = partial(
        honour,
        clicks=clicks,
        threshold=threshold,
        px_per_cell=window.px_per_cell,
        affinity=affinity,
    )
    patch, corrected = honoured(put_back(before, probability, window))
    if is_late:
        patch = one_way(before, patch, clicks, threshold, push)
        # a mask from outside may have ignored earlier clicks
        patch, older = honoured(patch)
        corrected = (*corrected, *older)
    return drop_island(before, patch, clicks, threshold), corrected
