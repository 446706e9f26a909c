"""The published samplers of the next training click."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_rule import found

from cfrseg_training.papers.published_steps import (
    UNIT,
    chamfer_depth,
    click_region,
    put_click,
)

pytestmark = pytest.mark.golden

FILES = found("sampler/next_points_*.npz")


@pytest.fixture(params=FILES, ids=lambda p: p.name)
def golden(request: pytest.FixtureRequest) -> tuple[Path, dict[str, np.ndarray]]:
    with np.load(request.param) as data:
        return request.param, dict(data)


def test_candidate_region_and_sign(golden) -> None:
    _, data = golden
    region, positive = regions(data)
    np.testing.assert_array_equal(region[:, 0].numpy(), data["candidate_region"])
    for b, sign in enumerate(positive.tolist()):
        assert sign == bool(data[f"is_positive_{b}"])


def regions(data):
    target = torch.from_numpy(data["gt"]).float()
    prob = torch.from_numpy(data["pred"].astype(np.float32))
    return click_region(prob, target, torch.ones_like(target, dtype=torch.bool))


@pytest.mark.parametrize("start", ["points", "points_full"])
def test_three_clicks_in_a_row(golden, start) -> None:
    path, data = golden
    rule = "from_end" if "ritm" in path.name else "first_free"
    region, positive = regions(data)
    present = region.flatten(1).any(1)
    points = torch.from_numpy(data[f"{start}_in"])
    np.random.seed(123)  # noqa: NPY002 (the fixture was drawn from this generator)
    for number in (1, 2, 3):
        yx = torch.zeros(len(points), 2)
        for b in present.nonzero().flatten().tolist():
            pixels = region[b, 0].nonzero()
            yx[b] = pixels[np.random.randint(0, len(pixels))]  # noqa: NPY002
        points = put_click(points, yx, positive, present, number=number, rule=rule)
        np.testing.assert_array_equal(points, data[f"{start}_after{number}"])


def test_depth_equals_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    region = rng.random((2, 1, 40, 53)) > 0.02
    region[1, 0, 3:30, 5:50] = True
    ours = chamfer_depth(torch.from_numpy(region)).numpy() / UNIT
    for b in range(2):
        padded = np.pad(region[b, 0], 1).astype(np.uint8)
        theirs = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
        np.testing.assert_allclose(ours[b, 0], theirs, atol=1e-5)
