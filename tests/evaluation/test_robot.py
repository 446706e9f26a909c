"""The robots where the golden cases do not look."""

import numpy as np
import pytest
from scipy import ndimage

from napari_cfrseg.evaluation.robots import ExactRobot, HumanRobot


def disk(shape=(60, 80), centre=(30, 40), radius=15):
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    return (ys - centre[0]) ** 2 + (xs - centre[1]) ** 2 <= radius**2


def test_the_first_click_is_the_deepest_pixel():
    click = ExactRobot(disk()).next_click()
    assert (click.pixel, click.is_positive) == ((30, 40), True)


def test_the_larger_error_is_clicked_and_its_side_decides_the_sign():
    truth = disk()
    too_large = truth | disk(centre=(30, 62), radius=8)
    click = ExactRobot(truth).next_click(too_large)
    assert not click.is_positive
    assert not truth[click.pixel]
    too_small = disk(radius=4)
    click = ExactRobot(truth).next_click(too_small)
    assert click.is_positive
    assert not too_small[click.pixel]


def test_a_clicked_pixel_is_not_clicked_again_though_the_error_stays():
    robot = ExactRobot(disk(radius=1))
    pixels = [robot.next_click().pixel for _ in range(5)]
    assert len(set(pixels)) == 5
    last = robot.next_click()  # all five pixels of the object are taken
    assert (last.pixel, last.is_positive) == ((0, 0), False)


def test_ignored_pixels_are_no_error():
    truth, ignore = disk(), np.zeros((60, 80), bool)
    ignore[:, 41:] = True
    robot = ExactRobot(truth, ignore)
    assert robot.next_click().pixel[1] < 40
    wrong_but_ignored = (truth | disk(centre=(30, 65), radius=10)) & ignore
    assert robot.next_click((truth & ~ignore) | wrong_but_ignored).pixel == (0, 0)


def test_many_thin_errors_cost_one_transform_of_the_plane(monkeypatch):
    error = np.random.default_rng(0).random((400, 400)) > 0.6
    transform, transformed_px = ndimage.distance_transform_edt, []

    def counted(mask, *arguments, **options):
        transformed_px.append(mask.size)
        return transform(mask, *arguments, **options)

    monkeypatch.setattr(ndimage, "distance_transform_edt", counted)
    ExactRobot(error).next_click()
    assert 0 < sum(transformed_px) <= 1.1 * error.size


@pytest.mark.parametrize("radius", [1, 3, 15])
def test_people_click_the_middle_of_the_error_not_its_centre(radius):
    truth = disk(radius=radius)
    pixels = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        click = HumanRobot(truth, rng=rng).next_click()
        assert click.is_positive
        assert truth[click.pixel]
        pixels.append(click.pixel)
    offsets = np.hypot(*(np.array(pixels) - (30, 40)).T)
    # half the depth is 0.5 r from the centre, and jitter adds a little
    assert offsets.max() <= 0.5 * radius + 6
    assert len(set(pixels)) > min(3, 2 * radius)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ExactRobot(np.zeros(5, bool)), r"must be \(Y, X\)"),
        (
            lambda: ExactRobot(np.zeros((5, 5), bool), np.zeros((5, 4), bool)),
            "one shape",
        ),
        (
            lambda: ExactRobot(np.zeros((5, 5), bool)).next_click(
                np.zeros((4, 5), bool)
            ),
            "annotation's shape",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
