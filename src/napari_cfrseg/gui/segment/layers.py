"""Where places of the viewer, other layers and their labels lie on an image."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from scipy import ndimage

from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.geometry.windows import Box, overlap
from napari_cfrseg.gui.segment.working_image import WorkingImage, shown_order
from napari_cfrseg.session.imported_events import renumbered

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Points

#: between a layer's tools, so that the window answers
_TOOLS_MS = 10
#: labels the Labels layer's 16 bits hold
MOST_OBJECTS = 65_535
#: objects whose sizes are taken as a hint for the next one
_HINT_OBJECTS = 3
#: of these, the latest
_LATEST_OBJECTS = 10
#: side of a box's window over the box's, and how much smaller or larger it may be
_OVER_BOX, _BOX_SPREAD = 1.4, 1.2
#: a wider view says nothing of an object's size
_WIDEST_HINT_PX = 2048


def world_to_index(layer: Any, world: Sequence[float]) -> NDArray[np.float64]:
    """Return a world position in a layer's own (fractional) array indices."""
    own = np.asarray(world, float)[-layer.ndim :]
    return np.asarray(layer.world_to_data(own), float)


def labels_on(
    image: WorkingImage, layer: Labels, taken: Collection[int] = ()
) -> NDArray[np.int64]:
    """Return a layer's labels on an image's pixels, in the working order.

    Where the layer lies otherwise than the image, each pixel gets the label that is
    seen on it. Numbers that are taken or too large are replaced. Raises SessionError if
    the layer has other axes or, in the same place, another shape; or if a label lies
    nowhere on the image.
    """
    data = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    wanted = image.to_own(image.shape, 1)
    axis = image.channel_axis
    if axis and data.shape == (*wanted[:axis], *wanted[axis + 1 :]):
        # planes without the channels between them, which napari cannot lay on ours
        data = np.expand_dims(data, axis)
        matrix, offset = np.eye(len(wanted)), np.zeros(len(wanted))
    else:
        matrix, offset = _from_image(image.anchor(), layer)
    aligned = matrix is not None and np.allclose(
        np.c_[matrix, offset], np.eye(len(wanted), len(wanted) + 1), atol=1e-3
    )
    if matrix is None or (aligned and data.shape != wanted):
        msg = f"{layer.name} has the shape {data.shape}, the image {wanted}"
        raise SessionError(msg)
    keeps = data.max(initial=0) <= MOST_OBJECTS and not np.isin(data, list(taken)).any()
    first = 1 if keeps else max(taken, default=0) + 1
    labels = renumbered(data, first, MOST_OBJECTS)
    if not aligned:
        found = ndimage.affine_transform(
            labels, matrix, offset, wanted, order=0, cval=0
        )
        lost = np.setdiff1d(labels, found)
        if len(lost):
            msg = f"{len(lost)} labels of {layer.name} do not lie on the image"
            raise SessionError(msg)
        labels = found
    on_image: NDArray[np.int64] = image.of_own_array(labels)
    return on_image


def _from_image(image: Layer, layer: Layer) -> tuple[Any, Any]:
    """Return matrix and offset that lead from an image's indices to a layer's.

    (None, None) where it has other axes.
    """
    if layer.ndim != image.ndim:
        return None, None
    corners = [np.zeros(image.ndim), *np.eye(image.ndim)]
    at = [world_to_index(layer, image.data_to_world(corner)) for corner in corners]
    return np.stack([place - at[0] for place in at[1:]], axis=1), at[0]


def points_on(
    image: WorkingImage, layer: Points, leading: Sequence[float] = ()
) -> NDArray[np.float64]:
    """Return a layer's points in an image's indices, in the working order.

    ``leading`` are world coordinates of axes that the points do not have.
    """
    ndim, anchor = image.own_ndim, image.anchor()
    if layer.ndim + len(leading) < ndim:
        raise SessionError(f"{layer.name} has {layer.ndim} axes, the image {ndim}")
    data = []
    for point in np.asarray(layer.data, float):
        world = tuple(layer.data_to_world(point))
        world = (*leading[: max(ndim - len(world), 0)], *world)
        data.append(image.of_own(world_to_index(anchor, world)))
    return np.array(data, float).reshape(-1, len(image.shape))


def to_rgba(colour: str) -> tuple[float, float, float, float]:
    """Return ``#rrggbb`` as four numbers in [0, 1], opaque."""
    r, g, b = (value / 255 for value in bytes.fromhex(colour[1:]))
    return r, g, b, 1.0


def holds(shape: Sequence[int], place: Iterable[float]) -> bool:
    """Return whether a place, in array indices, lies in a pixel of an array."""
    return all(-0.5 <= v < n - 0.5 for v, n in zip(place, shape, strict=True))


def _latest_sides(objects: Mapping[int, ObjectState]) -> list[tuple[int, ...]]:
    """Return the height and width of the latest objects' masks, the last one first."""
    latest = (
        state.mask.mask.shape
        for other in reversed([*objects.values()])
        for state in reversed([*other.planes.values()])
        if state.mask.mask.size
    )
    return [*islice(latest, _LATEST_OBJECTS)]


def usual_side(objects: Mapping[int, ObjectState]) -> float | None:
    """Return the smaller side of the latest objects, in pixels; None without any."""
    sides = [min(shape) for shape in _latest_sides(objects)]
    return float(np.median(sides)) if sides else None


def camera_of(viewer: ViewerModel) -> Any:
    """Return a viewer's camera; napari 0.8 has no scene."""
    return getattr(viewer, "scene", viewer).camera


def _is_opaque_image(layer: Layer) -> bool:
    from napari.layers import Image

    opaque = ("opaque", "translucent", "translucent_no_depth")
    shown = layer.visible and layer.opacity > 0.5 and layer.blending in opaque
    return type(layer) is Image and shown


class Listener:
    """Listens until it is closed, and marks what we write ourselves.

    What is followed are events, or lists of what a viewer or a layer calls for the
    mouse. ``layer`` is the one that is written to.
    """

    def __init__(
        self, *followed: tuple[Any, Callable[..., object]], layer: Layer | None = None
    ) -> None:
        self.writing = False
        self._layer = layer
        self._followed = followed
        for event, act in followed:
            (event.append if isinstance(event, list) else event.connect)(act)

    def close(self) -> None:
        """Listen no more."""
        for event, act in self._followed:
            if not isinstance(event, list):
                event.disconnect(act)
            elif act in event:
                event.remove(act)

    @contextmanager
    def own_writes(self) -> Iterator[None]:
        """Let ``writing`` be true meanwhile.

        SPEED: for any event of a layer Qt lays out and paints the list of layers, for
        5 ms; of our writes it shows nothing but the thumbnail.
        """
        before, self.writing = self.writing, True
        events = None if self._layer is None else self._layer.events
        try:
            with unheard(events, "_reemit_child_event"):
                yield
        finally:
            self.writing = before


def unheard(emitter: Any, name: str) -> ExitStack:
    """Return a block of those who hear an emitter with a method of this name.

    For what napari does at any change, and does not let be done without: the names are
    not public. Where there is none, nothing is blocked.
    """
    blocks = ExitStack()
    for found in () if emitter is None else emitter.callbacks:
        if isinstance(found, tuple) and found[1] == name and found[0]() is not None:
            blocks.enter_context(emitter.blocker(getattr(found[0](), name)))
    return blocks


def import_for_layers() -> ModuleType:
    """Import what napari does for its first Labels and its first Points layer."""
    with suppress(ImportError):
        import_module("skimage.color.colorconv")
    return import_module("pandas")


def add_unselected(
    viewer: ViewerModel, layer: Layer, above: Layer | None = None
) -> None:
    """Add a layer on top or above another one; the selection stays.

    SPEED: napari selects it, and would show its controls, and then the others'. It
    makes what its painting tools draw with it, for 50 ms more: each of these comes
    in a turn of the event loop of its own. There is no public way to them.
    """
    tools = [t for t in vars(layer).get("_overlays", {}).values() if t.visible]
    for tool in tools:
        tool.visible = False
    layers = viewer.layers
    with layers.selection.events.blocker_all():
        active = layers.selection.active
        layers.insert(len(layers) if above is None else layers.index(above) + 1, layer)
        layers.selection.active = active

    def show_next() -> None:
        if tools:
            tools.pop().visible = True
            QTimer.singleShot(_TOOLS_MS, show_next)

    QTimer.singleShot(_TOOLS_MS, show_next)


def kept_in_place(image: WorkingImage, *layers: Layer) -> Listener:
    """Lay layers on an image again whenever one of them, or the image, is moved."""
    names = ("scale", "translate", "rotate", "shear", "affine")

    def put_back() -> None:
        if listener.writing:
            return
        wanted = image.placement()
        with listener.own_writes():
            for layer in layers:
                for name in names:
                    setattr(layer, name, wanted[name])

    moved = [layer.events for layer in (image.layer, *layers)]
    listener = Listener(
        *((getattr(events, name), put_back) for events in moved for name in names)
    )
    return listener


class PlaneView:
    """The part of an image that the viewer shows, in world coordinates.

    ``labels`` is a layer on exactly the image's pixels.
    """

    def __init__(self, viewer: ViewerModel, image: WorkingImage, labels: Labels):
        self.viewer = viewer
        self.image = image
        self.labels = labels

    @property
    def current_plane(self) -> Plane:
        """The plane the viewer shows, or the nearest one the image has."""
        plane, _ = self.place(self.viewer.dims.point)
        sides = zip(plane, self.image.shape, strict=False)
        return tuple(min(max(i, 0), n - 1) for i, n in sides)

    def show(self, plane: Plane, yx: tuple[float, float] | None = None) -> None:
        """Let the viewer show a plane, and centre (row, column) of it."""
        layer = self.image.layer
        place = self.image.to_layer([*plane, *(yx or (0, 0))])
        world = np.asarray(layer.data_to_world(np.array(place, float)))
        missing = self.viewer.dims.ndim - layer.ndim
        for own in self.image.axes[:-2]:
            self.viewer.dims.set_point(missing + own, float(world[own]))
        if yx is not None:
            camera = camera_of(self.viewer)
            shown = [axis - missing for axis in self.viewer.dims.displayed]
            camera.center = (*camera.center[: -len(shown)], *world[shown])

    def why_not(self, world: Sequence[float]) -> str:
        """Return why a click at a world position would not count; "" if it would."""
        order = shown_order(self.viewer, self.image.layer, self.image.channel_axis)
        if order == self.image.order:
            return "" if self.locate(world) else "That click is not on the image."
        if self.viewer.dims.ndisplay != 2:
            return "Clicks count in the 2-D view: leave the 3-D one (Ctrl+Y)."
        if order is None:
            return "This view shows no plane of the image: roll its axes (Ctrl+E)."
        mine = "".join(self.image.plane_names[-2:])
        return (
            f"The objects here are annotated on {mine} planes: roll the axes back "
            "(Ctrl+E), or duplicate the image to annotate others in this view."
        )

    def covering(self, world: Sequence[float]) -> Image | None:
        """Return the opaque image that hides this one at a world position."""
        layers = list(self.viewer.layers)
        above = layers[layers.index(self.image.layer) + 1 :]
        for layer in reversed(above):
            if layer in self.image.layers or not _is_opaque_image(layer):
                continue
            place = world_to_index(layer, world)[-2:]
            if holds(layer.data.shape[: layer.ndim][-2:], place):
                return layer
        return None

    def locate(
        self, world: Sequence[float]
    ) -> tuple[Plane, tuple[float, float]] | None:
        """Return the plane and (row, column) of a world position; None if off it."""
        plane, yx = self.place(world)
        return (plane, yx) if holds(self.image.shape, (*plane, *yx)) else None

    def contains(self, yx: tuple[float, float]) -> bool:
        """Return whether (row, column) lies in a pixel of the plane."""
        return holds(self.image.plane_shape, yx)

    def translate_to(self, index: Sequence[float]) -> NDArray[np.float64]:
        """Return the translation of a layer whose first pixel is this one's."""
        layer = self.labels
        here = np.asarray(layer.data_to_world(np.asarray(index, float)))
        shift = here - np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
        linear = layer.affine.linear_matrix
        return np.asarray(layer.translate, float) + np.linalg.solve(linear, shift)

    def visible_box(self) -> Box:
        """Return the box of the plane that the viewer shows."""
        labels, axes = self.labels, list(self.image.own_axes[-2:])
        factors = np.asarray(labels.downsample_factors[labels.data_level], float)
        corners = np.asarray(labels.corner_pixels, float)
        corners[1] += 1
        corners *= factors
        (y0, x0), (y1, x1) = np.round(corners[:, axes]).astype(int).tolist()
        return overlap((y0, x0, y1, x1), (0, 0, *self.image.plane_shape))

    def size_hint(
        self, objects: Mapping[int, ObjectState], box: Box | None = None
    ) -> FocusHint | None:
        """Return a new object's likely size: from its box, earlier ones or the zoom."""
        if box is not None:
            side = max(box[2] - box[0], box[3] - box[1])
            return FocusHint(_OVER_BOX * side, spread=_BOX_SPREAD)
        extents = [float(max(sides)) for sides in _latest_sides(objects)]
        if len(extents) >= _HINT_OBJECTS:
            return FocusHint.from_extents(extents)
        y0, x0, y1, x1 = self.visible_box()
        visible = float(max(y1 - y0, x1 - x0)) - 1
        if 0 < visible < min(max(self.image.plane_shape) / 2, _WIDEST_HINT_PX):
            return FocusHint.from_view(visible)
        return None

    def place(self, world: Sequence[float]) -> tuple[Plane, tuple[float, float]]:
        """Return the plane and (row, column) of a world position, on it or not."""
        *leading, y, x = self.image.of_own(world_to_index(self.labels, world))
        return tuple(int(np.floor(v + 0.5)) for v in leading), (y, x)
