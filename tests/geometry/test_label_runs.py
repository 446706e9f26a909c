"""Runs say the same as the pixels they were made of."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.io.tiled_labels import MANY_PX, TiledLabels, write_runs


@pytest.mark.parametrize("seed", range(60))
def test_runs_are_the_pixels_they_were_made_of(seed: int) -> None:
    chance = np.random.default_rng(seed)
    (height, width), before = chance.integers(0, 8, 2), None
    y, x, below, right = chance.integers(0, 3, 4) * (seed % 2)
    shape = (int(y + height + below), int(x + width + right))
    labels = chance.integers(0, 3, (height, width))
    changed = chance.random((height, width)) < chance.random()
    if seed % 3:
        before = chance.integers(0, 2, (height, width))
    runs = LabelRuns.from_labels(labels, changed, shape, (int(y), int(x)), before)
    rows, columns = runs.indices()
    flat = rows * shape[1] + columns
    assert np.array_equal(
        flat, np.flatnonzero(np.pad(changed, ((y, below), (x, right))))
    )
    assert np.array_equal(runs.values(), labels[changed])
    ends = runs.starts + runs.lengths
    joined = (runs.starts[1:] == ends[:-1]) & (np.diff(runs.after) == 0)
    if before is not None:
        assert runs.before is not None
        assert np.array_equal(runs.inverted().values(), before[changed])
        joined &= np.diff(runs.before) == 0
    assert not joined.any()  # each run is as long as it can be
    whole = np.full(shape, -1)
    whole[rows, columns] = runs.values()
    assert np.array_equal(runs.mask().to_mask(shape), whole >= 0)
    found = {n: mask.to_mask(shape) for n, mask in runs.masks().items()}
    assert {n: mask.sum() for n, mask in found.items()} == runs.areas()
    assert all(np.array_equal(mask, whole == n) for n, mask in found.items())
    again = np.full(shape, -1)
    for (y0, x0, y1, x1), held, values in runs.bands(3):
        again[y0:y1, x0:x1][held] = values[held]
    assert np.array_equal(again, whole)


def test_many_pixels_are_written_to_arrays_and_tiles() -> None:
    side = 1 + int(MANY_PX**0.5)
    values = np.arange(side * side).reshape(side, side) % 7
    runs = LabelRuns.from_labels(values // 2, values > 1, (side + 9, side + 9), (4, 2))
    assert runs.size < MANY_PX
    runs = LabelRuns.from_labels(values // 2, values >= 0, (side + 9, side + 9), (4, 2))
    dense = np.full((2, side + 9, side + 9), 5, np.uint16)
    tiled = TiledLabels(dense.shape)
    tiled[0, 0:9, 0:9] = tiled[1, 0:9, 0:9] = np.full((9, 9), 5)
    for labels in (dense, tiled):
        write_runs(labels, (1,), runs)
        found = np.asarray(labels[1])
        assert np.array_equal(found[4:-5, 2:-7], values // 2)
        assert (found[:4, :9] == 5).all()
        assert (np.asarray(labels[0])[:9, :9] == 5).all()
