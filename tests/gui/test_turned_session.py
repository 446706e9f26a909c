"""A session on planes across Y: begun in a window, reopened in another. No display."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from session_cases import flood_segmenter
from sync_runner import SyncRunner, imported

from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.gui.segment.working_image import show_planes_of
from napari_cfrseg.gui.session import session_layers as session_files
from napari_cfrseg.gui.session.layer_imports import read_layer
from napari_cfrseg.gui.session.session_keeper import SessionKeeper
from napari_cfrseg.session.session import Session

SHAPE, ORDER = (12, 40, 48), (1, 0, 2)


@pytest.fixture(autouse=True)
def sessions_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path / "user"))


def ball():
    z, y, x = np.mgrid[tuple(slice(0, n) for n in SHAPE)]
    inside = ((z - 6) / 4) ** 2 + ((y - 20) / 12) ** 2 + ((x - 24) / 12) ** 2 < 1
    return np.where(inside, 150, 20).astype(np.uint8)


class Desk:
    """A viewer with a controller and its session."""

    def __init__(self, viewer, layer):
        self.viewer, self.said = viewer, []
        self.controller = Controller(
            viewer,
            layer,
            SyncRunner(),
            flood_segmenter,
            lambda *said: self.said.append(said),
            "absent",
        )
        show_planes_of(viewer, self.controller.image)
        self.keeper = SessionKeeper(
            self.controller, lambda _: flood_segmenter(), lambda *s: self.said.append(s)
        )

    def close(self):
        self.controller.close()
        self.keeper.close()

    @property
    def labels(self):
        return np.asarray(self.controller.labels.layer.data)

    @property
    def points(self):
        return self.controller.clicks.layer


def begun(tmp_path):
    path = tmp_path / "ball.tif"
    tifffile.imwrite(path, ball(), metadata={"axes": "ZYX"})
    viewer = ViewerModel()
    layer = viewer.add_image(ball(), name="ball", scale=(2, 0.5, 0.5))
    layer._source = layer.source.model_copy(update={"path": str(path)})
    viewer.dims.order = ORDER
    return Desk(viewer, layer)


def worked(tmp_path):
    desk = begun(tmp_path)
    desk.viewer.dims.set_current_step(1, 20)
    desk.points.add((6, 20, 24))
    desk.controller.stack.both()
    assert desk.labels.any(axis=(0, 2)).sum() > 10
    return desk


def reopened(path):
    """Do as napari does: add what the reader returns; then the dock attaches."""
    viewer = ViewerModel()
    for data, kwargs, kind in session_files.read_session(str(path)):
        getattr(viewer, f"add_{kind}")(data, **kwargs)
    return viewer


def test_saved_and_reopened_it_is_as_it_was(tmp_path):
    desk = worked(tmp_path)
    path = tmp_path / "ball.cfrseg.json"
    desk.keeper.save(path)
    session = Session.open(path)
    assert session.image.order == ORDER
    assert session.image.path == "ball.tif"
    assert session.image.spacing == (0.5, 2.0, 0.5)

    desk.close()
    viewer = reopened(path)
    image, labels, points = viewer.layers
    assert np.array_equal(image.data, ball())
    assert np.array_equal(labels.data, desk.labels)
    assert np.allclose(points.data, [(6, 20, 24)])
    again = Desk(viewer, image)
    assert again.controller.image.order == ORDER
    assert viewer.dims.displayed == (0, 2)
    assert np.array_equal(again.labels, desk.labels)
    assert np.allclose(again.points.data, [(6, 20, 24)])
    again.controller.select(1)
    again.points.add((6, 20, 30))
    assert len(again.points.data) == 2
    assert not again.said


def test_pixels_in_no_file_are_written_as_they_are_shown(tmp_path):
    desk = worked(tmp_path)
    desk.controller.image.layer._source = desk.controller.image.layer.source.model_copy(
        update={"path": None}
    )
    path = tmp_path / "other" / "kept.cfrseg.json"
    path.parent.mkdir()
    desk.keeper.save(path, keep_pixels=True)
    assert np.array_equal(tifffile.imread(path.parent / "kept.tif"), ball())
    desk.close()
    again = Desk(viewer := reopened(path), viewer.layers[0])
    assert np.array_equal(again.labels, desk.labels)


def test_exported_as_the_file_is(tmp_path):
    desk = worked(tmp_path)
    made = desk.keeper.export(tmp_path / "out.ome.tif")
    assert np.array_equal(tifffile.imread(made), desk.labels)


def test_dragged_and_removed_points_are_found(tmp_path):
    desk = worked(tmp_path)
    before = desk.labels.copy()
    rows = desk.controller.clicks.rows
    assert [(r.plane, r.yx) for r in rows] == [((20,), (6.0, 24.0))]
    desk.points.selected_data = {0}
    desk.points.remove_selected()
    assert not desk.labels[:, 20].any()
    desk.controller.undo()
    assert np.array_equal(desk.labels, before)


def test_labels_and_points_made_elsewhere_are_imported(tmp_path):
    desk = begun(tmp_path)
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:8, 18:22, 20:28] = 5
    layer = desk.viewer.add_labels(labels, scale=(2, 0.5, 0.5))
    imported(read_layer, desk.controller, layer)
    assert np.array_equal(desk.labels > 0, labels > 0)
    points = desk.viewer.add_points([(6, 30, 24)], scale=(2, 0.5, 0.5))
    imported(read_layer, desk.controller, points)
    planes = {p for _, s in desk.controller.annotator.objects.items() for p in s.planes}
    assert planes == {(18,), (19,), (20,), (21,), (30,)}


def test_a_pyramid_and_time_in_front(tmp_path):
    movie = np.stack([ball(), ball()[::-1]])
    viewer = ViewerModel()
    layer = viewer.add_image(
        [movie, movie[:, ::2, ::2, ::2]], multiscale=True, name="pyramid"
    )
    viewer.dims.order = (0, 2, 1, 3)
    desk = Desk(viewer, layer)
    assert desk.controller.image.shape == (2, 40, 12, 48)
    assert desk.controller.view.stack.axes == ("t", "y")
    viewer.dims.set_current_step(0, 1)
    viewer.dims.set_current_step(2, 20)
    desk.points.add((1, 5, 20, 24))
    found = np.argwhere(desk.labels)
    assert set(found[:, 0]) == {1}
    assert set(found[:, 2]) == {20}
