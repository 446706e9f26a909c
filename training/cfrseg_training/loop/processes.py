"""Several processes that train together: the first decides, all others follow.

A decision taken from a local clock or a local file may differ between processes; one
of them then leaves, and the others fail in the next exchange. So every such decision
is the first process's, sent to the others (``decided_by_first``) or carried by the
exchange of gradients or weights (``summed``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def launched() -> int:
    """Return how many processes torchrun or accelerate started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Join the other processes, if there are any."""
    if launched() == 1:
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # the others wait while the first one judges
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(hours=4))


def count() -> int:
    """Return how many processes have joined, 1 if this one is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, 0 for the first."""
    return dist.get_rank() if dist.is_initialized() else 0


def decided_by_first(value: T) -> T:
    """Return the first process's value in every process."""
    if count() == 1:
        return value
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    box: list[T | None] = [value if rank() == 0 else None]
    dist.broadcast_object_list(box, 0, device=device)
    return box[0]  # type: ignore[return-value] # the first's value


def summed(
    tensors: Sequence[Tensor], decisions: Sequence[float]
) -> tuple[list[Tensor], list[float]]:
    """Sum tensors over all processes, with the first's decisions, in one exchange."""
    own = [float(d) for d in decisions] if rank() == 0 else [0.0] * len(decisions)
    extra = torch.tensor(own, device=tensors[0].device)
    flat = torch.cat([*(t.detach().reshape(-1) for t in tensors), extra])
    dist.all_reduce(flat)
    *parts, last = torch.split(flat, [*(t.numel() for t in tensors), len(own)])
    pairs = zip(parts, tensors, strict=True)
    return [part.view_as(tensor) for part, tensor in pairs], last.tolist()
