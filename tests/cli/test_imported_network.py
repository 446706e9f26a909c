"""A published checkpoint, once imported, is a model like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from published_case import write_xtiny
from session_cases import record_with, save_model
from typer.testing import CliRunner

from napari_cfrseg.cli import app
from napari_cfrseg.engine.segmenter import Segmenter

NAME = "simpleclick_vit_xtiny"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the imported network and a small one."""
    folder = tmp_path_factory.mktemp("imported-models")
    checkpoint = write_xtiny(tmp_path_factory.mktemp("published"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CFRSEG_MODELS", str(folder))
        run("models", "import", checkpoint)
    save_model(folder, 0, "small")
    return folder


@pytest.fixture(autouse=True)
def installed(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFRSEG_MODELS", str(models))


def picture(folder: Path) -> Path:
    labels = np.zeros((64, 80), np.uint16)
    labels[6:22, 8:24] = 1
    image = np.where(labels > 0, 200, 20).astype(np.uint8)
    for part, array in (("images", image), ("labels", labels)):
        (folder / part).mkdir(parents=True)
        tifffile.imwrite(folder / part / "one.tif", array)
    return folder / "images" / "one.tif"


def test_it_segments(tmp_path: Path) -> None:
    image, mask = picture(tmp_path), tmp_path / "mask.tif"
    click = ("--click", "14,16,+", "--device", "cpu")
    said = json.loads(
        run("segment", image, *click, "--model", NAME, "-o", mask, "--json")
    )
    segmenter = Segmenter.load(NAME, device="cpu")
    assert type(segmenter.network).__name__ == "PlainViTClicks"
    found = tifffile.imread(mask)
    assert found[14, 16] == 1
    assert found.sum() == said["area_px"]


def test_it_is_evaluated(tmp_path: Path) -> None:
    picture(tmp_path / "data")
    out = tmp_path / "report"
    run(
        *("evaluate", tmp_path / "data", "-o", out, "--segmenter", NAME),
        *("--clicks", 2, "--device", "cpu"),
    )
    assert f"| {NAME} standard |" in (out / "table.md").read_text()


def test_a_session_is_replayed_with_it(models: Path, tmp_path: Path) -> None:
    before, session = record_with(models / "small.safetensors", tmp_path, "cells")
    out = tmp_path / "out"
    (said,) = map(
        json.loads,
        run("replay", session, "-o", out, "--model", NAME, "--json").splitlines(),
    )
    assert said["status"] == "done"
    assert said["as_saved"] is False
    found = tifffile.imread(out / "cells.labels.tif")
    assert found.shape == before.shape
    assert found.any()
    assert (found != before).any()


def test_a_fine_tuned_model_s_file_is_installed_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = save_model(tmp_path / "mail", 1, "my cells")
    monkeypatch.setenv("CFRSEG_MODELS", str(tmp_path / "models"))
    for _ in range(2):
        said = json.loads(run("models", "import", got, "--json"))
        assert said["name"] == "my cells"
        assert Path(said["path"]).read_bytes() == got.read_bytes()
    assert "my cells" in run("models", "list")
    other = save_model(tmp_path / "other", 2, "my cells")
    refused = CliRunner().invoke(app, ["models", "import", str(other)])
    assert "another name (--name)" in refused.output
    run("models", "import", other, "--name", "theirs")
    assert "theirs" in run("models", "list")
    other.write_bytes(got.read_bytes()[:-1000])
    broken = CliRunner().invoke(app, ["models", "import", str(other)])
    assert broken.exit_code == 1
