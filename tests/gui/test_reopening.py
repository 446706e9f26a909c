"""Clicks and keys while a session is being reopened: kept, and done afterwards."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from gui_window import Window, flood_windows
from qtpy.QtCore import Qt

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.gui.segment.worker import Job
from napari_cfrseg.session.session import Session

CONTROL = Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier
#: middles of bright squares of 40 px
SQUARES = ((40, 40), (40, 140), (40, 240), (140, 40), (140, 140))

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


@pytest.fixture
def opened(make_napari_viewer, qtbot, npe2pm, monkeypatch, plugin_settings, tmp_path):
    """Give a function that opens a window on the image's file."""
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "user"))
    pixels = np.zeros((180, 280), np.uint8)
    for y, x in SQUARES:
        pixels[y - 20 : y + 20, x - 20 : x + 20] = 200
    tifffile.imwrite(tmp_path / "squares.tif", pixels)
    with flood_windows(make_napari_viewer, qtbot, npe2pm, monkeypatch, Window) as made:
        yield lambda: made(
            lambda viewer: viewer.open(str(tmp_path / "squares.tif"), plugin="napari")
        )


def recorded(window: Window, path: Path) -> None:
    """Save a session of two objects, the second with two clicks."""
    for y, x in SQUARES[:2]:
        window.press(Qt.Key.Key_N)
        window.click(y, x)
    window.click(SQUARES[1][0] + 18, SQUARES[1][1], Qt.MouseButton.RightButton)
    window.dock.sessions.keeper.save(path)
    window.dock.let_go()


def acts(window: Window):
    """Yield after each act of a person."""
    qtbot, canvas = window.qtbot, window.canvas

    def keys(*pressed):
        for key, modifier in pressed:
            yield qtbot.keyClick(canvas, key, modifier)

    def click(place, button=Qt.MouseButton.LeftButton):
        yield window.click(*place, button, settle=False)

    undo, plain = (Qt.Key.Key_Z, CONTROL), Qt.KeyboardModifier.NoModifier
    letter = {name: (getattr(Qt.Key, f"Key_{name}"), plain) for name in "NTRMQ"}
    yield from keys(undo, undo, (Qt.Key.Key_Z, CONTROL | SHIFT))
    yield from keys(letter["N"])
    yield from click(SQUARES[2])
    yield from keys((Qt.Key.Key_BracketRight, plain), letter["T"])
    yield from click((SQUARES[2][0] + 18, SQUARES[2][1]))
    yield from keys(letter["T"], letter["Q"])
    yield from click(SQUARES[3])  # apart: begins an object
    yield from keys(letter["R"])
    yield from click(SQUARES[3])
    yield from keys(letter["N"])
    yield from click(SQUARES[4])
    yield window.point(*SQUARES[0])
    yield from keys(letter["M"])
    yield window.point(10, 10)  # what M pointed at is left
    yield window.dock.settings.rule.native.setCurrentIndex(1)


def test_acts_during_a_reopening_do_what_they_do_after_it(opened, tmp_path) -> None:
    paths = [tmp_path / f"{name}.cfrseg.json" for name in ("after", "during")]
    recorded(opened(), paths[0])
    paths[1].write_bytes(paths[0].read_bytes())

    after = opened()
    after.dock.open_session(paths[0])
    after.until(lambda: after.view.status.startswith("Session reopened"))
    for _ in acts(after):
        after.settle()
    expected = after.labels.data.copy()
    after.dock.let_go()

    during, answers = opened(), threading.Event()
    during.dock._runner.submit(Job(lambda _: answers.wait(300), print, print))
    during.dock.open_session(paths[1])
    for _ in acts(during):
        during.qtbot.wait(60)
    assert "is kept until then" in during.view.status
    assert not during.view.objects
    answers.set()
    during.until(lambda: len(during.view.objects) > 0)
    during.settle()
    shown = during.labels.data.copy()
    during.dock.let_go()

    first, second = (Session.open(path).content.events for path in paths)
    kinds = {type(event) for event in first}
    assert kinds >= {ev.Undone, ev.Redone, ev.ThresholdChanged, ev.ClickRefocused}
    assert kinds >= {ev.ObjectReset, ev.ObjectsMerged, ev.OverlapChanged}
    assert second == first
    assert np.array_equal(shown, expected)


def test_the_newest_act_kept_is_taken_back_and_nothing_is_painted(opened, tmp_path):
    path = tmp_path / "squares.cfrseg.json"
    recorded(opened(), path)
    count = len(Session.open(path).content.events)
    window, answers = opened(), threading.Event()
    window.dock._runner.submit(Job(lambda _: answers.wait(300), print, print))
    window.dock.open_session(path)
    for place in SQUARES[2:4]:
        window.click(*place, settle=False)
    window.qtbot.keyClick(window.canvas, Qt.Key.Key_Escape)
    assert window.view.status == "Click cancelled."
    window.labels.mode = "paint"
    assert window.labels.mode == "pan_zoom"
    window.viewer.dims.ndisplay = 3  # a view that would begin afresh, were it untouched
    window.viewer.dims.ndisplay = 2
    answers.set()
    window.until(lambda: len(window.view.objects) > 0)
    window.settle()
    window.labels.mode = "paint"
    assert window.labels.mode == "paint"
    window.dock.let_go()
    new = Session.open(path).content.events[count:]
    (click,) = (e.click for e in new if isinstance(e, ev.ClickAdded))
    assert np.allclose(click.yx, SQUARES[2], atol=1)


def test_a_reopening_is_given_up_and_the_file_stays(opened, tmp_path):
    path = tmp_path / "squares.cfrseg.json"
    recorded(opened(), path)
    before = path.read_bytes()
    window, answers = opened(), threading.Event()
    window.dock._runner.submit(Job(lambda _: answers.wait(300), print, print))
    window.dock.open_session(path)
    window.dock.status.cancel.click()
    answers.set()
    said = "squares.cfrseg.json was not reopened; it stays as it is."
    window.until(lambda: window.view.status == said)
    assert not window.dock.status.cancel.isEnabled()
    assert path.read_bytes() == before
    window.click(*SQUARES[0])
    assert [o.clicks for o in window.view.objects] == [1]
    window.dock.let_go()
    assert path.read_bytes() == before


def test_after_other_pixels_came_meanwhile_clicks_are_the_new_session_s(
    opened, tmp_path, said
) -> None:
    path = tmp_path / "first.cfrseg.json"
    recorded(opened(), path)
    window = opened()
    with window.busy():
        window.dock.open_session(path)
        window.image.data = window.image.data[::-1].copy()
    window.until(lambda: not window.view.loading)
    assert window.viewer.layers.selection.active == window.points
    window.click(*SQUARES[0])
    assert len(window.view.objects) == 1
    assert len(said) == 1
    assert "its objects and session are kept as they were" in said[0]
