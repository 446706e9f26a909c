"""A checkpoint as published, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from napari_cfrseg.model import registry


def write_xtiny(folder: Path) -> Path:
    """Write SimpleClick's smallest network in its published layout."""
    torch.manual_seed(0)
    network = registry.build(registry.named("simpleclick_vit_xtiny").architecture)
    dim = 160
    state = {"backbone.cls_token": torch.zeros(1, 1, dim)}
    for key, value in network.state_dict().items():
        part, _, leaf = key.partition(".")
        if part == "position":
            state["backbone.pos_embed"] = torch.cat([torch.zeros(1, 1, dim), value], 1)
            continue
        name = {
            "embed_maps": f"patch_embed_coords.proj.{leaf}",
            "embed_pixels": f"backbone.patch_embed.proj.{leaf}",
            "blocks": f"backbone.{key}",
            "pyramid": f"neck.{leaf}",
        }.get(part)
        if name is None:
            layer, *rest = leaf.split(".")
            name = {
                "levels": f"head.convs.{rest[0]}.conv.{rest[-1]}",
                "join": f"head.fusion_conv.conv.{rest[-1]}",
                "classify": f"head.conv_seg.{rest[-1]}",
            }[layer]
        state[name] = value
    path = folder / "xtiny.pth"
    torch.save({"state_dict": state}, path)
    return path
