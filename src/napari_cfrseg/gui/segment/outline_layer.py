"""A Labels layer of outlines over a part of a plane, made when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_cfrseg.gui.segment.label_layer import (
    OUTLINE_PX,
    colormap_of,
    outline_quickly,
)
from napari_cfrseg.gui.segment.layers import PlaneView, add_unselected

if TYPE_CHECKING:
    from napari.layers import Labels


class OutlineLayer:
    """Outlines right above the labels on an image's planes.

    The layer's name ends in ``name``, and its labels take turns with ``colours``
    (``#rrggbb``).
    """

    def __init__(self, planes: PlaneView, name: str, colours: Sequence[str]) -> None:
        self.planes, self._name, self._colours = planes, name, colours
        self._viewer, self._labels = planes.viewer, planes.labels
        self._hidden = False
        self.layer: Labels | None = None
        self._soon = QTimer(singleShot=True, interval=0)
        self._soon.timeout.connect(self._add)

    def prepare(self, index: Sequence[int]) -> None:
        """Add the layer, empty, if it is not there; outlines then come sooner.

        napari takes some 30 ms to make it, and 60 to add it, in a turn of its own.
        """
        if self.layer is None or self.layer not in self._viewer.layers:
            data, place = self._laid(index, np.zeros((1, 1), np.uint8), 1)
            self.layer = self._make(data, place)
            self._soon.start()

    def close(self) -> None:
        """Add no layer any more."""
        self._soon.stop()

    def _add(self) -> None:
        self._soon.stop()
        if self.layer is not None and self._labels in self._viewer.layers:
            add_unselected(self._viewer, self.layer, above=self._labels)

    def paint(
        self,
        index: Sequence[int],
        labels: NDArray[np.integer[Any]],
        step: int = 1,
    ) -> None:
        """Draw (h, w) labels of ``step`` pixels each, from an index of the image on."""
        data, place = self._laid(index, labels, step)
        if self._soon.isActive():
            self._add()
        if self.layer is None or self.layer not in self._viewer.layers:
            self.layer = self._make(data, place)
            self._add()
            return
        if not np.array_equal(self.layer.data, data):  # SPEED: after most clicks it is
            self.layer.data = data
        for name in ("scale", "translate"):
            if not np.array_equal(getattr(self.layer, name), place[name]):
                setattr(self.layer, name, place[name])
        if self._hidden:
            self._hidden, self.layer.visible = False, True

    def _laid(
        self, index: Sequence[int], labels: NDArray[np.integer[Any]], step: int
    ) -> tuple[Any, dict[str, Any]]:
        """Return labels with the layer's axes, and what puts them in their place."""
        image = self.planes.image
        whole = labels.reshape((*(1 for _ in index[:-2]), *labels.shape))
        data = image.own_array(whole)
        place = image.placement()
        middle = (step - 1) / 2  # of the first cell
        first = (*index[:-2], index[-2] + middle, index[-1] + middle)
        place["translate"] = self.planes.translate_to(image.to_own(first))
        steps = image.to_own([*(1 for _ in index[:-2]), step, step], 1)
        place["scale"] = np.asarray(place["scale"]) * steps
        return data, place

    def _make(self, data: Any, place: dict[str, Any]) -> Labels:
        from napari.layers import Labels

        name = f"{self.planes.image.layer.name} {self._name}"
        colours = colormap_of(self._colours)
        layer = Labels(data, name=name, colormap=colours, opacity=1.0, **place)
        outline_quickly(layer)
        layer.contour = OUTLINE_PX
        return layer

    def hide(self) -> None:
        """Show nothing until the next call of :meth:`paint`."""
        if self.layer is not None and self.layer.visible:
            self._hidden, self.layer.visible = True, False
