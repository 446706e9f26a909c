"""The robot at work on small folders of labelled planes."""

import os
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile
from skimage.segmentation import flood

from napari_cfrseg.errors import CfrSegError, DatasetError
from napari_cfrseg.evaluation.datasets import sample_objects
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.evaluate_objects import (
    RunSettings,
    as_mask,
    evaluate_objects,
)
from napari_cfrseg.evaluation.report.tables import summarize, summarize_sets
from napari_cfrseg.evaluation.scores import ResultRow, pack_mask


class Flood:
    """Floods grey values around every positive click; knows nothing of negatives."""

    def __init__(self, tolerance=10):
        self.tolerance = tolerance
        self.seen = []

    def set_image(self, image):
        self.image = image if image.ndim == 2 else image[..., 0]

    def predict(self, clicks, previous):
        self.seen.append(previous)
        mask = np.zeros(self.image.shape, bool)
        for click in clicks:
            if click.is_positive:
                mask |= flood(self.image, click.pixel, tolerance=self.tolerance)
        return mask


class Empty(Flood):
    def predict(self, clicks, previous):
        return np.zeros(self.image.shape, np.uint8)


def write_plane(folder, name, image, labels):
    for part, array in (("images", image), ("labels", labels)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / part / f"{name}.tif", array)


@pytest.fixture
def squares(tmp_path):
    """Two images of two bright squares; the second square is in two shades."""
    for name in ("a", "b"):
        labels = np.zeros((40, 60), np.uint16)
        labels[5:15, 5:15] = 1
        labels[20:36, 30:46] = 7
        labels[0:2, 50:52] = 3  # too small
        image = np.where(labels > 0, 200, 20).astype(np.uint8)
        image[20:28, 30:46] = 120
        write_plane(tmp_path / "set", name, image, labels)
    return LabelFolder(tmp_path / "set", "set")


def test_a_one_shade_object_takes_one_click_and_a_two_shade_one_two(squares):
    rows = list(evaluate_objects(Flood, squares.objects()))
    assert [(row.image_name, row.area_px, len(row.ious)) for row in rows] == [
        ("a", 100, 1),
        ("a", 256, 2),
        ("b", 100, 1),
        ("b", 256, 2),
    ]
    assert rows[0].ious == (1.0,)
    assert rows[0].clicks == ((9, 9, 1),)
    assert rows[1].ious == (0.5, 1.0)
    assert rows[1].error_px == (128, 0)
    assert len({row.key for row in rows}) == 4


def test_previous_is_what_predict_returned(squares):
    segmenter = Flood()
    rows = list(evaluate_objects(lambda: segmenter, squares.objects()))
    assert segmenter.seen[0] is None
    assert segmenter.seen[1] is None  # a new object starts afresh
    assert segmenter.seen[2].sum() == 128
    assert len(rows) == 4


def test_the_robot_stops_at_the_target_but_not_before_five_clicks(squares):
    item = next(o for o in squares.objects() if o.label == 7)
    settings = RunSettings(target=0.4, max_clicks=9)
    (row,) = evaluate_objects(Flood, [item], settings=settings)
    assert row.ious == (0.5, 1.0)  # a perfect mask stops at once
    (row,) = evaluate_objects(Empty, [item], settings=settings)
    assert len(row.ious) == 9  # never there
    settings = replace(settings, target=0.0)
    (row,) = evaluate_objects(Empty, [item], settings=settings)
    assert len(row.ious) == 5


def test_processes_give_the_same_rows(squares):
    objects = list(squares.objects())
    alone = {row.key: row for row in evaluate_objects(Flood, objects)}
    together = {row.key: row for row in evaluate_objects(Flood, objects, workers=2)}
    assert alone.keys() == together.keys()
    for key, row in alone.items():
        assert (row.clicks, row.ious) == (together[key].clicks, together[key].ious)


def test_an_image_that_is_gone_is_named(squares):
    objects = list(squares.objects())
    (squares.folder / "images" / "b.tif").unlink()
    with pytest.raises(CfrSegError, match="has no b with suffix"):
        list(evaluate_objects(Flood, objects))


def test_the_human_robot_depends_on_its_seed_and_the_object_only(squares):
    def clicks(seed, objects):
        settings = RunSettings(human=True, seed=seed, max_clicks=5)
        rows = evaluate_objects(Empty, objects, settings=settings)
        return {row.key: row.clicks for row in rows}

    objects = list(squares.objects())
    assert clicks(1, objects) != clicks(2, objects)
    last = clicks(1, objects[-1:])
    assert last.items() <= clicks(1, objects).items()
    truth = np.zeros((40, 60), bool)
    truth[20:36, 30:46] = True
    assert all(truth[y, x] and positive for y, x, positive in last[objects[-1].key])


def test_a_mask_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 3\) for a plane of shape"):
        as_mask(np.zeros((3, 3), bool), (4, 4))


def test_rows_survive_the_round_trip(squares):
    settings = RunSettings(surfaces=True, spacing_um=(2, 2))
    for row in evaluate_objects(Flood, squares.objects(), settings=settings):
        assert ResultRow.from_dict(asdict(row)) == row
        assert row.last_mask().sum() == row.area_px
        assert row.boundary_ious[-1] == 1.0
        assert row.assds_px[-1] == 0.0
        assert row.assds_um == tuple(2 * v for v in row.assds_px)
    with pytest.raises(DatasetError, match="ious"):
        ResultRow.from_dict({k: v for k, v in asdict(row).items() if k != "ious"})


@pytest.mark.parametrize("seed", range(4))
def test_packed_masks_come_back(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((37, 53), bool)
    mask[5:31, 9 : 20 + seed] = rng.random((26, 11 + seed)) > 0.5
    box, bits = pack_mask(mask if seed else np.zeros_like(mask))
    row = replace(make_row("s", 0, [0.5]), shape=(37, 53), mask_box=box, mask_bits=bits)
    np.testing.assert_array_equal(row.last_mask(), mask if seed else mask & False)


def test_components_of_one_id_are_objects_of_their_own(tmp_path):
    labels = np.zeros((30, 40), np.uint8)
    labels[2:10, 2:10] = labels[15:25, 20:30] = 4
    labels[10:20, 0:1] = 9
    write_plane(tmp_path, "two", labels * 20, labels)
    objects = list(LabelFolder(tmp_path, "set").objects())
    assert [(o.anchor, o.area_px) for o in objects] == [((2, 2), 64), ((15, 20), 100)]
    plane = objects[1].source.read_plane("two", None)
    assert objects[1].mask_in(plane).sum() == 100


def test_objects_beyond_half_the_plane_are_not_asked_for(tmp_path):
    labels = np.ones((20, 20), np.uint8)
    write_plane(tmp_path, "full", labels, labels)
    assert list(LabelFolder(tmp_path, "set").objects()) == []


def test_channels_first_images_come_channels_last(tmp_path):
    labels = np.ones((20, 30), np.uint8)
    image = np.stack([labels * 3, labels * 5]).astype(np.uint16)
    write_plane(tmp_path, "cyx", image, labels)
    plane = LabelFolder(tmp_path, "set").read_plane("cyx", None)
    assert plane.image.shape == (20, 30, 2)
    assert plane.image[0, 0].tolist() == [3, 5]


def test_stacks_are_asked_plane_by_plane(tmp_path):
    labels = np.zeros((12, 20, 30), np.uint16)
    labels[3:9, 5:13, 5:13] = 2
    write_plane(tmp_path, "zyx", labels * 9, labels)
    objects = list(LabelFolder(tmp_path, "set", planes_per_stack=4).objects())
    assert [o.plane for o in objects] == [4, 7]
    plane = objects[0].source.read_plane("zyx", 4)
    assert plane.image.shape == (20, 30)
    assert objects[0].mask_in(plane).sum() == 64


def test_stacks_can_be_asked_object_by_object(tmp_path):
    labels = np.zeros((12, 20, 30), np.uint16)
    labels[3:9, 5:13, 5:13] = 2
    labels[7, 5:15, 5:13] = 2
    labels[2, 0:3, 0:3] = 5  # too small
    write_plane(tmp_path, "zyx", labels * 9, labels)
    (item,) = LabelFolder(tmp_path, "set", per_object=True).objects()
    assert (item.plane, item.label, item.area_px) == (7, 2, 80)


@pytest.mark.parametrize("per_object", [False, True])
def test_labels_below_0_are_no_objects(tmp_path, per_object):
    labels = np.full((5, 30, 40), -1, np.int32)
    labels[:, :, :30] = 0
    labels[:, 5:13, 5:13] = 2
    write_plane(tmp_path, "zyx", (labels * 9 + 9).astype(np.uint8), labels)
    objects = list(LabelFolder(tmp_path, "set", per_object=per_object).objects())
    assert {o.label for o in objects} == {2}
    plane = objects[0].source.read_plane("zyx", objects[0].plane)
    assert plane.ignore_mask.sum() == 300


def test_ignored_pixels_do_not_count(tmp_path):
    labels = np.zeros((30, 40), np.uint8)
    labels[5:15, 5:15] = 1
    labels[5:15, 15:20] = 255
    image = np.where(labels > 0, 200, 0).astype(np.uint8)
    write_plane(tmp_path, "a", image, labels)
    source = LabelFolder(tmp_path, "set", ignore_value=255)
    (row,) = evaluate_objects(Flood, source.objects())
    assert row.ious == (1.0,)  # the flood runs into ignored pixels only


@pytest.mark.parametrize(
    ("shape", "message"),
    [((20, 31), "expected the same"), ((20, 30, 7), "expected the same")],
)
def test_images_that_do_not_fit_their_labels_are_named(tmp_path, shape, message):
    write_plane(tmp_path, "bad", np.zeros(shape, np.uint8), np.ones((20, 30), np.uint8))
    with pytest.raises(CfrSegError, match=message):
        LabelFolder(tmp_path, "set").read_plane("bad", None)
    with pytest.raises(DatasetError, match=message):
        list(LabelFolder(tmp_path, "set").objects())


def test_files_that_cannot_be_used_are_left_out_with_the_reason(tmp_path, caplog):
    image, labels = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    labels[5:15, 5:15] = 1
    for name in ("good", "cut", "other"):
        write_plane(tmp_path, name, image, labels)
    (tmp_path / "images" / "cut.tif").write_bytes(b"II*\0 cut off")
    write_plane(tmp_path, "other", image[:20], labels)
    os.mkfifo(tmp_path / "images" / "pipe.tif")
    shutil.copy(tmp_path / "labels" / "good.tif", tmp_path / "labels" / "pipe.tif")
    found = [item.image_name for item in LabelFolder(tmp_path, "set").objects()]
    assert found == ["good"]
    reasons = {"cut": "cannot be read", "other": "shape (20, 40)", "pipe": "no regular"}
    for name, reason in reasons.items():
        assert any(name in m and reason in m for m in caplog.messages)


def test_a_folder_without_the_layout_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no folder images"):
        LabelFolder(tmp_path, "set").names()
    write_plane(tmp_path, "a", np.zeros((9, 9)), np.zeros((9, 9), np.uint8))
    with pytest.raises(DatasetError, match="has no b with suffix"):
        LabelFolder(tmp_path, "set").read_plane("b", None)


def test_a_smaller_draw_is_a_prefix_that_takes_turns_between_images(squares):
    objects = list(squares.objects())
    drawn = sample_objects(objects, seed=3)
    assert sample_objects(objects[::-1], 2, seed=3) == drawn[:2]
    assert {o.image_name for o in drawn[:2]} == {"a", "b"}
    assert sorted(o.key for o in drawn) == sorted(o.key for o in objects)
    assert sample_objects([]) == []


def make_row(set_name, index, ious):
    return ResultRow(
        key=f"{set_name}#{index}",
        set_name=set_name,
        image_name="i",
        plane=None,
        area_px=50,
        shape=(9, 9),
        clicks=((1, 1, 1),) * len(ious),
        ious=tuple(ious),
        error_px=tuple(50 - int(50 * v) for v in ious),
        seconds=(0.5, *(0.1,) * (len(ious) - 1)),
        steps=(1,) * len(ious),
        surface_dices=(0.0,) * len(ious),
        mended_px=(1,) * len(ious),
        spoilt_px=(1,) * len(ious),
        spoilt_far_px=(0,) * len(ious),
    )


def test_the_pool_takes_as_many_objects_of_every_large_set():
    rows = [make_row("big", i, [0.95]) for i in range(6)]
    rows += [make_row("mid", i, [0.1] * 20) for i in range(4)]
    rows += [make_row("few", i, [0.5] * 20) for i in range(2)]
    found = {s.name: s for s in summarize_sets(rows, min_objects=4)}
    assert {name: s.objects for name, s in found.items()} == {
        "big": 6,
        "few": 2,
        "mid": 4,
        "pooled": 8,
    }
    assert found["pooled"].noc == {80: 10.5, 85: 10.5, 90: 10.5}
    assert found["pooled"].nof == {85: 4, 90: 4}
    assert found["mid"].iou_at == pytest.approx({1: 0.1, 3: 0.1, 5: 0.1})
    assert found["big"].to_dict()["later_click_s"] is None


def test_noc_95_is_reported_only_if_the_robot_aimed_for_it():
    rows = [make_row("a", 0, [0.96])]
    assert 95 not in summarize(rows, "a", target=0.90).noc
    assert summarize(rows, "a", target=0.95).noc[95] == 1
