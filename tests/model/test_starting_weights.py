"""Pretrained backbones as starting points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model import registry
from napari_cfrseg.model.published.starting_weights import start_from

VIT = {
    "family": "plain_vit",
    "dim": 32,
    "depth": 4,
    "heads": 2,
    "pyramid": (8, 8, 8, 8),
    "head_width": 8,
}


def write(state: dict[str, Tensor], path: Path) -> Path:
    torch.save({"model": state}, path)
    return path


def vit_state(**extra: Tensor) -> dict[str, Tensor]:
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=224, embed_dim=32, depth=4, num_heads=2, num_classes=5
    )
    return {**vit.state_dict(), **extra}


@pytest.mark.parametrize("feedback_width", [0, 8])
def test_a_vit_fills_blocks_and_regrids_positions(
    tmp_path: Path, feedback_width: int
) -> None:
    network: Any = registry.build({**VIT, "feedback_width": feedback_width})
    state = vit_state(mask_token=torch.ones(1, 1, 32))
    kept = start_from(network, write(state, tmp_path / "mae.pth"))
    assert torch.equal(
        network.blocks[3].attn.qkv.weight, state["blocks.3.attn.qkv.weight"]
    )
    assert torch.equal(network.embed_pixels.weight, state["patch_embed.proj.weight"])
    assert network.position.shape == (1, 28 * 28, 32)
    # bicubic, half-pixel centres: the stored corner dominates the new corner
    old, new = state["pos_embed"][0, 1], network.position[0, 0]
    assert torch.nn.functional.cosine_similarity(old, new, dim=0) > 0.9
    assert {k.partition(".")[0] for k in kept} >= {"embed_maps", "pyramid", "head"}
    assert not any(k.startswith(("blocks", "position")) for k in kept)


def test_simpleclick_starts_its_fcfi_variant(tmp_path: Path) -> None:
    state: dict[str, Tensor] = {}
    simple: Any = registry.build(VIT)
    names = {
        "embed_maps": "patch_embed_coords.proj",
        "embed_pixels": "backbone.patch_embed.proj",
    }
    for key, value in simple.state_dict().items():
        part, _, leaf = key.partition(".")
        if part in names:
            state[f"{names[part]}.{leaf}"] = value
        elif part == "blocks":
            state[f"backbone.{key}"] = value
        elif part == "pyramid":
            state[f"neck.{leaf}"] = value
        elif part == "position":
            state["backbone.pos_embed"] = torch.cat([torch.zeros(1, 1, 32), value], 1)
        else:
            layer, _, rest = leaf.partition(".")
            index, _, tail = rest.partition(".")
            state[
                {
                    "levels": f"head.convs.{index}.conv.{tail}",
                    "join": f"head.fusion_conv.conv.{rest}",
                    "classify": f"head.conv_seg.{rest}",
                }[layer]
            ] = value
    network: Any = registry.build({**VIT, "feedback_width": 8})
    kept = start_from(network, write(state, tmp_path / "simpleclick.pth"))
    assert {k.partition(".")[0] for k in kept} == {"ffcm", "cffm"}
    assert torch.equal(network.embed_maps.weight, simple.embed_maps.weight[:, 1:])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_timms_hrnet_fills_the_backbone(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    state = timm.create_model("hrnet_w18_small_v2").state_dict()
    path = tmp_path / f"hrnet{suffix}"
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    # timm's small v2 is the click networks' "s"
    network: Any = registry.build(registry.named("ritm_hrnet18s").architecture)
    kept = start_from(network, path)
    assert {k.partition(".")[0] for k in kept} == {"click_stem", "ocr"}
    key = "stage4.1.fuse_layers.3.0.2.0.weight"
    assert torch.equal(network.backbone.state_dict()[key], state[key])


def test_timms_resnet_fills_deeplab(tmp_path: Path) -> None:
    state = timm.create_model("resnet50s").state_dict()
    network: Any = registry.build({"family": "deeplab", "layers": (3, 4, 6, 3)})
    kept = start_from(network, write(state, tmp_path / "resnet.pth"))
    assert "backbone" not in {k.partition(".")[0] for k in kept}
    assert torch.equal(network.backbone.conv1[6].weight, state["conv1.6.weight"])


def test_the_wrong_backbone_is_refused(tmp_path: Path) -> None:
    network = registry.build(VIT)
    other = {"conv1.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"x\.pth: no pos_embed"):
        start_from(network, write(other, tmp_path / "x.pth"))
    short = {k: v for k, v in vit_state().items() if not k.startswith("blocks.2.")}
    with pytest.raises(CheckpointError, match=r"missing: blocks\.2"):
        start_from(network, write(short, tmp_path / "x.pth"))
    state = vit_state(**{"what.is": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"surplus: what\.is"):
        start_from(network, write(state, tmp_path / "x.pth"))
    wide = registry.build({**VIT, "patch": 32, "grid_size": 448})
    with pytest.raises(CheckpointError, match="misshapen: embed_pixels"):
        start_from(wide, write(vit_state(), tmp_path / "x.pth"))
    timm_net = registry.build({"family": "timm_fcfi", "backbone": "resnet10t"})
    with pytest.raises(CheckpointError, match="pretrained = true"):
        start_from(timm_net, write(vit_state(), tmp_path / "x.pth"))
