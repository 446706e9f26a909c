"""A segmenter without a network: discs around positive clicks, less negative ones.

Session files kept from earlier versions are replayed with it, so that their labels do
not depend on what the engine makes of a click.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.io.plane_image import PlaneImage, Scaling, open_plane


class DiscSegmenter:
    """Adds a disc for a positive click, removes one for a negative click.

    The radius is 6 + focus shift + extra refinement steps, or a quarter of the hint's
    side; pixels that are painted black are never part of an object.
    """

    embeds_ahead = False

    def __init__(self) -> None:
        self._image: PlaneImage | None = None

    def set_image(
        self, image: Any, *, rgb: bool | None = None, scaling: Scaling | None = None
    ) -> None:
        self._image = open_plane(image, rgb=rgb, scaling=scaling)

    def adapt(self, adaptation: object) -> None:
        assert adaptation is None

    def show(self, image: PlaneImage, early: Mapping | None = None) -> None:
        self._image = image

    def embed_ahead(self, image: PlaneImage, window: object) -> object:
        raise NotImplementedError

    def predict(
        self,
        clicks: Sequence[Click],
        previous: Prediction | None = None,
        refinement: Refinement | None = None,
        *,
        hint: FocusHint | None = None,
        focus_shift: int = 0,
        threshold: float | None = None,
        on_step: Callable[[Prediction], None] | None = None,
    ) -> Prediction:
        pixels = _all(self._image)
        shape = pixels.shape[:2]
        mask = np.zeros(shape, bool) if previous is None else previous.mask.copy()
        radius = 6 if hint is None else round(hint.side_px / 4)
        radius += focus_shift + (0 if refinement is None else refinement.extra_steps)
        y, x = np.indices(shape)
        row, column = clicks[-1].pixel
        disc = (y - row) ** 2 + (x - column) ** 2 <= radius**2
        mask = mask | disc if clicks[-1].is_positive else mask & ~disc
        found = Prediction.from_mask(
            mask & (pixels > self._image.scaling.low[0]), tuple(clicks)
        )
        return type(found)(
            found.patch, found.clicks, scaling=self._image.scaling, steps=1
        )

    def carry(
        self,
        clicks: Sequence[Click],
        previous: Prediction,
        refinement: Refinement | None = None,
        *,
        on_window: Callable[[Any], None] | None = None,
    ) -> Prediction:
        pixels = _all(self._image)
        mask = previous.mask & (pixels > self._image.scaling.low[0])
        return Prediction.from_mask(mask, tuple(clicks))


def _all(image: PlaneImage) -> np.ndarray:
    height, width = image.array.shape[:2]
    return np.asarray(image.array[:height, :width])
