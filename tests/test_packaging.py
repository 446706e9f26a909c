"""The installed package is complete: manifest, micrographs, weights, packages."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import distribution, entry_points
from importlib.resources import files
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManifest

from napari_cfrseg import Click, Segmenter, __version__
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.samples import sample_names

PACKAGE = files("napari_cfrseg")


def test_version_and_licence_are_those_of_the_distribution() -> None:
    installed = distribution("napari-cfrseg")
    assert installed.version == __version__
    assert installed.metadata["License-Expression"] == "BSD-3-Clause"


def test_no_qt_binding_is_required_without_an_extra() -> None:
    for requirement in distribution("napari-cfrseg").requires or ():
        name = requirement.lower()
        if "extra ==" not in name:
            assert not name.startswith(("pyqt", "pyside", "napari"))


@pytest.mark.parametrize("name", ["cfrseg", "cfrseg-train"])
def test_commands_resolve(name: str) -> None:
    (command,) = entry_points(group="console_scripts", name=name)
    assert callable(command.load())


def test_manifest_is_valid_and_every_command_resolves() -> None:
    manifest = PluginManifest.from_distribution("napari-cfrseg")
    assert manifest.display_name == "CFR-Seg"
    keys = {sample.key for sample in manifest.contributions.sample_data or ()}
    assert keys >= set(sample_names())
    commands = manifest.contributions.commands or ()
    assert commands
    for command in commands:
        module, _, attribute = str(command.python_name).partition(":")
        assert callable(attrgetter(attribute)(import_module(module)))


def test_default_weights_are_shipped_small_and_say_what_they_are() -> None:
    path = Path(str(PACKAGE / "weights" / "default.safetensors"))
    assert path.stat().st_size <= 25_000_000
    said = checkpoint.read_metadata(path)
    assert said.architecture["family"] == "cfrnet"
    assert said.licence
    assert said.training_data
    assert said.seed is not None
    assert said.steps
    assert said.commit
    assert said.validation
    json.dumps(said.validation)


def test_default_model_finds_a_bright_disk_from_one_click() -> None:
    rows, columns = np.ogrid[:200, :220]
    disk = (rows - 90) ** 2 + (columns - 120) ** 2 <= 30**2
    noise = np.random.default_rng(0).normal(0, 4, disk.shape)
    image = (40 + 120 * disk + noise).clip(0, 255).astype(np.uint8)
    segmenter = Segmenter.load("default", device="cpu")
    segmenter.set_image(image)
    mask = segmenter.predict([Click((90, 120))]).mask
    assert (mask & disk).sum() / (mask | disk).sum() > 0.8
