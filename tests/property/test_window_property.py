from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_cfrseg.geometry.windows import Window, crop, paste

windows = st.builds(
    Window,
    st.integers(-50, 150),
    st.integers(-50, 150),
    st.integers(1, 400),
    st.integers(1, 64),
)
coordinates = st.floats(-1e4, 1e4, allow_nan=False)


@given(windows, coordinates, coordinates)
def test_a_pixel_lies_in_the_cell_that_covers_it(window, y, x):
    grid_y, grid_x = window.to_grid((y, x))
    back_y = (grid_y + 0.5) * window.px_per_cell - 0.5 + window.y0
    back_x = (grid_x + 0.5) * window.px_per_cell - 0.5 + window.x0
    np.testing.assert_allclose((back_y, back_x), (y, x), rtol=1e-9, atol=1e-7)
    row, column = window.cell((y, x))
    assert row - 0.5 <= grid_y < row + 0.5
    assert column - 0.5 <= grid_x < column + 0.5


@given(
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)
def test_crop_then_paste_is_the_identity_at_the_grids_scale(y0, x0, side, seed):
    plane = np.random.default_rng(seed).normal(size=(50, 50)).astype(np.float32)
    window = Window(y0, x0, side, side)
    back = paste(crop(plane, window)[0], window)
    assert np.array_equal(back, plane[y0 : y0 + side, x0 : x0 + side])


@given(windows, st.floats(-1e3, 1e3, width=32))
def test_crop_and_paste_keep_constants(window, value):
    plane = np.full((120, 90), value, dtype=np.float32)
    cropped = crop(plane, window)
    np.testing.assert_allclose(cropped, value, rtol=1e-5, atol=1e-5)
    pasted = paste(cropped[0], window)
    np.testing.assert_allclose(pasted, value, rtol=1e-5, atol=1e-5)


@given(windows, st.integers(0, 2**32 - 1))
def test_resampling_never_leaves_the_range_of_the_pixels(window, seed):
    plane = np.random.default_rng(seed).random((60, 70), dtype=np.float32)
    got = crop(plane, window)
    assert plane.min() - 1e-5 <= got.min()
    assert got.max() <= plane.max() + 1e-5


@given(st.tuples(st.integers(0, 119), st.integers(0, 89)), st.integers(1, 300))
def test_a_centred_window_holds_its_point(point, side):
    window = Window.centred(point, side, 32, (120, 90))
    y, x = point
    assert window.holds((y, x, y + 1, x + 1))
