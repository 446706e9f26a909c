"""The odds of late changes learn from measured cells, in the cells' own units."""

from __future__ import annotations

import numpy as np
import torch
from train_change_odds import Cells, learn, with_odds

from napari_cfrseg.model.blocks.extensions import MEASURED
from napari_cfrseg.model.cfrnet import CfrNet


def measured(count: int) -> Cells:
    """Return cells of which those with a high first number are right."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(3, 2, (count, MEASURED)).astype(np.float32)
    numbers[:, 5] = 1  # a number that is always the same
    right = numbers[:, 0] > 4
    return Cells(numbers, right, np.ones(count, np.float32))


def test_what_is_right_is_learned_from_numbers_as_they_are_measured():
    odds, loss = learn(8, measured(60_000))
    assert loss < 0.45  # chance: 0.62
    cells = measured(31_000)
    with torch.inference_mode():
        found = odds(torch.from_numpy(cells.numbers)).numpy() > 0
    assert (found == cells.right).mean() > 0.93


def test_a_network_gets_odds_and_keeps_the_rest():
    odds, _ = learn(8, measured(3000))
    old = CfrNet()
    new = with_odds(old, odds, 8, [-0.2, 0.1])
    assert new.late_push == (-0.2, 0.1)
    assert new.architecture()["change_width"] == 8
    got = new.state_dict()
    assert all(torch.equal(v, got[k]) for k, v in old.state_dict().items())
    assert torch.equal(got["change_odds.weigh.0.bias"], odds.weigh[0].bias)
