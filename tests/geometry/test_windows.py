from __future__ import annotations

import numpy as np
import pytest

from napari_cfrseg.geometry.windows import Window, crop, paste


class Recorder:
    """A huge plane that computes what is read of it and counts the pixels."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.dtype = np.dtype(np.uint8)
        self.ndim = len(shape)
        self.read_px = 0
        self.touched: list[tuple[range, range]] = []

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        rows = range(*key[0].indices(self.shape[0]))
        columns = range(*key[1].indices(self.shape[1]))
        self.read_px += len(rows) * len(columns)
        self.touched.append((rows, columns))
        values = np.add.outer(np.array(rows), np.array(columns)) % 251
        return values.astype(np.uint8)


def ramp(shape: tuple[int, int]) -> np.ndarray:
    return np.add.outer(2.0 * np.arange(shape[0]), 0.5 * np.arange(shape[1])).astype(
        np.float32
    )


def test_crop_at_the_grids_own_scale_is_the_plane_itself():
    plane = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    got = crop(plane, Window(3, 7, 16, 16))
    assert got.shape == (1, 16, 16)
    assert np.array_equal(got[0], plane[3:19, 7:23])


def test_crop_repeats_the_edge_pixels_beyond_the_plane():
    plane = np.arange(12, dtype=np.uint16).reshape(3, 4)
    got = crop(plane, Window(-2, -1, 6, 6))[0]
    assert np.array_equal(
        got,
        [
            [0, 0, 1, 2, 3, 3],
            [0, 0, 1, 2, 3, 3],
            [0, 0, 1, 2, 3, 3],
            [4, 4, 5, 6, 7, 7],
            [8, 8, 9, 10, 11, 11],
            [8, 8, 9, 10, 11, 11],
        ],
    )


def test_shrinking_averages_the_covered_area():
    plane = np.array([[0, 4, 8, 0], [4, 8, 0, 0], [1, 1, 2, 2], [1, 1, 2, 6]])
    assert np.array_equal(crop(plane, Window(0, 0, 4, 2))[0], [[4, 2], [1, 3]])


def test_shrinking_by_a_fraction_weighs_pixels_by_their_share():
    plane = np.array([[3.0, 6.0, 9.0]]).repeat(3, axis=0)
    got = crop(plane, Window(0, 0, 3, 2))[0]
    # cells cover [0, 1.5) and [1.5, 3): (3 + ½·6)/1.5 and (½·6 + 9)/1.5
    np.testing.assert_allclose(got, [[4, 8], [4, 8]], rtol=1e-6)


def test_enlarging_interpolates_between_pixel_centres():
    plane = np.array([[0.0, 4.0], [0.0, 4.0]])
    got = crop(plane, Window(0, 0, 2, 4))[0]
    np.testing.assert_allclose(got, [[0, 1, 3, 4]] * 4)


def test_fine_detail_does_not_alias():
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 200
    got = crop(stripes, Window(0, 0, 64, 16))
    np.testing.assert_allclose(got, 100)


@pytest.mark.parametrize("side", [20, 32, 100, 300])
def test_paste_of_crop_keeps_a_ramp_away_from_the_edges(side):
    plane = ramp((400, 400))
    window = Window(40, 30, side, 32)
    back = paste(crop(plane, window)[0], window)
    rim = max(2, round(window.px_per_cell * 1.5))
    inner = (slice(rim, side - rim),) * 2
    expected = plane[40 : 40 + side, 30 : 30 + side]
    # a pixel on the border of two cells counts for both: at most 1/8 px off
    assert np.abs(back - expected)[inner].max() <= 2.5 / 8 + 1e-3


def test_paste_of_a_box_is_that_box_of_the_whole_paste():
    values = np.random.default_rng(1).random((16, 16), dtype=np.float32)
    for side in (9, 16, 50):
        window = Window(-3, 5, side, 16)
        whole = paste(values, window)
        box = (window.y0 + 2, window.x0 + 3, window.y0 + 7, window.x0 + 8)
        assert np.array_equal(paste(values, window, box), whole[2:7, 3:8])


def test_channels_come_first():
    plane = np.dstack([np.zeros((8, 8)), np.ones((8, 8))])
    assert crop(plane, Window(0, 0, 8, 4)).shape == (2, 4, 4)


@pytest.mark.parametrize("side", [16, 64, 256, 1000, 8192])
def test_reading_a_window_costs_the_grid_not_the_plane(side):
    plane = Recorder((20_000, 20_000))
    crop(plane, Window(5000, 6000, side, 64))
    assert plane.read_px <= min(side, 4 * 64) ** 2
    rows, columns = plane.touched[0]
    assert 5000 <= rows[0] <= rows[-1] < 5000 + side
    assert 6000 <= columns[0] <= columns[-1] < 6000 + side


def test_a_strided_crop_sees_the_same_picture():
    plane = ramp((4096, 4096))
    window = Window(0, 0, 4096, 32)  # one pixel in 32 × 32 is read per sample
    got = crop(plane, window)[0]
    expected = plane.reshape(32, 128, 32, 128).mean(axis=(1, 3))
    np.testing.assert_allclose(got, expected, atol=2.5 * 16)


def test_a_window_far_wider_than_a_thin_plane_still_reads_it():
    plane = np.full((1, 5), 9, dtype=np.uint8)
    got = crop(plane, Window(-5000, -5000, 10_000, 16))
    np.testing.assert_allclose(got, 9, rtol=1e-6)


@pytest.mark.parametrize(
    ("yx", "side", "plane", "expected"),
    [
        ((50, 50), 10, (100, 100), (46, 46)),
        ((0, 99), 10, (100, 100), (0, 90)),  # shifted into the plane
        ((5, 5), 20, (10, 100), (-5, 0)),  # plane narrower than the window: centred
    ],
)
def test_centred_windows_stay_in_the_plane_where_they_fit(yx, side, plane, expected):
    window = Window.centred(yx, side, 32, plane)
    assert (window.y0, window.x0) == expected


def test_a_window_needs_a_side_and_a_grid():
    with pytest.raises(ValueError, match="must be"):
        Window(0, 0, 0, 32)


def test_paste_says_what_does_not_fit():
    with pytest.raises(ValueError, match="grid of 4"):
        paste(np.zeros((3, 3)), Window(0, 0, 8, 4))
    with pytest.raises(ValueError, match="does not lie"):
        paste(np.zeros((4, 4)), Window(0, 0, 8, 4), (0, 0, 9, 9))
