"""The default network starts from pretrained encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from encoder_weights import start_encoder
from torch import Tensor

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model import registry


def write(state: dict[str, Tensor], path: Path) -> Path:
    torch.save({"model": state}, path)
    return path


def as_efficientnet_pytorch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name timm's tensors as efficientnet_pytorch's files do."""
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv"}
    plain["bn2"] = "_bn2"
    expanded = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv"}
    expanded |= {"bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
    top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head"}
    top |= {"bn2": "_bn1", "classifier": "_fc"}
    numbers: dict[str, int] = {}
    named = {}
    for key, tensor in state.items():
        first, *rest = key.split(".")
        if first != "blocks":
            named[".".join([top[first], *rest])] = tensor
            continue
        stage, block, part, *rest = rest
        number = numbers.setdefault(f"{stage}.{block}", len(numbers))
        table = plain if stage == "0" else expanded
        named[".".join(["_blocks", str(number), table[part], *rest])] = tensor
    return named


@pytest.mark.parametrize("rename", [dict, as_efficientnet_pytorch])
def test_the_default_network_starts_from_an_efficientnet(
    tmp_path: Path, rename: Any
) -> None:
    backbone = "tf_efficientnet_lite0"
    network: Any = registry.build({"family": "cfrnet", "backbone": backbone})
    state = timm.create_model(backbone, pretrained=False, num_classes=7).state_dict()
    kept = start_encoder(network, write(rename(state), tmp_path / "lite0.pth"))
    mine = network.backbone.state_dict()
    assert len(mine) > 200
    assert all(torch.equal(mine[key], state[key]) for key in mine)
    assert not any(key.startswith("backbone") for key in kept)


def test_a_deeper_efficientnet_is_refused(tmp_path: Path) -> None:
    network: Any = registry.build(
        {"family": "cfrnet", "backbone": "tf_efficientnet_lite0"}
    )
    deeper = timm.create_model("tf_efficientnet_lite1", pretrained=False).state_dict()
    path = write(as_efficientnet_pytorch(deeper), tmp_path / "lite1.pth")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"lite1\.pth: .*not of this network"):
        start_encoder(network, path)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
