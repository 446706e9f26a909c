"""The encoders that are written out here compute what timm's of their names do."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch

from napari_cfrseg.model.blocks import fold_norms
from napari_cfrseg.model.blocks.encoders import encoder

NAMES = [("resnet10t", (4, 8, 16, 32)), ("tf_efficientnet_lite0", (2, 4, 8, 16))]


@pytest.mark.parametrize(("name", "strides"), NAMES)
def test_maps_and_names_of_weights_are_timms(name, strides):
    indices = {"out_indices": (0, 1, 2, 3)} if 32 not in strides else {}
    theirs = timm.create_model(name, features_only=True, **indices).eval()
    own = encoder(name, strides)
    own.network.eval()
    state = theirs.state_dict()
    for key, value in state.items():
        if "running" in key or "bn" in key:
            state[key] = torch.rand_like(value.float()).to(value.dtype) + 0.5
    theirs.load_state_dict(state)
    wanted = own.network.state_dict()
    own.network.load_state_dict({key: state[key] for key in wanted})
    pixels = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected, maps = theirs(pixels), own.network(pixels)
    reductions = theirs.feature_info.reduction()
    for stride, level, channels in zip(strides, own.levels, own.channels, strict=True):
        assert maps[level].shape[1] == channels
        assert torch.equal(maps[level], expected[reductions.index(stride)])


@pytest.mark.parametrize(("name", "strides"), NAMES)
def test_folding_leaves_no_normalisation(name, strides):
    network = encoder(name, strides).network.eval().requires_grad_(False)
    pixels = torch.randn(1, 3, 64, 64)
    expected = network(pixels)
    fold_norms(network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    for one, other in zip(network(pixels), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_other_names_are_timms():
    found = encoder("resnet18", (4, 8, 16, 32))
    maps = found.network(torch.randn(1, 3, 64, 64))
    assert [maps[i].shape[1] for i in found.levels] == list(found.channels)
    with pytest.raises(RuntimeError):
        encoder("no_such_model", (4, 8, 16, 32))


def test_the_default_is_loaded_without_timm():
    script = """
import sys
from napari_cfrseg import Segmenter, load_sample
segmenter = Segmenter.load("default", device="cpu")
segmenter.set_image(load_sample("powder_sem").image)
segmenter.predict([(120, 88)])
print(*sorted({"timm", "torchvision", "sympy", "triton"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stdout.strip(), done.stderr
    assert done.returncode == 0
