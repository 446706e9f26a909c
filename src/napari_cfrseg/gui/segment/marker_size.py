"""How large the points of clicks are on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QApplication

from napari_cfrseg.gui.segment.layers import Listener, camera_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Points

#: size of a point on the screen: larger ones hide small objects
POINT_PX = 12
#: on objects that are small on the screen a point is so much of their side, and at
#: least so large
_SHARE, _LEAST_PX = 1 / 3, 4
#: a layer's metadata: the size on the screen that a person chose
_METADATA_SIZE = "cfrseg_point_px"
#: napari's limit of sizes where none is wanted; the lower one is 0, else it draws a dot
#: into the image's corner where no point is
_NO_LIMIT = 10_000.0


class MarkerSize:
    """Keeps points as large on the screen at every zoom, and smaller on small objects.

    The mouse finds small ones as if they had the full size. A size that a person gives
    points with napari's slider stays at every zoom and on all objects.
    """

    def __init__(self, layer: Points, viewer: ViewerModel) -> None:
        self._layer, self._camera = layer, camera_of(viewer)
        self._chosen_px: float | None = None
        self._object_px: float | None = None
        self._size = self._drawn = 1.0
        self._listener = Listener(
            (self._camera.events.zoom, self._follow),
            (layer.events.size, self._on_size),
            (layer.events.current_size, self._on_size),
            layer=layer,
        )
        self.close = self._listener.close
        self._follow()

    @property
    def image_px(self) -> float:
        """Diameter of a point as it is drawn, in pixels of the image."""
        return min(self._size, self._drawn / self._zoom)

    def fit(self, object_px: float | None) -> None:
        """Let points suit objects of a smaller side, in pixels; None: there is none."""
        if object_px != self._object_px:
            self._object_px = object_px
            self._follow()

    def take_over(self, layer: Points) -> None:
        """Give points the size that a person gave those of a dock that was closed."""
        chosen = layer.metadata.get(_METADATA_SIZE)
        if chosen is not None:
            self._choose(float(chosen))

    @property
    def _zoom(self) -> float:
        """Pixels of the screen to a pixel of the image."""
        return float(self._camera.zoom) * (abs(float(self._layer.scale[-1])) or 1.0)

    def _choose(self, px: float) -> None:
        self._chosen_px = self._layer.metadata[_METADATA_SIZE] = px
        self._size = 0.0
        self._follow()

    def _on_size(self, _: Any) -> None:
        size = float(self._layer.current_size)
        # napari says it at a selection, too
        if not self._listener.writing and size > 0 and size != self._size:
            self._choose(size * self._zoom)

    def _follow(self, _: Any = None) -> None:
        zoom, full = self._zoom, self._chosen_px or POINT_PX
        small = _NO_LIMIT
        if self._object_px is not None and self._chosen_px is None:
            small = max(_SHARE * self._object_px * zoom, _LEAST_PX)
        size, layer = full / zoom, self._layer
        with self._listener.own_writes():
            if abs(size - self._size) > 0.1 * self._size:
                self._size = size
                layer.size = size
                layer.current_size = size
            if small >= full:
                small = _NO_LIMIT
            if abs(small - self._drawn) > 0.02 * self._drawn:
                self._drawn = small
                # napari counts these in the display's own pixels
                screen = QApplication.instance()
                ratio = 1.0 if screen is None else screen.devicePixelRatio()
                layer.canvas_size_limits = (0, small * ratio)
