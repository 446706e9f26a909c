"""What to expect on a plane before the network is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from napari_cfrseg.engine.masks import MaskPatch
from napari_cfrseg.engine.propagation.shapes import Field, box_of, capped, interpolate
from napari_cfrseg.window import Box


class Prior(Protocol):
    """An expected shape on each plane of a stretch."""

    def box(self, index: int) -> Box | None:
        """Return a box that holds the shape, None: there is none."""

    def field(self, index: int, box: Box) -> Field:
        """Return its signed distance over a box."""


@dataclass(frozen=True, slots=True, eq=False)
class Bridge:
    """Between two anchors: signed-distance interpolation.

    Attributes
    ----------
    below, above
        The anchors' planes.
    first, second
        Their masks.
    sampling
        (y, x) size of a pixel over the smaller of the two.
    """

    below: int
    above: int
    first: MaskPatch
    second: MaskPatch
    sampling: tuple[float, float]

    def box(self, index: int) -> Box | None:
        """Return the boxes of both masks, in the middle of the way between them."""
        one, other = box_of(self.first), box_of(self.second)
        if one is None or other is None:
            return other if one is None else one
        t = self._share(index)
        y0, x0, y1, x1 = ((1 - t) * a + t * b for a, b in zip(one, other, strict=True))
        meet = (
            max(one[0], other[0]),
            max(one[1], other[1]),
            min(one[2], other[2]),
            min(one[3], other[3]),
        )
        if meet[0] >= meet[2] or meet[1] >= meet[3]:
            meet = (int(y0), int(x0), int(y1) + 1, int(x1) + 1)
        return (
            min(int(y0), meet[0]),
            min(int(x0), meet[1]),
            max(int(y1) + 1, meet[2]),
            max(int(x1) + 1, meet[3]),
        )

    def field(self, index: int, box: Box) -> Field:
        """Return the interpolated shape."""
        t = self._share(index)
        return interpolate(self.first, self.second, t, box, sampling=self.sampling)

    def _share(self, index: int) -> float:
        return (index - self.below) / (self.above - self.below)


@dataclass(frozen=True, slots=True, eq=False)
class Cap:
    """From the outermost anchor to where the person said that the object ends.

    Attributes
    ----------
    anchor, end
        The anchor's plane, and the first one without the object.
    mask
        The anchor's.
    sampling
        As in :class:`Bridge`.
    """

    anchor: int
    end: int
    mask: MaskPatch
    sampling: tuple[float, float]

    def box(self, index: int) -> Box | None:
        """Return the anchor's box: caps only shrink."""
        return box_of(self.mask)

    def field(self, index: int, box: Box) -> Field:
        """Return the shrunken shape."""
        t = (index - self.anchor) / (self.end - self.anchor)
        return capped(self.mask, t, box, sampling=self.sampling)
