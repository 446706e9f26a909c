"""Published checkpoints: read whole or refused, and never executed."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model import registry
from napari_cfrseg.model.published.import_checkpoint import (
    fill,
    import_published,
    read_state,
    recognise,
    translate,
)

PLAIN = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


class Exploit:
    """Content of a malicious file: unpickling it naively runs a command."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.proof}'",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_planted_exploit_is_refused_and_does_not_run(
    tmp_path: Path, zipped: bool
) -> None:
    proof, path = tmp_path / "ran", tmp_path / "weights.pth"
    content = {"state_dict": PLAIN, "config": Exploit(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        read_state(path)
    assert not proof.exists()
    # the file is a working exploit: it does run where it is trusted
    torch.load(path, weights_only=False)
    assert proof.exists()


def test_the_refusal_names_what_the_file_would_have_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": PLAIN, "x": Exploit(tmp_path / "ran")}, path)
    with pytest.raises(CheckpointError, match=r"refused.*(posix|nt)\.system"):
        read_state(path)


@pytest.fixture
def published_package() -> Any:
    """A package that pickles its own loss module and function, as isegm does."""
    module = ModuleType("isegm.model.losses")
    ran: list[str] = []

    class CrossEntropyLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = 1.0

        def __setstate__(self, state: dict[str, Any]) -> None:
            ran.append("setstate")
            super().__setstate__(state)

    def cross_entropy() -> None:
        ran.append("called")

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return cross_entropy, ()

    for thing in (CrossEntropyLoss, cross_entropy):
        thing.__module__ = module.__name__
        thing.__qualname__ = thing.__name__
        setattr(module, thing.__name__, thing)
    names = ("isegm", "isegm.model", module.__name__)
    sys.modules.update({name: ModuleType(name) for name in names[:2]})
    sys.modules[module.__name__] = module
    yield module, Runs, ran
    for name in names:
        sys.modules.pop(name)


def test_the_published_package_is_stood_in_for_and_not_run(
    tmp_path: Path, published_package: Any
) -> None:
    module, runs, ran = published_package
    path = tmp_path / "cocolvis_vit_base.pth"
    loss = module.CrossEntropyLoss()
    params = {"loss_decode": loss, "fn": module.cross_entropy, "runs": runs()}
    torch.save({"state_dict": PLAIN, "config": {"params": params}}, path)
    state = read_state(path)
    assert not ran
    assert torch.equal(state["a.weight"], PLAIN["a.weight"])


@pytest.mark.parametrize("wrapped", ["state_dict", "model", None])
@pytest.mark.parametrize("zipped", [True, False])
def test_layouts_of_plain_files(
    tmp_path: Path, wrapped: str | None, zipped: bool
) -> None:
    path = tmp_path / "weights.pth"
    half = OrderedDict((f"module.{k}", v.half()) for k, v in PLAIN.items())
    content: object = half if wrapped is None else {wrapped: half, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    state = read_state(path)
    assert state.keys() == PLAIN.keys()
    assert all(t.dtype == torch.float32 for t in state.values())
    assert torch.equal(state["a.weight"], PLAIN["a.weight"])


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_state(tmp_path / "absent.pth")
    text = tmp_path / "page.pth"
    text.write_text("<html>quota exceeded</html>")
    with pytest.raises(CheckpointError, match="not a readable PyTorch checkpoint"):
        read_state(text)
    whole = tmp_path / "whole.pth"
    torch.save({"state_dict": PLAIN}, whole)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.read_bytes()[:300])
    with pytest.raises(CheckpointError, match="not a readable PyTorch checkpoint"):
        read_state(cut)
    empty = tmp_path / "empty.pth"
    torch.save({"epoch": 3}, empty)
    with pytest.raises(CheckpointError, match="no tensors"):
        read_state(empty)
    torch.save([1, 2], empty)
    with pytest.raises(CheckpointError, match="found list"):
        read_state(empty)


#: pairs (published key, ours) enough to write a small network's published file
def published(network: Any) -> dict[str, Tensor]:
    """A published RITM state dict with this network's tensors."""
    renames = (
        ("click_stem.mix.", "maps_transform.0."),
        ("click_stem.down.", "maps_transform.2."),
        ("click_stem.scale", "maps_transform.3.scale"),
        ("backbone.", "feature_extractor."),
        ("ocr.aux_head.", "feature_extractor.aux_head."),
        ("ocr.conv3x3.", "feature_extractor.conv3x3_ocr."),
        ("ocr.classify.", "feature_extractor.cls_head."),
    )
    head = "feature_extractor.ocr_distri_head."
    parts = {"down": "object_context_block.f_down", "up": "object_context_block.f_up"}
    state = {}
    for key, tensor in network.state_dict().items():
        name = key
        for ours, theirs in renames:
            if key.startswith(ours):
                name = theirs + key.removeprefix(ours)
        if key.startswith(("ocr.down.", "ocr.up.", "ocr.join.")):
            _, part, index, leaf = key.split(".")
            layer = "0" if index == "0" else "1.0"
            name = f"{head}{parts.get(part, 'conv_bn_dropout')}.{layer}.{leaf}"
        state[name] = tensor
    return state


@pytest.fixture(scope="module")
def small() -> Any:
    torch.manual_seed(0)
    description = {"family": "hrnet", "width": 8, "ocr_width": 8}
    return registry.build(description).eval()


def saved(state: dict[str, Tensor], folder: Path) -> Path:
    path = folder / "last_checkpoint.pth"
    torch.save({"state_dict": state}, path)
    return path


def test_a_shape_nobody_published_is_still_recognised(
    small: Any, tmp_path: Path
) -> None:
    network, found = import_published(saved(published(small), tmp_path))
    assert found.name is None
    assert found.weights_licence == "unknown"
    assert not network.training
    ours, theirs = network.state_dict(), small.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    image, points = (
        torch.rand(1, 3, 64, 64),
        torch.tensor([[[9.0, 9, 0], [-1, -1, -1]]]),
    )
    newest = torch.tensor([[9.0, 9, 1]])
    with torch.no_grad():
        a = network(image, points, None, newest).logits
        b = small(image, points, None, newest).logits
    assert torch.equal(a, b)


def test_batch_counts_may_be_missing(small: Any, tmp_path: Path) -> None:
    state = {k: v for k, v in published(small).items() if "num_batches" not in k}
    network, _ = import_published(saved(state, tmp_path))
    assert network.device.type == "cpu"
    assert all(v.device.type == "cpu" for v in network.state_dict().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"feature_extractor.bn2.weight": None},
            "1 tensors missing: backbone.bn2.weight",
        ),
        ({"head.extra.weight": torch.ones(1)}, "1 keys have no place here: head.extra"),
        (
            {"feature_extractor.bn2.bias": torch.ones(3)},
            r"misshapen: backbone.bn2.bias \(3,\) instead of \(64,\)",
        ),
        ({"maps_transform.0.weight": None}, "click stem is not RITM's"),
        ({"feature_extractor.conv3x3_ocr.0.weight": None}, "no known click network"),
        ({"feature_extractor.stage2.0.branches.0.0.conv1.weight": None}, "missing"),
    ],
)
def test_what_does_not_fit_is_named(
    small: Any, tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    state: dict[str, Any] = {**published(small), **change}
    state = {k: v for k, v in state.items() if v is not None}
    with pytest.raises(CheckpointError, match=message) as raised:
        import_published(saved(state, tmp_path))
    assert "last_checkpoint.pth" in str(raised.value)


def test_an_unknown_vit_width_is_refused() -> None:
    with pytest.raises(CheckpointError, match="width 384; known are 160, 768"):
        recognise({"patch_embed_coords.proj.weight": (384, 3, 16, 16)})


def test_unused_tensors_are_dropped_and_nothing_else() -> None:
    drop = "feature_extractor.ocr_distri_head.object_context_block.f_pixel.0.weight"
    assert translate({drop: torch.ones(1)}, "hrnet") == {}
    with pytest.raises(CheckpointError, match="2 keys have no place"):
        translate({"x": torch.ones(1), "y": torch.ones(1)}, "plain_vit")


def test_fill_takes_tensors_over_without_copying() -> None:
    with torch.device("meta"):
        network = registry.build({"family": "hrnet", "width": 8, "ocr_width": 8})
    state = {
        k: torch.zeros(v.shape, dtype=v.dtype) for k, v in network.state_dict().items()
    }
    fill(network, state)
    assert (
        network.ocr.classify.weight.data_ptr()
        == state["ocr.classify.weight"].data_ptr()
    )
    assert network.ocr.classify.weight.requires_grad
