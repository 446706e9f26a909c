"""Clicks carried from plane to plane: where the image supports them, or not at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.masks import LabelArray
from napari_cfrseg.engine.propagation.shapes import Floats
from napari_cfrseg.window import Box

#: parts of an object smaller than this share of its largest get no click
_SMALLEST_PART = 0.2
#: a click keeps at least this share of the part's greatest distance to its outline
_DEEP = 0.5


@dataclass(frozen=True, slots=True)
class Look:
    """What an object looks like on a plane: grey values, means and spread.

    Attributes
    ----------
    inside, outside
        Mean grey of the object's core and of a ring around it.
    spread
        Standard deviation inside.
    """

    inside: float
    outside: float
    spread: float

    @property
    def limit(self) -> float:
        """Greatest difference from ``inside`` that still looks like the object."""
        return max(2.0 * self.spread, abs(self.inside - self.outside) / 2)

    @property
    def has_contrast(self) -> bool:
        """Whether the object stands out of its surround at all."""
        return abs(self.inside - self.outside) > self.spread

    def fading(self, grey: Floats) -> Floats:
        """Return how far pixels are from the surround's grey (0) to the object's (1).

        1 everywhere where the object never stood out.
        """
        if not self.has_contrast:
            return np.ones_like(grey)
        span = self.inside - self.outside
        out: Floats = ((grey - self.outside) / span).astype(np.float32)
        return out

    @classmethod
    def of(cls, grey: Floats, distance: Floats) -> Look:
        """Measure an object, given its signed distance over the same box."""
        core = distance > min(1.0, float(distance.max()) / 2)
        ring = (distance < -1.0) & (distance > -5.0)
        values = grey[core]
        inside = float(values.mean()) if values.size else 0.0
        spread = float(values.std()) if values.size else 0.0
        outside = float(grey[ring].mean()) if ring.any() else inside
        return cls(inside, outside, spread)


def positives(
    distance: Floats, grey: Floats, look: Look, box: Box, most: int
) -> list[Click]:
    """Choose an interior point of each larger part of a mask that looks like it.

    Parameters
    ----------
    distance
        (h, w) signed distance of the mask carried here, positive inside.
    grey
        (h, w) smoothed pixels of this plane.
    look
        What the object looked like on the plane before.
    box
        Where the arrays lie in the plane.
    most
        Points at most, the largest part's last (the newest click counts most).
    """
    parts, count = ndimage.label(distance > 0)
    if count == 0:
        return []
    areas = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    order = [i for i in np.argsort(-areas) if areas[i] >= _SMALLEST_PART * areas.max()]
    clicks = []
    for index in order[:most]:
        inside = np.where(parts == index + 1, distance, 0)
        deepest = float(inside.max())
        off = np.abs(grey - look.inside) / max(look.limit, 1e-6)
        usable = (inside >= _DEEP * deepest) & (off <= 1)
        if not usable.any():
            continue
        merit = np.where(usable, inside / deepest - 0.5 * off, -np.inf)
        clicks.append(_click(merit, box, True))
    return clicks[::-1]


def sibling_negatives(
    others: LabelArray, distance: Floats, box: Box, most: int
) -> list[Click]:
    """Choose an interior point of each object beside the mask, nearest first."""
    found = []
    for label in np.unique(others[others > 0]):
        mask = others == label
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        merit = np.where(mask & (distance < -1), depth, -np.inf)
        if np.isfinite(merit).any():
            nearest = float(-distance[mask].max())
            found.append((nearest, int(label), _click(merit, box, False)))
    found.sort(key=lambda f: f[:2])
    return [click for _, _, click in found[:most]]


def surround_negatives(
    distance: Floats, grey: Floats, look: Look, box: Box, most: int
) -> list[Click]:
    """Choose points around the mask that look like the surround, far from each other.

    None where object and surround look alike.
    """
    contrast = abs(look.inside - look.outside)
    if most < 1 or contrast <= look.spread:
        return []
    reach = max(3.0, 0.5 * float(distance.max()))
    like = np.abs(grey - look.outside) < np.abs(grey - look.inside)
    usable = like & (distance < -reach) & (distance > -2.5 * reach)
    clicks: list[Click] = []
    far = np.where(usable, -np.abs(-distance - 1.5 * reach), -np.inf)
    yy, xx = np.mgrid[: distance.shape[0], : distance.shape[1]]
    while len(clicks) < most and np.isfinite(far).any():
        click = _click(far, box, False)
        clicks.append(click)
        y, x = click.pixel
        gap = np.hypot(yy + box[0] - y, xx + box[1] - x)
        far = np.where(gap > 2 * reach, far, -np.inf)
    return clicks


def _click(merit: Floats, box: Box, is_positive: bool) -> Click:
    y, x = np.unravel_index(int(np.argmax(merit)), merit.shape)
    return Click((float(y + box[0]), float(x + box[1])), is_positive)
