"""Pretrained encoders for the default network: EfficientNet, ResNet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model.cfrnet import CfrNet
from napari_cfrseg.model.published.starting_weights import (
    RESNET_REST,
    backbone_tensors,
    give,
)

_EFFICIENTNET_REST = r"(conv_head|bn2|classifier)\..*"
# efficientnet_pytorch counts its blocks through and numbers the normalisations from the
# expansion on, which timm's first block, having none, does not
_EFFICIENTNET_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EFFICIENTNET_PLAIN = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_EFFICIENTNET_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def start_encoder(network: CfrNet, path: Path) -> tuple[str, ...]:
    """Give the network's backbone the weights of a file, named by timm or PyPI's.

    Returns and raises as ``starting_weights.start_from`` does.
    """

    def translated(state: dict[str, Tensor]) -> dict[str, Tensor]:
        if "_conv_stem.weight" in state:
            state = _timm_efficientnet(state, list(network.backbone.state_dict()))
        return backbone_tensors(state, f"{_EFFICIENTNET_REST}|{RESNET_REST}")

    return give(network, path, translated)


def _timm_efficientnet(
    state: Mapping[str, Tensor], names: list[str]
) -> dict[str, Tensor]:
    """Rename efficientnet_pytorch's tensors as timm's; ``names`` are timm's."""
    stages = (re.match(r"blocks\.\d+\.\d+", name) for name in names)
    blocks = list(dict.fromkeys(stage[0] for stage in stages if stage))
    renamed = {}
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        if part != "_blocks":
            renamed[f"{_EFFICIENTNET_TOP.get(part, part)}.{rest}"] = tensor
            continue
        number, inner, rest = rest.split(".", 2)
        expands = f"_blocks.{number}._expand_conv.weight" in state
        table = _EFFICIENTNET_EXPANDED if expands else _EFFICIENTNET_PLAIN
        if int(number) >= len(blocks) or inner not in table:
            raise CheckpointError(f"{key}: not of this network's backbone")
        renamed[f"{blocks[int(number)]}.{table[inner]}.{rest}"] = tensor
    return renamed
