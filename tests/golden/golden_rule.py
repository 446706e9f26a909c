"""The fixtures' weight rule and folders (../golden/README), for the golden tests."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"


def folders() -> list[Path]:
    """The shipped subset and the folder the environment names, which may be bigger."""
    return list(dict.fromkeys([Path(os.environ.get("CFRSEG_GOLDEN", DATA)), DATA]))


def found(pattern: str) -> list[Path]:
    """Every file of that pattern; the first folder's version of each name."""
    by_name: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob(pattern)):
            by_name.setdefault(path.name, path)
    return list(by_name.values())


def rule1(key: str, shape: tuple[int, ...], *, is_floating: bool = True) -> Tensor:
    """The deterministic weight of a key."""
    if not is_floating:
        return torch.zeros(shape, dtype=torch.long)
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    x = rng.standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        x = 1 + np.float32(0.1) * np.abs(x)
    elif key.endswith("running_mean"):
        x = np.float32(0.1) * x
    elif x.ndim == 1 and key.endswith(".weight"):
        x = 1 + np.float32(0.1) * x
    elif x.ndim == 1 or key.endswith(("pos_embed", "cls_token")):
        x = np.float32(0.02) * x
    else:
        x = x / np.float32(np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(np.asarray(x, np.float32))


def key_list(path: Path) -> list[tuple[str, tuple[int, ...], bool]]:
    """(key, shape, is floating) of every tensor in a ``.keys.json``."""
    entries = json.loads(path.read_text())["state_dict"]
    return [(k, tuple(s), dtype.startswith("float")) for k, s, dtype, _ in entries]


def official_state(keys: Path, overrides: dict[str, float]) -> dict[str, Tensor]:
    """The official state dict the rule gives, with rule 2's overrides."""
    state = {
        key: rule1(key, shape, is_floating=floating)
        for key, shape, floating in key_list(keys)
    }
    for key, value in overrides.items():
        state[key] = torch.full_like(state[key], value)
    return state
