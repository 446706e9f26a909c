"""Ways to fill the planes between annotated ones.

A 3-D object is annotated on a few planes, its *anchors*, by clicks; a *filler* makes
masks of the other planes from them. The fillers compared:

``propagation``
    this project's (:mod:`napari_cfrseg.propagation`)
``interpolation``
    signed-distance interpolation between anchors, copies of the outermost anchor beyond
``copying``
    every plane gets the mask of the nearest anchor (the lower of two)
``prior``
    what the propagation expects before it asks the network: interpolation as above,
    but masks that hardly overlap are moved onto each other first, and beyond the
    outermost anchors the shape shrinks to where the object ends

All get the range of planes on which the object lies, as a person gives it; ``free`` is
the propagation without it, which has to stop by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Literal

from stack_volumes import Volume, VolumeObject

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import union
from napari_cfrseg.propagation import (
    PlaneResult,
    PropagationSettings,
    SegmenterPlanes,
    Track,
    propagate,
)
from napari_cfrseg.propagation.shapes import interpolate
from napari_cfrseg.propagation.stretches import prior_of, stretches_of

Gap = tuple[int | None, int | None]
FillerName = Literal["propagation", "free", "interpolation", "copying", "prior"]
FILLERS: tuple[FillerName, ...] = (
    "propagation",
    "free",
    "interpolation",
    "copying",
    "prior",
)


class Filler:
    """Fills planes from anchors in one of the ways compared.

    Parameters
    ----------
    name
        Which.
    segmenter
        For the propagation.
    volume, item
        The stack and the object.
    settings
        Of the propagation.
    """

    def __init__(
        self,
        name: FillerName,
        segmenter: Segmenter,
        volume: Volume,
        item: VolumeObject,
        settings: PropagationSettings | None = None,
    ) -> None:
        self.name = name
        self._item = item
        self._settings = settings
        self._count = len(volume.image)
        self._planes = SegmenterPlanes(segmenter, volume.image, sampling=volume.voxel)
        self.results: list[PlaneResult] = []
        self.seconds = 0.0
        self.planes_computed = 0

    @property
    def runs(self) -> int:
        """How often the network ran."""
        return self._planes.runs

    def fill(
        self,
        anchors: Mapping[int, MaskPatch],
        masks: Mapping[int, MaskPatch] | None = None,
        gaps: tuple[Gap, ...] | None = None,
    ) -> dict[int, MaskPatch]:
        """Return masks by plane, the anchors' among them.

        ``masks`` and ``gaps``: what there is already, and which gaps to recompute.
        """
        start = time.perf_counter()
        out = dict(masks or {})
        out.update(anchors)
        for index, mask in self._fill(anchors, gaps):
            self.planes_computed += 1
            out[index] = mask
        self.seconds += time.perf_counter() - start
        return out

    def _fill(
        self, anchors: Mapping[int, MaskPatch], gaps: tuple[Gap, ...] | None
    ) -> Iterator[tuple[int, MaskPatch]]:
        item = self._item
        low, high = min(*anchors, item.first), max(*anchors, item.last)
        if self.name == "free":
            low, high = 0, self._count - 1
        if self.name in ("propagation", "free"):
            track = Track(
                item.label,
                dict(anchors),
                low,
                high,
                spans=self.name == "propagation",
                gaps=gaps,
            )
            self.results = list(propagate(self._planes, [track], self._settings))
            for result in self.results:
                yield result.index, result.mask
            return
        if self.name == "prior":
            track = Track(item.label, dict(anchors), low, high, spans=True, gaps=gaps)
            yield from expected_shapes(self._planes, track)
            return
        rule = _copied if self.name == "copying" else _interpolated
        for index in range(low, high + 1):
            if index not in anchors:
                yield index, rule(anchors, index)


def _copied(anchors: Mapping[int, MaskPatch], index: int) -> MaskPatch:
    return anchors[min(anchors, key=lambda a: (abs(a - index), a))]


def _interpolated(anchors: Mapping[int, MaskPatch], index: int) -> MaskPatch:
    below = max((a for a in anchors if a < index), default=None)
    above = min((a for a in anchors if a > index), default=None)
    if below is None or above is None:
        return _copied(anchors, index)
    first, second = anchors[below], anchors[above]
    if not (first.mask.size or second.mask.size):
        return MaskPatch.empty()
    t = (index - below) / (above - below)
    return between(first, second, t)


def between(first: MaskPatch, second: MaskPatch, t: float) -> MaskPatch:
    """Return plain signed-distance interpolation, nothing moved."""
    box = union(first.box, second.box)
    return interpolate(first, second, t, box, align=False).mask()


def expected_shapes(
    planes: SegmenterPlanes, track: Track
) -> Iterator[tuple[int, MaskPatch]]:
    """Return what the propagation expects on each plane before the network is asked.

    Parameters
    ----------
    planes
        The stack; its pixels are not read.
    track
        The object; where its end is not known, its outermost anchor is copied.

    Yields
    ------
    Planes and masks.
    """
    for stretch in stretches_of(track):
        prior = prior_of(planes, stretch)
        for index in stretch.planes:
            box = None if prior is None else prior.box(index)
            if prior is None:
                yield index, _copied(track.anchors, index)
            elif box is None:
                yield index, MaskPatch.empty()
            else:
                yield index, prior.field(index, box).mask()
