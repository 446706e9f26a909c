"""A pyramid too large for one array, on the spot: clicks, strokes, undo, sessions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from closed_form import FloodNetwork
from napari.components import ViewerModel
from napari.layers import Labels
from sync_runner import HeldRunner

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.io.tiled_labels import TiledLabels, label_runs

SIDE = 20_000
#: first pixel of each of the squares, across tiles and at the end
SQUARES = ((7_600, 7_600), (7_600, 7_700), (SIDE - 64, SIDE - 64))


class Field:
    """A lazy level of a dark plane with bright squares of 40 pixels."""

    dtype = np.dtype(np.uint8)
    ndim = 2

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.shape = (SIDE // factor, SIDE // factor)
        self.size = self.shape[0] * self.shape[1]
        self.largest_read = 0
        self.fails = False

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        if self.fails:
            raise TimeoutError("the server does not answer")
        rows, columns = (np.arange(n)[k] for k, n in zip(key, self.shape, strict=True))
        self.largest_read = max(self.largest_read, rows.size * columns.size)
        pixels = np.zeros((rows.size, columns.size), np.uint8)
        for y, x in SQUARES:
            inside = [
                (values * self.factor >= low) & (values * self.factor < low + 40)
                for values, low in ((rows, y), (columns, x))
            ]
            pixels[np.outer(*inside)] = 200
        return pixels

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:, :]


class Bench:
    """A viewer with such a pyramid and a controller."""

    def __init__(self) -> None:
        self.viewer = ViewerModel()
        self.levels = [Field(2**k) for k in range(7)]
        self.image = self.viewer.add_image(
            self.levels, multiscale=True, name="slide", scale=(0.5, 0.5)
        )
        self.told: list[str] = []
        self.controller = Controller(
            self.viewer,
            self.image,
            HeldRunner(),
            lambda: Segmenter(FloodNetwork(), device="cpu"),
            lambda level, text: self.told.append(text),
        )
        self.labels = self.controller.labels.layer
        self.look_at(7_600, 7_600, 600)

    @property
    def tiles(self) -> TiledLabels:
        found = self.labels.data[0]
        assert isinstance(found, TiledLabels)
        return found

    def look_at(self, y: float, x: float, side: float) -> None:
        """Show so many pixels around a place, as a canvas of 600² would."""
        box = np.array([[y - side / 2, x - side / 2], [y + side / 2, x + side / 2]])
        for layer in self.viewer.layers:
            layer._update_draw(0.5 * side / 600, box * 0.5, (600, 600))

    def click(self, y: float, x: float) -> None:
        self.controller.clicked((y * 0.5, x * 0.5))

    def agrees(self) -> bool:
        """Every level shows what the annotator holds."""
        held = self.controller.annotator.labels(())
        return label_runs(self.tiles) == label_runs(held)

    def stroke(self, *places: tuple[float, float]) -> None:
        """Drag with the layer's tool, as napari hands the mouse on."""
        event = SimpleNamespace(
            type="mouse_press",
            position=tuple(0.5 * v for v in places[0]),
            view_direction=None,
            dims_displayed=[0, 1],
            button=1,
        )
        steps = [act(self.labels, event) for act in self.labels.mouse_drag_callbacks]
        running = [s for s in steps if s is not None and next(s, self) is not self]
        for place in places[1:]:
            event.type, event.position = "mouse_move", tuple(0.5 * v for v in place)
            running = [s for s in running if next(s, self) is not self]
        event.type = "mouse_release"
        for step in running:
            next(step, None)


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.controller.close()


def test_click_gives_the_object_at_full_resolution(bench) -> None:
    bench.click(7_620, 7_620)
    bench.controller.new_object()
    bench.click(SIDE - 40, SIDE - 40)
    expected = np.zeros((60, 60), int)
    expected[10:50, 10:50] = 1
    assert np.array_equal(bench.tiles[7_590:7_650, 7_590:7_650], expected)
    assert bench.tiles[SIDE - 64 : SIDE - 24, SIDE - 64 : SIDE - 24].min() == 2
    assert bench.tiles.runs().size == 2 * 40**2
    assert bench.agrees()
    assert max(level.largest_read for level in bench.levels) < 5_000_000
    for level, array in enumerate(bench.labels.data):
        assert array[(7_620 >> level), (7_620 >> level)] == 1


def test_click_in_an_overview_finds_a_small_object(bench) -> None:
    bench.look_at(SIDE / 2, SIDE / 2, SIDE)
    assert bench.labels.data_level > 2
    bench.click(7_620, 7_720)
    assert 40**2 - 8 <= bench.tiles.runs().size <= 40**2


def test_undo_redo_delete_and_lock_are_as_on_a_small_plane(bench) -> None:
    bench.click(7_620, 7_620)
    bench.controller.undo()
    assert bench.tiles.runs().size == 0
    assert not np.asarray(bench.labels.data[-1]).any()
    bench.controller.redo()
    assert bench.tiles.runs().size == 40**2
    bench.controller.submit(ev.ObjectLocked(1, True))
    bench.click(7_625, 7_625)
    assert "locked" in bench.told[-1]
    assert bench.agrees()
    bench.controller.submit(ev.ObjectLocked(1, False))
    bench.controller.select(1)
    bench.controller.delete_selected()
    assert list(bench.tiles.tiles()) == []
    assert bench.agrees()


def test_brush_and_eraser_paint_and_one_undo_takes_a_stroke_back(bench) -> None:
    bench.click(7_620, 7_620)
    before = bench.tiles.runs()
    bench.labels.mode, bench.labels.brush_size = "paint", 9
    bench.stroke((7_700, 7_620), (7_700, 7_650), (7_705, 7_680))
    assert bench.tiles[7_700, 7_640] == 1
    assert bench.tiles[7_704, 7_680] == 1
    assert bench.agrees()
    bench.labels.mode = "erase"
    bench.stroke((7_610, 7_605), (7_610, 7_635))
    assert bench.tiles[7_610, 7_620] == 0
    assert bench.agrees()
    bench.controller.undo()
    assert bench.tiles[7_610, 7_620] == 1
    bench.controller.undo()
    assert bench.tiles.runs() == before
    assert bench.agrees()


def test_a_stroke_is_drawn_once_and_makes_no_layer(bench, monkeypatch) -> None:
    """Each costs as much as the stroke itself."""
    bench.click(7_620, 7_620)
    bench.labels.mode = "paint"
    bench.stroke((7_500, 7_500))
    drawn, made = [], []
    bench.labels.events.set_data.connect(lambda: drawn.append(1))
    begin = Labels.__init__
    monkeypatch.setattr(
        Labels,
        "__init__",
        lambda self, *a, **k: (made.append(1), begin(self, *a, **k))[1],
    )
    bench.look_at(7_600, 7_600, 500)
    drawn.clear()
    bench.stroke((7_520, 7_560))
    assert (len(drawn), made) == (1, [])
    assert bench.tiles[7_520, 7_560] == 1
    assert bench.agrees()


def test_bucket_and_polygon_work_in_what_is_seen(bench) -> None:
    bench.click(7_620, 7_620)
    bench.labels.selected_label = 4
    bench.labels.fill((7_620, 7_620), 4)
    assert bench.tiles[7_601, 7_601] == 4
    assert bench.tiles.runs().size == 40**2
    bench.labels.paint_polygon([(7_650, 7_650), (7_650, 7_690), (7_690, 7_650)], 5)
    assert bench.tiles[7_655, 7_655] == 5
    assert bench.agrees()


def test_far_away_the_brush_says_that_one_has_to_zoom_in(bench) -> None:
    bench.look_at(SIDE / 2, SIDE / 2, SIDE)
    bench.labels.mode = "paint"
    bench.labels.selected_label = 1
    bench.stroke((9_000, 9_000), (9_900, 9_900))
    assert bench.controller.view.status.startswith("Zoom in to paint")
    assert bench.tiles.runs().size == 0


def test_a_store_that_fails_loses_nothing_and_the_next_click_tries_again(bench) -> None:
    bench.click(7_620, 7_620)
    before = bench.tiles.runs()
    bench.controller.new_object()
    bench.levels[0].fails = True
    bench.click(SIDE - 40, SIDE - 40)
    assert bench.told == ["the image cannot be decoded: the server does not answer"]
    assert bench.tiles.runs() == before
    assert len(bench.controller.view.objects) == 1
    bench.levels[0].fails = False
    bench.click(SIDE - 40, SIDE - 40)
    assert len(bench.told) == 1
    assert bench.tiles[SIDE - 40, SIDE - 40] == 2
    assert bench.agrees()


def test_in_three_dimensions_nothing_is_painted(bench) -> None:
    bench.viewer.dims.ndisplay = 3
    assert not bench.labels.editable
    bench.viewer.dims.ndisplay = 2
    assert bench.labels.editable


def test_a_refused_stroke_goes_again(bench) -> None:
    bench.click(7_620, 7_620)
    bench.controller.submit(ev.ObjectLocked(1, True))
    bench.labels.selected_label = 2
    bench.labels.mode, bench.labels.brush_size = "paint", 9
    bench.stroke((7_610, 7_590), (7_610, 7_620))
    assert bench.tiles[7_610, 7_595] == 2
    assert bench.tiles[7_610, 7_615] == 1
    assert bench.agrees()


def test_closed_layers_are_left_as_they_are() -> None:
    bench = Bench()
    bench.click(7_620, 7_620)
    bench.controller.close()
    assert not bench.labels.editable
    assert bench.tiles.runs().size == 40**2
