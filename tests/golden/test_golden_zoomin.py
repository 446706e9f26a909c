"""Zoom-In: windows, crops, clicks and inverses of the published code."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cfrseg.clicks import Click
from napari_cfrseg.evaluation.papers import ZoomIn, paste_roi

pytestmark = pytest.mark.golden
GOLDEN = Path(os.environ.get("CFRSEG_GOLDEN", Path(__file__).parent / "data"))
FOLDER = GOLDEN / "zoomin"


def load_cases():
    path = FOLDER / "cases.json"
    return json.loads(path.read_text()) if path.is_file() else []


def make_clicks(rows):
    return [Click((y, x), is_positive=bool(sign)) for y, x, sign in rows]


def make_zoom(params):
    names = {"recompute_thresh_iou": "recompute_iou", "prob_thresh": "threshold"}
    values = {names.get(key, key): value for key, value in params.items()}
    if isinstance(values["target_size"], list):
        values["target_size"] = tuple(values["target_size"])
    return ZoomIn(**values)


def test_golden_cases_are_there():
    if not load_cases():
        pytest.skip(f"no golden data at {FOLDER}")


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case["name"])
def test_zoom_in_equals_the_published_one(case):
    zoom, shape = make_zoom(case["params"]), (case["h"], case["w"])
    with np.load(FOLDER / "zoomin.npz") as data:
        arrays = {k: data[k] for k in data if k.startswith(case["name"] + "_")}
    arrays = {k.removeprefix(case["name"] + "_"): v for k, v in arrays.items()}
    clicks = make_clicks(case["clicks"])
    previous = arrays.get("prev")
    roi = zoom.choose_roi(shape, clicks, previous, None)
    assert (None if roi is None else list(roi)) == case["roi"]
    whole = roi is None

    pixels = np.random.default_rng(77).integers(0, 256, (*shape, 4), np.uint8)
    image = torch.from_numpy(pixels.astype(np.float32) / 255)
    image = image.permute(2, 0, 1)[None]
    crop = image if whole else zoom.crop(image, roi)
    assert list(crop.shape[2:]) == case["out_hw"]
    if "out_s8" in arrays:
        np.testing.assert_allclose(
            crop[:, :, ::8, ::8].numpy(), arrays["out_s8"], atol=1e-6
        )
    moved = clicks if whole else zoom.to_crop(clicks, roi)
    check_clicks(moved, case["tclicks"])

    noise = np.random.default_rng(5).standard_normal((1, 1, *crop.shape[2:]))
    answer = torch.sigmoid(torch.from_numpy(noise).float())
    answer = torch.nn.functional.avg_pool2d(answer, 9, stride=1, padding=4)
    back = answer if whole else paste_roi(answer, roi, shape)
    assert list(back.shape[2:]) == case["inv_hw"]
    if "inv_s4" in arrays:
        np.testing.assert_allclose(
            back[:, :, ::4, ::4].numpy(), arrays["inv_s4"], atol=1e-6
        )
    if case["possible_recalc_after"] is not None:
        again = zoom.predicts_again(back[0, 0].numpy(), roi)
        assert again == case["possible_recalc_after"]

    if "clicks2" in case:
        clicks = make_clicks(case["clicks2"])
        second = zoom.choose_roi(shape, clicks, arrays.get("prev2"), roi)
        assert list(second) == case["roi2"]
        assert (second != roi) == case["image_changed2"]
        assert list(zoom.crop_size(second)) == case["out_hw2"]
        check_clicks(zoom.to_crop(clicks, second), case["tclicks2"])


def check_clicks(found, expected):
    assert [[*c.yx, int(c.is_positive)] for c in found] == [
        pytest.approx(row, rel=1e-12) for row in expected
    ]


def test_fcfi_windows_grow_with_negative_clicks_too():
    previous = np.zeros((900, 900), np.float32)
    previous[400:500, 400:500] = 1
    clicks = [Click((450, 450)), Click((40, 450), is_positive=False)]
    plain = ZoomIn().choose_roi((900, 900), clicks, previous, None)
    fcfi = ZoomIn(negatives_too=True).choose_roi((900, 900), clicks, previous, None)
    assert plain[0] > 40 >= fcfi[0]
