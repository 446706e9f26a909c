"""Suggestions in a real viewer: found, accepted, rejected, undone, replayed."""

from __future__ import annotations

import numpy as np
import pytest
from gui_window import Window
from qtpy.QtCore import QPoint, Qt

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment import suggesting as suggesting_module
from napari_cfrseg.gui.segment.layers import to_rgba

PLACES = [(30 + 50 * y, 32 + 50 * x) for y in range(4) for x in range(5)]


@pytest.fixture(scope="module")
def discs() -> np.ndarray:
    """Bright discs on noise."""
    image = np.random.default_rng(3).normal(60, 8, (220, 270))
    rows, columns = np.indices(image.shape)
    for y, x in PLACES:
        image += 100 / (1 + np.exp(np.hypot(rows - y, columns - x) - 12))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture
def window(make_napari_viewer, qtbot, discs) -> Window:
    """Three discs are clicked, and suggestions are there."""
    found = Window(make_napari_viewer(show=True), qtbot, discs)
    found.events = []
    found.dock.controller.applied.connect(found.events.append)
    for y, x in PLACES[:3]:
        found.click(y, x)
        found.press(Qt.Key.Key_N)
    found.press(Qt.Key.Key_F)
    found.until(lambda: not found.view.suggestions.running)
    found.settle()
    return found


def test_suggest_accept_reject_undo_and_replay(window, qtbot, discs):
    suggesting = window.dock.controller.suggestions
    layer = suggesting.outlines.layer
    assert window.viewer.layers.selection.active is window.points
    assert len(suggesting.found) >= 15
    assert len(window.view.objects) == 3
    assert not window.labels.data[tuple(np.array(PLACES[3:]).T)].any()
    shown = layer.data[tuple(np.array(PLACES[3:]).T)]
    assert np.count_nonzero(shown) >= 15
    assert layer.contour > 0
    tools = vars(layer)["_overlays"]  # they came after the layer
    assert tools["polygon"].visible
    assert tools["brush_stroke"].visible
    # one act rejects them all, and one undo brings them back
    count = len(suggesting.found)
    reject, suggested = window.dock.objects.reject, window.dock.objects.suggested
    assert suggested.isVisible()
    for act in (
        lambda: window.press(Qt.Key.Key_Delete, Qt.KeyboardModifier.ShiftModifier),
        lambda: qtbot.mouseClick(reject, Qt.MouseButton.LeftButton),
    ):
        act()
        window.settle()
        assert suggesting.found == []
        assert not layer.data.any()
        assert not reject.isEnabled()
        window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
        assert len(suggesting.found) == count
    # a click in one accepts it, and a further click corrects it
    y, x = PLACES[7]
    window.click(y, x)
    assert window.labels.data[y, x] == 4
    assert window.view.selected == 4
    assert window.view.objects[3].clicks == 1
    assert layer.data[y, x] == 0
    area = window.area(4)
    window.click(y + 7, x, Qt.MouseButton.RightButton)
    assert window.area(4) < area
    assert window.view.objects[3].clicks == 2
    # the other button rejects one, undo brings it back, Delete rejects it
    y, x = PLACES[9]
    assert layer.data[y, x]
    window.click(y, x, Qt.MouseButton.RightButton)
    assert layer.data[y, x] == 0
    assert len(window.view.objects) == 4
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert layer.data[y, x]
    window.point(y, x)
    window.press(Qt.Key.Key_Delete)
    assert layer.data[y, x] == 0
    # the slider says how many, one button makes them objects, one undo takes them back
    window.dock.objects.sure.setValue(20)
    count = window.view.suggestions.sure
    assert count >= 10
    assert window.dock.objects.accept.text() == f"Accept {count}"
    qtbot.mouseClick(window.dock.objects.accept, Qt.MouseButton.LeftButton)
    window.settle()
    assert len(window.view.objects) == 4 + count
    window.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert len(window.view.objects) == 4
    window.press(
        Qt.Key.Key_Z,
        Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier,
    )
    assert len(window.view.objects) == 4 + count
    assert any(isinstance(e, ev.ObjectsSuggested) for e in window.events)
    replayed = Annotator(
        lambda _: discs, discs.shape, Segmenter.load("default", device="cpu")
    )
    for event in window.events:
        replayed.apply(event)
    assert (replayed.labels() == window.labels.data).all()
    assert sum(not one.object_id for one in replayed.judged) == 1


def test_a_stroke_accepts_or_rejects_all_that_it_touches(window):
    suggesting = window.dock.controller.suggestions
    layer = suggesting.outlines.layer
    row = [place for place in PLACES if place[0] == 130]
    shown = tuple(np.array(row).T)
    assert layer.data[shown].all()
    count, ctrl = len(suggesting.found), Qt.KeyboardModifier.ControlModifier
    middle = tuple(window.viewer.scene.camera.center)
    window.drag(row[0], (130, row[3][1] + 5), ctrl)
    assert tuple(window.viewer.scene.camera.center) == middle
    assert sorted(window.labels.data[shown][:4]) == [4, 5, 6, 7]
    assert not window.labels.data[row[4]]
    assert len(suggesting.found) == count - 4
    # an object that is clicked next has a number of its own
    window.press(Qt.Key.Key_N)
    window.click(*row[4])
    assert window.labels.data[row[4]] == 8
    for left in (4, 0):
        window.press(Qt.Key.Key_Z, ctrl)
        assert np.count_nonzero(window.labels.data[shown]) == left
    # the other button: rejected, and taken back in one step
    window.drag(row[1], row[3], ctrl, Qt.MouseButton.RightButton)
    assert [bool(layer.data[place]) for place in row] == [1, 0, 0, 0, 1]
    window.press(Qt.Key.Key_Z, ctrl)
    assert layer.data[shown].all()
    assert len(window.view.objects) == 3
    # begun beside them it accepts them too, with clicks well inside
    window.drag((row[0][0], row[0][1] - 18), row[1], ctrl)
    assert len(window.view.objects) == 5
    assert window.view.status == f"Accepted 2 suggestions; {count - 2} left."
    clicked = sorted(window.points.data[-2:], key=lambda place: place[1])
    assert np.hypot(*(np.array(clicked) - row[:2]).T).max() < 9
    # from the selected object it is that one's clicks
    before = len(window.points.data)
    window.drag(row[0], row[2], ctrl)
    assert len(window.view.objects) == 5
    assert len(window.points.data) > before + 1
    assert window.view.selected == 4


def test_what_is_said_and_shown_leaves_the_buttons_in_their_places(window):
    panel = window.dock.objects
    places = [w.mapToGlobal(QPoint()) for w in (panel.suggest, window.dock.status)]
    sure, count = window.view.suggestions.sure, len(window.view.suggestions.scores)
    assert f"{count} suggestions, {sure} sure (bright)." in window.view.status
    window.press(Qt.Key.Key_Delete, Qt.KeyboardModifier.ShiftModifier)
    window.qtbot.waitUntil(lambda: not panel.suggested.isVisible())
    window.dock.controller.say("Short.")
    window.qtbot.wait(100)
    assert places == [
        w.mapToGlobal(QPoint()) for w in (panel.suggest, window.dock.status)
    ]
    # all were rejected, so there is nothing to suggest
    window.press(Qt.Key.Key_F)
    window.until(lambda: not window.view.suggestions.running)
    assert "Nothing else like the finished objects" in window.view.status


def test_suggestions_follow_the_view_and_the_switch_stops_them(window, qtbot):
    controller = window.dock.controller
    suggesting = controller.suggestions
    whole = len(suggesting.found)
    camera = window.viewer.scene.camera
    centre, zoom = camera.center, camera.zoom

    def look(y, x, factor):
        camera.center = (0, *np.asarray(window.image.data_to_world((y, x))))
        camera.zoom = factor * zoom
        window.until(lambda: not suggesting._rest.isActive())
        window.until(lambda: not window.view.suggestions.running)
        window.settle()

    # what was searched is not searched again
    look(60, 60, 3)
    assert len(suggesting.found) == whole
    # asked for in a part of the plane, the rest comes when it is seen
    window.press(Qt.Key.Key_F)
    window.until(lambda: not window.view.suggestions.running)
    part = len(suggesting.found)
    assert 0 < part < whole
    window.dock.objects.follow.setChecked(False)
    look(120, 120, 1)
    assert len(suggesting.found) == part
    window.dock.objects.follow.setChecked(True)
    camera.center, camera.zoom = centre, zoom
    window.until(lambda: len(suggesting.found) >= whole - 1)
    window.until(lambda: not window.view.suggestions.running)
    window.settle()
    seeds = [s.seed for s in suggesting.found]
    assert len(set(seeds)) == len(seeds)
    suggested = [e for e in window.events if isinstance(e, ev.ObjectsSuggested)]
    assert len(suggested) == 3


def test_in_a_wide_view_the_outlines_are_drawn_coarsely_in_their_places(
    window, monkeypatch
):
    suggesting = window.dock.controller.suggestions
    layer = suggesting.outlines.layer
    fine = layer.data.shape
    monkeypatch.setattr(suggesting_module, "_DRAWN_PX", 90)
    suggesting.refresh()
    assert layer.data.shape == tuple(-(-side // 3) for side in fine)
    for number, suggestion in enumerate(suggesting.found):
        world = window.image.data_to_world(suggestion.seed)
        cell = tuple(np.round(layer.world_to_data(world)).astype(int))
        assert (layer.data[cell] + 1) // 2 == number + 1
    # more of them than a byte can number look the same
    window.labels.visible = window.points.visible = window.image.visible = False
    assert layer.data.dtype == np.uint8
    for shift in (0, 1000):
        wide = np.where(layer.data, layer.data + np.uint16(shift), 0)
        suggesting.outlines.paint((0, 0), wide.astype(np.min_scalar_type(wide.max())))
        window.qtbot.wait(100)
        shown = window.viewer.screenshot(flash=False)[..., :3] / 255
        colours = (suggesting_module.SURE, suggesting_module.UNSURE)
        for colour in {colours[1 - n % 2] for n in np.unique(wide[wide > 0])}:
            assert (np.abs(shown - to_rgba(colour)[:3]).max(axis=-1) < 0.06).any()


def test_without_a_finished_object_it_says_what_to_do(make_napari_viewer, qtbot, discs):
    window = Window(make_napari_viewer(show=True), qtbot, discs)
    assert not window.dock.objects.suggest.isEnabled()
    window.press(Qt.Key.Key_F)
    window.until(lambda: not window.view.suggestions.running)
    assert "Finish an object first" in window.view.status


def test_what_is_done_while_suggestions_are_accepted_counts(window, qtbot, said):
    """A second press accepts nothing twice, and a click begins the next object."""
    accept, sure = window.dock.objects.accept, window.view.suggestions.sure
    empty = window.image.data.shape[0] - 3, 3
    with window.busy():
        for _ in range(2):
            qtbot.mouseClick(accept, Qt.MouseButton.LeftButton)
        window.click(*empty, settle=False)
    assert len(window.view.objects) == 3 + sure + 1
    assert window.view.objects[-1].clicks == 1
    assert not said


def test_suggestions_stay_open_where_rejecting_them_is_cancelled(window, qtbot):
    reject, suggesting = window.dock.objects.reject, window.dock.controller.suggestions
    count = len(suggesting.found)
    with window.busy():
        qtbot.mouseClick(reject, Qt.MouseButton.LeftButton)
        qtbot.keyClick(window.canvas, Qt.Key.Key_Escape)
    assert len(suggesting.found) == count
