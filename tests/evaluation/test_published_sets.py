"""Tiny data sets in every published layout."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from napari_cfrseg.errors import CfrSegError, DatasetError
from napari_cfrseg.evaluation.datasets import published_sets as sets
from napari_cfrseg.evaluation.datasets.label_folders import OmeZarr
from napari_cfrseg.evaluation.datasets.published_sets import CocoLvis

SHAPE = (20, 30)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def picture():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (*SHAPE, 3), np.uint8)


def square(value, dtype=np.uint8):
    plane = np.zeros(SHAPE, dtype)
    plane[4:12, 5:15] = value
    return plane


def read_all(source):
    found = []
    for item in source.objects():
        plane = item.source.read_plane(item.image_name, item.plane)
        found.append((item, plane, item.mask_in(plane)))
    return found


@pytest.mark.parametrize(
    ("make", "images", "masks"),
    [
        (sets.grabcut, "data_GT", "boundary_GT"),
        (sets.berkeley, "images", "masks"),
        (sets.berkeley, "images-f-BRS/test", "masks-f-BRS/test"),
    ],
)
def test_grabcut_and_berkeley_ignore_128(tmp_path, make, images, masks):
    save(tmp_path / images / "one.jpg", picture())
    mask = square(255)
    mask[12:14, 5:15] = 128
    save(tmp_path / masks / "one.bmp", mask)
    ((item, plane, truth),) = read_all(make(tmp_path))
    assert item.image_name == "one"
    assert plane.image.shape == (*SHAPE, 3)
    assert truth.sum() == 80
    assert plane.ignore_mask.sum() == 20


@pytest.mark.parametrize("make", [sets.davis, sets.coco_mval])
def test_davis_and_coco_mval_take_any_channel(tmp_path, make):
    save(tmp_path / "img" / "0001.jpg", picture())
    mask = np.zeros((*SHAPE, 3), np.uint8)
    mask[4:12, 5:15, 2] = 1
    save(tmp_path / "gt" / "0001.png", mask)
    ((_, plane, truth),) = read_all(make(tmp_path))
    assert truth.sum() == 80
    assert plane.ignore_mask is None


def test_an_image_without_its_mask_is_named(tmp_path):
    save(tmp_path / "img" / "0001.jpg", picture())
    (tmp_path / "gt").mkdir()
    with pytest.raises(DatasetError, match="has no 0001 with suffix"):
        read_all(sets.davis(tmp_path))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"no folder .*data_GT; expected images"):
        list(sets.grabcut(tmp_path).objects())
    (tmp_path / "img").mkdir()
    (tmp_path / "gt").mkdir()
    with pytest.raises(DatasetError, match="holds no"):
        list(sets.davis(tmp_path).objects())


def test_sbd_asks_for_every_instance(tmp_path):
    save(tmp_path / "img" / "a.jpg", picture())
    instances = square(1)
    instances[14:18, 5:15] = 2
    (tmp_path / "inst").mkdir()
    structure = {"Segmentation": instances, "Boundaries": 0, "Categories": [7, 7]}
    savemat(tmp_path / "inst" / "a.mat", {"GTinst": structure})
    (tmp_path / "val.txt").write_text("a\n")
    found = read_all(sets.Sbd(tmp_path))
    assert [(item.label, int(truth.sum())) for item, _, truth in found] == [
        (1, 80),
        (2, 40),
    ]


def test_sbd_without_instances_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"no list .*val\.txt"):
        list(sets.Sbd(tmp_path).objects())
    (tmp_path / "val.txt").write_text("a\n")
    (tmp_path / "inst").mkdir()
    savemat(tmp_path / "inst" / "a.mat", {"other": 1})
    with pytest.raises(DatasetError, match=r"GTinst\.Segmentation"):
        list(sets.Sbd(tmp_path).objects())


def test_voc_reads_palette_indices_and_ignores_outlines(tmp_path):
    save(tmp_path / "JPEGImages" / "2007_1.jpg", picture())
    indices = square(1)
    indices[14:18, 5:15] = 2
    indices[12:14] = 255
    path = tmp_path / "SegmentationObject" / "2007_1.png"
    path.parent.mkdir()
    file = Image.fromarray(indices, mode="P")
    file.putpalette([v for i in range(256) for v in (i, 255 - i, 128)])
    file.save(path)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_1\n")
    found = read_all(sets.PascalVoc(tmp_path))
    assert [(item.label, int(truth.sum())) for item, _, truth in found] == [
        (1, 80),
        (2, 40),
    ]
    assert found[0][1].ignore_mask.sum() == 60
    file.convert("RGB").save(path)
    with pytest.raises(CfrSegError, match="picture in colours"):
        list(sets.PascalVoc(tmp_path).objects())


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return np.frombuffer(buffer.getvalue(), np.uint8).copy()


def write_coco_lvis(folder, images="val/images"):
    save(folder / images / "42.jpg", picture())
    overlapping = np.zeros(SHAPE, np.uint8)
    overlapping[8:16, 10:20] = 1
    content = ([png(square(3)), png(overlapping)], [(0, 3), (1, 1), (0, 9)])
    masks = folder / "val" / "masks"
    masks.mkdir(parents=True)
    (masks / "42.pickle").write_bytes(pickle.dumps(content))
    annotation = {"42": {"hierarchy": {0: None, 1: None}, "num_instance_masks": 2}}
    (folder / "val" / "hannotation.pickle").write_bytes(pickle.dumps(annotation))


@pytest.mark.parametrize("images", ["val/images", "val2017"])
def test_coco_lvis_layers_overlap_and_stuff_is_left_out(tmp_path, images):
    write_coco_lvis(tmp_path, images)
    found = read_all(CocoLvis(tmp_path))
    assert [(i.layer, i.label, int(t.sum())) for i, _, t in found] == [
        (0, 3, 80),
        (1, 1, 80),
    ]
    assert (found[0][2] & found[1][2]).any()
    assert len({item.key for item, _, _ in found}) == 2


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    write_coco_lvis(tmp_path)
    path = tmp_path / "val" / "masks" / "42.pickle"
    path.write_bytes(pickle.dumps(np.testing.assert_allclose))
    with pytest.raises(DatasetError, match="has no place in a file of masks"):
        list(CocoLvis(tmp_path).objects())


@pytest.mark.parametrize("content", [b"not a pickle", pickle.dumps([1, 2, 3])])
def test_broken_masks_are_named(tmp_path, content):
    write_coco_lvis(tmp_path)
    (tmp_path / "val" / "masks" / "42.pickle").write_bytes(content)
    with pytest.raises(DatasetError, match=r"42\.pickle is not"):
        list(CocoLvis(tmp_path).objects())


def write_zarr(path, image, axes, labels, label_axes, nested):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(path, mode="w", zarr_format=3 if nested else 2)

    def fill(node, array, names):
        node.create_array("0", data=array)
        scales = [{"axes": [{"name": n} for n in names], "datasets": [{"path": "0"}]}]
        values = {"multiscales": scales}
        node.attrs.update({"ome": values} if nested else values)

    fill(group, image, axes)
    listed = group.create_group("labels")
    names = {"labels": ["cells"]}
    listed.attrs.update({"ome": names} if nested else names)
    fill(listed.create_group("cells"), labels, label_axes)


@pytest.mark.parametrize("nested", [False, True], ids=["ngff0.4", "ngff0.5"])
def test_ome_zarr_stack_with_channels(tmp_path, nested):
    labels = np.zeros((4, *SHAPE), np.uint16)
    labels[1:, 4:12, 5:15] = 6
    image = np.stack([labels * 2, labels * 5])[None]
    write_zarr(tmp_path / "a.zarr", image, "tczyx", labels, "zyx", nested)
    found = read_all(OmeZarr(tmp_path, "zarrs", planes_per_stack=2))
    assert [item.plane for item, _, _ in found] == [1, 3]
    for _, plane, truth in found:
        assert plane.image.shape == (*SHAPE, 2)
        assert plane.image[5, 6].tolist() == [12, 30]
        assert truth.sum() == 80


def test_ome_zarr_plane_named_directly(tmp_path):
    write_zarr(tmp_path / "a.zarr", square(9), "yx", square(3), "yx", nested=False)
    ((item, plane, truth),) = read_all(OmeZarr(tmp_path / "a.zarr", "one"))
    assert (item.plane, item.label, plane.image.max(), truth.sum()) == (None, 3, 9, 80)


def test_ome_zarr_faults_are_named(tmp_path):
    zarr = pytest.importorskip("zarr")
    with pytest.raises(DatasetError, match="no OME-Zarr image"):
        OmeZarr(tmp_path, "empty").names()
    zarr.open_group(tmp_path / "bare.zarr", mode="w")
    with pytest.raises(DatasetError, match="has no labels"):
        list(OmeZarr(tmp_path, "bare").objects())


def test_one_broken_ome_zarr_leaves_the_others(tmp_path, caplog):
    zarr = pytest.importorskip("zarr")
    axes = [{"name": a, "type": "space"} for a in "yx"]
    said = [{"axes": axes, "datasets": [{"path": "0"}]}]
    labels = np.zeros((40, 40), np.uint8)
    labels[5:15, 5:15] = 1
    for name in ("a", "b"):
        root = zarr.open_group(tmp_path / f"{name}.zarr", mode="w", zarr_format=2)
        root.attrs["multiscales"] = said
        root.create_array("0", data=labels * 100)
        root.create_group("labels/cells").attrs["multiscales"] = said
        root["labels"].attrs["labels"] = ["cells"]
        root["labels/cells"].create_array("0", data=labels)
    (tmp_path / "b.zarr" / "0" / "0.0").write_bytes(b"no chunk")
    found = [item.image_name for item in OmeZarr(tmp_path, "set").objects()]
    assert found == ["a.zarr"]
    assert any("b.zarr is left out" in message for message in caplog.messages)
