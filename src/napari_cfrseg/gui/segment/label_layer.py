"""The Labels layer: show the annotator's labels, and read what a person paints.

A copy of each plane, as this module last left it, tells a person's strokes from our own
writes without reading napari's undo history, whose contents are not public.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cfrseg.annotation.events import Painted
from napari_cfrseg.annotation.state import PALETTE_SIZE, ObjectState, default_colour
from napari_cfrseg.geometry.masks import LabelArray, LabelRuns, Plane
from napari_cfrseg.gui.segment.layers import MOST_OBJECTS, Listener, PlaneView, to_rgba
from napari_cfrseg.gui.segment.working_image import WorkingImage
from napari_cfrseg.io.tiled_labels import (
    MANY_PX,
    AnyLabels,
    TiledLabels,
    write_runs,
)

if TYPE_CHECKING:
    from napari.layers import Labels

#: of the objects' labels
OPACITY = 0.45
#: width of an outline
OUTLINE_PX = 2
#: pixels that napari writes in about 10 ms
_LARGEST_PREVIEW_PX = 200_000


def make_labels(
    image: WorkingImage, name: str, tiles: TiledLabels | None = None
) -> Labels:
    """Return an empty Labels layer on an image's pixels; of tiles, a multiscale one."""
    from napari.layers import Labels
    from napari.layers.base import LayerLock

    # napari shows 16-bit labels as they are; wider ones it converts at each change
    if tiles is None:
        data: Any = np.zeros(image.to_own(image.shape, 1), np.uint16)
    else:
        data = [image.own_array(level) for level in tiles.levels]
    layer = Labels(
        data,
        multiscale=tiles is not None,
        name=name,
        opacity=OPACITY,
        **image.placement(),
    )
    layer.locked = LayerLock.DELETION
    outline_quickly(layer)
    return layer


def outline_quickly(layer: Labels) -> None:
    """Let napari outline a layer's labels by :func:`outlined`.

    SPEED: its own way takes 32 ms for 1,024² labels, with each change of the data, and
    this one 2. There is no public way; without this name napari does it itself.
    """

    def contours(labels: Any, part: tuple[slice, ...]) -> Any:
        px = int(layer.contour)
        if px < 1 or labels.ndim > 2:
            return None
        reach = tuple(slice(max(s.start - px, 0), s.stop + px) for s in part)
        inside = (
            slice(s.start - r.start, s.stop - r.start)
            for s, r in zip(part, reach, strict=True)
        )
        return outlined(labels[reach], px)[tuple(inside)]

    if hasattr(layer, "_calculate_contour"):
        vars(layer)["_calculate_contour"] = contours


def outlined(labels: Any, px: int) -> Any:
    """Return (h, w) labels where another one, or none, is within ``px`` pixels; else 0.

    Beyond the border each is taken to go on.
    """
    edge = np.logical_or.reduce([labels != one for one in _beside(labels)])
    for _ in range(px - 1):
        edge = np.logical_or.reduce([edge, *_beside(edge)])
    return labels * edge


def _beside(array: Any) -> tuple[Any, ...]:
    """Return each pixel's four neighbours."""
    wide = np.pad(array, 1, mode="edge")
    return wide[2:, 1:-1], wide[:-2, 1:-1], wide[1:-1, 2:], wide[1:-1, :-2]


class LabelLayer:
    """Writes patches to a Labels layer and reads strokes from it.

    ``painted`` is called with each stroke a person painted, an event for each plane
    that it touched, ``chosen`` with the label they selected in the layer's controls,
    ``say`` with a line for the dock.
    """

    def __init__(
        self,
        planes: PlaneView,
        painted: Callable[..., None],
        chosen: Callable[[int], None],
        say: Callable[[str], None],
    ) -> None:
        self.layer = layer = planes.labels
        self._say = say
        self._planes = planes
        self._painted = painted
        self._chosen = chosen
        self._shown: dict[Plane, LabelArray] = {}
        self._preview: list[LabelRuns] = []
        self._colours: tuple[dict[int, str], int] | None = None
        self._image = planes.image
        self.plane_shape = planes.image.plane_shape
        self._awaited = False
        self._listener = Listener(
            (layer.events.paint, self._on_paint),
            (layer.events.labels_update, self._on_update),
            (layer.events.data, self._on_data),
            (layer.events.selected_label, self._on_selected),
            layer=layer,
        )
        self._polygon, layer.paint_polygon = layer.paint_polygon, self._paint_polygon
        self._set_colours({})

    def close(self) -> None:
        """Listen no more, and leave the layer to napari's own tools."""
        self._listener.close()
        vars(self.layer).pop("paint_polygon", None)

    def paste(self, patches: Iterable[LabelRuns]) -> None:
        """Write patches, in order, as one step of the layer's own history."""
        undo_preview = [patch.inverted() for patch in reversed(self._preview)]
        self._preview.clear()
        with self._own_step():
            for patch in (*undo_preview, *patches):
                self._write(patch)

    def preview(self, patch: LabelRuns) -> None:
        """Show a patch until the next paste or preview takes its place.

        Very large ones are not shown: the time is better spent on the next step.
        """
        if patch.size > _LARGEST_PREVIEW_PX:
            return
        self.paste(())
        self.preview_more((patch,))

    def preview_more(self, patches: Iterable[LabelRuns]) -> None:
        """Show patches on top of those shown, until the next paste or preview."""
        with self._own_step():
            for patch in patches:
                self._preview.append(patch)
                self._write(patch)

    def restore(self, labels: Mapping[Plane, AnyLabels]) -> None:
        """Make planes show exactly the given labels (after a refused stroke)."""
        self._preview.clear()
        with self._own_step():
            for plane, found in labels.items():
                wanted = np.asarray(found)
                shown = self._on_layer(plane)
                box = (0, 0, *self.plane_shape)
                runs = LabelRuns.between(plane, self.plane_shape, box, shown, wanted)
                self._write(runs)
                self._shadow(plane)[:] = wanted

    def show_objects(self, objects: Mapping[int, ObjectState]) -> None:
        """Give every label its object's colour."""
        own = {
            i: state.colour
            for i, state in objects.items()
            if state.colour != default_colour(i)
        }
        # the palette repeats; once an object has a colour of its own, labels that
        # share its place in the palette must not share that colour
        self._set_colours(own, max(objects) if own else 0)

    def select(self, label: int) -> None:
        """Let the layer's own tools paint an object's label."""
        with self._listener.own_writes():
            self.layer.selected_label = min(label, MOST_OBJECTS)

    def let_paint(self, on: bool) -> None:
        """Offer napari's tools on the layer, or not."""
        self.layer.editable = on

    def show_outlines(self, on: bool) -> None:
        """Draw objects as outlines, or filled; a width that was chosen stays."""
        if on != bool(self.layer.contour):
            self.layer.contour = OUTLINE_PX if on else 0

    def object_at(self, plane: Plane, yx: tuple[float, float]) -> int:
        """Return the label shown at (row, column) of a plane; 0 is the background."""
        y, x = (round(v) for v in yx)
        return int(self._on_layer(plane)[y, x])

    @contextmanager
    def _own_step(self) -> Iterator[None]:
        """Write to the layer as one step of its own history."""
        with self._listener.own_writes(), self.layer.block_history():
            yield

    def _write(self, patch: LabelRuns) -> None:
        if not patch.size:
            return
        if patch.size >= MANY_PX:  # napari would keep each one's index for its undo
            write_runs(self._shadow(patch.plane), (), patch)
            own = self._image.of_own_array(self.layer.data)
            write_runs(own, patch.plane, patch)
            self.layer.refresh()
            return
        y, x = patch.indices()
        values = patch.values()
        self._shadow(patch.plane)[y, x] = values
        self._set(patch.plane, y, x, values)

    def _set(self, plane: Plane, y: Any, x: Any, values: Any) -> None:
        leading = (np.full(y.shape, i) for i in plane)
        places = self._image.to_own((*leading, y, x), np.zeros(y.shape, int))
        self.layer.data_setitem(places, values)

    def _on_layer(self, plane: Plane) -> LabelArray:
        return np.asarray(self._image.of_own_array(self.layer.data)[plane])

    def _shadow(self, plane: Plane) -> LabelArray:
        if plane not in self._shown:
            self._shown[plane] = np.zeros(self.plane_shape, np.int32)
        return self._shown[plane]

    def _on_paint(self) -> None:
        # outside a mouse stroke napari announces the paint before it is on the layer
        if not self._listener.writing:
            self._awaited = not self._read_strokes()

    def _paint_polygon(self, points: Any, new_label: int) -> None:
        """Let napari's polygon tool replace the label's mask on the plane shown."""
        plane = self._planes.current_plane
        with self._listener.own_writes():
            if str(self.layer.mode) == "polygon" and new_label:
                y, x = np.nonzero(self._on_layer(plane) == new_label)
                self._set(plane, y, x, 0)
            self._polygon(points, new_label)
        self._read_strokes()

    def _on_selected(self) -> None:
        if not self._listener.writing:
            self._chosen(int(self.layer.selected_label))

    def _on_update(self) -> None:
        if self._awaited and not self._listener.writing:
            self._awaited = not self._read_strokes()

    def notice(self) -> None:
        """Read what was written into the layer's array without an event."""
        if not self._listener.writing:
            self._read_strokes()

    def _on_data(self) -> None:
        """Take an array that another program put in as strokes, or put ours back."""
        if self._listener.writing:
            return
        found, image = np.asarray(self.layer.data), self._image
        kept = np.zeros(image.to_own(image.shape, 1), np.uint16)
        fits = found.shape == kept.shape and (
            found.min(initial=0) >= 0 and found.max(initial=0) <= MOST_OBJECTS
        )
        if fits:  # a copy of our type: every number fits, and no one else writes to it
            kept[...] = found
        else:
            for plane, shown in self._shown.items():
                image.of_own_array(kept)[plane] = shown
            said = (
                f"Labels of shape {found.shape}, up to {found.max(initial=0)}, do not"
            )
            self._say(f"{said} fit the image {kept.shape}: objects stay as they were.")
        with self._listener.own_writes():
            self.layer.data = kept
        if fits:
            self._read_strokes(everywhere=True)

    def _read_strokes(self, everywhere: bool = False) -> bool:
        """Tell what a person painted since the last look; False if nothing."""
        planes: Iterable[Plane] = (self._planes.current_plane,)
        if everywhere or self.layer.n_edit_dimensions > 2:
            planes = np.ndindex(*self._image.shape[:-2])
        strokes: list[Painted] = []
        for plane in planes:
            labels = self._on_layer(plane)
            shadow = self._shadow(plane)
            changed = labels != shadow
            if changed.any():
                runs = LabelRuns.from_labels(labels, changed, self.plane_shape)
                shadow[changed] = labels[changed]
                stroke = Painted(plane, runs, holds=True, together=bool(strokes))
                strokes.append(stroke)
        if strokes:
            self._painted(*strokes)
        return bool(strokes)

    def _set_colours(self, own: dict[int, str], highest: int = 0) -> None:
        length = PALETTE_SIZE * (highest // PALETTE_SIZE + 1)
        if (own, length) == self._colours:
            return
        self._colours = (dict(own), length)
        colours = (own.get(i) or default_colour(i) for i in range(1, length + 1))
        with self._listener.own_writes():
            self.layer.colormap = colormap_of(colours)


def colormap_of(colours: Iterable[str]) -> Any:
    """Return napari's colours of labels 1, 2, …, which take turns (``#rrggbb``)."""
    from napari.utils.colormaps import CyclicLabelColormap

    background = (0.0, 0.0, 0.0, 0.0)
    listed = np.array([background, *map(to_rgba, colours)], np.float32)
    return CyclicLabelColormap(listed)
