"""Everything with labels becomes planes to train on, or is listed with a reason."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch

from cfrseg_training.finetune.held_out import split_data
from cfrseg_training.loop.atlas import Atlas, WindowRecipe
from cfrseg_training.loop.click_sampling import initial_clicks
from cfrseg_training.loop.labelled import (
    DataRequest,
    LabelledData,
    MemorySource,
    labelled,
    read_data,
)
from napari_cfrseg.annotation import events as ev
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.session.session import Session

PLAIN = WindowRecipe(
    zoomed=1.0, zoomed_extent=(0.4, 0.4), shift=0.0, stretch=1.0001, rotate=False
)


def labels_of(size=64, shift=0):
    labels = np.zeros((size, size), np.uint16)
    labels[8 + shift : 28 + shift, 8:30] = 1
    labels[36:56, 34:58] = 2
    return labels


def image_of(labels, dtype=np.uint8, seed=0):
    noise = np.random.default_rng(seed).integers(0, 20, labels.shape)
    values = noise + 100 * (labels > 0)
    return (values * (1 if dtype == np.uint8 else 200)).astype(dtype)


def write(folder, name, image, labels, suffix=".tif"):
    for part, array in (("images", image), ("labels", labels)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        path = folder / part / f"{name}{suffix}"
        if suffix == ".png":
            from PIL import Image

            Image.fromarray(array).save(path)
        else:
            tifffile.imwrite(path, array, photometric="minisblack")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
def test_any_depth_and_one_to_four_channels_first_or_last(dtype, channels):
    labels = labels_of()
    grey = image_of(labels, dtype)
    image = grey if channels == 0 else np.stack([grey] * channels)
    for given in [image] if channels == 0 else [image, np.moveaxis(image, 0, -1)]:
        (plane,) = labelled("a", given, labels)
        sample = plane.sample()
        assert sample.image.shape == (64, 64, 3)
        assert sample.image[labels > 0].min() > sample.image[labels == 0].max()


def test_folders_are_paired_and_what_does_not_fit_is_listed(tmp_path):
    labels = labels_of()
    folder = tmp_path / "cells"
    write(folder, "good", image_of(labels), labels)
    write(folder, "drawn", image_of(labels), labels.astype(np.uint8), ".png")
    write(folder, "ome.ome", image_of(labels, np.uint16), labels)
    write(folder, "small", image_of(labels)[:40], labels)
    write(folder, "bare", image_of(labels), labels * 0)
    write(folder, "specks", image_of(labels), (labels > 5).astype(np.uint8))
    write(
        folder,
        "colours",
        np.stack([image_of(labels)] * 3, -1),
        np.stack([labels] * 3, -1),
    )
    write(folder, "fractions", image_of(labels), labels / np.float32(2))
    write(folder, "cut", image_of(labels), labels)
    (folder / "images" / "cut.tif").write_bytes(b"II*\0 cut off")
    write(folder, "lonely", image_of(labels), labels)
    (folder / "labels" / "lonely.tif").unlink()
    write(folder, "nothing", np.full((64, 64), np.nan, np.float32), labels)
    data = read_data(DataRequest(folders=(folder,)))
    assert data.names == ["drawn", "good", "ome"]
    for name, reason in {
        "small": "shape (40, 64)",
        "bare": "no labelled object",
        "specks": "no labelled object",
        "colours": "picture in colours",
        "fractions": "fractions",
        "cut": "cannot be read",
        "lonely.tif": "no labels lonely.*",
        "nothing": "no finite pixel",
    }.items():
        assert reason in data.broken[name]
        assert not data.broken[name].startswith(name)
    same = read_data(DataRequest(folder / "images", folder / "labels"))
    assert same.fingerprint() == data.fingerprint()


def test_planes_of_a_stack_are_sampled_along_z_where_labels_are(tmp_path):
    labels = np.stack([labels_of(shift=z % 3) * (4 <= z < 20) for z in range(24)])
    image = image_of(labels, np.uint16)
    write(tmp_path / "s", "stack", image, labels.astype(np.uint16))
    data = read_data(DataRequest(folders=(tmp_path / "s",), planes_per_stack=4))
    assert data.names == ["stack"]
    assert [p.plane for p in data.planes] == [6, 10, 14, 18]
    for plane in data.planes:
        np.testing.assert_array_equal(plane.labels, labels[plane.plane])
        np.testing.assert_array_equal(plane.image, image[plane.plane])


def test_ome_zarr_with_labels_is_read(tmp_path):
    zarr = pytest.importorskip("zarr")
    labels = labels_of()
    axes = [{"name": a, "type": "space"} for a in "yx"]
    scales = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["multiscales"] = scales
    root.create_array("0", data=image_of(labels))
    drawn = root.create_group("labels/cells")
    root["labels"].attrs["labels"] = ["cells"]
    drawn.attrs["multiscales"] = scales
    drawn.create_array("0", data=labels)
    data = read_data(DataRequest(folders=(tmp_path,)))
    assert data.names == ["a.zarr"]
    np.testing.assert_array_equal(data.planes[0].labels, labels)


def test_ignore_policies():
    labels = labels_of().astype(np.int32)
    labels[0:6] = 255
    labels[60:] = -1
    (plane,) = labelled("a", image_of(labels), labels, ignore=255)
    assert plane.ignore[:6].all()
    assert plane.ignore[60:].all()
    assert not plane.ignore[6:60].any()
    assert set(np.unique(plane.labels)) == {0, 1, 2}
    wide = WindowRecipe(
        zoomed=1.0, zoomed_extent=(0.3, 0.3), shift=0.0, stretch=1.0001, rotate=False
    )
    generator = torch.Generator().manual_seed(0)
    batch = Atlas([plane.sample()]).draw(16, 64, generator, wide)
    (full,) = labelled("a", image_of(labels), np.where(labels > 2, 0, labels).clip(0))
    generator.manual_seed(0)
    known = Atlas([full.sample()]).draw(16, 64, generator, wide)
    assert (batch.mask == known.mask).all()
    assert batch.valid.sum() < known.valid.sum()
    (sparse,) = labelled("a", image_of(labels), labels.clip(0, 2), ignore="sparse")
    assert sparse.is_sparse
    with pytest.raises(ValueError, match="expected background, sparse or a number"):
        DataRequest(ignore="maybe")


def test_ids_of_any_size_are_renumbered():
    labels = labels_of().astype(np.int64) * 1_999_999_999
    (plane,) = labelled("a", image_of(labels), labels)
    np.testing.assert_array_equal(plane.labels, labels_of())


def write_session(folder, labels):
    """Click two objects of an image, the second corrected by a negative click."""
    from napari_cfrseg.annotation.event_fields import event_line
    from napari_cfrseg.geometry.masks import LabelRuns
    from napari_cfrseg.session.format import SessionContent, SessionSettings, Snapshot
    from napari_cfrseg.session.references import reference_of
    from napari_cfrseg.session.session import objects_after
    from napari_cfrseg.session.session_file import session_lines

    image = image_of(labels)
    tifffile.imwrite(folder / "cells.tif", image)
    events = (
        ev.ObjectCreated(1),
        ev.ClickAdded(1, (), (18, 19), True, 1),
        ev.ObjectCreated(2),
        ev.ClickAdded(2, (), (46, 45), True, 2),
        ev.ClickAdded(2, (), (58, 45), False, 3),
    )
    runs = LabelRuns.from_labels(labels.astype(np.int32), labels != 0, labels.shape)
    content = SessionContent(
        image=reference_of(image, path=folder / "cells.tif", folder=folder),
        model=None,
        settings=SessionSettings(),
        events=events,
        snapshot=Snapshot(len(events), (runs,)),
    )
    path = folder / "cells.cfrseg.json"
    lines = session_lines(
        content, objects_after(events, labels.shape), map(event_line, events)
    )
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_a_session_brings_its_real_clicks_negatives_too(tmp_path):
    path = write_session(tmp_path, labels_of())
    assert len(list(Session.open(path).objects())) == 2
    data = read_data(DataRequest(sessions=(path,)))
    (plane,) = data.planes
    assert plane.is_sparse
    assert plane.clicks == (
        (1, 18.0, 19.0, True),
        (2, 46.0, 45.0, True),
        (2, 58.0, 45.0, False),
    )
    atlas = Atlas([plane.sample()])
    batch = atlas.draw(40, 64, torch.Generator().manual_seed(1), PLAIN)
    clicks = initial_clicks(batch, torch.Generator().manual_seed(2))
    real_first = (clicks.points[:, 0, :2] - batch.real[:, 0, :2]).abs().amax(1) < 1e-4
    assert 8 <= int(real_first.sum()) <= 32  # mixed with drawn ones
    with_negative = real_first & (batch.real[:, 1, 2] == 0) & (clicks.used[:, 1] == 1)
    assert with_negative.any()
    for index in torch.nonzero(with_negative).flatten().tolist():
        y, x, label = clicks.newest[index].tolist()
        assert label == 0
        assert batch.mask[index, 0, round(y), round(x)] == 0


def test_images_of_one_name_in_two_folders_stay_apart(tmp_path):
    for folder, shift in (("a", 0), ("b", 7)):
        labels = labels_of(shift=shift)
        write(tmp_path / folder, "001", image_of(labels), labels)
    data = read_data(DataRequest(folders=(tmp_path / "a", tmp_path / "b")))
    assert data.names == ["001", "001 (2)"]
    source = MemorySource("own", data.planes)
    for name, plane in zip(data.names, data.planes, strict=True):
        assert source.read_plane(name, None).image is plane.image


def test_two_sessions_on_one_image_are_one_image(tmp_path):
    labels = labels_of()
    first = write_session(tmp_path, labels)
    second = tmp_path / "again.cfrseg.json"
    second.write_bytes(first.read_bytes())
    other = labels_of(shift=7)
    write(tmp_path / "more", "other", image_of(other), other)
    sessions = (first, second)
    data = read_data(DataRequest(sessions=sessions, folders=(tmp_path / "more",)))
    assert data.groups() == [{"other"}, {"cells", "again"}]
    split = split_data(data, 0)
    assert split.how == "each image in turn"
    for fold in split.folds:
        trained, held = (
            {p.image.tobytes() for p in planes}
            for planes in (fold.trained, fold.held_out)
        )
        assert not trained & held
    alone = split_data(read_data(DataRequest(sessions=sessions)), 0)
    assert alone.how == "each half of the image in turn"


def test_two_sessions_on_one_stack_are_cut_at_the_same_plane():
    labels = np.stack([labels_of(shift=z % 3) for z in range(10)])
    planes = [*labelled("a", image_of(labels), labels)]
    twins = [*labelled("b", image_of(labels), labels)]
    split = split_data(LabelledData((*planes, *twins)), 0)
    assert split.how == "each half of the stack in turn"
    for fold in split.folds:
        trained, held = ({p.plane for p in s} for s in (fold.trained, fold.held_out))
        assert not trained & held
        assert {p.name for p in fold.trained} == {"a", "b"}


def test_nothing_usable_says_why(tmp_path):
    write(tmp_path / "c", "a", image_of(labels_of()), labels_of() * 0)
    with pytest.raises(DatasetError, match=r"no usable labelled image \(a: no label"):
        read_data(DataRequest(folders=(tmp_path / "c",)))
    with pytest.raises(DatasetError, match="no such folder"):
        read_data(DataRequest(tmp_path / "x", tmp_path / "y"))
