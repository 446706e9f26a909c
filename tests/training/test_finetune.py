"""Fine-tuning end to end on a folder of made images: kept, refused, explained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from cfrseg_training.cli import app
from cfrseg_training.finetune import compare, fine_tune, hold_out, readable_pairs
from cfrseg_training.loop import TrainConfig
from cfrseg_training.rounds import RoundsConfig
from cfrseg_training.suem import SuemRecipe
from napari_cfrseg import checkpoint
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.folders import LabelFolder
from napari_cfrseg.evaluation.rows import ObjectRow
from napari_cfrseg.model.default import CfrNet, CfrNetConfig

SMALL = CfrNetConfig(
    widths=(16, 24, 32, 32), feedback_width=8, head_width=16, grid_size=64
)


def write_folder(folder, count=2, size=72):
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    ys, xs = np.mgrid[:size, :size]
    for index in range(count):
        rng = np.random.default_rng(index)
        labels = np.zeros((size, size), np.uint16)
        for number, (y, x) in enumerate(((20, 20), (50, 46)), 1):
            labels[(ys - y) ** 2 + (xs - x) ** 2 <= (8 + 2 * index) ** 2] = number
        image = rng.integers(0, 2000, (size, size)) + 9000 * (labels > 0)
        tifffile.imwrite(folder / "images" / f"{index}.tif", image.astype(np.uint16))
        tifffile.imwrite(folder / "labels" / f"{index}.tif", labels)
    return LabelFolder(folder, "disks")


def write_base(path):
    torch.manual_seed(0)
    network = CfrNet(SMALL)
    metadata = checkpoint.Metadata(architecture=network.architecture(), name="base")
    checkpoint.save(path, network, metadata)
    return path


def row(key, ious):
    return ObjectRow(
        key=key,
        set_name="s",
        image_name="i",
        plane=None,
        area_px=100,
        shape=(9, 9),
        clicks=(),
        ious=tuple(ious),
        error_px=(1,) * len(ious),
        seconds=(0.1,) * len(ious),
    )


def rows(*clicks_needed):
    return [row(str(i), [0.5] * (n - 1) + [0.95]) for i, n in enumerate(clicks_needed)]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((6, 7, 8, 6, 9), (2, 3, 2, 3, 2), "kept"),
        ((2, 3, 2, 3, 2), (6, 7, 8, 6, 9), "refused"),
        ((3, 3, 3, 3, 3), (2, 4, 3, 2, 3), "not proven"),
    ],
)
def test_verdict_follows_the_change_in_clicks(before, after, verdict):
    found, mean, low, high = compare(rows(*before), rows(*after), seed=0)
    assert found == verdict
    assert low <= mean <= high


def test_hold_out_needs_two_images_and_never_shares_one():
    trained, held = hold_out([str(i) for i in range(8)], seed=1)
    assert len(held) == 2
    assert not set(trained) & set(held)
    with pytest.raises(DatasetError, match="at least 2"):
        hold_out(["only"], seed=0)


def test_broken_pairs_are_listed_with_their_reason(tmp_path):
    folder = write_folder(tmp_path / "cells", count=3)
    tifffile.imwrite(tmp_path / "cells/labels/1.tif", np.zeros((72, 72), np.uint16))
    (tmp_path / "cells/images/2.tif").unlink()
    good, broken = readable_pairs(folder)
    assert good == ["0"]
    assert broken["1"] == "its labels are empty"
    assert "2" in broken["2"]


def test_fine_tuning_learns_the_held_out_image_and_writes_model_and_report(tmp_path):
    base = write_base(tmp_path / "base.safetensors")
    config = TrainConfig(
        steps=90,
        batch=4,
        learning_rate=3e-3,
        warmup_steps=5,
        ema=0.9,
        suem=SuemRecipe(paste=0.1, combine=0.1, mix=0.1),
        rounds=RoundsConfig(started=0.0),
    )
    output = tmp_path / "models" / "disks.safetensors"
    folder = write_folder(tmp_path / "cells")
    outcome = fine_tune(folder, output, base=str(base), config=config, threads=1)
    assert outcome.after.noc90 < outcome.before.noc90
    report = json.loads(output.with_suffix(".report.json").read_text())
    assert report["verdict"] == outcome.verdict
    assert output.exists() == (outcome.verdict == "kept")


def test_command_line_says_what_is_missing(tmp_path):
    runner = CliRunner()
    write_folder(tmp_path / "cells", count=1)
    base = write_base(tmp_path / "base.safetensors")
    done = runner.invoke(
        app,
        [
            str(tmp_path / "cells"),
            "--base",
            str(base),
            "-o",
            str(tmp_path / "m.safetensors"),
        ],
    )
    assert done.exit_code == 1
    assert "at least 2" in done.output
    done = runner.invoke(app, [str(tmp_path / "cells"), "-o", str(tmp_path / "m.txt")])
    assert done.exit_code == 2
