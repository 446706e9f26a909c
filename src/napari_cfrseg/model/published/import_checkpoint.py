"""Import published checkpoints: read the file safely, build its network, fill it.

A ``.pth`` file is read without executing anything it pickled:
``torch.load(weights_only=True)`` refuses every name but tensors and builtins; those of
SimpleClick's and CFR-ICL's own package, ``isegm``, become stand-ins that do nothing.

Mapping is strict both ways: every key of the file has a rule, every tensor of the
network is filled, every shape fits; otherwise ``CheckpointError`` names the rest.
"""

from __future__ import annotations

import math
import pickletools
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model import registry
from napari_cfrseg.model.network import ClickNetwork
from napari_cfrseg.model.weights_file import check_fit, some

#: the package of RITM and its forks, whose pickled objects no weights depend on
_PUBLISHED_PACKAGE = "isegm"
#: where files keep their tensors; tried in this order, last the file itself
_STATE_KEYS = ("state_dict", "model", "model_state_dict")


class _Inert:
    """Stand-in for a published class or function: it takes anything, does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        """Ignore the arguments."""

    def __setstate__(self, _: object) -> None:
        """Ignore the pickled state."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint.

    The file is one written by ``torch.save`` (a state dict, or a dict that holds one as
    ``state_dict`` or ``model``) or a ``.safetensors`` file. Returns tensors by key on
    the CPU, ``module.`` prefixes of DataParallel removed, half precision widened to
    float32. Raises CheckpointError if there is no such file, it is not a checkpoint,
    names something that is not plain data, or holds no tensors.
    """
    return _state_of(_load_file(path), path)


def _load_file(path: Path) -> object:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    try:
        with torch.serialization.safe_globals(_stand_ins(path)):
            loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch reports a refused name and a broken file by many exception types
        # (UnpicklingError, RuntimeError, EOFError, KeyError, zipfile's …)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # torch's advice to run what the file holds, or the pickle's unknown byte
        if "weights_only" in reason or reason.isdigit():
            reason = "its pickle is broken, or holds more than tensors"
        said = f"not a readable PyTorch checkpoint ({reason})"
        if refused := ", ".join(_refused(path)):
            own = f"refused, it would run code of its own ({refused})"
            said = f"{own}; only plain tensors are read"
        raise CheckpointError(f"{path}: {said}") from error
    return loaded


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        msg = f"{path}: not a readable safetensors file ({error})"
        raise CheckpointError(msg) from error


def _globals_of(path: Path) -> list[tuple[str, str]]:
    """Names a zip checkpoint would import, each once, by its opcodes; none run."""
    if not zipfile.is_zipfile(path):
        return []
    names: dict[tuple[str, str], None] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if not member.endswith("data.pkl"):
                continue
            try:
                for opcode, argument, _ in pickletools.genops(archive.read(member)):
                    if opcode.name == "GLOBAL" and isinstance(argument, str):
                        module, _, name = argument.partition(" ")
                        names[module, name] = None
            except ValueError:  # a broken pickle; torch will say so
                return []
    return [*names]


def _stand_ins(path: Path) -> list[Any]:
    return [
        type(name, (_Inert,), {"__module__": module})
        for module, name in _globals_of(path)
        if module.split(".")[0] == _PUBLISHED_PACKAGE
    ]


def _refused(path: Path) -> list[str]:
    plain = ("torch", "collections", "numpy", _PUBLISHED_PACKAGE)
    named = _globals_of(path)
    return [f"{m}.{name}" for m, name in named if m.split(".")[0] not in plain]


def _state_of(loaded: object, path: Path) -> dict[str, Tensor]:
    content = loaded
    if isinstance(loaded, Mapping):
        inner = [loaded[key] for key in _STATE_KEYS if key in loaded]
        content = next((v for v in inner if isinstance(v, Mapping)), loaded)
    if not isinstance(content, Mapping):
        msg = f"{path}: expected a dict of tensors, found {type(loaded).__name__}"
        raise CheckpointError(msg)
    state = {str(k): v.detach() for k, v in content.items() if isinstance(v, Tensor)}
    if not state:
        msg = f"{path}: holds no tensors under {', '.join(_STATE_KEYS)} or its top"
        raise CheckpointError(msg)
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    half = (torch.float16, torch.bfloat16)
    return {k: v.float() if v.dtype in half else v for k, v in state.items()}


def fill(network: ClickNetwork, state: Mapping[str, Tensor]) -> None:
    """Load translated tensors; every one must be there and fit."""
    target = network.state_dict()
    # files written before PyTorch counted batches; no output depends on the count
    counts = {
        key: torch.zeros((), dtype=torch.long)
        for key in target.keys() - state.keys()
        if key.endswith("num_batches_tracked")
    }
    given = {**state, **counts}
    check_fit(target, given, missing=target.keys() - given.keys())
    # taken over, not copied: ViT-H would be in memory twice
    network.load_state_dict(given, strict=True, assign=True)


def import_published(path: Path) -> tuple[ClickNetwork, Recognised]:
    """Build the network of a RITM, SimpleClick, CFR-ICL or FCFI file, to evaluate.

    Raises CheckpointError that names the file and what does not fit.
    """
    state = read_state(path)
    try:
        recognised = recognise({key: tuple(t.shape) for key, t in state.items()})
        ours = translate(state, recognised.architecture["family"])
        with torch.device("meta"):  # no time lost on weights that are replaced
            network = registry.build(recognised.architecture)
        fill(network, ours)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except KeyError as error:
        raise CheckpointError(f"{path}: the tensor {error} is missing") from error
    return network.eval(), recognised


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
    blocks = [rf"{backbone}\.layer{n}\.\d+\.conv1\.weight" for n in (1, 2, 3, 4)]
    encoder = "feature_extractor.correction_module.info_encoder.0.conv.weight"
    return {
        "family": "deeplab",
        "layers": [_count(shapes, block) for block in blocks],
        "width": shapes["feature_extractor.aspp.project.0.weight"][0],
        "feedback_width": shapes[encoder][0] if encoder in shapes else 32,
    }


def _count(keys: Iterable[str], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, key)) for key in keys)


def _plain_vit(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    dim, _, patch, _ = shapes["patch_embed_coords.proj.weight"]
    if dim not in _HEADS:
        msg = f"a plain ViT of width {dim}; known are {', '.join(map(str, _HEADS))}"
        raise CheckpointError(msg)
    grid = math.isqrt(shapes["backbone.pos_embed"][1] - 1)
    levels = [shapes[f"head.convs.{i}.conv.weight"] for i in range(4)]
    return {
        "family": "plain_vit",
        "patch": patch,
        "dim": dim,
        "depth": _count(shapes, r"backbone\.blocks\.\d+\.norm1\.weight"),
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
