"""The state of a run: its moving average, its files, what its processes agree on.

Decisions from a local clock or file may differ between processes, which then fail in
the next exchange. So they are the first process's, sent to the others
(``decided_by_first``) or carried by the exchange (``summed_over_processes``).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from napari_cfrseg.errors import TrainingError
from napari_cfrseg.io.atomic import atomic_path, clear_leftovers
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.network import ClickNetwork

T = TypeVar("T")


class MovingAverage:
    """Exponential moving average of parameters; buffers are copied."""

    def __init__(self, network: ClickNetwork, decay: float) -> None:
        self.network: ClickNetwork = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.count = 0

    @torch.no_grad()
    def update(self, network: ClickNetwork) -> None:
        """Move towards the network's present weights."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        own = self.network.parameters()
        for mine, theirs in zip(own, network.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for kept, new in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(new)


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a run's state; the one before it stays until the new one is whole.

    Raises TrainingError where there is no room or the folder cannot be written into.
    """
    clear_leftovers(path.parent, {path.stem})
    with _explained(path, "the training's state"), atomic_path(path) as temporary:
        torch.save(dict(state), temporary)


def write_weights(
    path: Path,
    network: ClickNetwork,
    metadata: checkpoint.Metadata,
    *,
    half: bool = True,
) -> None:
    """Write a weights file; raises as ``write_state`` does."""
    with _explained(path, "the weights"):
        checkpoint.save(path, network, metadata, half=half)


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """Turn the writers' different errors on a full disk into one message."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch: RuntimeError
        whole = path.suffix == ".pt" and path.exists()
        raise TrainingError(
            f"{path}: {what} cannot be written "
            f"({' '.join(str(error).split())[:160]}); make room and run the same "
            f"command again{'; the state before it is whole' if whole else ''}"
        ) from error


def launched_processes() -> int:
    """Return how many processes torchrun or accelerate started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_processes() -> None:
    """Join the other processes, if there are any."""
    if launched_processes() == 1:
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # the others wait while the first one judges
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(hours=4))


def process_count() -> int:
    """Return how many processes have joined, 1 if this one is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_rank() -> int:
    """Return the number of this process, 0 for the first."""
    return dist.get_rank() if dist.is_initialized() else 0


def decided_by_first(value: T) -> T:
    """Return the first process's value in every process."""
    if process_count() == 1:
        return value
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    box: list[T | None] = [value if process_rank() == 0 else None]
    dist.broadcast_object_list(box, 0, device=device)
    return box[0]  # type: ignore[return-value] # the first's value


def summed_over_processes(
    tensors: Sequence[Tensor], decisions: Sequence[float]
) -> tuple[list[Tensor], list[float]]:
    """Sum tensors over all processes, with the first's decisions, in one exchange."""
    own = [float(d) if process_rank() == 0 else 0.0 for d in decisions]
    extra = torch.tensor(own, device=tensors[0].device)
    flat = torch.cat([*(t.detach().reshape(-1) for t in tensors), extra])
    dist.all_reduce(flat)
    *parts, last = torch.split(flat, [*(t.numel() for t in tensors), len(own)])
    pairs = zip(parts, tensors, strict=True)
    return [part.view_as(tensor) for part, tensor in pairs], last.tolist()
