"""Clicks of a person: on the canvas, and as points of the Points layer.

napari identifies points by row, the annotator by number; this module keeps the one
list that maps between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points
from napari.layers.base import ActionType, LayerLock
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.segment.layers import Listener, to_rgba, unheard
from napari_cfrseg.gui.segment.marker_size import MarkerSize
from napari_cfrseg.gui.segment.working_image import WorkingImage
from napari_cfrseg.overlay import SKY_BLUE, VERMILION, hex_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: (column, row) on the canvas, or ()
CanvasPlace = tuple[float, ...]
#: of positive and negative clicks
COLOURS = {True: hex_of(SKY_BLUE), False: hex_of(VERMILION)}
SYMBOLS = {True: "disc", False: "x"}
NAMES = {True: "positive", False: "negative"}
#: width of a point's border, as a share of its size
BORDER = 0.1
#: pixels of the screen that the mouse may move between press and release, as napari's
DRAG_PX = 5
#: after the last change, until the list of layers shows the points
_REST_MS = 500
#: by which a notch of the wheel moves the threshold of the outline
_WHEEL_STEP = 0.02


class Gesture(StrEnum):
    """Kinds of clicks on the canvas."""

    CLICK = "click"
    OTHER = "other"
    """a click of the other sign"""
    PICK = "pick"
    """selects the object under the pointer"""
    NONE = "none"


def gesture_of(event: Any) -> Gesture:
    """Return what a button with its modifiers means."""
    modifiers = list(event.modifiers)
    if event.button == 1 and modifiers == ["Alt"]:
        return Gesture.PICK
    if modifiers or event.button not in (1, 2):
        return Gesture.NONE
    return Gesture.CLICK if event.button == 1 else Gesture.OTHER


def moved_px(event: Any, start: NDArray[Any]) -> float:
    """Return how far the pointer is from a place on the canvas, in its pixels."""
    return float(np.linalg.norm(np.asarray(event.pos) - start))


def is_edited(layer: Any) -> bool:
    """Whether the mouse edits a layer now: it paints, draws or adds."""
    return layer is not None and str(layer.mode) != "pan_zoom"


def drag_of(event: Any) -> str:
    """Return what a drag with modifiers draws: "box", "stroke", or "" for nothing."""
    drawn = {("Shift", 1): "box", ("Control", 1): "stroke", ("Control", 2): "stroke"}
    modifiers = list(event.modifiers)
    return drawn.get((modifiers[0], event.button), "") if len(modifiers) == 1 else ""


def make_points(image: WorkingImage, name: str) -> Points:
    """Return a Points layer on an image's pixels, with the clicks' feature columns."""
    layer = Points(
        np.zeros((0, image.own_ndim)),
        ndim=image.own_ndim,
        name=name,
        features=features_of(()),
        feature_defaults={"polarity": "positive", "object": "", "click": ""},
        border_color="black",
        **image.placement(),
    )
    # napari takes no border width from an empty layer
    layer.current_border_width = BORDER
    layer.locked = LayerLock.DELETION
    return layer


def features_of(clicks: Iterable[tuple[bool, int, int]]) -> dict[str, Any]:
    """Return the feature columns of clicks given as (is positive, object, click).

    Strings: napari warns about integer columns once they carry colour.
    """
    listed = [(NAMES[sign], str(owner), str(number)) for sign, owner, number in clicks]
    columns = zip(*listed, strict=True) if listed else ((), (), ())
    names = ("polarity", "object", "click")
    return {n: np.array(c, object) for n, c in zip(names, columns, strict=True)}


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


class ClickLayer:
    """Keeps a Points layer (from :func:`make_points`) and the list of clicks the same.

    ``image`` is the one that is clicked on. ``clicked`` is called with the world
    position and the gesture of each click, ``moved`` with the rows of clicks that were
    dragged, ``removed`` with those that were deleted.
    """

    def __init__(
        self,
        layer: Points,
        viewer: ViewerModel,
        image: WorkingImage,
        clicked: Callable[[Sequence[float], Gesture], None],
        moved: Callable[[Sequence[ClickRow]], None],
        removed: Callable[[Sequence[ClickRow]], None],
    ) -> None:
        self.layer = layer
        self._image = image
        self._clicked, self._moved, self._removed = clicked, moved, removed
        self._rows: list[ClickRow] = []
        self._object: int | None = None
        self._own_only = False
        self._gesture = Gesture.CLICK
        self._pressed: Sequence[float] | None = None
        self._next_look: bool | None = None
        self.markers = MarkerSize(layer, viewer)
        self._events = Listener((layer.events.data, self._on_data), layer=layer)
        self._at_rest = QTimer(singleShot=True, interval=_REST_MS)
        self._at_rest.timeout.connect(self._show_thumbnail)
        layer.add = self._add
        layer.mouse_drag_callbacks.insert(0, self._on_press)

    @property
    def rows(self) -> tuple[ClickRow, ...]:
        """The clicks, row by row."""
        return tuple(self._rows)

    def close(self) -> None:
        """Listen no more."""
        self._at_rest.stop()
        self._events.close()
        self.markers.close()
        vars(self.layer).pop("add", None)
        if self._on_press in self.layer.mouse_drag_callbacks:
            self.layer.mouse_drag_callbacks.remove(self._on_press)

    def show(self, rows: Sequence[ClickRow]) -> None:
        """Make the layer show these clicks; rows that stay keep their place."""
        rows, before, found = list(rows), self._rows, np.asarray(self.layer.data)
        if rows[: len(before)] != before:
            wanted = {row.click_id: row for row in rows}
            kept = [wanted[r.click_id] for r in before if r.click_id in wanted]
            known = {r.click_id for r in kept}
            rows = kept + [row for row in rows if row.click_id not in known]
        same_length = len(rows) == len(found)
        if rows == before and same_length:
            return
        # often all but the last are shown already
        first = len(before) if len(found) >= len(before) else 0
        if rows[:first] != before:
            first = 0
        self._rows = rows
        places = [self._image.to_own(row.index) for row in rows[first:]]
        data = np.array(places, float).reshape(-1, self.layer.ndim)
        shrinks = first + len(data) < len(found)
        with self._events.own_writes(), self._one_change(shrinks=shrinks):
            if not (same_length and np.allclose(data, found[first:])):
                if self.layer.selected_data:
                    self.layer.selected_data = set()
                if len(data):  # SPEED: not set for all points where napari sets it
                    self.set_polarity(rows[-1].is_positive)
                self.layer.data = np.concatenate([found[:first], data])
            self._style(first)
        self._hide_others()

    @contextmanager
    def _one_change(self, *, shrinks: bool) -> Iterator[None]:
        """Change the layer, and have it drawn and announced once.

        SPEED: napari slices and draws at each part of a change, and its viewer goes
        through all layers for how far they reach, which points on an image never alter.
        There is no public way around either: without these names it does so again.
        Where points go (``shrinks``) it has to slice: a new colour is drawn at once,
        and what was shown before has more points than there are.
        """
        layer = self.layer
        at_once = (
            nullcontext if shrinks else getattr(layer, "_block_refresh", nullcontext)
        )
        with layer.events.blocker_all(), at_once():
            yield
        layer.refresh(thumbnail=False)
        self._at_rest.start()
        with unheard(layer.events.data, "_on_layers_change"):
            layer.events.data(
                value=layer.data,
                action=ActionType.CHANGED,
                data_indices=tuple(range(len(layer.data))),
                vertex_indices=((),),
            )
        layer.events.features()

    def _show_thumbnail(self) -> None:
        self.layer.refresh(data_displayed=False, highlight=False, extent=False)

    def show_object(self, object_id: int | None) -> None:
        """Take an object for the selected one."""
        if object_id != self._object:
            self._object = object_id
            self._hide_others()

    def show_own_only(self, on: bool) -> None:
        """Show the clicks of the selected object only, or all."""
        self._own_only = on
        self._hide_others()

    def _hide_others(self) -> None:
        shown = np.ones(len(self._rows), bool)
        if self._own_only:
            shown[:] = [row.object_id == self._object for row in self._rows]
        if len(shown) == len(self.layer.data) and (shown != self.layer.shown).any():
            self.layer.shown = shown

    def set_polarity(self, is_positive: bool) -> None:
        """Let the next point look like a click of this sign."""
        if self._next_look is is_positive:
            return
        self._next_look = is_positive
        with self._events.own_writes():
            # else napari would give the look to the points selected
            if self.layer.selected_data:
                self.layer.selected_data = set()
            self.layer.current_symbol = SYMBOLS[is_positive]
            self.layer.current_face_color = COLOURS[is_positive]

    def _style(self, first: int) -> None:
        """Give every point from one on its click's symbol, colour and features."""
        rows = self._rows[first:]
        features = features_of((r.is_positive, r.object_id, r.click_id) for r in rows)
        if not first:
            self.layer.features = features
        elif rows:
            table = self.layer.features
            for name, column in features.items():
                table.iloc[first:, table.columns.get_loc(name)] = column
        if not rows:
            return
        signs = np.array([r.is_positive for r in rows])
        symbols = np.where(signs, SYMBOLS[True], SYMBOLS[False])
        colours = (to_rgba(COLOURS[sign]) for sign in (True, False))
        painted = np.where(signs[:, None], *colours)
        has_symbols = [str(one) for one in self.layer.symbol[first:]] == [*symbols]
        if (
            first
            and has_symbols
            and np.allclose(self.layer.face_color[first:], painted)
        ):
            return  # napari has given them the look of their sign
        if not first:
            self.layer.border_width = BORDER
        self.layer.symbol = [*self.layer.symbol[:first], *symbols]
        self.layer.face_color = np.concatenate([self.layer.face_color[:first], painted])

    def of_point(self, world: Sequence[float]) -> tuple[float, ...]:
        """Return the world position that a point has which is added at one."""
        return tuple(self.layer.data_to_world(self.layer.world_to_data(world)))

    def _on_press(self, layer: Points, event: Any) -> Iterator[None]:
        """Remember the button and the place: napari's add mode looks at neither.

        A click is where the button was pressed, however the hand trembles after it.
        """
        self._gesture = gesture_of(event)
        start, self._pressed = np.asarray(event.pos), None
        if layer.mode == "add":
            self._pressed = event.position
        yield
        while event.type == "mouse_move":
            yield
        if moved_px(event, start) >= DRAG_PX:
            self._pressed = None  # napari adds no point

    def _on_data(self, event: Any) -> None:
        if self._events.writing:
            return
        if event.action == ActionType.ADDED:
            self._add(np.asarray(self.layer.data)[len(self._rows) :])
        elif event.action == ActionType.REMOVED:
            gone = {int(i) % max(len(self._rows), 1) for i in event.data_indices}
            removed = [r for i, r in enumerate(self._rows) if i in gone]
            self._rows = [r for i, r in enumerate(self._rows) if i not in gone]
            self._removed(removed)
        elif event.action == ActionType.CHANGED:
            self._read_moved(event.data_indices)

    def _add(self, coords: Any) -> None:
        """Turn points that are to be added into clicks, which :meth:`show` shows.

        SPEED: the worker begins before the layer is changed, and napari need not
        select the point, whose colour would hide its sign.
        """
        gesture, self._gesture = self._gesture, Gesture.CLICK
        pressed, self._pressed = self._pressed, None
        if pressed is not None:
            places = [self.of_point(pressed)]
        else:
            places = [*map(self.layer.data_to_world, np.atleast_2d(coords))]
        for world in places:
            self._clicked(world, gesture)

    def _read_moved(self, indices: Sequence[int]) -> None:
        data = np.asarray(self.layer.data)
        moved = []
        for index in sorted({int(i) % max(len(self._rows), 1) for i in indices}):
            row = self._rows[index]
            y, x = self._image.of_own(data[index])[-2:]
            if (y, x) != row.yx:
                self._rows[index] = replace(row, yx=(y, x))
                moved.append(self._rows[index])
        if moved:
            self._moved(moved)


class CanvasClicks:
    """Clicks on the canvas while another layer than the clicks' own is active.

    They count unless that layer is being edited (painted, drawn on): a click never
    does nothing only because the image is selected. A drag with Shift draws a box, one
    with Ctrl a stroke of clicks. The wheel with Shift moves the outline, and with Ctrl,
    too, unless napari moves through planes with it.

    ``clicked`` is as of :class:`ClickLayer`. ``drawn`` is called with the world
    positions of a drag, whether it is a box, and whether it is of the other sign;
    ``tighten`` with the step of the threshold; ``show_band`` with two places between
    which to show a box, () for none.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        points: Points,
        clicked: Callable[[Sequence[float], Gesture], None],
        drawn: Callable[[Sequence[Sequence[float]], bool, bool], None],
        tighten: Callable[[float], None],
        show_band: Callable[[CanvasPlace, CanvasPlace], None],
    ) -> None:
        self._viewer, self._points = viewer, points
        self._clicked, self._drawn = clicked, drawn
        self._tighten, self._show_band = tighten, show_band
        self.close = Listener(
            (viewer.mouse_drag_callbacks, self._on_press),
            (viewer.mouse_wheel_callbacks, self._on_wheel),
        ).close

    def _on_wheel(self, _: Any, event: Any) -> None:
        moves_planes = bool(self._viewer.dims.not_displayed)
        keys = ("Shift",) if moves_planes else ("Shift", "Control")
        if len(event.modifiers) == 1 and event.modifiers[0] in keys:
            steps = float(np.clip(np.sum(event.delta), -1, 1))
            self._tighten(-_WHEEL_STEP * steps)

    def _on_press(self, _: Any, event: Any) -> Iterator[None]:
        active = self._viewer.layers.selection.active
        # a plugin's viewer gives layers in proxies: equal, not the same
        adds = active == self._points and active.mode == "add"  # napari adds a point
        if not adds and is_edited(active):
            return
        gesture, drag, start = gesture_of(event), drag_of(event), np.asarray(event.pos)
        is_other, path, moved = event.button != 1, [event.position], 0.0
        yield
        while event.type == "mouse_move":
            moved = max(moved, moved_px(event, start))
            path.append(event.position)
            if drag == "box":
                self._show_band(tuple(start), tuple(event.pos))
            yield
        moved = max(moved, moved_px(event, start))  # napari leaves quick moves out
        path.append(event.position)
        self._show_band((), ())
        if drag and moved >= DRAG_PX:
            self._drawn(path, drag == "box", is_other)
        elif not adds and moved < DRAG_PX:
            self._clicked(path[0], gesture)
