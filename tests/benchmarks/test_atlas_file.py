"""An atlas that was written and opened draws the windows it drew before."""

from pathlib import Path

import numpy as np
import torch
from packs import open_atlas, save_atlas

from cfrseg_training.loop.atlas import Atlas, Sample


def test_an_opened_atlas_draws_the_same_windows(tmp_path: Path) -> None:
    labels = np.zeros((60, 80), np.int32)
    labels[10:30, 20:50] = 1
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    made = Atlas([Sample(image, labels, "set", "group")])
    save_atlas(made, tmp_path / "atlas.pt")
    opened = open_atlas(tmp_path / "atlas.pt")
    assert len(opened) == len(made) == 1
    one, other = (
        atlas.draw(3, 32, torch.Generator().manual_seed(1)) for atlas in (made, opened)
    )
    for name in ("image", "mask", "others", "valid", "first_click"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))
