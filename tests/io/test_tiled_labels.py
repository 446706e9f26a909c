"""Labels in tiles: the same as one array, at every level, and only where they are."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.geometry.windows import slices
from napari_cfrseg.io.tiled_labels import TILE_PX, TiledLabels


def random_boxes(
    shape: tuple[int, int], count: int
) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
    """Return boxes of random labels anywhere on a plane, also across tiles."""
    rng = np.random.default_rng(3)
    made = []
    for _ in range(count):
        y, x = (int(rng.integers(0, n - 90)) for n in shape)
        h, w = rng.integers(1, 90, 2).tolist()
        values = rng.integers(0, 4, (h, w)) * int(rng.integers(1, 500))
        made.append(((y, x, y + h, x + w), values))
    return made


def test_reads_what_was_written_like_one_array() -> None:
    shape = (1500, 1301)
    tiled, dense = TiledLabels(shape), np.zeros(shape, np.int32)
    for box, values in random_boxes(shape, 30):
        tiled[slices(box)] = values
        dense[slices(box)] = values
    assert np.array_equal(np.asarray(tiled), dense)
    assert tiled[700, 600] == dense[700, 600]
    expected = LabelRuns.from_labels(dense, dense != 0, shape)
    assert tiled.runs() == expected


def test_indices_are_those_of_numpy() -> None:
    whole = np.zeros((2, 300, 520), np.int32)
    whole[0, 5:9, 3:9], whole[1, 100:200, 250:400] = 2, 7
    labels = TiledLabels(whole.shape)
    for plane in range(2):
        labels[plane, 0:300, 0:520] = whole[plane]
    for key in (
        *((-1,), (-1, -150, -200), (-1, slice(-250, None)), (..., np.int64(-221))),
        *((slice(None, None, -1),), (1, slice(199, 90, -3), slice(None, None, -2))),
    ):
        assert np.array_equal(labels[key], whole[key]), key
    for key in ((2,), (-3,), (0, 300, 0), (0, 0, -521)):
        with pytest.raises(IndexError):
            labels[key]


def test_coarse_levels_show_the_largest_label() -> None:
    shape = (1501, 1302)
    tiled = TiledLabels(shape, np.uint16, pyramid=True)
    for box, values in random_boxes(shape, 30):
        tiled[slices(box)] = values
    fine = np.asarray(tiled)
    shapes = [level.shape for level in tiled.levels]
    assert shapes == [(1501, 1302), (751, 651), (376, 326), (188, 163)]
    for level in tiled.levels[1:]:
        even = np.pad(fine, [(0, n % 2) for n in fine.shape])
        h, w = (n // 2 for n in even.shape)
        fine = even.reshape(h, 2, w, 2).max((1, 3))
        assert np.array_equal(np.asarray(level), fine)


def test_small_objects_stay_visible_at_every_level_and_go_again() -> None:
    tiled = TiledLabels((20_000, 20_000), np.uint16, pyramid=True)
    tiled[15_000:15_003, 7_000:7_003] = np.full((3, 3), 5)
    for level, array in enumerate(tiled.levels):
        assert np.asarray(array[15_001 >> level, 7_001 >> level]) == 5
    tiled[15_000:15_003, 7_000:7_003] = np.zeros((3, 3))
    assert not np.asarray(tiled.levels[-1]).any()
    assert list(tiled.tiles()) == []


def test_a_patch_of_pixels_far_apart_is_written_in_place() -> None:
    shape = (100_000, 100_000)
    tiled = TiledLabels(shape)
    flat = np.array([5, 3 * 100_000 + 99_990, 99_999 * 100_000 + 50_000])
    patch = LabelRuns(shape, flat, np.array([7, 4, 9]), np.array([1, 2, 3]))
    tiled[patch.indices()] = patch.values()
    assert tiled.runs() == patch
    assert next(tiled.tiles()) == (0, 0, TILE_PX, TILE_PX)
    assert len(list(tiled.tiles())) == 3


def test_planes_of_a_stack_are_apart() -> None:
    shape = (3, 1200, 1200)
    tiled = TiledLabels(shape, np.uint16, pyramid=True)
    tiled[2, 500:530, 500:530] = np.full((30, 30), 8)
    assert tiled.planes() == ((2,),)
    assert not tiled[1].any()
    assert tiled.runs((2,)).plane == (2,)
    assert tiled.runs((2,)).size == 900
    assert tiled.runs((0,)).size == 0
    assert np.count_nonzero(np.asarray(tiled.levels[1])[2]) == 15 * 15
    one = TiledLabels(shape[1:])
    one[7:9, 3:1100] = np.full((2, 1097), 4)
    tiled[(0,)] = one
    assert np.array_equal(tiled[0], np.asarray(one))


def test_tiles_that_are_not_used_are_packed() -> None:
    tiled = TiledLabels((100_000, 100_000), np.uint16)
    tracemalloc.start()
    try:
        for number in range(500):
            y, x = 256 * (number // 40), 256 * (number % 40)
            tiled[y + 9 : y + 60, x + 9 : x + 60] = np.full((51, 51), number + 1)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 20_000_000
    assert tiled.runs().size == 500 * 51**2
    assert np.unique(tiled.runs().after).size == 500
