"""Import published checkpoints: read the file safely, build its network, fill it.

A ``.pth`` file is read without executing anything it pickled:
``torch.load(weights_only=True)`` reads tensors and builtins and refuses every other
name. SimpleClick's and CFR-ICL's files also pickle a loss module and a function of
their own package, ``isegm``: those names become stand-ins that do nothing.

Mapping is strict both ways: every key of the file has a rule (``published_keys``),
every tensor of the network is filled, every shape fits; otherwise ``CheckpointError``
names the rest.
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
from napari_cfrseg.model import registry
from napari_cfrseg.model.network import ClickNetwork
from napari_cfrseg.model.published.published_keys import (
    Recognised,
    recognise,
    translate,
)
from napari_cfrseg.model.weights_file import check_fit

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
    stand_ins = _stand_ins(path)
    try:
        with torch.serialization.safe_globals(stand_ins):
            loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch reports a refused name and a broken file by many exception types
        # (UnpicklingError, RuntimeError, EOFError, KeyError, zipfile's …)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in reason:  # torch's advice to run what the file holds
            reason = "its pickle is broken, or holds more than tensors"
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
    half = (torch.float16, torch.bfloat16)
    tensors = {key: value.detach() for key, value in state.items()}
    return {k: v.float() if v.dtype in half else v for k, v in tensors.items()}


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
