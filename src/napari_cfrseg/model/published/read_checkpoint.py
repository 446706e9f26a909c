"""Read a published ``.pth`` file without executing anything it pickled.

``torch.load(weights_only=True)`` reads tensors and builtins and refuses every other
name. SimpleClick's and CFR-ICL's files also pickle a loss module and a function of
their own package, ``isegm``; for those names inert stand-ins are offered. Nothing of
the name is imported or called, and any other name is refused with the file's.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_cfrseg.errors import CheckpointError

#: the package of RITM and its forks, whose pickled objects no weights depend on
_PUBLISHED_PACKAGE = "isegm"
#: where files keep their tensors; tried in this order, last the file itself
_STATE_KEYS = ("state_dict", "model", "model_state_dict")


class _Inert:
    """What a published class or function becomes: it takes anything, does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        """Take and forget whatever the file passes."""

    def __setstate__(self, _: object) -> None:
        """Forget the pickled state."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint.

    Parameters
    ----------
    path
        A file written by ``torch.save``: a state dict, or a dict that holds one as
        ``state_dict`` or ``model``; or a ``.safetensors`` file.

    Returns
    -------
    Tensors by key on the CPU, ``module.`` prefixes of DataParallel removed, half
    precision widened to float32.

    Raises
    ------
    CheckpointError
        If there is no such file, it is not a checkpoint, names something that is not
        plain data, or holds no tensors.
    """
    return _state_of(_load(path), path)


def _load(path: Path) -> object:
    if not path.is_file():
        msg = f"{path}: there is no such file"
        raise CheckpointError(msg)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    stand_ins = _stand_ins(path)
    try:
        with torch.serialization.safe_globals(stand_ins):
            loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch reports a refused name and a broken file by many exception types
        # (UnpicklingError, RuntimeError, EOFError, KeyError, zipfile's …)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        refused = _refused(path)
        if refused:
            msg = (
                f"{path}: refused, it would run code of its own "
                f"({', '.join(refused)}); only plain tensors are read"
            )
        else:
            msg = f"{path}: not a readable PyTorch checkpoint ({reason})"
        raise CheckpointError(msg) from error
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
    """Names a zip checkpoint would import, read off its opcodes; none run."""
    if not zipfile.is_zipfile(path):
        return []
    names = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if not member.endswith("data.pkl"):
                continue
            try:
                for opcode, argument, _ in pickletools.genops(archive.read(member)):
                    if opcode.name == "GLOBAL" and isinstance(argument, str):
                        module, _, name = argument.partition(" ")
                        names.append((module, name))
            except ValueError:  # a broken pickle; torch will say so
                return []
    return names


def _stand_ins(path: Path) -> list[Any]:
    return [
        type(name, (_Inert,), {"__module__": module})
        for module, name in dict.fromkeys(_globals_of(path))
        if module.split(".")[0] == _PUBLISHED_PACKAGE
    ]


def _refused(path: Path) -> list[str]:
    plain = ("torch", "collections", "numpy", _PUBLISHED_PACKAGE)
    return [
        f"{module}.{name}"
        for module, name in dict.fromkeys(_globals_of(path))
        if module.split(".")[0] not in plain
    ]


def _state_of(loaded: object, path: Path) -> dict[str, Tensor]:
    content = loaded
    if isinstance(loaded, Mapping):
        inner = [loaded[key] for key in _STATE_KEYS if key in loaded]
        content = next((v for v in inner if isinstance(v, Mapping)), loaded)
    if not isinstance(content, Mapping):
        msg = f"{path}: expected a dict of tensors, found {type(loaded).__name__}"
        raise CheckpointError(msg)
    state = {
        str(key): value for key, value in content.items() if isinstance(value, Tensor)
    }
    if not state:
        msg = f"{path}: holds no tensors under {', '.join(_STATE_KEYS)} or its top"
        raise CheckpointError(msg)
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: _widen(value.detach()) for key, value in state.items()}


def _widen(tensor: Tensor) -> Tensor:
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.float() if half else tensor
