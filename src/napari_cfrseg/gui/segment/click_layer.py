"""The Points layer: each point is a click, each click is a point.

Points are told apart by row in napari and by number in the annotator; this module
keeps the one list that says which is which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from napari.layers.base import ActionType

from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.segment.layers import WorkingImage, to_rgba
from napari_cfrseg.io.axes import Order, back, put

if TYPE_CHECKING:
    from napari.layers import Points

#: Okabe and Ito's colours: told apart with any kind of colour vision
COLOURS = {True: "#56b4e9", False: "#d55e00"}
SYMBOLS = {True: "disc", False: "x"}
NAMES = {True: "positive", False: "negative"}
_RIGHT_BUTTON = 2


def make_points(image: WorkingImage, name: str) -> Points:
    """Return a Points layer on an image's pixels, with the clicks' feature columns."""
    from napari.layers import Points
    from napari.layers.base import LayerLock

    ndim = len(image.shape)
    columns = ("polarity", "object", "click")
    features = {column: np.array([], dtype=object) for column in columns}
    layer = Points(
        np.zeros((0, ndim)),
        ndim=ndim,
        name=name,
        features=features,
        feature_defaults={"polarity": "positive", "object": "", "click": ""},
        size=max(3.0, min(image.plane_shape) / 64),
        canvas_size_limits=(10, 15),
        border_width=0.05,
        border_color="white",
        **image.placement(),
    )
    layer.locked = LayerLock.DELETION
    return layer


@dataclass(frozen=True, slots=True)
class ClickRow:
    """One row of the Points layer."""

    click_id: int
    object_id: int
    plane: Plane
    yx: tuple[float, float]
    is_positive: bool

    @property
    def index(self) -> tuple[float, ...]:
        """The point's coordinates, in the order of planes."""
        return (*(float(i) for i in self.plane), *self.yx)


class ClickListener(Protocol):
    """Who is told what a person does with the points."""

    def point_added(self, index: Sequence[float], other_polarity: bool) -> None:
        """Make a click of a new point, or show the points without it."""

    def points_moved(self, rows: Sequence[ClickRow]) -> None:
        """Take note of rows with their new positions."""

    def points_removed(self, rows: Sequence[ClickRow]) -> None:
        """Take note of rows that are gone."""


class ClickLayer:
    """Keeps a Points layer and the list of clicks the same.

    Parameters
    ----------
    layer
        A Points layer with the clicks' feature columns.
    listener
        Told what a person does with the points.
    order
        Which of the layer's axes comes where in the planes' order; (): Y and X last.
    """

    def __init__(
        self, layer: Points, listener: ClickListener, order: Order = ()
    ) -> None:
        self.layer = layer
        self._listener = listener
        self._order = order
        self._rows: list[ClickRow] = []
        self._writing = False
        self._button = 1
        layer.events.data.connect(self._on_data)
        layer.mouse_drag_callbacks.insert(0, self._on_press)

    @property
    def rows(self) -> tuple[ClickRow, ...]:
        """The clicks, row by row."""
        return tuple(self._rows)

    def close(self) -> None:
        """Listen no more."""
        self.layer.events.data.disconnect(self._on_data)
        if self._on_press in self.layer.mouse_drag_callbacks:
            self.layer.mouse_drag_callbacks.remove(self._on_press)

    def show(self, rows: Sequence[ClickRow]) -> None:
        """Make the layer show these clicks; rows that stay keep their place."""
        wanted = {row.click_id: row for row in rows}
        kept = [wanted[r.click_id] for r in self._rows if r.click_id in wanted]
        known = {r.click_id for r in kept}
        kept += [row for row in rows if row.click_id not in known]
        same_length = len(kept) == len(self.layer.data)
        if kept == self._rows and same_length:
            return
        self._rows = kept
        ndim = self.layer.ndim
        places = [put(row.index, back(self._order)) for row in kept]
        data = np.array(places, float).reshape(-1, ndim)
        with self._own_writes():
            if not (same_length and np.allclose(data, self.layer.data)):
                self.layer.selected_data = set()
                self.layer.data = data
            self._style()

    def set_polarity(self, is_positive: bool) -> None:
        """Let the next point look like a click of this sign."""
        with self._own_writes():
            # else napari would give the look to the points selected
            self.layer.selected_data = set()
            self.layer.current_symbol = SYMBOLS[is_positive]
            self.layer.current_face_color = COLOURS[is_positive]

    def _style(self) -> None:
        """Give every point its click's symbol, colour and features."""
        rows = self._rows
        # strings: napari warns about integer columns once they carry colour
        self.layer.features = {
            "polarity": np.array([NAMES[r.is_positive] for r in rows], object),
            "object": np.array([str(r.object_id) for r in rows], object),
            "click": np.array([str(r.click_id) for r in rows], object),
        }
        if rows:
            signs = np.array([r.is_positive for r in rows])
            self.layer.symbol = np.where(signs, SYMBOLS[True], SYMBOLS[False])
            self.layer.face_color = np.where(
                signs[:, None], to_rgba(COLOURS[True]), to_rgba(COLOURS[False])
            )

    def _on_press(self, layer: Points, event: Any) -> None:
        """Remember the button: napari's add mode does not look at it."""
        if event.type == "mouse_press":
            self._button = int(event.button)

    def _on_data(self, event: Any) -> None:
        if self._writing:
            return
        if event.action == ActionType.ADDED:
            self._added(len(self.layer.data) - len(self._rows))
        elif event.action == ActionType.REMOVED:
            gone = {int(i) % max(len(self._rows), 1) for i in event.data_indices}
            removed = [r for i, r in enumerate(self._rows) if i in gone]
            self._rows = [r for i, r in enumerate(self._rows) if i not in gone]
            self._listener.points_removed(removed)
        elif event.action == ActionType.CHANGED:
            self._moved(event.data_indices)

    def _added(self, count: int) -> None:
        other, self._button = self._button == _RIGHT_BUTTON, 1
        for index in np.asarray(self.layer.data)[len(self._rows) :][:count]:
            self._listener.point_added(index, other)

    def _moved(self, indices: Sequence[int]) -> None:
        data = np.asarray(self.layer.data)
        moved = []
        for index in sorted({int(i) % max(len(self._rows), 1) for i in indices}):
            row = self._rows[index]
            y, x = (float(v) for v in put(data[index], self._order)[-2:])
            if (y, x) != row.yx:
                self._rows[index] = replace(row, yx=(y, x))
                moved.append(self._rows[index])
        if moved:
            self._listener.points_moved(moved)

    @contextmanager
    def _own_writes(self) -> Iterator[None]:
        before, self._writing = self._writing, True
        try:
            yield
        finally:
            self._writing = before
