"""``cfrseg models list | import | fetch``, as a shell sees them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from published_case import write_xtiny
from typer.testing import CliRunner

from napari_cfrseg.cli import app
from napari_cfrseg.model import registry
from napari_cfrseg.model import weights_file as checkpoint


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("CFRSEG_MODELS", str(folder))
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_xtiny(tmp_path_factory.mktemp("published"))


@pytest.fixture
def server(published: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    handler = partial(Quiet, directory=str(published.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=partial(running.serve_forever, 0.01))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/{published.name}"
        running.shutdown()
        thread.join()


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_networks_are_listed_beside_models() -> None:
    code, output = run("models", "list", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(output)}
    assert set(registry.names()) < set(rows)
    assert rows["fcfi_r101"]["parameters"] == 58_540_599
    assert rows["simpleclick_vit_huge"]["input_sizes"] == [448, 672]
    assert "NC" in rows["simpleclick_vit_huge"]["licence"]
    assert rows["ritm_hrnet18"]["path"] is None
    assert rows["default"]["path"].endswith("default.safetensors")
    network, _ = checkpoint.load(rows["default"]["path"])
    counted = sum(p.numel() for p in network.parameters())
    assert rows["default"]["parameters"] == counted
    assert rows["default"]["input_sizes"] == [network.grid_size]


def test_an_installed_network_is_listed_as_a_model(published: Path) -> None:
    run("models", "import", str(published))
    code, output = run("models", "list")
    assert code == 0
    models, _, networks = output.partition("\nnetworks")
    (line,) = (m for m in models.splitlines() if m.startswith("simpleclick"))
    assert line.split("\t")[:4] == [
        *("simpleclick_vit_xtiny", "3.85 M", "448/672 px", "not measured")
    ]
    assert "CC-BY-NC-4.0" in line
    assert "simpleclick_vit_xtiny" not in networks
    assert "simpleclick_vit_base\t97.07 M" in networks


def test_a_network_is_measured_and_remembered() -> None:
    code, output = run("models", "list", "--measure", "fcfi:resnet10t")
    assert code == 0, output
    assert re.search(r"\d+, \d+ ms \(cpu float32\)", output)
    code, output = run("models", "list", "fcfi:resnet10t", "--json")
    (row,) = json.loads(output)
    assert row["ms"]["cpu float32"]["first"] > 0 < row["ms"]["cpu float32"]["next"]
    code, output = run("models", "list", "resnet")
    assert code == 2
    assert "no network 'resnet'" in output


def test_import_installs_exactly_what_was_published(
    published: Path, models: Path
) -> None:
    code, output = run("models", "import", str(published))
    assert code == 0, output
    installed = models / "simpleclick_vit_xtiny.safetensors"
    assert str(installed) in output
    network, said = checkpoint.load(installed)
    assert "NC" in said.licence
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert said.training_data == [f"as published: xtiny.pth, SHA-256 {digest}"]
    theirs = torch.load(published, weights_only=True)["state_dict"]
    ours = network.state_dict()["blocks.7.attn.qkv.weight"]
    assert torch.equal(ours, theirs["backbone.blocks.7.attn.qkv.weight"])
    assert said.architecture == network.architecture() | {
        "pyramid": [96, 192, 288, 384]
    }


def test_import_of_something_else_is_one_line(tmp_path: Path, models: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.ones(1)}, path)
    code, output = run("models", "import", str(path))
    assert code == 1
    assert output.startswith(f"cfrseg: {path}: the keys are those of no known click")
    assert len(output.splitlines()) == 1
    assert not models.exists()


def test_import_replaces_no_other_model(published: Path, models: Path) -> None:
    mine = models / "mine.safetensors"
    for _ in range(2):  # of the same file again is no other
        code, output = run("models", "import", str(published), "--name", "mine")
        assert code == 0, output
    network, said = checkpoint.load(mine)
    checkpoint.save(mine, network, replace(said, training_data=["weeks of my own"]))
    before = mine.read_bytes()
    code, output = run("models", "import", str(published), "--name", "mine")
    assert code == 1
    assert output.startswith("cfrseg: another model is called 'mine': choose")
    assert mine.read_bytes() == before


@pytest.mark.parametrize("name", ["lab/cells", "../cells", "cells.safetensors"])
def test_a_name_is_no_path(published: Path, models: Path, name: str) -> None:
    code, output = run("models", "import", str(published), "--name", name)
    assert code == 2
    assert "a name has neither folder nor ending" in output
    assert not models.exists()


def test_import_as_a_start_of_training(published: Path, models: Path) -> None:
    code, output = run(
        "models", "import", str(published), "--start", "simpleclick_vit_xtiny"
    )
    assert code == 0, output
    said = checkpoint.read_metadata(models / "simpleclick_vit_xtiny_start.safetensors")
    assert said.training_data[0].startswith("random, but for the backbone of xtiny.pth")
    code, output = run("models", "import", str(published), "--start", "resnet")
    assert code == 2


def test_fetch_installs_and_tidies_up(
    server: str, published: Path, models: Path
) -> None:
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    arguments = ("models", "fetch", "cocolvis_vit_base", "--url", server)
    code, output = run(*arguments)
    assert code == 0, output
    assert f"its SHA-256, not recorded before: {digest}" in output
    assert "fetching: 100 %" in output
    code, output = run(*arguments, "--sha256", digest)
    assert code == 0, output
    assert "not recorded" not in output
    assert [p.name for p in models.glob("*.safetensors")] == [
        "cocolvis_vit_base.safetensors"
    ]
    assert not list((models / "downloads").iterdir())


def test_fetch_refuses_another_file(server: str, models: Path) -> None:
    code, output = run(
        "models", "fetch", "cocolvis_vit_base", "--url", server, "--sha256", "0" * 64
    )
    assert code == 1
    assert "SHA-256 is not the expected 000" in output.splitlines()[-1]
    assert not list(models.glob("*.safetensors"))


def test_fetch_without_a_name_lists_what_there_is() -> None:
    code, output = run("models", "fetch")
    assert code == 0
    assert "coco_lvis_h32_itermask\tMIT\thttps://github.com/" in output
    assert "by hand: https://" in output
