"""The published evaluation clicker, click for click."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_cfrseg.evaluation.robots import ExactRobot, find_larger_error

pytestmark = pytest.mark.golden
GOLDEN = Path(os.environ.get("CFRSEG_GOLDEN", Path(__file__).parent / "data"))
CASES = ["blob", "square_tie", "border", "fn_fp_equal", "ignore", "perfect"]


@pytest.mark.parametrize("case", CASES)
def test_every_click_equals_the_published_one(case):
    folder = GOLDEN / "clicker"
    if not folder.is_dir():
        pytest.skip(f"no golden data at {folder}")
    expected = json.loads((folder / "clicks.json").read_text())[case]["clicks"]
    with np.load(folder / "clicker.npz") as data:
        truth, shown = data[f"{case}_gt"], data[f"{case}_preds"]
    robot = ExactRobot(truth == 1, truth == -1)
    clicks = [robot.next_click(mask) for mask in shown]
    assert [[*c.pixel, int(c.is_positive)] for c in clicks] == [
        [y, x, positive] for y, x, positive, _ in expected
    ]


def literal_centre(error, free):
    """Transform the whole padded plane, as the papers' text says it."""
    distances = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
    distances = distances.astype(np.float32) * free
    y, x = np.nonzero(distances == distances.max())
    return float(distances.max()), (int(y[0]), int(x[0]))


@pytest.mark.parametrize("seed", range(12))
def test_the_shortcut_equals_the_transform_of_the_whole_plane(seed):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(61, 47)), 0.5 + 0.4 * seed)
    error = noise > np.quantile(noise, rng.uniform(0.2, 0.9))
    free = rng.random(error.shape) > 0.2
    for missed, wrong in ((error, error & False), (error & False, error)):
        centre, is_positive = find_larger_error(missed, wrong, free)
        assert (centre.depth, centre.pixel) == literal_centre(error, free)
        assert is_positive == missed.any()


@pytest.mark.parametrize("seed", range(12))
def test_the_deeper_of_two_errors_equals_the_comparison_of_both(seed):
    rng = np.random.default_rng(100 + seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(61, 47)), 1 + 0.3 * seed)
    low, high = np.quantile(noise, [0.3 + 0.02 * seed, 0.6])
    missed, wrong = noise < low, noise > high
    free = rng.random(noise.shape) > 0.05
    a, b = literal_centre(missed, free), literal_centre(wrong, free)
    expected = (a, True) if a[0] > b[0] else (b, False)
    centre, is_positive = find_larger_error(missed, wrong, free)
    assert ((centre.depth, centre.pixel), is_positive) == expected


@pytest.mark.parametrize("connected", [True, False])
def test_equal_squares_tie_to_the_first_in_row_major_order(connected):
    error = np.zeros((30, 40), bool)
    error[12:17, 25:30] = error[10:15, 3:8] = True
    if connected:
        error[14, 8:25] = True
    free = np.ones_like(error)
    assert find_larger_error(error, error & False, free)[0].pixel == (12, 5)
    assert literal_centre(error, free)[1] == (12, 5)
