"""The kinds of arrays as files, each segmented in the shell."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from array_kinds import CENTRE, DEFAULT, KINDS, SHAPE, ArrayKind, disc
from typer.testing import CliRunner

from napari_cfrseg.cli import app


def check_segmented(folder, kind: ArrayKind) -> None:
    image, *options = kind.write(folder)
    target = folder / "mask.tif"
    y, x = CENTRE
    said = ["segment", image, "-c", f"{y},{x},+", "-o", str(target), *options]
    result = CliRunner().invoke(app, [*said, "--device", "cpu", "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert json.loads(result.stdout)["area_px"] > 0
    mask = tifffile.imread(target) > 0
    assert mask.shape == SHAPE
    assert (mask & disc()).sum() / (mask | disc()).sum() > 0.6


def test_there_are_more_than_forty_kinds():
    assert len({kind.name for kind in KINDS}) == len(KINDS) > 50
    options = "numpy dask zarr sharded memmap pyramid imagej scale translate rotate"
    for option in (*options.split(), "affine", "flip", "shear"):
        assert any(option in (k.store, k.place, k.file) for k in KINDS)
    assert {kind.channels for kind in KINDS if "c" in kind.axes} >= {2, 3, 4, 5, 8, 32}
    assert {np.dtype(kind.dtype).kind for kind in KINDS} == set("buif")


@pytest.mark.parametrize("kind", KINDS[:DEFAULT:3], ids=lambda kind: kind.name)
def test_an_array_file_is_segmented(tmp_path, kind):
    check_segmented(tmp_path, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_array_file_is_segmented(tmp_path, kind):
    check_segmented(tmp_path, kind)
