"""Channels and other layers: labels and points imported, large planes, the writer."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from npe2 import PluginManifest
from session_cases import flood_segmenter
from sync_runner import SyncRunner, imported

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.gui.segment.working_image import show_planes_of
from napari_cfrseg.gui.session.layer_imports import read_layer
from napari_cfrseg.gui.session.session_keeper import SessionKeeper
from napari_cfrseg.gui.session.session_layers import read_session, write_session
from napari_cfrseg.session.session import Session

SHAPE = (3, 2, 40, 60)  # z c y x


def stack() -> np.ndarray:
    made = np.full(SHAPE, 10, np.uint8)
    made[:, 0, 10:30, 10:20] = made[:, 1, 10:30, 20:30] = 200
    return made


def begin(viewer: ViewerModel, layer) -> tuple[Controller, SessionKeeper]:
    controller = Controller(
        viewer, layer, SyncRunner(), flood_segmenter, lambda *_: None, "absent"
    )
    show_planes_of(viewer, controller.image)
    keeper = SessionKeeper(controller, lambda _: flood_segmenter(), lambda *_: None)
    return controller, keeper


@pytest.fixture(params=["zcyx", "czyx", "zyxc"])
def opened(request, npe2pm, tmp_path):
    """A viewer on the stack, its channels at any place, read from a file."""
    array = np.ascontiguousarray(
        stack().transpose(["zcyx".index(a) for a in request.param])
    )
    path = tmp_path / "a.npy"
    np.save(path, array)
    npe2pm.register(PluginManifest.from_distribution("napari"))
    viewer = ViewerModel()
    (layer,) = viewer.open(str(path), plugin="napari")
    layer.axis_labels = tuple(request.param)
    layer.scale = [{"z": 3.0, "c": 1.0}.get(a, 0.5) for a in request.param]
    return viewer, layer


def test_labels_without_channels_and_points_are_imported(opened):
    viewer, layer = opened
    controller, _ = begin(viewer, layer)
    drawn = np.zeros((3, 40, 60), np.uint8)
    drawn[1, 10:30, 10:30] = 4
    labels = viewer.add_labels(drawn, scale=(3, 0.5, 0.5))
    imported(read_layer, controller, labels)
    found = controller.annotator.labels_array((3,))
    np.testing.assert_array_equal(found, drawn)
    own = controller.labels.layer
    np.testing.assert_array_equal(controller.image.of_own_array(own.data), drawn)

    place = controller.image.to_own((2, 20, 15))
    ours = viewer.add_points([own.data_to_world(place)])
    imported(read_layer, controller, ours)
    (_, made) = (o for o in controller.objects.values())
    assert [plane for plane, _ in made.clicks()] == [(2,)]
    assert (controller.annotator.labels((2,)) > 0)[10:30, 10:30].all()


def test_clicks_count_while_any_of_the_channels_is_shown():
    viewer = ViewerModel()
    layers = viewer.add_image(stack()[0], channel_axis=0, name=["a", "b"])
    controller, _ = begin(viewer, layers[1])
    controller.set_rule(OverlapRule.OVERWRITE)
    for shown in ((True, False), (False, True)):
        for layer, visible in zip(layers, shown, strict=True):
            layer.visible = visible
        controller.new_object()
        controller.clicked((20, 15))
    assert len(controller.objects) == 2
    for layer in layers:
        layer.visible = False
    controller.clicked((20, 15))
    assert "is not shown" in controller.view.status


def test_a_session_is_read_as_layers_and_written_again(opened, tmp_path):
    viewer, layer = opened
    controller, keeper = begin(viewer, layer)
    own = controller.labels.layer
    for plane in (0, 2):
        controller.planes.show((plane,))
        controller.clicked(own.data_to_world(controller.image.to_own((plane, 20, 15))))
        controller.new_object()
    keeper.save(tmp_path / "a.cfrseg.json")
    labels = np.asarray(own.data).copy()
    image, drawn, clicks = read_session(str(tmp_path / "a.cfrseg.json"))
    np.testing.assert_array_equal(image[0], layer.data)
    np.testing.assert_array_equal(drawn[0], labels)
    np.testing.assert_allclose(drawn[1]["scale"], own.scale)
    np.testing.assert_array_equal(clicks[0], controller.clicks.layer.data)

    # a person's stroke on the labels as they were read
    place = controller.image.to_own((slice(1, 2), slice(2, 5), slice(50, 55)), 0)
    drawn[0][place] = 2
    target = tmp_path / "b.cfrseg.json"
    write_session(str(target), [image, drawn, clicks])
    again = Session.open(target)
    assert again.image.channels == (0, 1)
    found = again.apply(segmenter=flood_segmenter())
    np.testing.assert_array_equal(found, controller.image.of_own_array(drawn[0]))


@pytest.mark.parametrize("axes", ["cyx", "ycx"])
def test_large_planes_of_channels_are_clicked(axes):
    side = 12_000
    plane = da.zeros((2, side, side), np.uint8, chunks=(1, 2000, 2000))
    block = np.zeros((2, 2000, 2000), np.uint8)
    block[0, 100:150, 100:125] = block[1, 100:150, 125:150] = 200
    array = da.concatenate([da.from_array(block), plane[:, :2000, 2000:]], axis=2)
    array = da.concatenate([array, plane[:, 2000:]], axis=1)
    if axes == "ycx":
        array = array.transpose(1, 0, 2)
    step = tuple(slice(None, None, 4 if a in "yx" else 1) for a in axes)
    viewer = ViewerModel()
    levels = [array, array[step], array[step][step]]
    layer = viewer.add_image(
        levels, multiscale=True, axis_labels=tuple(axes), contrast_limits=(0, 255)
    )
    controller, _ = begin(viewer, layer)
    assert controller.image.shape == (side, side)
    own = controller.labels.layer
    controller.clicked(own.data_to_world(controller.image.to_own((120.0, 110.0))))
    found = np.asarray(controller.image.of_own_array(own.data[0])[90:160, 90:160]) > 0
    assert found[10:60, 10:60].mean() > 0.9
    assert found.sum() < 1.2 * 50 * 50


def test_pixels_of_no_file_are_saved_with_their_channels(tmp_path):
    viewer = ViewerModel()
    layer = viewer.add_image(stack(), name="made", axis_labels=tuple("zcyx"))
    controller, keeper = begin(viewer, layer)
    controller.clicked(controller.labels.layer.data_to_world((1, 0, 20, 15)))
    keeper.save(tmp_path / "a.cfrseg.json", keep_pixels=True)
    assert tifffile.imread(tmp_path / "a.tif").shape == (2, 3, 40, 60)
    found = Session.open(tmp_path / "a.cfrseg.json").apply(segmenter=flood_segmenter())
    own = controller.image.of_own_array(controller.labels.layer.data)
    np.testing.assert_array_equal(found, own)
