from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from napari_cfrseg.errors import ImageError
from napari_cfrseg.geometry.windows import Window
from napari_cfrseg.io.axes import ArrayView, Pyramid
from napari_cfrseg.io.plane_image import SAMPLE_PX, Scaling, open_plane


class Lazy:
    """A lazy array: counts the pixels it had to compute, whole chunks at a time."""

    def __init__(self, shape: tuple[int, ...], chunk: int = 256) -> None:
        self.shape, self.chunk = shape, chunk
        self.ndim, self.dtype = len(shape), np.dtype(np.uint16)
        self.computed_px = 0

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        ranges = [range(*k.indices(n)) for k, n in zip(key, self.shape, strict=False)]
        chunks = [len({i // self.chunk for i in r}) for r in ranges]
        self.computed_px += chunks[0] * chunks[1] * self.chunk**2
        return np.add.outer(ranges[0], ranges[1]).astype(np.uint16)


def whole(image: np.ndarray, **options: object) -> np.ndarray:
    """The network's pixels of a square image, at its own scale."""
    side = image.shape[0]
    return open_plane(image, **options).crop(Window(0, 0, side, side))


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64]
)
def test_any_integer_type_is_brought_to_zero_and_one(dtype):
    image = np.zeros((16, 16), dtype=dtype)
    image[8:] = 1 if dtype is bool else np.iinfo(dtype).max
    got = whole(image)
    assert got.shape == (3, 16, 16)
    assert got.dtype == np.float32
    assert np.all(got[:, :8] == 0)
    assert np.all(got[:, 8:] == 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_keep_their_order_and_range(dtype):
    image = np.linspace(-3, 7, 1024).reshape(32, 32).astype(dtype)
    got = whole(image)[0]
    assert got.min() == 0
    assert got.max() == 1
    assert np.all(np.diff(got.ravel()) >= 0)


def test_a_narrow_range_on_a_large_offset_survives_float32():
    image = np.arange(64, dtype=np.int64).reshape(8, 8) + 4_000_000_000
    assert len(np.unique(whole(image)[0])) > 60


def test_outliers_do_not_set_the_range():
    image = np.tile(np.arange(100, dtype=np.uint16), (100, 1))
    image[0, 0] = 65535
    assert open_plane(image).scaling.high[0] < 110


def test_a_few_bright_pixels_on_nothing_still_show():
    image = np.zeros((200, 200), dtype=np.uint16)
    image[10, 10:14] = 900
    assert open_plane(image).scaling == Scaling((0.0,), (900.0,))


def test_two_channels_become_three_with_their_mean():
    image = np.zeros((4, 4, 2), dtype=bool)
    image[:, 2:, 0] = True
    got = whole(image)
    assert np.array_equal(got[0], image[:, :, 0])
    assert np.array_equal(got[1], image[:, :, 1])
    assert np.array_equal(got[2], image.mean(axis=2))


def test_four_channels_that_are_no_colours_mix_the_last_two():
    image = np.zeros((4, 4, 4), dtype=np.uint16)
    image[:2, :, 2] = 10
    image[:, :2, 3] = 10
    got = whole(image, scaling=Scaling((0.0,) * 4, (10.0,) * 4))
    assert np.array_equal(got[2], (image[:, :, 2] + image[:, :, 3]) / 20)


def test_alpha_is_dropped_and_colours_are_scaled_jointly():
    image = np.zeros((10, 10, 4), dtype=np.uint8)
    image[:, :, 0] = np.arange(10) * 20  # red to 180
    image[:, :, 1] = np.arange(10) * 10  # green to 90 stays half as bright
    image[:, :, 3] = 255
    got = whole(image)
    assert got[0].max() == 1
    np.testing.assert_allclose(got[1].max(), 0.5, atol=0.01)
    assert got[2].max() == 0


def test_separate_channels_are_scaled_apart():
    image = np.zeros((10, 10, 3), dtype=np.uint16)
    image[:, :, 0] = np.arange(10) * 1000
    image[:, :, 1] = np.arange(10)
    got = whole(image)
    assert got[0].max() == got[1].max() == 1
    assert got[2].max() == 0  # an empty channel stays black
    joint = whole(image, rgb=True)
    assert joint[1].max() < 0.01


def test_nan_and_infinity_are_left_out_of_the_range_and_painted():
    image = np.linspace(0, 1, 400).reshape(20, 20)
    image[0, :3] = np.nan, np.inf, -np.inf
    plane = open_plane(image)
    assert np.isfinite(plane.scaling.low + plane.scaling.high).all()
    got = plane.crop(Window(0, 0, 20, 20))[0]
    assert list(got[0, :3]) == [0, 1, 0]
    assert np.isfinite(got).all()


def test_a_constant_image_is_black():
    assert np.all(whole(np.full((8, 8), 77, dtype=np.uint16)) == 0)
    infinite = np.full((8, 8), 3.0)
    infinite[0, 0] = np.inf
    assert np.all(whole(infinite) == 0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((4, 4), np.nan), "no finite pixel"),
        (np.zeros((4, 4, 5)), r"\(4, 4, 5\).*1 to 4"),
        (np.zeros((2, 4, 4, 3)), "one plane of a stack"),
        (np.zeros(7), "expected"),
        (np.zeros((0, 4)), "no pixels"),
        (np.zeros((4, 4), dtype=complex), "complex"),
    ],
)
def test_what_cannot_be_segmented_says_why(image, message):
    with pytest.raises(ImageError, match=message):
        open_plane(image)


def test_a_wrong_rgb_or_scaling_says_so():
    with pytest.raises(ImageError, match="3 or 4 channels"):
        open_plane(np.zeros((4, 4)), rgb=True)
    with pytest.raises(ImageError, match="for 2 channels"):
        open_plane(np.zeros((4, 4)), scaling=Scaling((0.0, 0.0), (1.0, 1.0)))
    with pytest.raises(ValueError, match="low ≤ high"):
        Scaling((2.0,), (1.0,))


def test_a_given_scaling_is_used_as_it_is():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    got = whole(image, scaling=Scaling((5.0,), (10.0,)))[0]
    np.testing.assert_allclose(got.ravel(), np.clip((np.arange(16) - 5) / 5, 0, 1))


def test_the_range_comes_from_a_sample():
    image = np.zeros((3000, 3000), dtype=np.uint8)
    image[::2] = 200  # a stride that divides the pattern must not hide it
    scaling = open_plane(image).scaling
    assert scaling.high[0] == 200


def test_a_lazy_image_is_sampled_not_read():
    image = Lazy((30_000, 30_000))
    plane = open_plane(image)
    assert image.computed_px <= 12 * SAMPLE_PX
    # the tiles reach from corner to corner
    assert plane.scaling.low[0] < 2_000
    assert plane.scaling.high[0] > 58_000


def test_a_slow_image_is_sampled_with_several_requests_at_once() -> None:
    together = threading.Barrier(4)

    class Slow(Lazy):
        def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
            together.wait(timeout=60)  # BrokenBarrierError where they come one by one
            return super().__getitem__(key)

    in_turn = open_plane(Lazy((30_000, 30_000)))
    assert open_plane(Slow((30_000, 30_000))).scaling == in_turn.scaling


def test_dask_arrays_work_window_by_window():
    dask_array = pytest.importorskip("dask.array")
    image = np.random.default_rng(0).integers(0, 4000, (300, 200), dtype=np.uint16)
    window = Window(40, 50, 60, 32)
    lazy = open_plane(dask_array.from_array(image, chunks=64))
    assert np.array_equal(lazy.crop(window), open_plane(image).crop(window))


def pyramid_of(plane: np.ndarray, levels: int) -> Pyramid:
    """Return a plane with copies of it, each the mean of 2 × 2 pixels."""
    made = [plane.astype(np.float32)]
    for _ in range(levels - 1):
        fine = made[-1]
        h, w = (n // 2 for n in fine.shape)
        made.append(fine[: 2 * h, : 2 * w].reshape(h, 2, w, 2).mean((1, 3)))
    return Pyramid(made)


@pytest.mark.parametrize("side", [64, 100, 128, 300, 511, 900])
def test_a_window_looks_the_same_from_the_level_that_fits(side: int) -> None:
    rows, columns = np.mgrid[:1000, :1000]
    window = Window(37, 53, side, 64)
    for plane, axis in ((rows, 0), (columns, 1)):
        scaling = Scaling((0.0,), (1000.0,))
        image = open_plane(pyramid_of(plane, 4), scaling=scaling)
        seen = 1000 * image.crop(window)[0]
        place = window.box[axis] + (np.arange(64) + 0.5) * window.px_per_cell - 0.5
        expected = np.broadcast_to(place[:, None] if axis == 0 else place, (64, 64))
        assert np.abs(seen - expected).max() < 0.1 * window.px_per_cell


def test_a_wide_window_reads_a_coarse_level_only() -> None:
    read: list[int] = []

    class Level:
        dtype = np.dtype(np.uint8)

        def __init__(self, side: int) -> None:
            self.shape = (side, side)

        def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
            read.append(self.shape[0])
            sides = [len(range(*k.indices(self.shape[0]))) for k in key]
            return np.zeros(sides, np.uint8)

    levels = Pyramid([Level(100_000 >> k) for k in range(8)])
    image = open_plane(levels, scaling=Scaling((0.0,), (255.0,)))
    image.crop(Window(40_000, 50_000, 64, 256))
    image.crop(Window(40_000, 50_000, 4_000, 256))
    assert read == [100_000, 100_000 >> 3]


def test_black_and_white_come_from_where_something_is() -> None:
    slide = np.full((4000, 4000), 200, np.uint8)
    slide[2500:2600, 1100:1200] = np.linspace(10, 150, 100).astype(np.uint8)
    levels = [slide, slide.reshape(400, 10, 400, 10).mean((1, 3)).astype(np.uint8)]
    lazy = [ArrayView(level, (0, 1), {}) for level in levels]
    assert open_plane(lazy[0]).scaling.low == (200.0,)
    low = open_plane(Pyramid(lazy)).scaling.low[0]
    assert 10 <= low < 40


def almost_empty(ground: float, *objects: tuple[int, int]) -> ArrayView:
    """Return a lazy field of noise with objects of 12² px: their corner, brightness."""
    rng = np.random.default_rng(0)
    field = (ground + rng.integers(0, 8, (3000, 3000))).astype(np.uint16)
    if not ground:
        field[:] = 0
    for place, value in objects:
        field[place : place + 12, place : place + 12] = value
    return ArrayView(field, (0, 1), {})


@pytest.mark.parametrize("ground", [0, 100])
def test_an_object_in_an_almost_empty_field_widens_the_range(ground: int) -> None:
    plane = open_plane(almost_empty(ground, (800, 900), (805, 1200), (2000, 130)))
    noise = plane.scaling
    assert noise.high[0] < ground + 8
    bright = plane.seeing((806, 806))
    assert bright.scaling == Scaling(noise.low, (1200.0,))
    inside = bright.crop(Window(806, 806, 4, 4))
    assert len(np.unique(inside)) == 1  # not everything is white
    assert plane.seeing((2005, 2005)).scaling.high == (130.0,)
    assert plane.scaling == noise


def test_an_object_much_darker_than_black_does_too() -> None:
    plane = open_plane(almost_empty(1000, (0, 10)))
    assert plane.scaling.low[0] >= 1000
    assert plane.seeing((3, 3)).scaling == Scaling((10.0,), plane.scaling.high)


def test_what_is_within_the_range_changes_nothing() -> None:
    image = almost_empty(100, (800, 900))
    plane = open_plane(image)
    assert plane.seeing((100, 2999)) is plane
    whole_range = open_plane(image, scaling=Scaling((0.0,), (900.0,)))
    assert whole_range.seeing((806, 806)) is whole_range
    nowhere = open_plane(np.array([[np.nan, np.nan], [1, 2]]))
    assert nowhere.seeing((0, 0)) is nowhere


def test_colours_are_widened_together_and_channels_apart() -> None:
    field = np.zeros((1200, 1200, 3), np.uint8)
    field[..., 1] = np.arange(1200) % 7
    field[300:312, 300:312] = 90, 4, 5
    lazy = ArrayView(field, (0, 1, 2), {})
    colours = open_plane(lazy, rgb=True).seeing((305, 305)).scaling
    assert colours == Scaling((0.0,) * 3, (90.0,) * 3)
    apart = open_plane(lazy, rgb=False).seeing((305, 305)).scaling
    assert apart == Scaling((0.0,) * 3, (90.0, 6.0, 5.0))


class Counted:
    """A lazy array that counts how often it is read."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.shape, self.dtype = array, array.shape, array.dtype
        self.reads = 0

    def __getitem__(self, key: object) -> np.ndarray:
        self.reads += 1
        return self._array[key]


@pytest.mark.parametrize("at", [(1500, 1400), (3, 2998), (1500, 2)])
def test_a_first_click_reads_what_lies_around_it_once(at: tuple[int, int]) -> None:
    field = np.random.default_rng(0).integers(0, 9, (3000, 3000), np.uint16)
    field[at[0] - 3 : at[0] + 4, at[1] - 2 : at[1] + 3] = 900
    lazy = Counted(field)
    plane, whole = open_plane(lazy), open_plane(field)
    lazy.reads = 0
    plane.begin_at(at)
    seen = plane.seeing(at)
    assert seen.scaling.high == (900.0,)
    for side in (32, 64, 128, 256):
        window = Window(at[0] - side // 2, at[1] - side // 2, side, 64)
        pixels = replace(whole, scaling=seen.scaling).crop(window)
        assert np.array_equal(seen.crop(window), pixels)
    assert lazy.reads == 1
    plane.begin_at((700, 700))
    field[700:710] = 5
    assert np.array_equal(plane.array[690:710, 690:720], field[690:710, 690:720])
    assert lazy.reads == 2
    far = Window(0, 0, 900, 64)
    assert np.array_equal(plane.crop(far), whole.crop(far))
    assert lazy.reads == 3
