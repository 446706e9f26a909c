"""Pretrained backbones as starting points for training.

=================  ===================================  ==============================
network            backbone file                        left as initialised
=================  ===================================  ==============================
plain ViT          MAE or timm ViT                      click embedding, pyramid, head
plain ViT + FCFI   SimpleClick / CFR-ICL (published)    FFCM, CFFM
HRNet              HRNet ImageNet (official or timm)    click stem, OCR, FFCM, CFFM
DeepLab            ResNet v1s ImageNet (gluon, timm)    click stem, ASPP, decoder, …
=================  ===================================  ==============================

Every tensor of the named part must be in the file and fit; its other tensors must be
those of a known classifier or decoder. Anything else is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model.network import ClickNetwork
from napari_cfrseg.model.published.fcfi import DeepLabClicks
from napari_cfrseg.model.published.hrnet import HRNetClicks
from napari_cfrseg.model.published.import_checkpoint import read_state, translate
from napari_cfrseg.model.published.vit import PlainViTClicks
from napari_cfrseg.model.weights_file import check_fit

# tensors of pretraining that a click network does not have
_VIT_REST = r"(cls_token|mask_token|norm\.|fc_norm\.|head\.|decoder_).*"
_HRNET_REST = r"(incre_modules|downsamp_modules|final_layer|classifier|head)\..*"
RESNET_REST = r"(fc|head)\..*"


def start_from(network: ClickNetwork, path: Path) -> tuple[str, ...]:
    """Give a network's backbone the weights of a ``.pth`` or ``.safetensors`` file.

    Returns the names of the network's tensors that were not in the file. Raises
    CheckpointError if the file is not of that backbone.
    """
    return give(network, path, lambda state: _translated(network, state))


def give(
    network: ClickNetwork,
    path: Path,
    translated: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> tuple[str, ...]:
    """Give a network the tensors of a file, named as its own by ``translated``.

    Returns and raises as :func:`start_from` does.
    """
    state = read_state(path)
    try:
        return _load(network, translated(state))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _translated(network: ClickNetwork, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(network, PlainViTClicks):
        return _plain_vit(network, state)
    if isinstance(network, HRNetClicks):
        return backbone_tensors(state, _HRNET_REST)
    if isinstance(network, DeepLabClicks):
        return backbone_tensors(state, RESNET_REST)
    raise CheckpointError(
        f"{type(network).__name__} has no importable backbone; networks on timm "
        "backbones take timm's weights (pretrained = true)"
    )


def _plain_vit(network: PlainViTClicks, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if "patch_embed_coords.proj.weight" in state:
        given = translate(state, "plain_vit")
        if network.config.feedback_width:
            # the mask, first of three maps, now enters at the pyramid
            given["embed_maps.weight"] = given["embed_maps.weight"][:, 1:]
    else:
        given = {}
        for key, tensor in _without(state, _VIT_REST).items():
            name = key.replace("patch_embed.proj", "embed_pixels")
            given[name.replace("pos_embed", "position")] = tensor
        if "position" not in given:
            raise CheckpointError("no pos_embed: not a plain ViT's weights")
        given["position"] = given["position"][:, 1:]
    given["position"] = _regrid(given["position"], network.position.shape[1])
    return given


def _regrid(position: Tensor, count: int) -> Tensor:
    """Bicubic to the network's grid of patches, as MAE and SimpleClick do (14 → 28)."""
    if position.shape[1] == count:
        return position
    side, target = math.isqrt(position.shape[1]), math.isqrt(count)
    grid = position.transpose(1, 2).reshape(1, -1, side, side)
    grid = F.interpolate(grid, (target, target), mode="bicubic", align_corners=False)
    return grid.flatten(2).transpose(1, 2)


def backbone_tensors(state: Mapping[str, Tensor], rest: str) -> dict[str, Tensor]:
    """Name a state's tensors as a backbone's, without those that match ``rest``."""
    return {f"backbone.{key}": value for key, value in _without(state, rest).items()}


def _without(state: Mapping[str, Tensor], rest: str) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not re.fullmatch(rest, k)}


def _load(network: ClickNetwork, given: Mapping[str, Tensor]) -> tuple[str, ...]:
    target = network.state_dict()
    # everything of the parts the file is about
    parts = {key.partition(".")[0] for key in given}
    missing = [
        key
        for key in target
        if key.partition(".")[0] in parts
        and key not in given
        and not key.endswith("num_batches_tracked")
    ]
    check_fit(target, given, missing, "backbone tensors")
    with torch.no_grad():
        for key, value in given.items():
            target[key].copy_(value)
    return tuple(key for key in target if key not in given)
