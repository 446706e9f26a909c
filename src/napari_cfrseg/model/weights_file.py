"""Read and write weights files: safetensors with a JSON description.

Tensors are stored as float16, except those that must stay exact: running statistics and
other one-dimensional parameters of normalisations. On load everything is float32.
Loading is strict: a missing, extra or misshapen tensor is an error.

The metadata string, under the key ``cfrseg``::

    {"format_version": 1, "architecture": {…for model.registry.build…},
     "name": …, "training_data": […], "licence": …, "commit": …, "seed": …,
     "steps": …, "validation": {…}, "provenance": {…}}
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.io.atomic import atomic_path, data_folder, file_sha256

if TYPE_CHECKING:
    from torch import Tensor

    from napari_cfrseg.model.network import ClickNetwork

FORMAT_VERSION = 1
SUFFIX = ".safetensors"
#: Environment variable that names the folder of installed models.
MODELS_VARIABLE = "CFRSEG_MODELS"
_KEY = "cfrseg"
#: names listed in a message at most
_MAX_LISTED = 6


@dataclass(frozen=True, slots=True)
class Metadata:
    """A weights file's description."""

    #: the configuration ``model.registry.build`` makes the network from
    architecture: dict[str, Any]
    name: str = "unnamed"  #: the model's name
    #: the training sets, each with its licence, or "none"
    training_data: list[str] = field(default_factory=list)
    licence: str = "unknown"  #: of the weights
    #: code, random seed and optimiser steps of the training; None if unknown
    commit: str | None = None
    seed: int | None = None
    steps: int | None = None
    #: figures measured on the validation split
    validation: dict[str, Any] = field(default_factory=dict)
    #: how to repeat a fine-tuning: the base model and its SHA-256, the data's
    #: fingerprint, configuration and versions
    provenance: dict[str, Any] = field(default_factory=dict)


def save(
    path: str | os.PathLike[str],
    network: ClickNetwork,
    metadata: Metadata,
    *,
    half: bool = True,
) -> None:
    """Write a network's weights; the file appears whole or not at all.

    The path ends in ``.safetensors``; missing folders are made. The metadata's
    ``architecture`` must build this network again. ``half=False`` keeps float32, as
    imported weights do, to give the published numbers.
    """
    from safetensors.torch import save_file

    text = json.dumps({"format_version": FORMAT_VERSION, **asdict(metadata)})
    tensors = {k: _stored(k, v, half=half) for k, v in network.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, metadata={_KEY: text})
        temporary.chmod(mode)  # save_file lets nobody but its user read the file


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """Read a weights file's description, without its weights.

    Raises CheckpointError if the file is missing, no safetensors file, or has no known
    description.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            strings = file.metadata() or {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such weights file") from error
    except (SafetensorError, OSError) as error:
        msg = f"{path}: expected a safetensors file, found something else ({error})"
        raise CheckpointError(msg) from error
    return _parse(path, strings)


def count_parameters(path: str | os.PathLike[str]) -> int:
    """Count a weights file's trainable numbers by its header alone.

    Running statistics of normalisations do not count.
    """
    from safetensors import safe_open

    read_metadata(path)  # refuses other files
    with safe_open(path, framework="numpy") as file:
        shapes = {k: file.get_slice(k).get_shape() for k in file.keys()}  # noqa: SIM118
    counted = (k for k in shapes if "running_" not in k and "num_batches" not in k)
    return sum(math.prod(shapes[k]) for k in counted)


def load(
    path: str | os.PathLike[str], device: str = "cpu"
) -> tuple[ClickNetwork, Metadata]:
    """Build the network a file describes and give it the file's weights, as float32.

    Raises CheckpointError if the file cannot be read or its tensors are not the
    network's.
    """
    from safetensors.torch import load_file

    from napari_cfrseg.model import registry

    metadata = read_metadata(path)
    try:
        network = _build_empty(metadata.architecture)
    except (CheckpointError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: expected an architecture this version knows, found "
            f"{metadata.architecture} ({error})"
        ) from error
    retired, expected = tuple(registry.RETIRED.values()), network.state_dict()
    found = load_file(path, device="cpu")
    tensors = {k: v for k, v in found.items() if not k.startswith(retired)}
    try:
        check_fit(expected, tensors, missing=expected.keys() - tensors.keys())
    except CheckpointError as error:
        msg = f"{path} does not fit {type(network).__name__}: {error}"
        raise CheckpointError(msg) from error
    network.load_state_dict(
        {k: _loaded(v, like=expected[k]) for k, v in tensors.items()},
        strict=True,
        assign=any(v.is_meta for v in expected.values()),
    )
    return network.to(device).eval(), metadata


def _build_empty(architecture: Mapping[str, Any]) -> ClickNetwork:
    """Build a network without weights, which are to come: a ViT-L loads twice as fast.

    One that computes in building, or has constants no file brings, is built in full.
    """
    import torch

    from napari_cfrseg.model.registry import build

    try:
        with torch.device("meta"):
            network = build(architecture)
    except RuntimeError:
        return build(architecture)
    brought = network.state_dict().keys()
    constants = (b for name, b in network.named_buffers() if name not in brought)
    return build(architecture) if any(b.is_meta for b in constants) else network


def check_fit(
    target: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    missing: Iterable[str],
    kind: str = "tensors",
) -> None:
    """Raise CheckpointError where tensors are missing, surplus or misshapen."""
    problems = {
        "missing": [key for key in target if key in set(missing)],
        "surplus": [key for key in given if key not in target],
        "misshapen": [
            f"{key} {tuple(value.shape)} instead of {tuple(target[key].shape)}"
            for key, value in given.items()
            if key in target and value.shape != target[key].shape
        ],
    }
    for problem, keys in problems.items():
        if keys:
            raise CheckpointError(f"{len(keys)} {kind} {problem}: {some(keys)}")


def some(keys: Iterable[str]) -> str:
    """List the first few keys for a message."""
    listed = list(keys)
    more = f" and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    return ", ".join(listed[:_MAX_LISTED]) + more


def _loaded(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor as the network keeps it, never memory of the file's own."""
    wanted = tensor.float() if tensor.is_floating_point() else tensor
    return wanted.clone() if like.is_meta and wanted is tensor else wanted


def install_copy(path: Path, name: str) -> Path:
    """Copy a weights file among the installed models; return where it is then.

    Raises CheckpointError if it cannot be used, or another model has the name.
    """
    load(path)
    target = models_folder() / f"{name}{SUFFIX}"
    if not target.exists():
        with atomic_path(target) as temporary:
            shutil.copyfile(path, temporary)
    elif file_sha256(target) != file_sha256(path):
        msg = f"another model is called {name!r}: give this one another name (--name)"
        raise CheckpointError(msg)
    return target


def models_folder() -> Path:
    """Where installed models live; the variable ``CFRSEG_MODELS`` overrides it."""
    return data_folder("models", MODELS_VARIABLE)


def list_models() -> dict[str, Path]:
    """Return the models by name; an installed one hides a shipped one of its name."""
    shipped = Path(str(resources.files("napari_cfrseg"))) / "weights"
    models: dict[str, Path] = {}
    for folder in (shipped, models_folder()):
        if folder.is_dir():
            models |= {p.stem: p for p in sorted(folder.glob(f"*{SUFFIX}"))}
    return models


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """Find a model by name, or a weights file by its path; else CheckpointError."""
    path = Path(name_or_path)
    if path.suffix == SUFFIX or len(path.parts) > 1:
        if path.is_file():
            return path
        raise CheckpointError(f"{path}: no such weights file")
    models = list_models()
    if str(name_or_path) in models:
        return models[str(name_or_path)]
    known = ", ".join(sorted(models)) or "none"
    raise CheckpointError(
        f"no model is called {str(name_or_path)!r}; there are: {known} "
        f"(installed ones live in {models_folder()})"
    )


def is_own(path: Path) -> bool:
    """Return whether a file is a weights file as :func:`save` writes it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return _KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _parse(path: str | os.PathLike[str], strings: Mapping[str, str]) -> Metadata:
    if _KEY not in strings:
        raise CheckpointError(
            f"{path}: expected a file written by napari-cfrseg (metadata {_KEY!r}), "
            f"found metadata {sorted(strings)}; import it with cfrseg models import"
        )
    try:
        content = json.loads(strings[_KEY])
        version = content.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: expected format version {FORMAT_VERSION}, found {version!r}; "
                "a newer napari-cfrseg may read it"
            )
        metadata = Metadata(**content)
        if metadata.architecture.get("family") == "cfrnet":
            # files older than this setting
            metadata.architecture.setdefault("fine_feedback", 0)
        return metadata
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"{path}: expected metadata as this version writes it, found {error}"
        raise CheckpointError(msg) from error


def _stored(key: str, tensor: Tensor, *, half: bool) -> Tensor:
    """Return a tensor as it goes to disk."""
    import torch

    kept = tensor.detach().cpu().contiguous().clone()
    if not kept.is_floating_point():
        return kept
    exact = not half or kept.ndim <= 1 or "running_" in key
    return kept.to(torch.float32 if exact else torch.float16)


def weights_sha256(path: Path) -> str:
    """Return the SHA-256 of a weights file."""
    return _hash(*version_of(path))


def version_of(path: Path) -> tuple[Path, int, int]:
    """Return what tells a file from another, and from its later content."""
    found = path.stat()
    return path, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=64)
def _hash(path: Path, _mtime_ns: int, _size: int) -> str:
    return file_sha256(path)


def installed_name(path: Path) -> str:
    """Return the name a weights file is installed under, else its path."""
    installed = list_models().get(path.stem)
    return path.stem if installed == path else str(path)
