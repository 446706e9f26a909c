"""What a training leaves on the disk: whole, or not at all and with the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from napari_cfrseg.errors import TrainingError
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.network import ClickNetwork


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a run's state; the one before it stays until the new one is whole.

    Raises
    ------
    TrainingError
        There is no room, or the folder cannot be written into.
    """
    partial = path.with_suffix(".partial")
    try:
        with _told(path, "the training's state"):
            torch.save(dict(state), partial)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_weights(
    path: Path,
    network: ClickNetwork,
    metadata: checkpoint.Metadata,
    *,
    half: bool = True,
) -> None:
    """Write a weights file as :func:`napari_cfrseg.model.weights_file.save` does.

    Raises
    ------
    TrainingError
        There is no room, or the folder cannot be written into.
    """
    with _told(path, "the weights"):
        checkpoint.save(path, network, metadata, half=half)


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Turn what the three writers say of a full disk into one message."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch: RuntimeError
        whole = path.suffix == ".pt" and path.exists()
        msg = (
            f"{path}: {what} cannot be written "
            f"({' '.join(str(error).split())[:160]}); make room and run the same "
            f"command again{'; the state before it is whole' if whole else ''}"
        )
        raise TrainingError(msg) from error
