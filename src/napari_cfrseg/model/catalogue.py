"""The networks one can ask for by name, and what is known of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: prefix of the names that stand for FCFI on a timm backbone
TIMM_PREFIX = "fcfi:"

_MIT = "MIT"
_MAE = "CC-BY-NC-4.0 (fine-tuned from MAE weights)"
_NONE_GIVEN = "none given: all rights reserved"
_YOURS = "yours: trained by you"


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """A network one can ask for by name.

    Attributes
    ----------
    name
        As given to the command line and the dock.
    architecture
        What ``build`` takes.
    summary
        One line on what it is.
    parameters
        How many trainable numbers it has.
    input_sizes
        Square grids in pixels it is meant for.
    weights_licence
        Licence of the published weights, or whose they are.
    """

    name: str
    architecture: Mapping[str, Any]
    summary: str
    parameters: int
    input_sizes: tuple[int, ...]
    weights_licence: str


def _entry(
    name: str,
    parameters: int,
    sizes: tuple[int, ...],
    licence: str,
    summary: str,
    **architecture: object,
) -> NamedNetwork:
    return NamedNetwork(name, architecture, summary, parameters, sizes, licence)


_FCFI_HRNET = {"relu_after_exchange": False, "feedback_width": 64}
_VIT_L = {"dim": 1024, "depth": 24, "heads": 16, "pyramid": (192, 384, 768, 1536)}
_VIT_H = {
    "patch": 14,
    "dim": 1280,
    "depth": 32,
    "heads": 16,
    "pyramid": (240, 480, 960, 1920),
}
_VIT_XT = {
    "dim": 160,
    "depth": 8,
    "heads": 4,
    "pyramid": (96, 192, 288, 384),
    "head_width": 128,
}

_NAMED = {
    entry.name: entry
    for entry in (
        _entry(
            "ritm_hrnet18s",
            4_205_839,
            (400, 600),
            _MIT,
            "RITM on HRNet-18s + OCR, previous mask at the input",
            family="hrnet",
        ),
        _entry(
            "ritm_hrnet18",
            10_006_931,
            (400, 600),
            _MIT,
            "RITM on HRNet-18 + OCR, previous mask at the input",
            family="hrnet",
            small=False,
            ocr_width=64,
        ),
        _entry(
            "ritm_hrnet32",
            30_852_035,
            (400, 600),
            _MIT,
            "RITM on HRNet-32 + OCR, previous mask at the input",
            family="hrnet",
            width=32,
            small=False,
            ocr_width=128,
        ),
        _entry(
            "ritm_hrnet18_baseline",
            10_006_915,
            (400, 600),
            _MIT,
            "RITM's baseline on HRNet-18: no previous mask",
            family="hrnet",
            small=False,
            ocr_width=64,
            mask_at_input=False,
        ),
        _entry(
            "fcfi_hrnet18",
            10_142_790,
            (480, 720),
            _NONE_GIVEN,
            'FCFI on HRNet-18 as published (there called "HRNet18s")',
            family="hrnet",
            small=False,
            **_FCFI_HRNET,
        ),
        _entry(
            "fcfi_hrnet18s",
            4_441_250,
            (400, 480),
            _YOURS,
            "FCFI's code on a true HRNet-18s",
            family="hrnet",
            **_FCFI_HRNET,
        ),
        _entry(
            "fcfi_hrnet18s_paper",
            4_440_658,
            (400, 480),
            _YOURS,
            "FCFI as its paper says: mask in deep features only; cheap refinement",
            family="hrnet",
            mask_at_input=False,
            feedback_width=64,
        ),
        _entry(
            "fcfi_r101",
            58_540_599,
            (480, 640),
            _NONE_GIVEN,
            "FCFI on ResNet-101 DeepLabV3+; cheap refinement",
            family="deeplab",
        ),
        _entry(
            "simpleclick_vit_xtiny",
            3_845_281,
            (448, 672),
            _MAE,
            "SimpleClick / CFR-ICL on ViT-xTiny",
            family="plain_vit",
            **_VIT_XT,
        ),
        _entry(
            "simpleclick_vit_base",
            97_067_969,
            (448, 672),
            _MAE,
            "SimpleClick / CFR-ICL on ViT-B",
            family="plain_vit",
        ),
        _entry(
            "simpleclick_vit_large",
            322_991_809,
            (448, 672),
            _MAE,
            "SimpleClick / CFR-ICL on ViT-L",
            family="plain_vit",
            **_VIT_L,
        ),
        _entry(
            "simpleclick_vit_huge",
            660_713_201,
            (448, 672),
            _MAE,
            "SimpleClick / CFR-ICL on ViT-H",
            family="plain_vit",
            **_VIT_H,
        ),
        _entry(
            "vit_base_fcfi",
            97_015_174,
            (448, 672),
            _YOURS,
            "FCFI at the pyramid of a plain ViT-B; refinement repeats no block",
            family="plain_vit",
            feedback_width=64,
        ),
    )
}


def names() -> tuple[str, ...]:
    """Return the names of the published networks and their relatives.

    ``fcfi:<timm model>`` is a name, too, for every timm model with feature maps.
    """
    return tuple(_NAMED)


def named(name: str) -> NamedNetwork:
    """Return what stands behind a name.

    Raises
    ------
    ValueError
        If there is no such name.
    """
    if name.startswith(TIMM_PREFIX):
        backbone = name.removeprefix(TIMM_PREFIX)
        return _entry(
            name,
            0,
            (384,),
            "of the timm weights started from",
            f"FCFI on timm's {backbone}; cheap refinement",
            family="timm_fcfi",
            backbone=backbone,
        )
    if name not in _NAMED:
        msg = f"no network {name!r}; there are {', '.join(_NAMED)}, fcfi:<timm model>"
        raise ValueError(msg)
    return _NAMED[name]
