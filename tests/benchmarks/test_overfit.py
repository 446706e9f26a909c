"""Every family learns a few real windows by heart; the large ones take a step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from overfit import OverfitConfig, Progress, overfit

from cfrseg_training.loop.atlas import Atlas, Sample, WindowBatch, WindowRecipe
from napari_cfrseg.model import registry
from napari_cfrseg.samples import load_sample

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "overfit.py"
SMALL = {"family": "hrnet", "width": 8, "ocr_width": 16, "grid_size": 48}


def windows(side: int) -> WindowBatch:
    bundled = load_sample("powder_sem")
    image = np.repeat(bundled.image[..., None], 3, axis=2)
    sample = Sample(image, bundled.labels.astype(np.int32), "powder", "powder")
    recipe = WindowRecipe(zoomed=1.0, rotate=False, stretch=1.0001, shift=0.05)
    generator = torch.Generator().manual_seed(0)
    return Atlas([sample], min_area_px=600).draw(2, side, generator, recipe)


def test_a_small_network_learns_two_windows_by_heart() -> None:
    torch.manual_seed(0)
    looks: list[Progress] = []
    config = OverfitConfig(target=0.9, steps=60, learning_rate=3e-3, rounds=1)
    last = overfit(registry.build(SMALL), windows(48), config, looks.append)
    assert looks[-1] == last
    assert [look.step for look in looks] == list(range(10, last.step + 1, 10))
    assert last.iou >= 0.9


def test_it_gives_up_after_its_steps() -> None:
    torch.manual_seed(0)
    config = OverfitConfig(target=2.0, steps=3, rounds=1)
    assert overfit(registry.build(SMALL), windows(48), config).step == 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("ritm_hrnet18s", "--side 96"),
        ("simpleclick_vit_xtiny", ""),
        ("fcfi_r101", "--side 96 --rounds 1 --learning-rate 5e-4"),
        ("simpleclick_vit_base", "--windows 2 --rounds 1 --learning-rate 2e-4"),
        ("simpleclick_vit_large", "--windows 1 --rounds 1 --steps 1"),
        ("simpleclick_vit_huge", "--windows 1 --rounds 1 --steps 1"),
    ],
)
def test_a_network_of_the_papers(network: str, options: str) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, network, *options.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
