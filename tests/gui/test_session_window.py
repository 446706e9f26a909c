"""Sessions in a real window: recorded by hand, replayed with no window, reopened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import tifffile
from gui_window import PLUGIN, Window
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.unsaved_sessions import recent_sessions, unsaved_sessions

CONTROL = Qt.KeyboardModifier.ControlModifier
#: particles of the bundled micrograph: (row, column) well inside each
PARTICLES = ((82, 271), (212, 382), (299, 82), (154, 339), (31, 203))


pytestmark = [
    pytest.mark.gui,
    pytest.mark.timeout(900),
]


@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "user"
    monkeypatch.setenv("CFRSEG_SESSIONS", str(folder))
    return folder


@pytest.fixture
def window(make_napari_viewer, qtbot, npe2pm, plugin_settings, sessions, tmp_path):
    """The dock on a micrograph that was opened from a file."""
    for distribution in (PLUGIN, "napari"):
        npe2pm.register(PluginManifest.from_distribution(distribution))
    source = files("napari_cfrseg") / "sample_data" / "powder_sem.image.tif"
    path = tmp_path / "powder.tif"
    path.write_bytes(source.read_bytes())
    viewer = make_napari_viewer(show=True)
    viewer.open(str(path), plugin="napari")
    made = Window(viewer, qtbot)
    yield made
    made.dock.let_go()


def journal(sessions: Path) -> list[ev.Event]:
    """Return the events of the session that has no name yet."""
    (path,) = sessions.glob("unsaved-*.cfrseg.json")
    return list(Session.open(path).content.events)


def annotate(window: Window, sessions: Path) -> list[np.ndarray]:
    """Five objects with undo, deletion, drag, locks and a brush; the last labels."""
    window.click(*PARTICLES[0])
    assert [type(e) for e in journal(sessions)][-1] is ev.ClickAdded
    for number, place in enumerate(PARTICLES[1:], start=2):
        window.press(Qt.Key.Key_N)
        window.click(*place)
        assert window.view.selected == number
        assert isinstance(journal(sessions)[-1], ev.ClickAdded)
    edge = np.argwhere(window.labels.data == 5)[-1]
    window.click(edge[0] - 1, edge[1], Qt.MouseButton.RightButton)
    window.press(Qt.Key.Key_Z, CONTROL)
    window.press(Qt.Key.Key_Z, CONTROL | Qt.KeyboardModifier.ShiftModifier)
    window.press(Qt.Key.Key_Z, CONTROL)
    table = window.dock.objects.table
    table.item(0, 5).setCheckState(Qt.CheckState.Checked)
    window.settle()
    table.item(1, 2).setText("satellite")
    window.settle()
    window.points.mode = "select"
    y, x = PARTICLES[2]
    window.drag((y, x), (y + 4, x + 5))
    window.viewer.layers.selection.active = window.labels
    window.labels.mode = "erase"
    window.labels.brush_size = 11
    window.click(*PARTICLES[1])
    painted = window.labels.data.copy()
    window.dock.controller.select(4)
    window.dock.objects.delete.click()
    window.settle()
    return [painted, window.labels.data.copy()]


def replayed(session: Path, out: Path) -> dict[str, object]:
    """Replay in a process that has no display."""
    script = "from napari_cfrseg.cli import main; main()"
    arguments = ["replay", str(session), "-o", str(out), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={k: v for k, v in os.environ.items() if k != "DISPLAY"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_recorded_by_hand_replayed_identically_and_reopened(
    window, qtbot, sessions: Path, tmp_path: Path, monkeypatch
) -> None:
    panel = window.dock.sessions
    assert panel.label.text() == "Nothing to save yet."
    painted, expected = annotate(window, sessions)
    assert set(np.unique(expected)) == {0, 1, 2, 3, 5}
    assert not np.array_equal(painted, expected)
    kinds = {type(e) for e in journal(sessions)}
    assert kinds >= {ev.ClicksMoved, ev.ObjectLocked, ev.Painted, ev.ObjectDeleted}
    assert kinds >= {ev.Undone, ev.Redone, ev.ObjectClassified}
    assert "Not saved yet" in panel.label.text()

    target = tmp_path / "saved" / "powder.cfrseg.json"
    target.parent.mkdir()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    panel.save_button.click()
    assert panel.label.text().startswith("powder.cfrseg.json")
    assert not list(sessions.glob("unsaved-*"))

    # with no window: from the shell, and the file in another place
    said = replayed(target, tmp_path / "out")
    assert said["as_saved"] is True
    labels = tifffile.imread(tmp_path / "out" / "powder.labels.tif")
    assert np.array_equal(labels, expected)
    window.dock.let_go()
    window.viewer.window.remove_dock_widget(window.dock)
    window.viewer.layers.clear()
    assert recent_sessions() == [target]
    assert unsaved_sessions() == []
    assert json.loads(target.read_text())["image"]["path"] == "../powder.tif"

    # the file dropped on the window, then the dock
    window.viewer.open(str(target), plugin=PLUGIN)
    assert len(window.viewer.layers) == 3
    again = Window(window.viewer, qtbot)
    window.dock = again.dock  # closed when the test ends
    again.until(lambda: again.view.status.startswith("Session reopened"))
    assert len(window.viewer.layers) == 3
    assert np.array_equal(again.labels.data, expected)
    assert [o.object_id for o in again.view.objects] == [1, 2, 3, 5]
    assert [o.locked for o in again.view.objects] == [True, False, False, False]
    assert again.view.objects[1].object_class == "satellite"
    assert len(again.points.data) == 4
    assert again.image.source.path == str(target)

    # undo goes on where the other window stopped
    again.press(Qt.Key.Key_Z, CONTROL)
    assert np.array_equal(again.labels.data, painted)
    again.dock.controller.select(3)
    again.click(PARTICLES[2][0] + 8, PARTICLES[2][1])
    last = again.labels.data.copy()
    again.dock.let_go()
    assert np.array_equal(Session.open(target).apply(), last)


def test_session_dropped_on_an_open_dock_takes_its_place(
    window, sessions: Path, tmp_path: Path
) -> None:
    window.click(*PARTICLES[0])
    expected = window.labels.data.copy()
    target = tmp_path / "one.cfrseg.json"
    window.dock.controller.annotator.writer.save()
    (kept,) = sessions.glob("unsaved-*.cfrseg.json")
    shutil.copy(kept, target)
    raw = json.loads(target.read_text())
    raw["image"]["path"] = "gone/powder.tif"  # found beside the session all the same
    target.write_text(json.dumps(raw))
    first = window.dock.controller
    window.viewer.open(str(target), plugin=PLUGIN)
    window.until(lambda: window.dock.controller not in (first, None))
    window.until(lambda: window.view.status.startswith("Session reopened"))
    assert window.dock.image_choice.value.name == "powder [1]"  # its image's
    assert np.array_equal(window.labels.data, expected)
    assert len(window.viewer.layers) == 6
    assert window.dock.sessions.label.text().startswith("one.cfrseg.json")
    window.dock.let_go()
    assert Session.open(target).image.path == "powder.tif"
