"""Keys of published checkpoints: which network they belong to, and their names here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model import registry
from napari_cfrseg.model.weights_file import some

#: heads cannot be read off a fused qkv matrix; published dims have these
_HEADS = {160: 4, 768: 12, 1024: 16, 1280: 16}

# (pattern of the published key, our key); None: a tensor no output depends on
_Rules = tuple[tuple[str, str | None], ...]

_STEM: _Rules = (
    (r"maps_transform\.0\.(.*)", r"click_stem.mix.\1"),
    (r"maps_transform\.2\.(.*)", r"click_stem.down.\1"),
    (r"maps_transform\.3\.scale", r"click_stem.scale"),
)
_FEEDBACK: _Rules = (
    (r".*\.info_encoder\.0\.conv\.(.*)", r"ffcm.first.\1"),
    (r".*\.info_encoder\.0\.bn\.(.*)", r"ffcm.rest.0.\1"),
    (r".*\.info_encoder\.1\.(.*)", r"ffcm.rest.2.\1"),
    (r".*\.info_encoder\.2\.(.*)", r"ffcm.rest.3.\1"),
    (r".*\.feature_conv\.(.*)", r"cffm.phi1.\1"),
    (r".*\.fusion_encoder\.0\.conv\.(.*)", r"cffm.phi2_first.\1"),
    (r".*\.fusion_encoder\.0\.bn\.(.*)", r"cffm.phi2_rest.0.\1"),
    (r".*\.fusion_encoder\.1\.(.*)", r"cffm.phi2_rest.2.\1"),
    (r".*\.fusion_encoder\.2\.(.*)", r"cffm.phi2_rest.3.\1"),
    (r".*\.fusion_encoder\.3\.(.*)", r"cffm.phi2_rest.4.\1"),
    (r".*\.residual_predictor\.conv\.(.*)", r"cffm.phi3_first.\1"),
    (r".*\.residual_predictor\.bn\.(.*)", r"cffm.phi3_rest.0.\1"),
)
_BLOCK = r"feature_extractor\.ocr_distri_head\.object_context_block"
_HRNET: _Rules = (
    *_STEM,
    *_FEEDBACK,
    (r"feature_extractor\.aux_head\.(.*)", r"ocr.aux_head.\1"),
    (r"feature_extractor\.conv3x3_ocr\.(.*)", r"ocr.conv3x3.\1"),
    # one class: the attention is over a single key, hence constant
    (_BLOCK + r"\.f_(pixel|object)\..*", None),
    (_BLOCK + r"\.f_(down|up)\.0\.(.*)", r"ocr.\1.0.\2"),
    (_BLOCK + r"\.f_(down|up)\.1\.0\.(.*)", r"ocr.\1.1.\2"),
    (r".*\.conv_bn_dropout\.0\.(.*)", r"ocr.join.0.\1"),
    (r".*\.conv_bn_dropout\.1\.0\.(.*)", r"ocr.join.1.\1"),
    (r"feature_extractor\.cls_head\.(.*)", r"ocr.classify.\1"),
    (r"feature_extractor\.((?:conv|bn|layer|transition|stage)\d\..*)", r"backbone.\1"),
)
_DEEPLAB: _Rules = (
    *_STEM,
    *_FEEDBACK,
    (r"feature_extractor\.backbone\.(.*)", r"backbone.\1"),
    (r"feature_extractor\.aspp\.concurent\.([0-3])\.(.*)", r"aspp.branches.\1.\2"),
    (r"feature_extractor\.aspp\.concurent\.4\.gap\.1\.(.*)", r"aspp.pooled.0.\1"),
    (r"feature_extractor\.aspp\.concurent\.4\.gap\.2\.(.*)", r"aspp.pooled.1.\1"),
    (r"feature_extractor\.aspp\.project\.(.*)", r"aspp.project.\1"),
    (r"feature_extractor\.skip_project\.skip_project\.(.*)", r"skip.\1"),
    (r"feature_extractor\.head\.block\.([01])\.body\.(.*)", r"decode.\1.\2"),
    (r"feature_extractor\.head\.block\.2\.(.*)", r"decode.2.\1"),
    (r"head\.layers\.([01])\.body\.(.*)", r"classify.\1.\2"),
    (r"head\.layers\.2\.(.*)", r"classify.2.\1"),
)
_PLAIN_VIT: _Rules = (
    (r"patch_embed_coords\.proj\.(.*)", r"embed_maps.\1"),
    (r"backbone\.patch_embed\.proj\.(.*)", r"embed_pixels.\1"),
    (r"backbone\.pos_embed", r"position"),
    (r"backbone\.(blocks\..*)", r"\1"),
    # left over from MAE's classifier
    (r"backbone\.(cls_token|fc_norm\..*|head\..*)", None),
    (r"neck\.(down_\d+\..*)", r"pyramid.\1"),
    (r"head\.conv_seg\.(.*)", r"head.classify.\1"),
    (r"head\.convs\.(\d)\.conv\.(.*)", r"head.levels.\1.\2"),
    (r"head\.fusion_conv\.conv\.(.*)", r"head.join.\1"),
    # exist, but are unused with the published upsampling ("x1")
    (r"head\.up_conv[12]\..*", None),
)
_RULES = {"hrnet": _HRNET, "deeplab": _DEEPLAB, "plain_vit": _PLAIN_VIT}


@dataclass(frozen=True, slots=True)
class Recognised:
    """A recognised checkpoint."""

    name: str | None  #: registry name, or None for a shape no published file has
    architecture: dict[str, Any]  #: the description for ``registry.build``
    weights_licence: str  #: licence of the weights, as far as it is known


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Recognised:
    """Recognise a network by its published keys and shapes.

    Raises CheckpointError if it is none of RITM / FCFI HRNet, FCFI DeepLabV3+ and
    SimpleClick / CFR-ICL.
    """
    if "patch_embed_coords.proj.weight" in shapes:
        architecture = _plain_vit(shapes)
    elif "feature_extractor.aspp.project.0.weight" in shapes:
        architecture = _deeplab(shapes)
    elif "feature_extractor.conv3x3_ocr.0.weight" in shapes:
        architecture = _hrnet(shapes)
    else:
        raise CheckpointError(
            "the keys are those of no known click network (RITM, FCFI, SimpleClick, "
            f"CFR-ICL); the first are {some(shapes)}"
        )
    name = registry.name_of(architecture)
    licence = "unknown" if name is None else registry.named(name).weights_licence
    return Recognised(name, architecture, licence)


def _hrnet(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    feature = "feature_extractor."
    encoder = f"{feature}correction_module.info_encoder.0.conv.weight"
    is_fcfi = encoder in shapes
    stem = shapes.get("maps_transform.0.weight", (0, 0))
    if stem[0] != 16:
        msg = "the click stem is not RITM's Conv1S (maps_transform); not supported"
        raise CheckpointError(msg)
    return {
        "family": "hrnet",
        "width": shapes[f"{feature}stage2.0.branches.0.0.conv1.weight"][0],
        "small": f"{feature}layer1.2.conv1.weight" not in shapes,
        "ocr_width": shapes[f"{feature}conv3x3_ocr.0.weight"][0] // 2,
        "mask_at_input": stem[1] == 3,
        "relu_after_exchange": not is_fcfi,
        "feedback_width": shapes[encoder][0] if is_fcfi else 0,
    }


def _deeplab(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    backbone = "feature_extractor.backbone"
    layers = [
        sum(
            bool(re.fullmatch(rf"{backbone}\.layer{n}\.\d+\.conv1\.weight", key))
            for key in shapes
        )
        for n in (1, 2, 3, 4)
    ]
    encoder = "feature_extractor.correction_module.info_encoder.0.conv.weight"
    return {
        "family": "deeplab",
        "layers": layers,
        "width": shapes["feature_extractor.aspp.project.0.weight"][0],
        "feedback_width": shapes[encoder][0] if encoder in shapes else 32,
    }


def _plain_vit(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    dim, _, patch, _ = shapes["patch_embed_coords.proj.weight"]
    if dim not in _HEADS:
        msg = f"a plain ViT of width {dim}; known are {', '.join(map(str, _HEADS))}"
        raise CheckpointError(msg)
    depth = sum(
        bool(re.fullmatch(r"backbone\.blocks\.\d+\.norm1\.weight", k)) for k in shapes
    )
    grid = math.isqrt(shapes["backbone.pos_embed"][1] - 1)
    levels = [shapes[f"head.convs.{i}.conv.weight"] for i in range(4)]
    return {
        "family": "plain_vit",
        "patch": patch,
        "dim": dim,
        "depth": depth,
        "heads": _HEADS[dim],
        "pyramid": [shape[1] for shape in levels],
        "head_width": levels[0][0],
        "grid_size": grid * patch,
    }


def translate(state: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """Rename published tensors to ours; CheckpointError if some key has no rule."""
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in state.items():
        for pattern, replacement in _RULES[family]:
            if match := re.fullmatch(pattern, key):
                if replacement is not None:
                    # the class token's row of the position embedding is not used
                    value = tensor[:, 1:] if key.endswith("pos_embed") else tensor
                    ours[match.expand(replacement)] = value
                break
        else:
            unknown.append(key)
    if unknown:
        msg = f"{len(unknown)} keys have no place here: {some(unknown)}"
        raise CheckpointError(msg)
    return ours
