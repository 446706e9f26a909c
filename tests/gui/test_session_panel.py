"""The dock's session group, and what it imports, on napari's models."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import PIL.Image
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers._source import Source
from qtpy.QtWidgets import QFileDialog, QMessageBox
from session_cases import PLACES, SHAPE, flood_segmenter, pixels, record
from sync_runner import HeldRunner, imported, run

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import SessionError
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.gui.segment.worker import Job
from napari_cfrseg.gui.session.layer_imports import (
    read_layer,
    read_table,
    said_by,
)
from napari_cfrseg.gui.session.layer_references import session_of
from napari_cfrseg.gui.session.session_keeper import SessionKeeper
from napari_cfrseg.gui.session.session_panel import SessionPanel, picture_path
from napari_cfrseg.io.object_exports import ExportedObject, write_geojson
from napari_cfrseg.session.format import ModelReference, SessionContent
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_writer import SessionWriter
from napari_cfrseg.session.unsaved_sessions import note_recent


class LateRunner(HeldRunner):
    """Answers for held jobs when all are done, as a worker does that is ahead of Qt."""

    def release(self) -> None:
        answers: list[Callable[[], None]] = []
        for job in self.waiting or ():
            late = Job(
                job.work,
                lambda found, job=job: answers.append(lambda: job.done(found)),
                lambda error, job=job: answers.append(lambda: job.failed(error)),
            )
            run(late)
        self.waiting = None
        for answer in answers:
            answer()


class Desk:
    """A panel on a controller's session; nothing of it is on a screen."""

    def __init__(self, image: np.ndarray | None = None) -> None:
        self.said: list[tuple[str, str]] = []
        self.opened: list[Path] = []
        self.viewer = ViewerModel()
        layer = self.viewer.add_image(pixels() if image is None else image, name="a")
        self.runner = LateRunner()
        self.controller = Controller(
            self.viewer, layer, self.runner, flood_segmenter, self.tell, "small"
        )
        self.keeper = SessionKeeper(
            self.controller, lambda _: flood_segmenter(), self.tell
        )
        self.panel = SessionPanel(self.opened.append, self.tell)
        self.panel.show_keeper(self.keeper)

    def tell(self, level: str, message: str) -> None:
        self.said.append((level, message))

    @property
    def labels(self) -> np.ndarray:
        return np.asarray(self.controller.labels.layer.data)


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.fixture
def desk(qapp) -> Desk:
    return Desk()


def entries(menu) -> list[str]:
    return [action.text() for action in menu.actions() if action.text()]


def choose(menu, text: str) -> None:
    (action,) = [a for a in menu.actions() if a.text().startswith(text)]
    action.trigger()


def test_menu_lists_lost_and_recent_sessions(desk: Desk, tmp_path: Path) -> None:
    _, path = record(tmp_path)
    note_recent(path)
    lost = Desk()
    lost.controller.clicks.layer.add([20.0, 20.0])
    writer = lost.keeper.writer
    assert writer is not None
    writer._lock.release()  # its process died
    desk.panel.fill_menu()
    found = entries(desk.panel.menu)
    assert found[:2] == ["Open a session…", "Reopen unsaved sessions"]
    assert found[3] == "Recent"
    assert found[4].startswith("work  (")
    choose(desk.panel.menu, "work  (")
    desk.panel.menu.actions()[2].trigger()
    assert desk.opened == [path, writer.path]
    fresh = Desk()
    said = "1 unsaved session from before: Session → Open."
    assert fresh.panel.label.text() == said


def test_panel_follows_the_session_and_its_problems(desk: Desk) -> None:
    text = desk.panel.label.text
    assert text() == "Nothing to save yet."
    desk.panel.save_button.click()
    assert desk.said == [("info", "Nothing was done yet.")]
    desk.controller.clicks.layer.add([20.0, 20.0])
    assert text() == "Not saved yet; 2 actions kept in case of a crash."
    writer = desk.keeper.writer
    assert writer is not None
    writer._set_problem(OSError(28, "No space left on device"))
    assert text().startswith("⚠ unsaved-")
    assert "No space left" in text()
    assert desk.panel.label.styleSheet()
    desk.controller.clicks.layer.add([20.0, 25.0])  # there is room again
    assert text() == "Not saved yet; 3 actions kept in case of a crash."
    assert not desk.panel.label.styleSheet()
    desk.panel.show_keeper(None)
    assert text() == "Nothing to save yet."


def test_saving_asks_for_a_name_and_for_the_pixels(
    desk: Desk, tmp_path: Path, monkeypatch
) -> None:
    asked = []

    def question(*said) -> QMessageBox.StandardButton:
        asked.append(said[-1])
        return QMessageBox.StandardButton.Yes

    monkeypatch.setattr(QMessageBox, "question", question)
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "b"), "")
    )
    desk.controller.clicks.layer.add([20.0, 20.0])
    desk.panel.save_button.click()
    assert asked == ["This image is not in a file. Save its pixels beside the session?"]
    assert desk.panel.label.text() == "b.cfrseg.json: 2 actions, all on the disk."
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), pixels())
    labels = desk.controller.labels.layer
    assert labels.metadata["cfrseg_session"] == str(tmp_path / "b.cfrseg.json")
    # what napari makes of our labels is no session's image
    copied = desk.viewer.add_image(labels.data, metadata=labels.metadata)
    assert session_of(copied) is None


def test_a_name_gets_the_ending_of_the_kind_chosen_and_replaces_nothing_unasked(
    desk: Desk, tmp_path: Path, monkeypatch
) -> None:
    asked, starts, answer = [], [], QMessageBox.StandardButton.No
    chosen = (str(tmp_path / "a.v2"), "GeoJSON polygons (*.geojson)")

    def name(_, __, start, kinds):
        starts.append(start)
        return chosen

    def question(*said) -> QMessageBox.StandardButton:
        asked.append(said[-1])
        return answer

    monkeypatch.setattr(QFileDialog, "getSaveFileName", name)
    monkeypatch.setattr(QMessageBox, "question", question)
    desk.controller.clicks.layer.add([20.0, 20.0])
    desk.controller.image.layer._source = Source(path=str(tmp_path / "image.tif"))
    desk.panel.export_button.click()
    made = json.loads((tmp_path / "a.v2.geojson").read_text())
    assert len(made["features"]) == 1
    assert not asked
    # it begins where the image is
    assert starts == [str(tmp_path / f"{desk.controller.image.layer.name} objects")]
    other = tmp_path / "s.cfrseg.json"
    other.write_text("of another day")
    for typed in ("s", "s.json"):
        chosen = (str(tmp_path / typed), "")
        desk.panel.save_button.click()
        assert asked.pop() == "Replace s.cfrseg.json?"
        assert other.read_text() == "of another day"
    assert not desk.keeper.is_saved
    answer = QMessageBox.StandardButton.Yes
    desk.panel.save_button.click()
    assert desk.panel.label.text().startswith("s.cfrseg.json: 2 actions")
    desk.panel.export_button.click()
    assert starts[-1] == str(tmp_path / "s objects")  # or where the session is


def test_exports_by_ending_and_says_what_is_wrong(
    desk: Desk, tmp_path: Path, monkeypatch
) -> None:
    desk.controller.clicks.layer.add([20.0, 20.0])
    wanted = tmp_path / "a.ome.tif"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(wanted), ""))
    desk.panel.export_button.click()
    assert np.array_equal(tifffile.imread(wanted), desk.labels)
    wanted = tmp_path / "a.txt"
    desk.panel.export_button.click()
    assert "outlines of 1 object were made with 1 click " in wanted.read_text()
    wanted = tmp_path / "image.tif"  # the file dialog asks, and one says yes too soon
    tifffile.imwrite(wanted, pixels())
    desk.controller.image.layer._source = Source(path=str(wanted))
    desk.panel.export_button.click()
    assert "is the image itself" in desk.said[-1][1]
    assert np.array_equal(tifffile.imread(wanted), pixels())


def test_labels_are_imported_from_the_menu_and_clicks_correct_them(desk: Desk) -> None:
    made = np.zeros(SHAPE, np.int64)
    made[10:30, 12:30] = 7
    made[50:70, 40:60] = 70_000
    layer = desk.viewer.add_labels(made.copy(), name="cellpose")
    desk.panel.fill_import_menu()
    assert "a objects" not in entries(desk.panel.import_menu)
    choose(desk.panel.import_menu, "cellpose")
    assert np.array_equal(desk.labels > 0, made > 0)
    assert [o.object_id for o in desk.controller.view.objects] == [1, 2]
    assert ("info", "2 objects imported: click to correct.") in desk.said
    desk.controller.select(1)
    desk.controller.clicks.layer.add([20.0, 11.0])
    assert desk.labels[20, 11] == 1
    assert np.array_equal(layer.data, made)  # never changed
    # again: what lies wholly under objects is left out, the rest gets free numbers
    under = "labels lie wholly under other objects: left out."
    before = len(desk.keeper.writer.content.events)
    assert imported(read_layer, desk.controller, layer) == ([], f"2 of 2 {under}")
    assert len(desk.keeper.writer.content.events) == before
    more = made.copy()
    more[45:50, 40:60] = 70_000
    more = desk.viewer.add_labels(more)
    assert imported(read_layer, desk.controller, more)[1] == f"1 of 2 {under}"
    assert [o.object_id for o in desk.controller.view.objects] == [1, 2, 4]
    desk.controller.undo()
    assert [o.object_id for o in desk.controller.view.objects] == [1, 2]
    # under the other rule what is there gives way, unless it is locked
    desk.controller.set_rule(ev.OverlapRule.OVERWRITE)
    desk.controller.submit(ev.ObjectLocked(1, True))
    assert imported(read_layer, desk.controller, layer)[1] == f"1 of 2 {under}"
    assert (desk.labels == 4).sum() == (made == 70_000).sum()
    desk.controller.undo()
    # what does not fit is said, and stays in sight
    unfit = desk.viewer.add_labels(made[:50], name="unfit")
    desk.panel.fill_import_menu()
    choose(desk.panel.import_menu, "unfit")
    assert desk.said[-1][1].startswith("unfit has the shape")
    assert unfit.visible
    assert not layer.visible


def test_after_a_session_that_cannot_be_reopened_clicks_go_on(
    desk: Desk, tmp_path: Path
) -> None:
    content = Session.open(record(tmp_path)[1]).content
    events = (*content.events, ev.ObjectRenamed(999, "of no object"))
    bad = tmp_path / "bad.cfrseg.json"
    SessionWriter.create(bad, SessionContent(content.image, events=events)).close()
    before = bad.read_bytes()
    desk.keeper.reopen(bad)
    said = "bad.cfrseg.json cannot be reopened: there is no object 999"
    assert desk.said == [("warning", said)]
    assert desk.controller.view.status == said
    assert desk.controller.view.progress == (0, 0)
    desk.controller.clicks.layer.add([20.0, 20.0])
    assert [o.object_id for o in desk.controller.view.objects] == [1]
    assert desk.labels.any()
    desk.controller.undo()
    assert not desk.labels.any()
    assert bad.read_bytes() == before


def test_a_model_that_loads_around_a_reopening_is_not_written_into_it(
    desk: Desk, tmp_path: Path
) -> None:
    content = Session.open(record(tmp_path)[1]).content
    good, bad = (tmp_path / f"{name}.cfrseg.json" for name in ("good", "bad"))
    SessionWriter.create(good, content).close()
    wrong = (*content.events, ev.ObjectRenamed(999, "of no object"))
    SessionWriter.create(bad, replace(content, events=wrong)).close()
    for path in (bad, good):
        before = Session.open(path).content.events
        desk.runner.hold()
        desk.controller.load_model(flood_segmenter, f"before {path.name}")
        desk.keeper.reopen(path)
        if path is bad:
            desk.controller.load_model(flood_segmenter, "after")
        desk.runner.release()
        assert Session.open(path).content.events == before
    writer = desk.keeper.writer
    assert writer is not None
    assert writer.path == good
    desk.runner.hold()
    desk.controller.load_model(flood_segmenter, "later")
    desk.runner.release()
    assert writer.content.events == (*content.events, ev.ModelChanged("later"))


def test_labels_are_imported_from_a_file(
    desk: Desk, tmp_path: Path, monkeypatch
) -> None:
    made = np.zeros(SHAPE, np.uint16)
    made[10:30, 12:30], made[50:70, 40:60] = 7, 9
    path = tmp_path / "a_cp_masks.tif"
    tifffile.imwrite(path, made)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    desk.panel.fill_import_menu()
    choose(desk.panel.import_menu, "Objects of another program")
    assert np.array_equal(desk.labels, made)
    assert desk.said[-1] == ("info", "2 objects imported: click to correct.")
    assert len(desk.viewer.layers) == 3  # no further layer
    for wrong, said in (
        (made[:50], "a_cp_masks.tif has the shape"),
        (pixels() + np.float32(0.5), "a_cp_masks.tif"),
    ):
        tifffile.imwrite(path, wrong)
        desk.panel.fill_import_menu()
        choose(desk.panel.import_menu, "Objects of another program")
        assert desk.said[-1][0] == "warning"
        assert said in desk.said[-1][1]
    assert np.array_equal(desk.labels, made)


def test_of_coco_s_images_the_open_one_is_imported(
    desk: Desk, tmp_path: Path, monkeypatch
) -> None:
    path = tmp_path / "instances.json"
    squares = {"a.png": [12, 10, 30, 10, 30, 30, 12, 30], "b.png": [1, 1, 5, 1, 5, 5]}
    whole = {
        "images": [{"id": i, "file_name": n} for i, n in enumerate(squares)],
        "annotations": [
            {"image_id": i, "segmentation": [square]}
            for i, square in enumerate(squares.values())
        ],
    }
    path.write_text(json.dumps(whole))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    for name, said in (("c", "(a.png, b.png, …)"), ("a", "1 object imported")):
        desk.controller.image.layer.name = name
        desk.panel.fill_import_menu()
        choose(desk.panel.import_menu, "Objects of another program")
        assert said in desk.said[-1][1]
    made = np.zeros(SHAPE, bool)
    made[10:30, 12:30] = True
    assert np.array_equal(desk.labels > 0, made)


def test_outlines_are_imported_with_names_and_classes_in_one_step(
    desk: Desk, tmp_path: Path, monkeypatch
) -> None:
    made = np.zeros(SHAPE, np.uint16)
    made[10:30, 12:30], made[50:70, 40:60] = 7, 9
    rows = (ExportedObject(7, "one", object_class="cell"), ExportedObject(9, "two"))
    path = tmp_path / "a.geojson"
    write_geojson(path, made, rows)
    desk.controller.clicks.layer.add([20.0, 80.0])
    before = desk.labels.copy()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    desk.panel.fill_import_menu()
    choose(desk.panel.import_menu, "Objects of another program")
    assert desk.said[-1] == ("info", "2 objects imported: click to correct.")
    table = [
        (o.object_id, o.name, o.object_class) for o in desk.controller.view.objects
    ]
    assert table[1:] == [(2, "one", "cell"), (3, "two", "")]
    assert np.array_equal(desk.labels == 3, made == 9)
    desk.controller.select(3)
    desk.controller.clicks.layer.add([60.0, 39.0])
    assert desk.labels[60, 39] == 3
    writer = desk.keeper.writer
    assert writer is not None
    replayed = Session.open(writer.path).apply(pixels(), flood_segmenter())
    assert np.array_equal(replayed, desk.labels)
    desk.controller.undo()
    desk.controller.undo()
    assert np.array_equal(desk.labels, before)
    beside = np.zeros((2 * SHAPE[0], SHAPE[1]), np.uint16)
    beside[50:70, 40:60], beside[SHAPE[0] :, :9] = 9, 7
    write_geojson(path, beside, rows)
    choose(desk.panel.import_menu, "Objects of another program")
    assert desk.said[-2][1].startswith("1 of 2 outlines have no pixel of the image")
    assert desk.said[-1] == ("info", "1 object imported: click to correct.")
    count = len(desk.controller.view.objects)
    choose(desk.panel.import_menu, "Objects of another program")
    assert desk.said[-1] == (
        "warning",
        "no outline has a pixel of the image that is free",
    )
    beside[5:9, 12:30] = 11
    write_geojson(path, beside, (*rows, ExportedObject(11, "new")))
    choose(desk.panel.import_menu, "Objects of another program")
    assert desk.said[-2][1].startswith("2 of 3 outlines have no pixel of the image")
    assert [o.name for o in desk.controller.view.objects][count:] == ["new"]
    assert all(o.area_px for o in desk.controller.view.objects)
    path.write_text("{}")
    choose(desk.panel.import_menu, "Objects of another program")
    assert desk.said[-1][0] == "warning"


def test_labels_of_a_stack_are_imported_as_one_undo_step(qapp) -> None:
    desk = Desk(np.stack([pixels(), pixels(), pixels()]))
    made = np.zeros((3, *SHAPE), np.uint8)
    made[:, 10:30, 10:30] = 1
    made[1:, 50:70, 40:60] = 2
    imported(read_layer, desk.controller, desk.viewer.add_labels(made))
    assert np.array_equal(desk.labels, made)
    writer = desk.keeper.writer
    assert writer is not None
    kept = Session.open(writer.path).apply(
        desk.controller.image.data, flood_segmenter()
    )
    assert np.array_equal(kept, made)
    desk.controller.undo()
    assert not desk.controller.view.objects
    assert not desk.labels.any()
    desk.controller.redo()
    assert np.array_equal(desk.labels, made)


def test_labels_of_one_plane_go_to_the_plane_shown(qapp) -> None:
    desk = Desk(np.stack([pixels(), pixels(), pixels()]))
    desk.viewer.dims.set_point(0, 2)
    made = np.zeros(SHAPE, np.uint8)
    made[10:30, 10:30] = 1
    imported(read_layer, desk.controller, desk.viewer.add_labels(made))
    assert [int(plane.any()) for plane in desk.labels] == [0, 0, 1]


def test_points_are_imported_through_the_world(qapp) -> None:
    desk = Desk()
    desk.controller.clicks.layer.add([*map(float, PLACES[1])])
    layer = desk.viewer.add_points(
        np.array([[40.0, 100.0], [44.0, 110.0], [400.0, 0.0]]),
        scale=(0.5, 0.5),
        features={"object": ["b", "b", "b"], "polarity": ["positive", "negative"] * 1
                  + ["positive"]},
        name="seeds",
    )  # fmt: skip
    said = "1 of 3 clicks are not on the image: left out."
    assert imported(read_layer, desk.controller, layer) == ([ev.ClickAdded] * 2, said)
    (second,) = [o for i, o in desk.controller.annotator.objects.items() if i > 1]
    clicks = [entry.click for _, entry in second.clicks()]
    assert clicks == [Click((20, 50)), Click((22, 55), False)]
    desk.controller.undo()
    assert len(desk.controller.view.objects) == 1
    desk.controller.redo()
    assert len(desk.controller.view.objects) == 2


def test_points_without_columns_are_objects_of_their_own(qapp) -> None:
    desk = Desk()
    layer = desk.viewer.add_points([PLACES[1], PLACES[4], PLACES[5]])
    assert imported(read_layer, desk.controller, layer)[1] == ""
    assert [o.clicks for o in desk.controller.view.objects] == [1, 1, 1]
    desk.controller.new_object()
    desk.controller.clicks.layer.add([*map(float, PLACES[2])])
    assert len(desk.controller.view.objects) == 4
    desk.controller.undo()
    assert len(desk.controller.view.objects) == 3
    desk.controller.undo()
    assert not desk.controller.view.objects
    desk.controller.redo()
    writer = desk.keeper.writer
    assert writer is not None
    replayed = Session.open(writer.path).apply(pixels(), flood_segmenter())
    assert np.array_equal(replayed, desk.labels)
    assert len(np.unique(replayed)) == 4


def test_clicks_come_from_a_table(desk: Desk, tmp_path: Path, monkeypatch) -> None:
    table = tmp_path / "clicks.csv"
    rows = ["3,20,20,+,cell", "3,12,12,-,", "9,999,0,+,", "5,0,-9,+,", "6,60,20,+,",
            "5,20,80,+,"]  # fmt: skip
    table.write_text("\n".join(["object,y,x,sign,name", *rows]))
    starts = []

    def name(_, __, start, kinds):
        starts.append(start)
        return str(table), ""

    monkeypatch.setattr(QFileDialog, "getOpenFileName", name)
    desk.controller.image.layer._source = Source(path=str(tmp_path / "image.tif"))
    desk.panel.fill_import_menu()
    choose(desk.panel.import_menu, "CSV")
    assert [(o.object_id, o.name) for o in desk.controller.view.objects] == [
        (3, "cell"),
        (5, "Object 5"),
        (6, "Object 6"),
    ]
    assert starts == [str(tmp_path)]
    assert desk.said[-1][1] == "2 of 6 clicks are not on the image: left out."
    assert desk.labels[20, 20] == 3
    desk.controller.undo()
    assert not desk.controller.view.objects
    table.write_text("a,b\n")
    with pytest.raises(SessionError, match="columns y and x"):
        imported(read_table, desk.controller, table)


def test_another_model_in_mid_session_is_written_down(desk: Desk) -> None:
    controller = desk.controller
    controller.clicks.layer.add([20.0, 20.0])
    controller.load_model(flood_segmenter, "other")
    controller.load_model(flood_segmenter, "other")
    controller.clicks.layer.add([20.0, 25.0])
    writer = desk.keeper.writer
    assert writer is not None
    assert writer.content.model == ModelReference("small")
    kinds = [type(e) for e in writer.content.events[1:]]
    assert kinds == [ev.ClickAdded, ev.ModelChanged, ev.ClickAdded]
    assert writer.content.events[2] == ev.ModelChanged("other")
    assert controller.view.model == "other"


def test_classes_are_said_in_the_table_and_exported(desk: Desk, tmp_path: Path) -> None:
    desk.controller.clicks.layer.add([20.0, 20.0])
    desk.controller.submit(ev.ObjectClassified(1, "nucleus"))
    assert desk.controller.view.objects[0].object_class == "nucleus"
    assert '"nucleus"' in desk.keeper.export(tmp_path / "a.coco.json").read_text()
    desk.controller.undo()
    assert desk.controller.view.objects[0].object_class == ""
    writer = desk.keeper.writer
    assert writer is not None
    assert ev.ObjectClassified(1, "nucleus") in Session.open(writer.path).content.events


def test_unsaved_sessions_are_described_announced_for_a_day_and_discarded(
    desk: Desk, monkeypatch
) -> None:
    lost = Desk()
    lost.controller.clicks.layer.add([20.0, 20.0])
    writer = lost.keeper.writer
    assert writer is not None
    writer._lock.release()  # its process died
    old = writer.path.stat().st_mtime - 3 * 86_400
    os.utime(writer.path, (old, old))
    desk.panel.show_keeper(desk.keeper)
    assert desk.panel.label.text() == "Nothing to save yet."
    desk.panel.fill_menu()
    assert "Not saved: 1 object, 3 days ago" in entries(desk.panel.menu)
    monkeypatch.setattr(
        QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes
    )
    choose(desk.panel.menu, "Discard")
    assert not writer.path.exists()
    desk.panel.fill_menu()
    assert entries(desk.panel.menu) == ["Open a session…"]


def test_the_menu_shows_a_session_s_picture(desk: Desk, qtbot, monkeypatch) -> None:
    lost = Desk()
    lost.controller.clicks.layer.add([20.0, 20.0])
    writer = lost.keeper.writer
    assert writer is not None
    target = picture_path(writer.content.identity)
    qtbot.waitUntil(target.exists)
    picture = np.asarray(PIL.Image.open(target))
    small = lost.labels[::2, ::2]
    assert picture.shape[:2] == small.shape
    coloured = (picture != picture[..., :1]).any(axis=-1)
    assert coloured.any()
    assert not coloured[small == 0].any()
    writer._lock.release()  # its process died
    desk.panel.fill_menu()
    (shown,) = [a for a in desk.panel.menu.actions() if "Not saved" in a.text()]
    assert not shown.icon().isNull()
    monkeypatch.setattr(
        QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes
    )
    choose(desk.panel.menu, "Discard")
    assert not target.exists()


def test_closed_session_without_objects_leaves_no_file(desk: Desk, user_folder) -> None:
    desk.controller.clicks.layer.add([20.0, 20.0])
    desk.controller.undo()
    desk.controller.close()
    desk.keeper.close()
    assert not list(user_folder.glob("unsaved-*"))


def test_work_is_saved_elsewhere_when_the_sessions_folder_cannot_be_written(
    user_folder: Path, tmp_path: Path
) -> None:
    user_folder.write_text("a file where the folder should be")
    desk = Desk()
    desk.controller.clicks.layer.add([20.0, 20.0])
    assert "not being saved" in desk.panel.label.text()
    exported = desk.keeper.export(tmp_path / "out" / "clicks.csv")
    assert "20.0" in exported.read_text()
    desk.keeper.save(tmp_path / "kept.cfrseg.json", keep_pixels=True)
    desk.controller.clicks.layer.add([60.0, 20.0])
    session = Session.open(tmp_path / "kept.cfrseg.json")
    assert sum(o.click_count for o in session.objects()) == 2
    assert np.array_equal(session.apply(segmenter=flood_segmenter()), desk.labels)
    assert "all on the disk" in desk.panel.label.text()


def test_signs_of_points_are_those_of_tables():
    signs = ["+", "Positive", True, 1.0, "negative", "Negative", "-", False, 0, -1.0]
    said = {"object": [1] * 10, "polarity": signs}
    assert said_by(said) == ([1] * 10, [True] * 4 + [False] * 6)
    with pytest.raises(SessionError, match="polarity: sign 'up': expected"):
        said_by({"polarity": ["up"]})


def test_undo_of_an_import_that_failed_at_first_spares_what_was_before(qapp, tmp_path):
    def plane(block_info=None):
        number = block_info[None]["chunk-location"][0]
        if number == 2:
            raise OSError("the share is gone")
        return pixels()[None]

    chunks = ((1,) * 3, *((side,) for side in SHAPE))
    desk = Desk(da.map_blocks(plane, chunks=chunks, dtype=np.uint8, meta=np.empty(0)))
    desk.viewer.dims.set_current_step(0, 0)
    desk.controller.clicks.layer.add([0.0, *map(float, PLACES[1])])
    table = tmp_path / "c.csv"
    table.write_text("z,y,x\n2,20,20\n1,20,20\n1,60,20\n")
    imported(read_table, desk.controller, table)
    desk.runner.hold()
    desk.runner.release()
    assert len(desk.controller.view.objects) == 3
    desk.controller.undo()
    assert [row.object_id for row in desk.controller.view.objects] == [1]
