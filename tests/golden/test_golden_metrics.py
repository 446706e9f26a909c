"""The published masks' metrics and click counts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from napari_cfrseg.evaluation import metrics, scores

pytestmark = pytest.mark.golden
GOLDEN = Path(os.environ.get("CFRSEG_GOLDEN", Path(__file__).parent / "data"))
PREDICTIONS = ["shift3", "dilate", "erode", "perfect", "other", "holes"]


@pytest.fixture(scope="module")
def golden():
    folder = GOLDEN / "metrics"
    if not folder.is_dir():
        pytest.skip(f"no golden data at {folder}")
    with np.load(folder / "metrics.npz") as data:
        return dict(data), json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("name", PREDICTIONS)
def test_mask_metrics_equal_the_published_ones(golden, name):
    arrays, expected = golden
    truth, predicted = arrays["gt"] == 1, arrays[f"pred_{name}"]
    known, ignore = arrays["gt_ignore"] == 1, arrays["gt_ignore"] == -1
    found = {
        "iou": metrics.iou(predicted, truth),
        "iou_ignore": metrics.iou(predicted, known, ignore),
        "biou_0p02": metrics.boundary_iou(predicted, truth),
        "biou_ignore": metrics.boundary_iou(predicted, known, ignore, published=True),
        "biou_0p005": metrics.boundary_iou(predicted, truth, ratio=0.005),
        "assd": metrics.assd(predicted, truth, published=True),
    }
    assert found == pytest.approx(expected[name], rel=1e-12, abs=1e-12)


def test_corrected_boundary_iou_of_a_right_prediction_is_one(golden):
    arrays, _ = golden
    known, ignore = arrays["gt_ignore"] == 1, arrays["gt_ignore"] == -1
    for predicted in (arrays["gt"] == 1, known, known | ignore):
        assert metrics.boundary_iou(predicted, known, ignore) == 1.0
    predicted = arrays["gt"] == 1
    assert metrics.boundary_iou(predicted, known, ignore, published=True) < 0.95


def test_outer_contours_equal_opencv(golden):
    cv2 = pytest.importorskip("cv2")
    mask = golden[0]["pred_holes"]
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(drawn, contours, -1, 1, 1)
    surface = metrics._surface(mask, outer_only=True)
    np.testing.assert_array_equal(surface, drawn == 1)


def test_click_counts_equal_the_published_ones(golden):
    expected = golden[1]["noc"]
    runs, most = expected["ious"], expected["max_clicks"]
    assert [
        scores.mean_clicks_to(runs, t, most) for t in expected["thr"]
    ] == pytest.approx(expected["noc"])
    assert [
        scores.count_failures(runs, t, most, published=True) for t in expected["thr"]
    ] == expected["nof"]
    # one object succeeds at click 20 exactly: no failure once corrected
    assert scores.count_failures(runs, 0.95, most) == expected["nof"][-1] - 1
