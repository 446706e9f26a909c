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
