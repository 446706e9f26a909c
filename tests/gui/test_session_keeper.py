"""Sessions in the window, with napari's models and the runner on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers.base import ActionType
from session_cases import (
    PLACES,
    SHAPE,
    flood_segmenter,
    pixels,
    record,
    record_with,
    save_model,
)
from sync_runner import HeldRunner, SyncRunner

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui import manifest
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.gui.session import session_layers as session_files
from napari_cfrseg.gui.session.layer_references import METADATA_KEY
from napari_cfrseg.gui.session.session_keeper import SessionKeeper
from napari_cfrseg.io.images import open_image as open_file
from napari_cfrseg.io.label_exports import write_ome_zarr
from napari_cfrseg.session.format import SessionContent
from napari_cfrseg.session.references import open_reference, reference_of
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_writer import SessionWriter
from napari_cfrseg.session.unsaved_sessions import recent_sessions, unsaved_sessions


@pytest.fixture(autouse=True)
def sessions_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "user"
    monkeypatch.setenv("CFRSEG_SESSIONS", str(folder))
    return folder


class Window:
    """A viewer with a controller and its session."""

    def __init__(self, viewer: ViewerModel, layer, load=None, runner=None) -> None:
        self.viewer = viewer
        self.said: list[tuple[str, str]] = []
        runner = runner or SyncRunner()
        self.controller = Controller(
            viewer, layer, runner, flood_segmenter, self.tell, "absent"
        )
        self.keeper = SessionKeeper(
            self.controller, load or (lambda _: flood_segmenter()), self.tell
        )

    def tell(self, level: str, message: str) -> None:
        self.said.append((level, message))

    def click(self, yx: tuple[float, float]) -> None:
        self.controller.clicks.layer.add([*yx])

    @property
    def labels(self) -> np.ndarray:
        return np.asarray(self.controller.labels.layer.data)


def open_image(folder: Path) -> Window:
    path = folder / "image.tif"
    tifffile.imwrite(path, pixels())
    viewer = ViewerModel()
    layer = viewer.add_image(tifffile.imread(path), name="image", scale=(0.5, 0.5))
    layer._source = layer.source.model_copy(update={"path": str(path)})
    return Window(viewer, layer)


def open_session(path: Path, load=None, runner=None) -> Window:
    """Do as napari does: add what the reader returns; then the dock attaches."""
    viewer = ViewerModel()
    reader = session_files.get_session_reader(str(path))
    assert reader is not None
    for data, kwargs, kind in reader(str(path)):
        getattr(viewer, f"add_{kind}")(data, **kwargs)
    return Window(viewer, viewer.layers[0], load, runner)


def work(window: Window) -> None:
    """Five objects with undo, a deletion, a drag, a lock and a stroke."""
    controller = window.controller
    for number in (1, 2, 3, 4, 5):
        controller.new_object()
        window.click(PLACES[number])
    controller.select(1)
    controller.set_polarity(False)
    window.click((20, 27))
    controller.undo()
    controller.redo()
    controller.submit(ev.ObjectLocked(2, True))
    controller.submit(ev.ObjectDeleted(4))
    controller.undo()
    layer = controller.clicks.layer
    moved = layer.data.copy()
    index = len(moved) - 1
    moved[index] = (58.0, 24.0)
    with layer.events.data.blocker():
        layer.data = moved
    layer.events.data(
        value=moved,
        action=ActionType.CHANGED,
        data_indices=(index,),
        vertex_indices=((),),
    )
    stroke = tuple(np.mgrid[14:34, 66:74].reshape(2, -1))
    controller.labels.layer.data_setitem(stroke, 3)
    controller.submit(ev.ObjectDeleted(5))


def test_what_is_done_in_the_window_is_replayed_identically(tmp_path: Path) -> None:
    window = open_image(tmp_path)
    work(window)
    target = tmp_path / "saved" / "work.cfrseg.json"
    target.parent.mkdir()
    window.keeper.save(target)
    expected = window.labels.copy()
    assert len(np.unique(expected)) >= 4
    window.controller.close()
    window.keeper.close()
    session = Session.open(target)
    assert session.image.path == "../image.tif"
    assert session.image.spacing == (0.5, 0.5)
    assert any(isinstance(e, ev.Painted) for e in session.content.events)
    assert any(isinstance(e, ev.ClicksMoved) for e in session.content.events)
    found = session.apply(segmenter=flood_segmenter())
    assert np.array_equal(found, expected)
    assert sorted(p.name for p in target.parent.iterdir()) == [target.name]
    assert recent_sessions() == [target]
    assert unsaved_sessions() == []


def test_reopened_window_goes_on_with_undo(tmp_path: Path) -> None:
    annotator, path = record(tmp_path)
    window = open_session(path)
    assert np.array_equal(window.labels, annotator.labels())
    assert [o.object_id for o in window.controller.view.objects] == sorted(
        annotator.objects
    )
    names = [layer.name for layer in window.viewer.layers]
    assert len(names) == 3  # the reader's labels and clicks gave way to the dock's
    for _ in range(4):
        annotator.apply(ev.Undone())
        window.controller.undo()
        assert np.array_equal(window.labels, annotator.labels())
    window.controller.new_object()
    window.click((60, 80))
    expected = window.labels.copy()
    window.keeper.close()
    again = Session.open(path)
    assert np.array_equal(again.apply(segmenter=flood_segmenter()), expected)


def test_saving_as_leaves_the_file_saved_before(tmp_path: Path) -> None:
    window = open_image(tmp_path)
    first, second = tmp_path / "a.cfrseg.json", tmp_path / "b.cfrseg.json"
    window.click(PLACES[1])
    window.keeper.save(first)
    window.controller.new_object()
    window.click(PLACES[2])
    window.keeper.save(second)
    window.controller.new_object()
    window.click(PLACES[3])
    window.controller.close()
    window.keeper.close()
    counts = [len(list(Session.open(path).objects())) for path in (first, second)]
    assert counts == [2, 3]
    assert unsaved_sessions() == []


def test_clicks_made_while_a_session_is_reopened_follow_it(tmp_path: Path) -> None:
    window = open_image(tmp_path)
    window.click(PLACES[1])
    window.keeper.save(tmp_path / "a.cfrseg.json")
    window.controller.close()
    window.keeper.close()
    runner = HeldRunner()
    runner.hold()
    again = open_session(tmp_path / "a.cfrseg.json", runner=runner)
    again.controller.do(lambda c: c.new_object())
    again.click(PLACES[2])
    assert "What you do is kept" in again.controller.view.status
    assert not again.controller.view.objects
    runner.release()
    # the number and the object that the session left free
    objects = again.controller.view.objects
    assert [(one.object_id, one.clicks) for one in objects] == [(1, 1), (2, 1)]
    assert not again.said
    again.controller.undo()
    assert len(again.controller.view.objects) == 1


def test_layers_of_the_reader_lie_on_the_image(tmp_path: Path) -> None:
    annotator, path = record(tmp_path)
    image, labels, points = session_files.read_session(str(path))
    assert image[0].shape == SHAPE
    assert np.array_equal(labels[0], annotator.labels())
    count = sum(o.click_count for o in annotator.objects.values())
    assert points[0].shape == (count, 2)
    for _, kwargs, _ in (image, labels, points):
        assert kwargs["metadata"][METADATA_KEY] == str(path)


def test_unsaved_work_is_reopened_after_a_crash(tmp_path: Path) -> None:
    window = open_image(tmp_path)
    window.click((20, 20))
    window.click((20, 25))
    expected = window.labels.copy()
    assert unsaved_sessions() == []  # it is open: nothing is lost
    writer = window.keeper.writer
    assert writer is not None
    writer._lock.release()  # the process is gone, nothing was closed
    (path,) = unsaved_sessions()
    again = open_session(path)
    assert np.array_equal(again.labels, expected)
    assert "Not saved yet" in again.keeper.status()


def test_nothing_is_written_before_the_first_act(
    tmp_path: Path, sessions_folder: Path
) -> None:
    window = open_image(tmp_path)
    window.controller.set_rule(ev.OverlapRule.OVERWRITE)
    assert not sessions_folder.exists()
    assert window.keeper.status() == "Nothing to save yet."
    window.click((20, 20))
    (path,) = sessions_folder.glob("unsaved-*.cfrseg.json")
    kinds = [type(e) for e in Session.open(path).content.events]
    assert kinds == [ev.OverlapChanged, ev.ObjectCreated, ev.ClickAdded]


def test_folder_that_cannot_be_written_is_said_and_work_goes_on(
    tmp_path: Path, sessions_folder: Path
) -> None:
    sessions_folder.write_text("a file is in the way")
    window = open_image(tmp_path)
    window.click((20, 20))
    assert window.labels.any()
    assert window.keeper.status().startswith("⚠")
    sessions_folder.unlink()
    window.click((20, 25))
    assert not window.keeper.status().startswith("⚠")
    writer = window.keeper.writer
    assert writer is not None
    assert len(writer.content.events) == 3


def test_session_open_elsewhere_is_left_alone(tmp_path: Path) -> None:
    _, path = record(tmp_path)
    first = open_session(path)
    second = open_session(path)
    assert first.keeper.writer is not None
    assert second.keeper.writer is None
    assert any("another window" in message for _, message in second.said)


def test_image_in_no_file_is_saved_beside_the_session(tmp_path: Path) -> None:
    viewer = ViewerModel()
    window = Window(viewer, viewer.add_image(pixels(), name="made"))
    window.click((20, 20))
    target = tmp_path / "made.cfrseg.json"
    window.keeper.save(target, keep_pixels=True)
    window.keeper.close()
    session = Session.open(target)
    assert session.image.path == "made.tif"
    assert np.array_equal(session.apply(segmenter=flood_segmenter()), window.labels)


def test_channel_split_off_a_file_is_found_again(tmp_path: Path) -> None:
    both = np.stack([pixels() // 2, pixels()])
    tifffile.imwrite(tmp_path / "image.tif", both)
    viewer = ViewerModel()
    layer = viewer.add_image(both[1].copy(), name="image")
    layer._source = layer.source.model_copy(
        update={"path": str(tmp_path / "image.tif")}
    )
    window = Window(viewer, layer)
    window.click((20, 20))
    window.keeper.save(tmp_path / "a.cfrseg.json")
    window.keeper.close()
    session = Session.open(tmp_path / "a.cfrseg.json")
    assert session.image.select == ((0, 1),)
    assert np.array_equal(session.apply(segmenter=flood_segmenter()), window.labels)


def test_an_image_that_lies_elsewhere_keeps_its_place(tmp_path: Path) -> None:
    place = {"spacing": (0.5, 0.25), "units": ("µm", "µm"), "origin": (30.0, -12.0)}
    source = tmp_path / "image.zarr"
    write_ome_zarr(source, pixels().astype(np.uint16), axes=("y", "x"), **place)
    opened = open_file(source)
    image = reference_of(
        opened.array,
        path=source,
        folder=tmp_path,
        spacing=opened.spacing,
        units=opened.units,
    )
    events = (ev.ObjectCreated(1), ev.ClickAdded(1, (), PLACES[1], True, 1))
    target = tmp_path / "moved.cfrseg.json"
    SessionWriter.create(target, SessionContent(image, events=events)).close()
    window = open_session(target)
    for layer in window.viewer.layers:
        assert tuple(layer.translate) == (30.0, -12.0)
    window.keeper.export(tmp_path / "window.zarr")
    assert open_reference(image, source).origin == (30.0, -12.0)
    assert open_file(tmp_path / "window.zarr").origin == (30.0, -12.0)


def test_missing_image_is_asked_for_and_checked(tmp_path: Path, monkeypatch) -> None:
    _, path = record(tmp_path)
    (tmp_path / "work.tif").rename(tmp_path / "renamed.tif")
    starts = []

    def ask(_, start: Path) -> Path:
        starts.append(start)
        return tmp_path / "renamed.tif"

    monkeypatch.setattr(session_files, "ask_for_image", ask)
    image, *own = session_files.read_session(str(path))
    assert image[0].shape == SHAPE
    names = [layer[1]["name"] for layer in (image, *own)]
    assert names == ["renamed", "renamed objects", "renamed clicks"]
    assert starts == [tmp_path]
    tifffile.imwrite(tmp_path / "renamed.tif", pixels() + 1)
    with pytest.raises(Exception, match="other pixels"):
        session_files.read_session(str(path))


def test_image_that_moved_is_written_down(tmp_path: Path, monkeypatch) -> None:
    annotator, path = record(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "work.tif").rename(elsewhere / "renamed.tif")
    monkeypatch.setattr(
        session_files, "ask_for_image", lambda *_: elsewhere / "renamed.tif"
    )
    window = open_session(path)
    assert np.array_equal(window.labels, annotator.labels())
    window.keeper.close()
    assert Session.open(path).image.path == "elsewhere/renamed.tif"


def test_saving_the_dock_s_layers_takes_every_act_along(tmp_path: Path) -> None:
    window = open_image(tmp_path)
    work(window)
    layers = (window.controller.labels.layer, window.controller.clicks.layer)
    named = [layer.as_layer_data_tuple() for layer in layers]
    (path,) = session_files.write_session(str(tmp_path / "copy.cfrseg.json"), named)
    copy, writer = Session.open(path), window.keeper.writer
    assert writer is not None
    assert copy.content.events == writer.content.events
    assert copy.image.path == "image.tif"


def test_the_session_s_model_is_loaded_on_reopening(
    tmp_path: Path, monkeypatch
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    monkeypatch.setenv("CFRSEG_MODELS", str(models))
    model = save_model(models)
    expected, path = record_with(model, tmp_path, "cells")
    window = open_session(path, lambda name: Segmenter.load(name, device="cpu"))
    assert window.controller.view.model == "small"
    assert np.array_equal(window.labels, expected)
    assert not window.said
    window.keeper.close()
    model.unlink()
    window = open_session(path)
    assert window.controller.view.model == "absent"
    (said,) = window.said
    assert "not installed" in said[1]
    assert "another model" in said[1]


def test_writer_makes_a_session_of_labels_and_points(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, int)
    labels[10:30, 10:30] = 4
    points = np.array([[20.0, 50.0], [60.0, 20.0]])
    path = session_files.write_session(
        str(tmp_path / "made.cfrseg.json"),
        [
            (pixels(), {}, "image"),
            (labels, {}, "labels"),
            (points, {"features": {}}, "points"),
        ],
    )
    session = Session.open(path[0])
    found = session.apply(pixels(), flood_segmenter())
    assert np.array_equal(found == 4, labels == 4)
    assert {o.object_id for o in session.objects()} == {4, 5, 6}
    with pytest.raises(Exception, match="select the image"):
        session_files.write_session(
            str(tmp_path / "b.cfrseg.json"), [(labels, {}, "labels")]
        )


def test_sample_session_opens() -> None:
    image, *_, points = manifest.sample_session()
    assert image[2] == "image"
    assert len(points[0]) > 0
    assert manifest.sample_session()[0][0].shape == image[0].shape
