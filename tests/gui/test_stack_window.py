"""Propagation in a real viewer: both ways, cancelled, corrected, undone, replayed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from closed_form import FloodNetwork
from gui_window import PLUGIN, Window
from npe2 import PluginManifest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QScrollArea
from replayed import replay

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment import dock as dock_module
from napari_cfrseg.gui.segment.click_layer import COLOURS
from napari_cfrseg.gui.segment.layers import to_rgba

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]
PLANES, SIZE = 15, 64


def stack():
    """A bright disk that moves, on 15 planes."""
    image = np.full((PLANES, SIZE, SIZE), 20, np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE]
    for z in range(PLANES):
        image[z][np.hypot(y - 26 - z / 2, x - 30) < 10] = 150
    return image


class Gate(FloodNetwork):
    """Lets a test look while a propagation is under way."""

    wait_at = None

    def __init__(self):
        super().__init__(0.2)
        self.reached, self.go_on = threading.Event(), threading.Event()

    def embed_image(self, image):
        out = super().embed_image(image)
        # two threads embed: both may have counted before either looks
        due = self.wait_at is not None and self.calls["embed_image"] >= self.wait_at
        if due and not self.reached.is_set():
            self.reached.set()
            self.go_on.wait(300)
        return out


@pytest.fixture
def window(make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch):
    npe2pm.register(PluginManifest.from_distribution(PLUGIN))
    network = Gate()
    monkeypatch.setattr(
        dock_module.ClickDock.__init__,
        "__defaults__",
        (lambda _: Segmenter(network, device="cpu"), None),
    )
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image(
        stack(),
        name="nuclei",
        scale=(2.0, 0.5, 0.5),
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
    )
    assert image.ndim == 3
    made = Window(viewer, qtbot)
    made.network = network
    yield made
    network.go_on.set()
    made.dock.let_go()


def show(window, z: int) -> None:
    window.dock.controller.stack.jump(z)
    window.settle()


def add(window, z: int, yx, positive=True) -> None:
    """Click as the points' layer has it: in the stack's own coordinates."""
    show(window, z)
    window.dock.controller.set_polarity(positive)
    window.points.add((z, *yx))
    window.dock.controller.set_polarity(True)
    window.settle()


def kinds(window) -> str:
    return "".join(cell.kind[0] for cell in window.view.stack.cells)


def test_propagate_correct_undo(window):
    """Both ways; a correction; only its gap; undo as one step; the worst plane."""
    controller = window.dock.controller
    events = []
    controller.applied.connect(events.append)
    assert window.dock.stack.isVisible()
    assert controller.stack.spacing() == (2.0, 0.5, 0.5)
    add(window, 3, (27.5, 30))
    before = window.labels.data.copy()
    assert kinds(window) == "nnna" + 11 * "n"

    seen = []
    controller.changed.connect(lambda view: seen.append(view.progress))
    window.press(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
    assert kinds(window) == "ccca" + 11 * "c"
    assert {done for done, total in seen if total} > {1, 5, 10}
    assert window.view.progress == (0, 0)
    after = window.labels.data.copy()
    assert (after.reshape(PLANES, -1).any(axis=1)).all()
    assert np.array_equal(after[3], before[3])

    # undo takes all of it back, redo brings it again
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(window.labels.data, before)
    control_shift = (
        Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    )
    window.press(Qt.Key.Key_Z, control_shift)
    assert np.array_equal(window.labels.data, after)

    # a second and third anchor; then a correction between two of them
    add(window, 7, (29, 30))
    add(window, 11, (31, 30))
    window.press(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
    settled = dict(controller.annotator.objects[1].planes)
    add(window, 9, (38, 30), positive=False)
    assert kinds(window)[9] == "a"
    window.press(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
    now = controller.annotator.objects[1].planes
    changed = {plane[0] for plane in now if now[plane] is not settled[plane]}
    assert changed == {8, 9, 10}

    # the strip jumps to the plane clicked, the button to the worst one
    strip = window.dock.stack.strip
    place = QPoint(int((12 + 0.5) * strip.width() / PLANES), 10)
    window.qtbot.mouseClick(strip, Qt.MouseButton.LeftButton, pos=place)
    assert window.view.stack.here == 12
    window.qtbot.mouseClick(window.dock.stack.worst, Qt.MouseButton.LeftButton)
    assert window.view.stack.here == window.view.stack.worst
    sure = [c.confidence for c in window.view.stack.cells if c.kind == "carried"]
    assert window.view.stack.cells[window.view.stack.here].confidence == min(sure)
    assert "expected IoU" in window.view.status

    # what was done, replayed with no window, gives the same labels
    again = replay(events, stack(), Segmenter(FloodNetwork(0.2), device="cpu"))
    assert np.array_equal(again, window.labels.data)


def test_the_worst_plane_selects_the_object_that_it_speaks_of(window):
    stacked = window.dock.controller.stack
    add(window, 3, (27.5, 30))
    window.press(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
    window.press(Qt.Key.Key_N)
    add(window, 3, (5, 5))
    assert window.view.selected == 2
    window.dock.stack.every.setChecked(True)
    window.qtbot.mouseClick(window.dock.stack.worst, Qt.MouseButton.LeftButton)
    spoken_of, _ = stacked.suggestion()
    assert window.view.selected == spoken_of == 1
    assert window.view.status.startswith("Object 1 on plane")


def test_a_plane_without_clicks_shows_no_marker(window):
    add(window, 3, (27.5, 30))

    def markers() -> int:
        shown = window.viewer.screenshot(flash=False)[..., :3] / 255
        blue = np.abs(shown - to_rgba(COLOURS[True])[:3]).max(axis=-1) < 0.06
        return int(blue.sum())

    window.labels.visible = False
    assert markers()
    show(window, 9)
    window.qtbot.wait(50)
    assert not markers()


def test_cancelled_midway_keeps_what_is_done(window):
    controller = window.dock.controller
    add(window, 3, (27.5, 30))
    before = window.labels.data.copy()
    window.network.wait_at = window.network.calls["embed_image"] + 6
    controller.stack.both()
    window.qtbot.waitUntil(window.network.reached.is_set)
    window.until(lambda: window.view.progress[0] > 1)
    assert window.dock.status.bar.isVisible()
    window.qtbot.mouseClick(window.dock.status.cancel, Qt.MouseButton.LeftButton)
    events = []
    controller.applied.connect(events.append)
    window.network.go_on.set()
    window.settle()
    done = kinds(window).count("c")
    assert 0 < done < PLANES - 1
    assert events[-1].results == done
    shown = window.labels.data.copy()
    assert np.array_equal(shown, controller.annotator.labels_array((PLANES,)))
    again = replay(
        [ev.ObjectCreated(1), ev.ClickAdded(1, (3,), (27.5, 30), True, 1), events[-1]],
        stack(),
        Segmenter(FloodNetwork(0.2), device="cpu"),
    )
    assert np.array_equal(again, shown)
    controller.undo()
    window.settle()
    assert np.array_equal(window.labels.data, before)
    assert not window.dock.status.bar.isVisible()


def test_a_range_and_a_confirmation(window):
    controller, panel = window.dock.controller, window.dock.stack
    add(window, 3, (27.5, 30))
    panel.first.setValue(3)
    panel.last.setValue(6)
    window.qtbot.mouseClick(panel.range, Qt.MouseButton.LeftButton)
    window.settle()
    assert kinds(window) == "nnnaccc" + 8 * "n"
    table = window.dock.objects.table
    heads = [table.horizontalHeaderItem(x).text() for x in range(table.columnCount())]
    planes = heads.index("Planes")
    assert (table.item(0, planes).text(), table.isColumnHidden(planes)) == ("4", False)
    # voxels of 2 × 0.5 × 0.5 µm; the same over time has no volume
    px = window.area(1)
    assert table.item(0, 3).text() == f"{px * 0.5:.3g} µm³"
    assert table.horizontalHeaderItem(3).text() == "Volume"
    controller.stack.name_axes(("t", "y", "x"))
    assert table.item(0, 3).text() == f"{px * 0.25:.3g} µm²"
    assert table.horizontalHeaderItem(3).text() == "Area"
    show(window, 5)
    window.qtbot.mouseClick(panel.confirm, Qt.MouseButton.LeftButton)
    window.settle()
    assert kinds(window) == "nnnacac" + 8 * "n"
    assert controller.annotator.objects[1].on((5,)).is_anchor


def test_an_image_of_one_plane_shows_no_strip(window):
    window.viewer.add_image(stack()[0], name="flat")
    window.dock.image_choice.value = window.viewer.layers["flat"]
    window.settle()
    assert not window.dock.stack.isVisible()
    table = window.dock.objects.table
    assert table.isColumnHidden(table.columnCount() - 1)
    window.dock.controller.clicked(window.points.data_to_world((26, 30)))
    window.settle()
    for select in (None, window.dock.controller.new_object):
        if select is not None:
            select()
        for modifier in ("NoModifier", "ShiftModifier"):
            window.press(Qt.Key.Key_D, getattr(Qt.KeyboardModifier, modifier))
            assert window.view.status == "The image has one plane only."
            window.dock.controller.say("")


def test_dock_with_the_stack_s_controls_fits_a_window_of_1280_by_720(window):
    """napari leaves the dock 653 rows there; more would need scrolling."""
    assert window.dock.sections["stack"].isVisible()
    column = window.dock.findChild(QScrollArea).widget()
    assert column.minimumSizeHint().height() <= 650


def test_the_object_is_suggested_on_the_next_plane_and_continued(window):
    suggesting = window.dock.controller.suggestions
    add(window, 7, (29.5, 30))
    window.press(Qt.Key.Key_F)
    window.until(lambda: not window.view.suggestions.running)
    show(window, 8)
    window.until(lambda: bool(suggesting.found))
    window.until(lambda: not window.view.suggestions.running)
    assert [s.continues for s in suggesting.found] == [1]
    add(window, 8, (30, 30))
    assert kinds(window)[7:9] == "aa"
    assert [o.object_id for o in window.view.objects] == [1]
    assert suggesting.found == []
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert kinds(window)[7:9] == "an"
    assert len(suggesting.found) == 1
