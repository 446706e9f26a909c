"""Which device computes."""

from __future__ import annotations

from functools import cache

import torch

from napari_cfrseg.errors import DeviceError


def resolve_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1" or "mps" into a device that is there.

    One that does not exist here raises DeviceError.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if count else "mps" if has_mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        msg = f"device {name!r}: expected auto, cpu, cuda, cuda:N or mps"
        raise DeviceError(msg) from error
    there = {"cpu": True, "mps": has_mps, "cuda": (device.index or 0) < count}
    if not there.get(device.type, False):
        msg = f"device {name!r} is not there ({count} CUDA devices); use cpu or auto"
        raise DeviceError(msg)
    return device


@cache
def has_native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; False where torch cannot tell."""
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(is_supported()) if callable(is_supported) else False
