"""The published click encoding, disk for disk."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cfrseg.model.blocks.clickmaps import disk_maps

pytestmark = pytest.mark.golden
GOLDEN = Path(os.environ.get("CFRSEG_GOLDEN", Path(__file__).parent / "data"))


@pytest.fixture(scope="module")
def disks():
    path = GOLDEN / "disks" / "disks.npz"
    if not path.is_file():
        pytest.skip(f"no golden data at {path}")
    with np.load(path) as data:
        return dict(data)


@pytest.mark.parametrize("radius", [3, 5])
def test_disks_equal_the_published_maps(disks, radius):
    size = tuple(int(v) for v in disks["hw"])
    maps = disk_maps(torch.from_numpy(disks["points"]).float(), size, float(radius))
    np.testing.assert_array_equal(maps.numpy(), disks[f"disk_r{radius}"])


def literal_maps(points, size, radius):
    """Mark every pixel of the plane against every click."""
    maps = np.zeros((points.shape[0], 2, *size), np.float32)
    half = points.shape[1] // 2
    for b in range(points.shape[0]):
        for slot, (y, x, _) in enumerate(points[b]):
            if max(y, x) < 0:
                continue
            for row in range(size[0]):
                for col in range(size[1]):
                    if (row - y) ** 2 + (col - x) ** 2 <= radius**2:
                        maps[b, slot // half, row, col] = 1
    return maps


def test_disks_equal_a_literal_transcription():
    rng = np.random.default_rng(0)
    points = rng.uniform(-8, 40, (2, 8, 3)).astype(np.float32)
    points[0, 3] = points[1, 7] = -1
    points[0, 0] = (-0.4, 10, 0)
    maps = disk_maps(torch.from_numpy(points), (24, 31))
    np.testing.assert_array_equal(maps.numpy(), literal_maps(points, (24, 31), 5))


def test_clicks_added_to_many_are_drawn_as_with_all_at_once():
    """The maps of thousands of clicks are kept, and drawn on."""
    rng = np.random.default_rng(1)
    places = rng.uniform(-4, 30, (2, 160, 2)).astype(np.float32)
    with torch.inference_mode():
        for positive, negative in ((90, 100), (91, 100), (91, 103), (95, 70), (95, 71)):
            points = np.full((1, 2 * 110, 3), -1, np.float32)
            points[0, :positive, :2] = places[0, :positive]
            points[0, 110 : 110 + negative, :2] = places[1, :negative]
            maps = disk_maps(torch.from_numpy(points), (24, 31))
            wanted = literal_maps(points, (24, 31), 5)
            np.testing.assert_array_equal(maps.numpy(), wanted)


def test_an_integer_click_covers_81_pixels():
    points = torch.tensor([[[12.0, 12.0, 0.0], [-1.0, -1.0, -1.0]]])
    maps = disk_maps(points, (25, 25))
    assert maps[0].sum((1, 2)).tolist() == [81, 0]


def test_a_wrong_layout_is_refused():
    with pytest.raises(ValueError, match=r"\(B, 2N, 3\)"):
        disk_maps(torch.zeros(1, 3, 3), (8, 8))
