"""The dock in a real viewer, driven by real mouse and key events."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from closed_form import FloodNetwork
from gui_window import DOCK, PLUGIN, Window
from npe2 import PluginManifest
from qtpy.QtCore import Qt

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment import dock as dock_module
from napari_cfrseg.samples import load_sample


class Cycle:
    """Refers to itself: only the garbage collector frees it."""

    me: object


def flood_loader(name: str) -> Segmenter:
    return Segmenter(FloodNetwork(0.2), device="cpu")


@pytest.fixture
def sample():
    return load_sample("powder_sem")


@pytest.fixture
def targets(sample) -> list[tuple[int, int, int]]:
    """Label, row and column of two large particles whose first click finds them."""
    from scipy import ndimage

    found = []
    for label in np.unique(sample.labels)[1:]:
        mask = sample.labels == label
        depth = ndimage.distance_transform_edt(mask)
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        if 60 < y < 450 and 60 < x < 450 and depth.max() < 55:
            found.append((float(depth.max()), int(label), int(y), int(x)))
    return [f[1:] for f in sorted(found, reverse=True)[:2]]


@pytest.fixture
def plugin(npe2pm, plugin_settings):
    """Our manifest, as the installed distribution has it."""
    npe2pm.register(PluginManifest.from_distribution(PLUGIN))


@pytest.fixture
def window(make_napari_viewer, qtbot, plugin, sample, request, monkeypatch):
    """The dock as a person opens it; on the network that ``request`` names."""
    load = getattr(request, "param", flood_loader)
    if load is not None:
        monkeypatch.setattr(
            dock_module.ClickDock.__init__, "__defaults__", (load, None)
        )
    viewer = make_napari_viewer(show=True)
    made = Window(viewer, qtbot, sample.image)
    yield made
    made.dock.let_go()


pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]
BOTH_NETWORKS = pytest.mark.parametrize(
    "window",
    [
        pytest.param(flood_loader, id="closed-form"),
        pytest.param(None, id="default-weights"),
    ],
    indirect=True,
)


@BOTH_NETWORKS
def test_the_main_job(window, targets):
    """Click, correct, undo, lock, second object, drag: with real events."""
    (_, y1, x1), (_, y2, x2) = targets
    assert np.allclose(window.labels.scale, window.image.scale)
    assert np.allclose(window.labels.translate, window.image.translate)
    assert window.labels.units == window.image.units

    window.click(y1, x1)
    assert window.labels.data[y1, x1] == 1
    assert window.labels.data[y2, x2] == 0
    assert "ms" in window.view.timing
    first = window.labels.data.copy()

    # right button: the other polarity, at the mask's lower edge
    ys, xs = np.nonzero(first == 1)
    edge = int(np.argmax(ys))
    y3, x3 = int(ys[edge]) - 2, int(xs[edge])
    window.click(y3, x3, Qt.MouseButton.RightButton)
    assert list(window.points.features["polarity"]) == ["positive", "negative"]
    assert window.labels.data[y3, x3] == 0
    assert 0 < window.area(1) < int((first == 1).sum())

    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(window.labels.data, first)
    assert len(window.points.data) == 1

    window.dock.objects.table.item(0, 5).setCheckState(Qt.CheckState.Checked)
    window.settle()
    window.press(Qt.Key.Key_N)
    window.click(y2, x2)
    assert window.labels.data[y2, x2] == 2
    assert np.array_equal(window.labels.data == 1, first == 1)

    # a click on the locked object is refused
    window.click(y1, x1)
    assert "locked" in window.view.status
    assert len(window.points.data) == 2
    second = window.labels.data.copy()

    # drag the second object's click: select mode, then the mouse
    window.points.mode = "select"
    window.drag((y2, x2), (y2 + 3, x2 + 3))
    moved = window.points.data[1]
    assert np.abs(moved - (y2 + 3, x2 + 3)).max() < 2
    assert window.labels.data[y2 + 3, x2 + 3] == 2
    assert np.array_equal(window.labels.data == 1, first == 1)
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(window.labels.data, second)


def test_opening_a_click_is_not_stopped_by_the_worker(window, targets, qtbot):
    """Clicks pile up while the worker computes; all count, in order."""
    (_, y1, x1), _ = targets
    for shift in range(5):
        window.click(y1 + shift, x1, settle=False)
    window.settle()
    entries = window.dock.controller.annotator.objects[1].clicks()
    rows = [round(entry.click.yx[0]) for _, entry in entries]
    assert rows == sorted(rows)
    assert len(rows) == 5


class WaitingNetwork(FloodNetwork):
    """Stops before its second look at a mask until it is told to go on."""

    def __init__(self) -> None:
        super().__init__(0.2)
        self.go_on = threading.Event()

    def refine(self, features, feedback, newest_click):
        if feedback is not None:
            self.go_on.wait(300)
        return super().refine(features, feedback, newest_click)


@pytest.fixture
def waiting(window):
    network = WaitingNetwork()
    window.dock.controller.load_model(lambda: Segmenter(network, device="cpu"))
    window.until(lambda: not window.view.loading)
    window.dock.settings.kind.value = "a-cfr"  # a second look is what it waits before
    window.settle()
    yield network
    network.go_on.set()


def test_first_mask_is_shown_before_refinement_ends(window, waiting, targets):
    (_, y1, x1), _ = targets
    window.click(y1, x1, settle=False)
    window.until(lambda: window.labels.data[y1, x1] == 1)
    assert window.view.pending == 1
    window.until(window.dock.status.cancel.isEnabled)  # at most a moment later
    waiting.go_on.set()
    window.settle()
    assert window.labels.data[y1, x1] == 1
    assert not window.dock.status.cancel.isEnabled()


def test_escape_takes_the_click_being_computed_back(window, waiting, targets):
    (_, y1, x1), _ = targets
    window.click(y1, x1, settle=False)
    window.until(lambda: window.labels.data[y1, x1] == 1)
    window.qtbot.keyClick(window.canvas, Qt.Key.Key_Escape)
    assert window.view.status == "Click cancelled."
    waiting.go_on.set()
    window.settle()
    assert not window.labels.data.any()
    assert len(window.points.data) == 0
    assert not window.view.objects


def test_keys_and_buttons_agree_with_the_view(window, targets):
    (_, y1, x1), _ = targets
    window.press(Qt.Key.Key_T)
    assert window.dock.objects.negative.isChecked()
    window.press(Qt.Key.Key_T)
    assert window.dock.objects.positive.isChecked()
    window.click(y1, x1)
    before = window.labels.data.copy()
    window.press(Qt.Key.Key_R)
    assert not window.labels.data.any()
    window.dock.objects.undo.click()
    window.settle()
    assert np.array_equal(window.labels.data, before)
    window.dock.settings.threshold.value = 0.8
    window.settle()
    assert window.dock.controller.annotator.objects[1].threshold == 0.8
    window.press(Qt.Key.Key_Escape)
    assert window.view.status == "Nothing to cancel."


def test_painting_with_the_brush_corrects_the_object(window, targets):
    (_, y1, x1), _ = targets
    window.click(y1, x1)
    mask = window.labels.data == 1
    window.viewer.layers.selection.active = window.labels
    window.labels.mode = "erase"
    window.labels.brush_size = 9
    window.click(y1, x1)
    assert window.labels.data[y1, x1] == 0
    shown = window.dock.controller.annotator.labels()
    assert np.array_equal(shown, window.labels.data)
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(window.labels.data == 1, mask)


def test_closing_gives_keys_and_layers_back(window, targets):
    (_, y1, x1), _ = targets
    window.click(y1, x1)
    points, labels = window.points, window.labels
    window.dock.let_go()
    assert not points.keymap
    assert not labels.keymap
    assert not points.locked
    window.viewer.layers.remove(points)
    assert window.dock.controller is None


@pytest.mark.parametrize("how", ["dock", "window"])
def test_taking_the_dock_away_ends_worker_and_keys(window, targets, how):
    (_, y1, x1), _ = targets
    window.click(y1, x1, settle=False)
    points = window.points
    if how == "dock":
        window.viewer.window.remove_dock_widget(window.dock)
        assert not points.keymap
        assert not points.locked
    else:
        window.dock.close()
    workers = [t for t in threading.enumerate() if t.name.startswith("cfrseg-worker")]
    for worker in workers:
        worker.join(60)
    assert not any(worker.is_alive() for worker in workers)


def test_full_collections_leave_out_what_loading_brought(window):
    assert gc.get_freeze_count() > 100_000
    cycle = Cycle()
    cycle.me, gone = cycle, weakref.ref(cycle)
    del cycle
    gc.collect()
    assert gone() is None
    window.viewer.layers.remove(window.viewer.add_points([(1, 1)]))
    assert gc.get_freeze_count() == 0  # a layer that goes is freed as always
    gc.collect()
    assert gc.get_freeze_count() > 100_000
    before = len(gc.callbacks)
    window.dock.let_go()
    assert gc.get_freeze_count() == 0
    assert len(gc.callbacks) == before - 1


def test_nothing_is_set_aside_when_python_ends():
    code = (
        "import atexit, gc\n"
        "from napari_cfrseg.gui.segment.model_loading import ShortCollections\n"
        "atexit.register(lambda: print(gc.collect() >= 0, gc.get_freeze_count()))\n"
        "ShortCollections().freeze()\n"
        "print(gc.get_freeze_count() > 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True", "0"]


def test_removing_the_image_ends_its_session(window):
    window.viewer.layers.remove(window.image)
    assert window.dock.controller is None
    assert window.dock.image_choice.value is None


def test_clearing_the_viewer_begins_nothing_new(window):
    """Close the window as napari does: layers go one by one, ours first."""
    window.viewer.add_image(np.zeros((20, 20), np.uint8), name="another")
    window.viewer.layers.clear()
    window.qtbot.wait(50)
    assert not window.viewer.layers
    assert window.dock.controller is None


def test_taking_our_layer_away_asks_for_an_image(window):
    window.viewer.layers.remove(window.points)
    assert window.dock.controller is None
    assert window.dock.image_choice.value is None
    assert "choose an image to go on" in window.dock.status.text.text()
    window.dock.image_choice.value = window.image
    window.until(lambda: window.dock.controller is not None)
    assert window.points in window.viewer.layers


def test_dock_without_an_image_says_what_to_do(make_napari_viewer, plugin):
    viewer = make_napari_viewer()
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    assert dock.status.text.text() == "Open an image to begin."
    dock.let_go()
