"""Where things are: the plane shown, the pixel of a point, the region looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.segment.layers import (
    WorkingImage,
    shown_order,
    split_index,
    world_to_index,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Points

#: objects whose sizes are taken as a hint for the next one
_HINT_OBJECTS = 3
#: of these, the latest
_LATEST_OBJECTS = 10


class Places:
    """Places of an image in a viewer, through world coordinates."""

    def __init__(
        self, viewer: ViewerModel, image: WorkingImage, points: Points, labels: Labels
    ) -> None:
        self._viewer = viewer
        self._image = image
        self._points = points
        self._labels = labels

    @property
    def current_plane(self) -> Plane:
        """The plane the viewer shows, or the nearest one the image has."""
        plane, _ = self._split(self._viewer.dims.point)
        return tuple(
            min(max(i, 0), n - 1)
            for i, n in zip(plane, self._image.shape, strict=False)
        )

    def why_not_here(self) -> str:
        """Return why a click would not count in this view; "" if it would."""
        order = shown_order(self._viewer, self._image.layer)
        if order == self._image.order:
            return ""
        if self._viewer.dims.ndisplay != 2:
            return "Clicks count in the 2-D view: leave the 3-D one (Ctrl+Y)."
        if order is None:
            return "This view shows no plane of the image: roll its axes (Ctrl+E)."
        mine = "".join(self._image.names()[-2:])
        return (
            f"The objects here are annotated on {mine} planes: roll the axes back "
            "(Ctrl+E), or duplicate the image to annotate others in this view."
        )

    def _split(self, world: Sequence[float]) -> tuple[Plane, tuple[float, float]]:
        return split_index(self._image.of_layer(world_to_index(self._labels, world)))

    def of_point(
        self, index: Sequence[float]
    ) -> tuple[Plane, tuple[float, float]] | None:
        """Return the plane and (row, column) of a point; None off the image."""
        world = self._points.data_to_world(index)
        plane, yx = self._split(world)
        leading = self._image.shape[:-2]
        on_stack = all(0 <= i < n for i, n in zip(plane, leading, strict=True))
        return (plane, yx) if on_stack and self.is_inside(yx) else None

    def is_inside(self, yx: tuple[float, float]) -> bool:
        """Return whether (row, column) lies in a pixel of the plane."""
        return all(
            -0.5 <= v < n - 0.5
            for v, n in zip(yx, self._image.plane_shape, strict=True)
        )

    def hint(self, objects: Mapping[int, ObjectState]) -> FocusHint | None:
        """Return what earlier objects or the view say of a new object's size."""
        extents = [
            float(max(state.mask.mask.shape))
            for other in objects.values()
            for state in other.planes.values()
            if state.mask.mask.size
        ]
        if len(extents) >= _HINT_OBJECTS:
            return FocusHint.from_extents(extents[-_LATEST_OBJECTS:])
        corners = np.asarray(self._labels.corner_pixels, float)
        corners = corners[:, list(self._image.axes[-2:])]
        visible = float(np.max(corners[1] - corners[0]))
        if 0 < visible < max(self._image.plane_shape) / 2:
            return FocusHint.from_view(visible)
        return None
