"""Build networks by name, and again from their own description.

``build`` is the one way from a description (what ``architecture()`` returns and a
checkpoint keeps) to a network; ``named`` turns a name into such a description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from typing import Any

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model.network import ClickNetwork
from napari_cfrseg.model.published.fetch import MAE, UNLICENSED

# family -> module, configuration class, network class
_FAMILIES = {
    "cfrnet": ("cfrnet", "CfrNetConfig", "CfrNet"),
    "hrnet": ("published.hrnet", "HRNetConfig", "HRNetClicks"),
    "deeplab": ("published.fcfi", "DeepLabConfig", "DeepLabClicks"),
    "plain_vit": ("published.vit", "PlainViTConfig", "PlainViTClicks"),
    "timm_fcfi": ("published.fcfi", "TimmFcfiConfig", "TimmFcfi"),
}
#: settings that files of earlier versions name, and where the tensors of the part lie
#: that each stood for. Networks are built without it: it changed no measured figure
#: (``benchmarks/default_model_product_loop.md``).
RETIRED = {"offset_width": "offset."}


def name_of(architecture: Mapping[str, Any]) -> str | None:
    """Return the name of a description, or None if it has none."""
    family = architecture.get("family")
    for entry in _ENTRIES:
        is_same = entry.architecture["family"] == family
        if is_same and configure(entry.architecture) == configure(architecture):
            return entry.name
    if family == "timm_fcfi":
        return f"{TIMM_PREFIX}{architecture['backbone']}"
    return None


def configure(architecture: Mapping[str, Any]) -> Any:
    """Turn a description into its family's configuration.

    Raises CheckpointError if the family or a setting is unknown here: the file is from
    a newer version.
    """
    family = architecture.get("family")
    if family not in _FAMILIES:
        msg = f"unknown network family {family!r}; known: {', '.join(_FAMILIES)}"
        raise CheckpointError(msg)
    module, config_name, _ = _FAMILIES[family]
    config_class = getattr(import_module(f"napari_cfrseg.model.{module}"), config_name)
    known = {field.name for field in fields(config_class)}
    left_out = {"family", *RETIRED}
    given = {key: v for key, v in architecture.items() if key not in left_out}
    if unknown := sorted(given.keys() - known):
        raise CheckpointError(
            f"family {family!r} has no setting {', '.join(unknown)}; "
            "the file may need a newer napari-cfrseg"
        )
    # JSON has lists only; the configurations are hashable
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return config_class(**settings)


def complete(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description with every setting, so that later defaults cannot move it.

    Raises CheckpointError if the family or a setting is unknown here.
    """
    return {"family": architecture["family"], **asdict(configure(architecture))}


def build(architecture: Mapping[str, Any]) -> ClickNetwork:
    """Build a network with fresh weights from its description.

    The description is ``family`` and that family's settings, as ``architecture()``
    returns them; missing settings take their defaults. Raises CheckpointError if the
    family or a setting is unknown here.
    """
    config = configure(architecture)
    module, _, network_name = _FAMILIES[architecture["family"]]
    family = import_module(f"napari_cfrseg.model.{module}")
    network: ClickNetwork = getattr(family, network_name)(config)
    return network


#: prefix of the names that stand for FCFI on a timm backbone
TIMM_PREFIX = "fcfi:"

_YOURS = "yours: trained by you"


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """A network with a name."""

    name: str  #: as given to the command line and the dock
    parameters: int  #: number of trainable numbers
    input_sizes: tuple[int, ...]  #: square grids in pixels it is meant for
    weights_licence: str  #: licence of the published weights, or whose they are
    summary: str  #: one line that describes it
    architecture: Mapping[str, Any]  #: the description for ``build``


_FULL_18 = {"family": "hrnet", "small": False, "ocr_width": 64}
_FCFI_HRNET = {"family": "hrnet", "relu_after_exchange": False, "feedback_width": 64}
_NO_MASK = {**_FULL_18, "mask_at_input": False}
_FULL_FCFI = {**_FCFI_HRNET, "small": False}
_PAPER = {"family": "hrnet", "mask_at_input": False, "feedback_width": 64}
_VIT_B = {"family": "plain_vit", "feedback_width": 64}
_VIT_XT = {"dim": 160, "depth": 8, "heads": 4, "pyramid": (96, 192, 288, 384)}
_VIT_L = {"dim": 1024, "depth": 24, "heads": 16, "pyramid": (192, 384, 768, 1536)}
_VIT_H = {"dim": 1280, "depth": 32, "heads": 16, "pyramid": (240, 480, 960, 1920)}


def _ritm(name: str, parameters: int, settings: Mapping[str, Any]) -> NamedNetwork:
    summary = f"RITM on HRNet-{name} + OCR, previous mask at the input"
    architecture = {"family": "hrnet", **settings}
    of_file = parameters, (400, 600), "MIT"
    return NamedNetwork(f"ritm_hrnet{name}", *of_file, summary, architecture)


def _simpleclick(size: str, parameters: int, **settings: object) -> NamedNetwork:
    short = "xTiny" if size == "xtiny" else size[0].upper()
    summary = f"SimpleClick / CFR-ICL on ViT-{short}"
    architecture = {"family": "plain_vit", **settings}
    of_file = parameters, (448, 672), MAE
    return NamedNetwork(f"simpleclick_vit_{size}", *of_file, summary, architecture)


_BASELINE = "RITM's baseline on HRNet-18: no previous mask"
_AS_PUBLISHED = 'FCFI on HRNet-18 as published (there called "HRNet18s")'
_TRUE_18S = "FCFI's code on a true HRNet-18s"
_AS_ITS_PAPER = "FCFI as its paper says: mask in deep features only; cheap refinement"
_R101 = "FCFI on ResNet-101 DeepLabV3+; cheap refinement"
_VIT_FCFI = "FCFI at the pyramid of a plain ViT-B; refinement repeats no block"
#: name, parameters, input sizes, licence, summary and architecture
_OTHERS: tuple[tuple[Any, ...], ...] = (
    ("ritm_hrnet18_baseline", 10_006_915, (400, 600), "MIT", _BASELINE, _NO_MASK),
    ("fcfi_hrnet18", 10_142_790, (480, 720), UNLICENSED, _AS_PUBLISHED, _FULL_FCFI),
    ("fcfi_hrnet18s", 4_441_250, (400, 480), _YOURS, _TRUE_18S, _FCFI_HRNET),
    ("fcfi_hrnet18s_paper", 4_440_658, (400, 480), _YOURS, _AS_ITS_PAPER, _PAPER),
    ("fcfi_r101", 58_540_599, (480, 640), UNLICENSED, _R101, {"family": "deeplab"}),
)
_ENTRIES = (
    _ritm("18s", 4_205_839, {}),
    _ritm("18", 10_006_931, _FULL_18),
    _ritm("32", 30_852_035, {"width": 32, "small": False, "ocr_width": 128}),
    *(NamedNetwork(*entry) for entry in _OTHERS),
    _simpleclick("xtiny", 3_845_281, **_VIT_XT, head_width=128),
    _simpleclick("base", 97_067_969),
    _simpleclick("large", 322_991_809, **_VIT_L),
    _simpleclick("huge", 660_713_201, **_VIT_H, patch=14),
    NamedNetwork("vit_base_fcfi", 97_015_174, (448, 672), _YOURS, _VIT_FCFI, _VIT_B),
)
_NAMED = {entry.name: entry for entry in _ENTRIES}


def names() -> tuple[str, ...]:
    """Return the names of the published networks and their relatives.

    ``fcfi:<timm model>`` is a name, too, for every timm model with feature maps.
    """
    return tuple(_NAMED)


def named(name: str) -> NamedNetwork:
    """Return a network's entry by its name; ValueError if there is none."""
    if name.startswith(TIMM_PREFIX):
        backbone = name.removeprefix(TIMM_PREFIX)
        licence = "of the timm weights started from"
        summary = f"FCFI on timm's {backbone}; cheap refinement"
        architecture = {"family": "timm_fcfi", "backbone": backbone}
        return NamedNetwork(name, 0, (384,), licence, summary, architecture)
    if name not in _NAMED:
        msg = f"no network {name!r}; there are {', '.join(_NAMED)}, fcfi:<timm model>"
        raise ValueError(msg)
    return _NAMED[name]
