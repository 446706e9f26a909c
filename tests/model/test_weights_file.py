from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.registry import build
from napari_cfrseg.model.weights_file import Metadata

TINY = {
    "family": "cfrnet",
    "backbone": "test_resnet",
    "widths": [8, 8, 8, 8],
    "feedback_width": 4,
    "head_width": 8,
    "grid_size": 32,
    "fine_feedback": 0,
}
META = Metadata(
    architecture=TINY,
    name="tiny",
    training_data=["none"],
    licence="BSD-3-Clause",
    commit="abc",
    seed=3,
    steps=0,
    validation={"NoC@90": 7.5},
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = build(TINY)
    for key, buffer in made.named_buffers():
        if "running_mean" in key:
            buffer.normal_(std=1e-3)
    return made.eval()


@pytest.fixture
def stored(tmp_path, network):
    path = tmp_path / "deep" / "tiny.safetensors"
    checkpoint.save(path, network, META)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="it has other permissions")
def test_others_may_read_it_as_any_new_file(stored):
    beside = stored.with_name("any.txt")
    beside.touch()
    assert stored.stat().st_mode == beside.stat().st_mode


def test_what_is_saved_comes_back(stored, network):
    loaded, metadata = checkpoint.load(stored)
    assert metadata == META
    assert not loaded.training
    before, after = network.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert after[key].dtype == value.dtype
        np.testing.assert_allclose(after[key], value, rtol=1e-3, atol=1e-6)
        if "running_" in key:
            assert torch.equal(after[key], value)


def test_weights_are_half_size_and_statistics_exact_on_disk(stored):
    types = {k: v.dtype for k, v in load_file(stored).items()}
    assert {t for k, t in types.items() if "running_" in k} == {torch.float32}
    assert types["head.split.weight"] == torch.float16
    assert types["head.split.bias"] == torch.float32


def test_saving_again_gives_the_same_file(stored, tmp_path):
    loaded, metadata = checkpoint.load(stored)
    again = tmp_path / "again.safetensors"
    checkpoint.save(again, loaded, metadata)
    assert again.read_bytes() == stored.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_metadata_is_one_json_string(stored):
    from safetensors import safe_open

    with safe_open(stored, framework="numpy") as file:
        content = json.loads(file.metadata()["cfrseg"])
    assert content["format_version"] == 1
    assert content["architecture"]["backbone"] == "test_resnet"


def rewrite(path, tensors=None, metadata=None):
    kept = load_file(path)
    meta = json.dumps({"format_version": 1, "architecture": TINY})
    strings = {"cfrseg": meta} if metadata is None else metadata
    save_file(kept if tensors is None else tensors, path, metadata=strings)


def test_loading_is_strict(stored):
    tensors = load_file(stored)
    first = tensors.pop("head.split.weight")
    rewrite(stored, tensors)
    with pytest.raises(CheckpointError, match=r"1 tensors missing: head.split.weight"):
        checkpoint.load(stored)
    rewrite(stored, tensors | {"head.split.weight": first, "stray": first.clone()})
    with pytest.raises(CheckpointError, match=r"1 tensors surplus: stray"):
        checkpoint.load(stored)
    rewrite(stored, tensors | {"head.split.weight": first[:1]})
    with pytest.raises(CheckpointError, match=r"split.weight .* instead of \(64, 8"):
        checkpoint.load(stored)


def test_a_part_that_networks_no_longer_have_is_left_out(stored, network):
    tensors = load_file(stored) | {"offset.decide.bias": torch.ones(1)}
    described = {"format_version": 1, "architecture": TINY | {"offset_width": 4}}
    rewrite(stored, tensors, {"cfrseg": json.dumps(described)})
    loaded, _ = checkpoint.load(stored)
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert "offset_width" not in loaded.architecture()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "written by napari-cfrseg"),
        ({"cfrseg": "{nonsense"}, "metadata as this version"),
        ({"cfrseg": "[]"}, "metadata as this version"),
        ({"cfrseg": '{"format_version": 2}'}, "format version 1, found 2"),
        ({"cfrseg": '{"format_version": 1}'}, "architecture"),
        ({"cfrseg": '{"format_version": 1, "architecture": {"family": "x"}}'}, "'x'"),
        ({"cfrseg": '{"format_version": 1, "architecture": {}, "mood": 1}'}, "mood"),
    ],
)
def test_metadata_we_do_not_know_is_an_error(stored, metadata, message):
    rewrite(stored, metadata=metadata)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.load(stored)
    assert str(stored) in str(caught.value)


def test_a_file_that_is_none_is_an_error(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="no such weights file"):
        checkpoint.load(path)
    path.write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match="expected a safetensors file"):
        checkpoint.load(path)


def test_a_failed_save_leaves_the_old_file(stored, network):
    before = stored.read_bytes()
    with pytest.raises(TypeError, match="serializable"):
        checkpoint.save(stored, network, Metadata({"family": {1, 2}}))
    assert stored.read_bytes() == before
    assert [p.name for p in stored.parent.iterdir()] == ["tiny.safetensors"]


def test_models_are_found_by_name(stored, monkeypatch):
    monkeypatch.setenv(checkpoint.MODELS_VARIABLE, str(stored.parent))
    assert checkpoint.list_models()["tiny"] == stored
    assert checkpoint.resolve("tiny") == stored
    assert checkpoint.resolve(stored) == stored
    with pytest.raises(CheckpointError, match=r"'nope'; there are: .*tiny"):
        checkpoint.resolve("nope")
    with pytest.raises(CheckpointError, match="no such weights file"):
        checkpoint.resolve(stored.with_name("other.safetensors"))


def test_the_folder_of_models_is_the_platform_s_or_the_variable_s(
    monkeypatch, tmp_path
):
    monkeypatch.delenv(checkpoint.MODELS_VARIABLE, raising=False)
    assert checkpoint.models_folder().parts[-2:] == ("napari-cfrseg", "models")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        assert checkpoint.models_folder() == tmp_path / "napari-cfrseg" / "models"
    monkeypatch.setenv(checkpoint.MODELS_VARIABLE, str(tmp_path / "other"))
    assert checkpoint.models_folder() == tmp_path / "other"


def test_the_architectures_and_names_need_no_pydantic():
    import subprocess
    import sys

    code = (
        "import sys; import napari_cfrseg.model.weights_file as c; c.list_models();"
        "bad = {'pydantic', 'torch', 'timm'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
