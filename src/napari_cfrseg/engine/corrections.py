"""Every click is honoured: a positive one's pixel is in the mask, a negative one's out.

Where the network's answer ignores a click, the *probability* is corrected, by the
blend of FCFI's FFCM (Eq. 2 of that paper)::

    M' = l · W + (1 − W) · M

with l the click's label and W its weight: 1 on the click's disk, and for the newest
click the network's own affinity on the similar region connected to it, inside FFCM's
box. A click only reaches pixels that are nearer to it than to any click of the other
sign, so honouring one never breaks another, and one pass suffices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_cfrseg.clicks import Click, ClickList
from napari_cfrseg.engine.probability_patch import Patch
from napari_cfrseg.geometry.distances import squared_distances
from napari_cfrseg.geometry.windows import Box, Window, overlap, paste, shape_of, slices

#: The click's disk on the network's grid, as in the papers.
DISK_RADIUS_CELLS = 5.0
#: FFCM's box: r = 0.3 of the window's side.
BOX_RATIO = 0.3
#: this many ignored clicks are corrected one after the other; more of them at once,
#: which may leave other probabilities below 1/256
ONE_BY_ONE = 8
#: Affinity from which a pixel counts as similar to the click.
SIMILAR = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Affinity:
    """The network's similarity of every cell to the newest click."""

    window: Window
    values: NDArray[np.float32]  #: (h, h) in [0, 1], with h = ``window.grid``

    def region(self, click: Click, box: Box) -> NDArray[np.float32]:
        """Spread the similar region connected to a click over a box of the plane."""
        similar = self.values >= SIMILAR
        y, x = self.window.cell(click.yx)
        size = self.window.grid
        out = np.zeros(shape_of(box), np.float32)
        if not (0 <= y < size and 0 <= x < size and similar[y, x]):
            return out
        half = BOX_RATIO * size / 2
        inside = np.zeros_like(similar)
        rows = slice(max(0, math.floor(y - half)), math.ceil(y + half))
        columns = slice(max(0, math.floor(x - half)), math.ceil(x + half))
        inside[rows, columns] = similar[rows, columns]
        labels, _ = ndimage.label(inside)
        connected = np.where(labels == labels[y, x], self.values, 0)
        shared = overlap(box, self.window.box)
        out[slices(shared, box)] = paste(connected, self.window, shared)
        return out


def violated(patch: Patch, clicks: Iterable[Click], threshold: float) -> list[Click]:
    """Return the clicks whose pixel is on the wrong side of the threshold."""
    listed = ClickList.of(clicks)
    wrong = (patch.at_pixels(listed.pixels) > threshold) != listed.positive
    return [listed[i] for i in np.flatnonzero(wrong)]


def honour(
    patch: Patch,
    clicks: Sequence[Click],
    *,
    threshold: float,
    px_per_cell: float,
    affinity: Affinity | None = None,
) -> tuple[Patch, tuple[Click, ...]]:
    """Correct the probability around every click it ignores; return those clicks, too.

    ``clicks`` are the object's, at most one per pixel, the newest last; the mask is cut
    at ``threshold`` (probability > threshold), in [0, 1). ``px_per_cell`` turns the
    disk's radius into plane pixels; ``affinity`` is the similarity to the newest click,
    where the network gives it.
    """
    clicks = ClickList.of(clicks)
    wrong = violated(patch, clicks, threshold)
    one_by_one = wrong
    if len(wrong) > ONE_BY_ONE:
        older = [click for click in wrong if click is not clicks[-1]]
        patch = _correct_together(patch, older, clicks, px_per_cell)
        one_by_one = wrong[len(older) :]
    for click in one_by_one:
        similarity = affinity if click is clicks[-1] else None
        patch = _correct(patch, click, clicks, px_per_cell, similarity)
    return patch, tuple(wrong)


def _correct_together(
    patch: Patch, wrong: Sequence[Click], clicks: ClickList, px_per_cell: float
) -> Patch:
    """Correct around many clicks at once: each pixel follows its nearest click."""
    radius = max(DISK_RADIUS_CELLS * px_per_cell, 1.0)
    reach = math.ceil(radius)
    for sign in (False, True):
        mine = ClickList(c for c in wrong if c.is_positive == sign).pixels
        if not len(mine):
            continue
        (y0, x0), (y1, x1) = mine.min(axis=0) - reach, mine.max(axis=0) + reach + 1
        box = overlap((int(y0), int(x0), int(y1), int(x1)), (0, 0, *patch.plane))
        others = clicks.pixels[clicks.positive != sign]
        own = squared_distances(mine, box, reach)
        is_nearer = own < squared_distances(others, box, reach)
        values = patch.read(box)
        values[is_nearer & (own <= np.float32(radius**2))] = sign
        patch = patch.with_box(box, values)
    return patch


def _correct(
    patch: Patch,
    click: Click,
    clicks: ClickList,
    px_per_cell: float,
    affinity: Affinity | None,
) -> Patch:
    box = _reach(patch, click, px_per_cell, affinity)
    rows = np.arange(box[0], box[2], dtype=np.float32)[:, None]
    columns = np.arange(box[1], box[3], dtype=np.float32)[None, :]
    distance = (rows - click.pixel[0]) ** 2 + (columns - click.pixel[1]) ** 2
    radius = max(DISK_RADIUS_CELLS * px_per_cell, 1.0)
    weight = (distance <= radius**2).astype(np.float32)
    if affinity is not None:
        np.maximum(weight, affinity.region(click, box), out=weight)
    reached = weight > 0
    # only a click at most twice as far as the farthest such pixel is nearer to one
    others = clicks.pixels[clicks.positive != click.is_positive]
    far = 2 * math.sqrt(float(distance[reached].max(initial=0)))
    near = others[((others - click.pixel) ** 2).sum(axis=1) <= far**2 + 1]
    if len(near):
        pixels = np.argwhere(reached) + box[:2]
        nearest = near[cKDTree(near).query(pixels)[1]]
        beaten = distance[reached] >= ((pixels - nearest) ** 2).sum(axis=1)
        weight[reached] = np.where(beaten, 0, weight[reached])
    before = patch.read(box)
    after = np.float32(click.is_positive) * weight + (1 - weight) * before
    return patch.with_box(box, np.clip(after, 0, 1))


def _reach(
    patch: Patch, click: Click, px_per_cell: float, affinity: Affinity | None
) -> Box:
    """Return the box of the plane that a click's correction can touch."""
    y, x = click.pixel
    reach = math.ceil(max(DISK_RADIUS_CELLS * px_per_cell, 1.0))
    if affinity is not None:
        window = affinity.window
        half = math.ceil((BOX_RATIO / 2 + 2 / window.grid) * window.side)
        reach = max(reach, half)
    box = (y - reach, x - reach, y + reach + 1, x + reach + 1)
    return overlap(box, (0, 0, *patch.plane))
