"""The Labels layer of a plane too large for one array.

napari shows multiscale labels at every zoom, but cannot edit them: its tools write to
one array. Here they paint on a sheet, an ordinary Labels layer of the pixels in view
that no viewer has; what changes on it is written to the tiles behind all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation.events import Painted
from napari_cfrseg.geometry.masks import LabelRuns, Plane
from napari_cfrseg.geometry.windows import mask_box, slices
from napari_cfrseg.gui.segment.label_layer import LabelLayer
from napari_cfrseg.gui.segment.layers import Listener, PlaneView
from napari_cfrseg.io.tiled_labels import (
    AnyLabels,
    TiledLabels,
    read_box,
    write_runs,
)

if TYPE_CHECKING:
    from napari.layers import Labels

#: longest side of a view that can be painted on
_LONGEST_VIEW_PX = 4096
#: napari's own functions behind brush, eraser, bucket and polygon
_TOOLS = ("paint", "fill", "paint_polygon")


@dataclass(slots=True)
class _Sheet:
    """The pixels in view, being painted on.

    ``start`` are they before the stroke, ``written`` as the tiles have them.
    """

    plane: Plane
    origin: tuple[int, int]
    layer: Labels
    start: NDArray[Any]
    written: NDArray[Any]


class LargeLabelLayer(LabelLayer):
    """Writes patches to the tiles behind a Labels layer and reads strokes from it.

    ``tiles`` hold the layer's levels, axes in the working order. The rest is as of
    :class:`LabelLayer`.
    """

    def __init__(
        self,
        planes: PlaneView,
        painted: Callable[..., None],
        chosen: Callable[[int], None],
        say: Callable[[str], None],
        tiles: TiledLabels,
    ) -> None:
        super().__init__(planes, painted, chosen, say)
        self._tiles = tiles
        self._sheet: _Sheet | None = None
        self._paper: Labels | None = None
        self._in_stroke = False
        self._viewer = planes.viewer
        self._followed = Listener(
            (self._viewer.dims.events.ndisplay, self._follow_view),
            (self.layer.mouse_drag_callbacks, self._stroke),
        )
        for tool in _TOOLS:
            setattr(self.layer, tool, partial(self._edit, tool))
        self._follow_view()

    def close(self) -> None:
        """Listen no more; the layer cannot be painted on any more."""
        super().close()
        self._followed.close()
        self.layer.editable = False
        for tool in _TOOLS:
            vars(self.layer).pop(tool, None)

    def restore(self, labels: Mapping[Plane, AnyLabels]) -> None:
        """Make planes show exactly the given labels."""
        self._preview.clear()
        with self._own_step():
            for plane, wanted in labels.items():
                boxes = set(self._tiles.tiles(plane))
                if isinstance(wanted, TiledLabels):
                    boxes |= set(wanted.tiles())
                for box in boxes:
                    found = read_box(wanted, (), box)
                    if not np.array_equal(found, read_box(self._tiles, plane, box)):
                        self._tiles[(*plane, *slices(box))] = found

    def object_at(self, plane: Plane, yx: tuple[float, float]) -> int:
        """Return the label at (row, column) of a plane; 0 is the background."""
        y, x = (round(v) for v in yx)
        return int(self._tiles[(*plane, y, x)])

    @contextmanager
    def _own_step(self) -> Iterator[None]:
        before = self._tiles.writes
        with self._listener.own_writes():
            yield
        if self._tiles.writes != before:  # a stroke is on the layer already
            self._show()

    def _write(self, patch: LabelRuns) -> None:
        if patch.size:
            write_runs(self._tiles, patch.plane, patch)

    def notice(self) -> None:
        """Do nothing: only our tools write to the tiles."""

    def _on_data(self) -> None:
        if not self._listener.writing:
            own = self._image.own_array
            with self._listener.own_writes():
                self.layer.data = [own(level) for level in self._tiles.levels]
            self._say("Labels of so large an image are painted, not replaced.")

    def _show(self) -> None:
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def let_paint(self, on: bool) -> None:
        """Offer napari's tools on the layer, or not."""
        super().let_paint(on and self._viewer.dims.ndisplay == 2)

    def _follow_view(self) -> None:
        self.let_paint(True)

    # -- painting --------------------------------------------------------------------

    def _stroke(self, layer: Labels, event: Any) -> Iterable[None]:
        """Follow the mouse through a stroke."""
        if layer.mode not in ("paint", "erase", "fill"):
            return
        self._in_stroke = True
        yield
        while event.type == "mouse_move":
            self._show_sheet()
            yield
        self._in_stroke = False
        self._end()

    def _edit(
        self, tool: str, place: Sequence[Any], new_label: int, refresh: bool = True
    ) -> None:
        """Do what one of napari's tools does to the layer, on the sheet."""
        if self._sheet is None:
            self._sheet = self._new_sheet()
        sheet = self._sheet
        if sheet is None:
            return
        order = self._image.own_axes[-2:]
        places = np.asarray(place, float)[..., list(order)] - sheet.origin
        options = {} if tool == "paint_polygon" else {"refresh": False}
        getattr(sheet.layer, tool)(places, new_label, **options)
        if not self._in_stroke:
            self._end()

    def _new_sheet(self) -> _Sheet | None:
        """Copy what is in view; None, and say why, where that is too much."""
        from napari.layers import Labels

        y0, x0, y1, x1 = self._planes.visible_box()
        if max(y1 - y0, x1 - x0) > _LONGEST_VIEW_PX:
            self._say(
                f"Zoom in to paint: {max(y1 - y0, x1 - x0)} pixels are in view, "
                f"at most {_LONGEST_VIEW_PX} can be painted on."
            )
            return None
        plane = self._planes.current_plane
        start = read_box(self._tiles, plane, (y0, x0, y1, x1))
        # SPEED: napari takes 20 ms to make a layer, and 0.5 to give it other data
        layer = self._paper = self._paper or Labels(start.copy())
        layer.data = start.copy()
        for name in ("brush_size", "contiguous", "preserve_labels", "selected_label"):
            setattr(layer, name, getattr(self.layer, name))
        return _Sheet(plane, (y0, x0), layer, start, start.copy())

    def _show_sheet(self) -> None:
        """Write what changed on the sheet since the last look."""
        sheet = self._sheet
        if sheet is None:
            return
        now = np.asarray(sheet.layer.data)
        box = mask_box(now != sheet.written)
        if box is None:
            return
        y, x = sheet.origin
        there = (box[0] + y, box[1] + x, box[2] + y, box[3] + x)
        self._tiles[(*sheet.plane, *slices(there))] = now[slices(box)]
        sheet.written[slices(box)] = now[slices(box)]
        self._show()

    def _end(self) -> None:
        """Tell what was painted on the sheet, and put it away."""
        self._show_sheet()
        sheet, self._sheet = self._sheet, None
        if sheet is None:
            return
        now = np.asarray(sheet.layer.data)
        changed = now != sheet.start
        if changed.any():
            runs = LabelRuns.from_labels(now, changed, self.plane_shape, sheet.origin)
            self._painted(Painted(sheet.plane, runs, holds=True))
