from __future__ import annotations

import numpy as np
import pytest

from napari_cfrseg.geometry import distances
from napari_cfrseg.geometry.distances import squared_distances


@pytest.mark.parametrize("count", [0, 1, 5, 400])
@pytest.mark.parametrize("reach", [1, 4, 30])
def test_distances_up_to_the_reach_are_exact(count, reach):
    rng = np.random.default_rng(count)
    box = (10, 20, 60, 90)
    places = rng.integers((-40, -40), (120, 140), (count, 2))
    rows, columns = np.mgrid[box[0] : box[2], box[1] : box[3]]
    wanted = np.full(rows.shape, np.iinfo(np.int64).max)
    for y, x in places.tolist():
        wanted = np.minimum(wanted, (rows - y) ** 2 + (columns - x) ** 2)
    found = squared_distances(places, box, reach)
    near = wanted <= reach**2
    np.testing.assert_array_equal(found[near], wanted[near])
    assert (found[~near] > reach**2).all()


@pytest.mark.parametrize("reach", [3, 200])
def test_both_ways_agree(reach):
    rng = np.random.default_rng(0)
    shape = (40, 50)
    places = rng.integers(0, np.add(shape, 2 * reach), (60, 2))
    disks = distances._by_disks(places, shape, reach)
    lines = distances._by_lines(places, shape, reach)
    near = disks <= reach**2
    np.testing.assert_array_equal(disks[near], lines[near])
    assert (lines[~near] > reach**2).all()
