"""Mask metrics against literal formulas and at their edges."""

import math

import numpy as np
import pytest
from scipy import ndimage

from napari_cfrseg.evaluation import metrics


def blobs(seed, shape=(40, 55)):
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=shape), 4) > 0.02


def test_iou_by_hand():
    predicted = np.array([[1, 1, 0, 0]], bool)
    truth = np.array([[0, 1, 1, 0]], bool)
    assert metrics.iou(predicted, truth) == pytest.approx(1 / 3)
    ignore = np.array([[1, 0, 0, 0]], bool)
    assert metrics.iou(predicted, truth, ignore) == pytest.approx(1 / 2)
    assert metrics.error_area(predicted, truth) == 2
    assert metrics.error_area(predicted, truth, ignore) == 1


def test_two_empty_masks_agree():
    empty = np.zeros((5, 6), bool)
    assert metrics.iou(empty, empty) == 1.0
    assert metrics.boundary_iou(empty, empty) == 1.0
    assert metrics.assd(empty, empty) == 0.0


def test_distance_to_nothing_is_not_a_number():
    empty, full = np.zeros((5, 6), bool), np.ones((5, 6), bool)
    assert math.isnan(metrics.assd(empty, full))
    assert math.isnan(metrics.assd(full, empty))
    assert metrics.boundary_iou(empty, full) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_boundary_iou_equals_repeated_erosion(seed):
    predicted, truth = blobs(seed), blobs(seed + 50)
    depth = max(1, round(0.05 * math.hypot(*truth.shape)))

    def band(mask):
        inner = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=depth)
        return mask & ~inner

    expected = metrics.iou(band(predicted), band(truth))
    assert metrics.boundary_iou(predicted, truth, ratio=0.05) == expected


@pytest.mark.parametrize("seed", range(3))
def test_assd_equals_all_pairs_of_surface_pixels(seed):
    predicted, truth = blobs(seed), blobs(seed + 50)
    spacing = (0.5, 2.0)

    def surface(mask):
        inner = ndimage.binary_erosion(mask)
        return np.argwhere(mask & ~inner) * spacing

    a, b = surface(predicted), surface(truth)
    pairs = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    expected = (pairs.min(1).sum() + pairs.min(0).sum()) / (len(a) + len(b))
    found = metrics.assd(predicted, truth, spacing=spacing)
    assert found == pytest.approx(expected)


def test_holes_have_surfaces_unless_published():
    solid = np.zeros((21, 21), bool)
    solid[3:18, 3:18] = True
    ring = solid.copy()
    ring[8:13, 8:13] = False
    assert metrics.assd(ring, solid, published=True) == 0.0
    assert metrics.assd(ring, solid) > 0.5


def test_assd_of_volumes():
    truth = np.zeros((8, 9, 9), bool)
    truth[2:5, 2:7, 2:7] = True
    moved = np.roll(truth, 1, axis=0)
    anisotropic = metrics.assd(moved, truth, spacing=(4.0, 1.0, 1.0))
    assert 0 < metrics.assd(moved, truth) <= 1 < anisotropic * 4


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        metrics.iou(np.zeros((2, 3), bool), np.zeros((3, 2), bool))


def disk(radius, centre=(40, 40), side=80):
    ys, xs = np.ogrid[:side, :side]
    return (ys - centre[0]) ** 2 + (xs - centre[1]) ** 2 <= radius**2


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        (disk(15), disk(15), 1.0),
        (disk(16), disk(15), 1.0),  # a pixel is within the tolerance
        (disk(19), disk(15), 0.0),
        (disk(40, side=200), disk(39, side=200), 1.0),
        (disk(15) & False, disk(15) & False, 1.0),
        (disk(15), disk(15) & False, 0.0),
        (disk(15) & False, disk(15), 0.0),
    ],
)
def test_surface_dice_of_disks(predicted, truth, expected):
    assert metrics.surface_dice(predicted, truth) == expected


def test_surface_dice_is_the_share_of_both_outlines_that_agree():
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(2, 60, 70)), (0, 4, 4))
    a, b = smooth > 0
    tolerance = metrics.SURFACE_TOLERANCE * math.sqrt(4 * b.sum() / math.pi)
    assert tolerance > 1
    surfaces = [m & ~ndimage.binary_erosion(m) for m in (a, b)]
    away = [ndimage.distance_transform_edt(~surface) for surface in surfaces]
    agreeing = (away[1][surfaces[0]] <= tolerance).sum()
    agreeing += (away[0][surfaces[1]] <= tolerance).sum()
    expected = agreeing / sum(surface.sum() for surface in surfaces)
    assert 0.1 < expected < 0.95
    found = metrics.surface_dice(a, b)
    assert found == pytest.approx(expected)


def test_surface_dice_leaves_ignored_pixels_out():
    truth, ignore = disk(15), np.zeros((80, 80), bool)
    ignore[:, 45:] = True
    assert metrics.surface_dice(truth | (disk(30) & ignore), truth, ignore) == 1.0


@pytest.mark.parametrize(
    ("iou", "dice", "expected"),
    [(0.9, 0.0, True), (0.899, 0.94, False), (0.75, 0.95, True), (0.749, 1.0, False)],
)
def test_acceptable_outlines(iou, dice, expected):
    assert metrics.is_acceptable(iou, dice) is expected


def test_a_click_mends_near_and_spoils_near_and_far():
    truth = np.zeros((20, 40), bool)
    truth[5:15, 5:15] = True
    before = truth.copy()
    before[7:10, 7:10] = False  # the clicked error
    after = truth.copy()
    after[9, 9] = False  # one of its nine pixels is left
    after[8, 4] = True  # four pixels away, the error reaches √2
    after[14, 14] = False
    effect = metrics.click_effect(before, after, truth, None, (8, 8))
    assert (effect.mended_px, effect.spoilt_px, effect.spoilt_far_px) == (8, 2, 2)
    after[7:10, 7:10] = True
    after[8, 9] = False
    effect = metrics.click_effect(before, after, truth, None, (8, 8))
    assert (effect.mended_px, effect.spoilt_px) == (8, 2)
    before[5:15, 5:15] = False
    effect = metrics.click_effect(before, after, truth, None, (8, 8))
    assert (effect.mended_px, effect.spoilt_px, effect.spoilt_far_px) == (98, 1, 0)
    ignore = ~truth
    effect = metrics.click_effect(before, after, truth, ignore, (8, 8))
    assert (effect.mended_px, effect.spoilt_px) == (98, 0)


def test_the_reach_is_that_of_the_clicked_region_alone():
    truth = np.zeros((9, 40), bool)
    truth[4, 2:38] = True
    before = truth.copy()
    before[4, 2:5] = before[4, 20:38] = False  # two missed parts
    after = truth.copy()
    after[3, 5] = after[3, 8] = True  # spoilt: within two pixels of the click, and not
    effect = metrics.click_effect(before, after, truth, None, (4, 4))
    assert (effect.mended_px, effect.spoilt_px, effect.spoilt_far_px) == (21, 2, 1)
