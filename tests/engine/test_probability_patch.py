from __future__ import annotations

import numpy as np
import pytest

from napari_cfrseg.engine.probability_patch import Patch, Shelf
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Window, crop, mask_box, overlap, union


def patch_of(plane: np.ndarray) -> Patch:
    return Patch(plane.shape, 0, 0, plane.astype(np.float32)).trimmed()


def test_a_patch_keeps_its_box_only():
    plane = np.zeros((50, 60), dtype=np.float32)
    plane[10:14, 20:30] = 0.4
    patch = patch_of(plane)
    assert patch.box == (10, 20, 14, 30)
    assert np.array_equal(patch.read((0, 0, 50, 60)), plane)
    assert patch.read((13, 29, 14, 30)).item() == pytest.approx(0.4)
    assert patch.read((14, 29, 15, 30)).item() == 0
    assert patch.mask_box(0.3) == (10, 20, 14, 30)
    assert patch.mask_box(0.5) is None


@pytest.mark.parametrize("step", [1, 2, 3, 7])
@pytest.mark.parametrize("start", [0, 1, 9, 12, 40])
def test_reading_with_strides_is_reading_the_plane(start, step):
    plane = np.zeros((50, 60), dtype=np.float32)
    plane[10:14, 20:30] = np.random.default_rng(0).random((4, 10)) + 0.01
    key = (slice(start, 49, step), slice(start // 2, 60, step + 1))
    assert np.array_equal(patch_of(plane)[key], plane[key])


def test_a_patch_crops_like_the_plane_it_stands_for():
    plane = np.zeros((80, 80), dtype=np.float32)
    plane[30:50, 20:44] = 0.75
    window = Window(-5, 7, 61, 16)
    assert np.array_equal(crop(patch_of(plane), window), crop(plane, window))


def test_replacing_a_box_keeps_the_rest():
    plane = np.zeros((30, 30), dtype=np.float32)
    plane[5:10, 5:10] = 0.9
    patch = patch_of(plane).with_box((8, 8, 20, 12), np.full((12, 4), 0.2, np.float32))
    plane[8:20, 8:12] = 0.2
    assert np.array_equal(patch.read((0, 0, 30, 30)), plane)
    cleared = patch.with_box((0, 0, 30, 30), np.zeros((30, 30), np.float32))
    assert cleared.probability.size == 0
    assert patch.with_box((3, 9, 3, 20), np.zeros((0, 11), np.float32)) is patch
    assert cleared.read((5, 5, 6, 6)).item() == 0


def test_a_mask_becomes_probability_one():
    mask = np.zeros((9, 9), dtype=np.uint8)
    mask[2:4, 3] = 5
    patch = Patch.from_mask(mask != 0)
    assert patch.box == (2, 3, 4, 4)
    assert patch.read((3, 3, 4, 4)).item() == 1
    assert Patch.from_mask(np.zeros((9, 9), bool)).probability.size == 0


def test_a_patch_cannot_be_written_to():
    patch = Patch.from_mask(np.ones((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="read-only"):
        patch.probability[0, 0] = 0


def test_patches_put_away_stay_the_same_and_leave_the_memory():
    values = np.random.default_rng(0).random((40, 50, 60), dtype=np.float32)
    patches = [
        Patch.empty((50, 60)),
        *(Patch((50, 60), 0, 0, one[:, 5:].copy()) for one in values),
    ]
    shelf = Shelf(most_bytes=100_000)
    for patch in patches:
        shelf.add(patch, "probability")
    for patch, one in zip(patches[1:], values, strict=True):
        assert np.array_equal(patch.probability, one[:, 5:])
        assert not patch.probability.flags.writeable
    held = [p for p in patches if isinstance(_owner(p.probability), np.ndarray)]
    assert 1 <= len(held) <= 10


def test_a_full_disk_leaves_patches_in_memory(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    shelf = Shelf(most_bytes=1000)
    patches = [patch_of(np.full((20, 20), 0.5)) for _ in range(5)]
    for patch in patches:
        shelf.add(patch, "probability")
    assert all((patch.probability == 0.5).all() for patch in patches)


def _owner(array: np.ndarray) -> object:
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def test_boxes():
    assert union((0, 0, 0, 0), (3, 4, 5, 6)) == (3, 4, 5, 6)
    assert union((1, 9, 2, 10), (3, 4, 5, 6)) == (1, 4, 5, 10)
    assert overlap((0, 0, 5, 5), (3, 4, 9, 9)) == (3, 4, 5, 5)
    assert overlap((0, 0, 2, 2), (3, 3, 4, 4)) == (3, 3, 3, 3)
    assert mask_box(np.zeros((3, 3), dtype=bool)) is None


@pytest.mark.parametrize("side", [1, 7, 60])
def test_a_softened_mask_is_the_mask_and_soft_along_its_outline(side):
    mask = MaskPatch.from_mask(np.ones((side, side), bool), (0, 20))
    patch = Patch.softened((90, 100), mask)
    whole = patch.read((0, 0, 90, 100))
    assert np.array_equal(whole > 0.5, mask.to_mask((90, 100)))
    assert 0.5 < whole[side - 1, 20] < 0.7
    assert 0.3 < whole[side, 20] < 0.5
    assert whole[-1].max() < 0.01
