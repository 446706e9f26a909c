"""Sessions on planes across Y and X: kept, replayed, exported in the file's order."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from session_cases import save_model

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import ImageError, SessionError
from napari_cfrseg.io.axes import across, back, put, turned
from napari_cfrseg.session.format import SessionContent, SessionSettings
from napari_cfrseg.session.recording import RecordedAnnotator
from napari_cfrseg.session.references import (
    model_reference,
    open_reference,
    reference_of,
)
from napari_cfrseg.session.replay_session import ReplayTask, replay_session
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_exports import export
from napari_cfrseg.session.session_writer import SessionWriter

SHAPE, ORDER = (12, 40, 48), (1, 0, 2)


def ball():
    z, y, x = np.mgrid[tuple(slice(0, n) for n in SHAPE)]
    inside = ((z - 6) / 4) ** 2 + ((y - 20) / 12) ** 2 + ((x - 24) / 12) ** 2 < 1
    return np.where(inside, 150, 20).astype(np.uint8)


@pytest.fixture
def recorded(tmp_path):
    """A session along Y, saved: (writer's path, annotator, model's path)."""
    image, path = ball(), tmp_path / "ball.tif"
    tifffile.imwrite(path, image, metadata={"axes": "ZYX"}, compression="zlib")
    model = save_model(tmp_path)
    working = turned(image, ORDER)
    reference = reference_of(
        working,
        path=path,
        folder=tmp_path,
        spacing=(0.5, 2.0, 0.5),
        units=("um", "mm", "um"),
        order=ORDER,
    )
    content = SessionContent(
        reference, model_reference(model), SessionSettings(threads=1)
    )
    writer = SessionWriter.create(tmp_path / "ball.cfrseg.json", content)
    annotator = RecordedAnnotator(
        lambda plane: working[plane],
        working.shape[1:],
        Segmenter.load(model, device="cpu", threads=1),
    )
    annotator.writer = writer
    annotator.leading = working.shape[:1]
    for event in (
        ev.ObjectCreated(1),
        ev.ClickAdded(1, (18,), (6, 24), True, 1),
        ev.ClickAdded(1, (22,), (6, 24), True, 2),
        ev.Propagated((1,), (20,), 0, 18, 22, SHAPE[1], (0.5, 2.0, 0.5)),
    ):
        annotator.apply(event)
    writer.save(annotator.snapshot(writer.event_count))
    writer.close()
    return writer.path, annotator, model


def test_the_reference_says_both_orders(recorded):
    image = Session.open(recorded[0]).image
    assert (image.shape, image.axes) == ((40, 12, 48), ("y", "z", "x"))
    assert (image.order, image.plane_shape, image.leading) == (ORDER, (12, 48), (40,))
    own = image.in_the_file
    assert (own.shape, own.axes, own.order) == (SHAPE, ("z", "y", "x"), ())
    assert (own.spacing, own.units) == ((2.0, 0.5, 0.5), ("mm", "um", "um"))
    assert own.in_the_file is own


def test_replayed_from_the_file_it_equals_and_is_written_as_the_file_is(
    recorded, tmp_path
):
    path, annotator, model = recorded
    out = tmp_path / "out"
    out.mkdir()
    task = ReplayTask(path, out, "ball", weights=model, device="cpu")
    result = replay_session(task)
    assert result.reason == ""
    assert result.as_saved
    expected = annotator.labels_array((40,)).transpose(back(ORDER))
    assert np.flatnonzero(expected.any(axis=(0, 2))).tolist() == [18, 19, 20, 21, 22]
    with tifffile.TiffFile(task.labels_path) as file:
        assert file.series[0].axes == "ZYX"
        assert np.array_equal(file.asarray(), expected)


def test_another_image_is_turned_too(recorded, tmp_path):
    path, annotator, model = recorded
    again = tmp_path / "again.npy"
    np.save(again, ball())
    out = tmp_path / "out"
    out.mkdir()
    task = ReplayTask(path, out, "ball", image=again, weights=model, device="cpu")
    assert replay_session(task).reason == ""
    expected = annotator.labels_array((40,)).transpose(back(ORDER))
    assert np.array_equal(tifffile.imread(task.labels_path), expected)
    flat = tmp_path / "flat.npy"
    np.save(flat, ball()[0])
    task = ReplayTask(path, out, "flat", image=flat, weights=model, device="cpu")
    assert "no such order" in replay_session(task).reason


def test_exports_are_as_the_file_is(recorded, tmp_path):
    path, annotator, _ = recorded
    session = Session.open(path)
    labels = annotator.labels_array((40,))
    objects = tuple(session.objects())
    made = export(tmp_path / "out.ome.tif", session.content, objects, labels)
    assert np.array_equal(tifffile.imread(made), labels.transpose(back(ORDER)))
    made = export(tmp_path / "clicks.csv", session.content, objects, labels)
    rows = csv.DictReader(made.read_text().splitlines())
    places = [(row["axis_0"], row["y"], row["x"]) for row in rows]
    assert places == [("6", "18.0", "24.0"), ("6", "22.0", "24.0")]


@pytest.mark.parametrize("order", [[0, 0, 1], [0, 1], [1, 2, 3], [-1, 0, 1], "zyx"])
def test_an_order_that_is_none_is_refused(recorded, order):
    path = recorded[0]
    said = json.loads(path.read_text())
    assert said["image"]["order"] == list(ORDER)
    said["image"]["order"] = order
    path.write_text(json.dumps(said))
    with pytest.raises(SessionError, match="order"):
        Session.open(path)


def test_a_session_on_planes_as_they_are_says_nothing_of_it(tmp_path):
    content = SessionContent(reference_of(ball()))
    writer = SessionWriter.create(tmp_path / "plain.cfrseg.json", content)
    writer.close()
    assert "order" not in json.loads(writer.path.read_text())["image"]


def test_a_file_with_other_axes_than_the_session_is_refused(recorded, tmp_path):
    image = Session.open(recorded[0]).image
    tifffile.imwrite(tmp_path / "flat.tif", ball()[0])
    with pytest.raises(ImageError, match="no such order"):
        open_reference(image, tmp_path / "flat.tif")


class Lazy:
    """An array that can only be sliced."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.read = 0

    def __getitem__(self, key):
        out = self.array[key]
        self.read += out.size
        return out


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1), (0, 1, 2), (2, 1, 0)])
def test_a_lazy_array_turned_is_the_array_transposed(order, channels):
    shape = (4, 5, 6, 3) if channels else (4, 5, 6)
    array = np.arange(np.prod(shape)).reshape(shape)
    lazy = Lazy(array)
    found = turned(lazy, order)
    wanted = array.transpose((*order, 3) if channels else order)
    assert found.shape == wanted.shape
    assert lazy.read == 0
    for key in (
        (2,),
        (slice(None),),
        (1, slice(1, 3), slice(0, 2)),
        (slice(0, 3, 2), 1),
        (1, 2, 3),
        (slice(None), slice(1, 2), 2),
        3,
    ):
        assert np.array_equal(found[key], wanted[key]), key
    lazy.read = 0
    assert found[1].size == lazy.read
    assert np.array_equal(np.asarray(found), wanted)


def test_orders():
    assert across((1, 2), 3) == ()
    assert across((2, 1), 3) == ()
    assert across((0, 2), 3) == (1, 0, 2)
    assert across((1, 0), 3) == (2, 0, 1)
    assert across((1, 3), 4) == (0, 2, 1, 3)
    assert put("zyx", (2, 0, 1)) == ("x", "z", "y")
    assert put(put("zyx", (2, 0, 1)), back((2, 0, 1))) == ("z", "y", "x")
    with pytest.raises(ValueError, match="no such order"):
        turned(np.zeros((2, 3)), (2, 0, 1))


def test_another_file_says_its_own_pixel_sizes(tmp_path):
    """Channels chosen, axes turned, one plane selected: sizes follow the axes."""
    image = np.zeros((2, 3, 20, 30), np.uint8)
    path = tmp_path / "fine.ome.tif"
    sizes = {
        f"PhysicalSize{axis}": n for axis, n in (("X", 0.25), ("Y", 0.5), ("Z", 2.0))
    }
    units = {f"PhysicalSize{axis}Unit": "µm" for axis in "XYZ"}
    tifffile.imwrite(path, image, metadata={"axes": "ZCYX", **sizes, **units})
    said = {
        "path": path,
        "folder": tmp_path,
        "units": ("µm",) * 3,
        "channels": (1, (0,)),
    }
    chosen = image[:, 0, :, :, None]
    names = ("z", "y", "x", "c")
    reference = reference_of(chosen, axes=names, spacing=(9.0, 9.0, 9.0), **said)
    assert open_reference(reference, path).spacing == (2.0, 0.5, 0.25)
    working = turned(chosen, ORDER)
    names = ("y", "z", "x", "c")
    reference = reference_of(
        working, axes=names, spacing=(9.0, 9.0, 9.0), order=ORDER, **said
    )
    assert open_reference(reference, path).spacing == (0.5, 2.0, 0.25)
    tifffile.imwrite(path, image, metadata={"axes": "ZCYX"})
    assert open_reference(reference, path).spacing is None
