"""Which device computes, why, and how much memory it may take."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from napari_cfrseg.errors import MEMORY_VARIABLE, DeviceError


@dataclass(frozen=True, slots=True)
class Found:
    """The devices torch reports, and why there are no more."""

    gpus: tuple[str, ...] = ()
    built_for: str | None = None  #: the CUDA version, None for a build without
    problem: str = ""  #: torch's own message where CUDA does not start
    has_driver: bool = False
    has_mps: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and by which program a network is computed, and why."""

    device: str
    backend: str
    reason: str
    can_prepare: bool = False  #: a faster program could be prepared for the next start
    precision: str = "float32"


@dataclass(slots=True)
class Notices:
    """Measures against running out of memory, each said once."""

    texts: list[str] = field(default_factory=list)
    warns: bool = True  #: False: they are shown elsewhere, and no warnings

    def add(self, text: str) -> None:
        """Add a notice unless it was added before."""
        if text not in self.texts:
            self.texts.append(text)
            if self.warns:
                warnings.warn(text, stacklevel=6)


def find_devices() -> Found:
    """Return the devices that torch finds."""
    built_for, problem, count = torch.version.cuda, "", 0
    with warnings.catch_warnings(record=True) as caught:  # an old driver warns
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            count = torch.cuda.device_count()
        elif built_for is not None:
            problem = next((str(one.message) for one in caught), "") or _refusal()
    return Found(
        tuple(torch.cuda.get_device_name(i) for i in range(count)),
        built_for,
        problem,
        shutil.which("nvidia-smi") is not None,
        torch.backends.mps.is_available(),
    )


def _refusal() -> str:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch's
    except (RuntimeError, AssertionError) as error:
        return str(error)
    return ""


def explain(found: Found) -> tuple[str, str]:
    """Return the device to take of those found, and one line that says why."""
    if found.gpus:
        more = f", the first of {len(found.gpus)}" if len(found.gpus) > 1 else ""
        return "cuda", f"{found.gpus[0]}{more}"
    if found.has_mps:
        return "mps", "Apple's GPU"
    return "cpu", _missing(found)


def _missing(found: Found) -> str:
    """Return why there is no GPU."""
    if found.built_for is None:
        if found.has_driver:
            return (
                "there is an NVIDIA driver, but this PyTorch is built without CUDA; "
                "install one with it (pytorch.org)"
            )
        return "this PyTorch is built for it alone"
    if "too old" in found.problem:
        return (
            f"the NVIDIA driver is too old for CUDA {found.built_for}; update it, or "
            "install a PyTorch for an older CUDA"
        )
    if "no NVIDIA driver" in found.problem and found.has_driver:
        return "the NVIDIA driver does not answer; restart the machine"
    if "no NVIDIA driver" in found.problem or not found.problem:
        return "there is no NVIDIA driver"
    return f"CUDA does not start ({found.problem.split(' (')[0].splitlines()[0]})"


def resolve_device(name: str, found: Found | None = None) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1" or "mps" into a device that is there.

    ``found`` is by default what torch reports. One that does not exist raises
    DeviceError.
    """
    if name == "cpu":
        return torch.device("cpu")
    found = find_devices() if found is None else found
    if name == "auto":
        return torch.device(explain(found)[0])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        msg = f"device {name!r}: expected auto, cpu, cuda, cuda:N or mps"
        raise DeviceError(msg) from error
    count = len(found.gpus)
    there = {"cpu": True, "mps": found.has_mps, "cuda": (device.index or 0) < count}
    if not there.get(device.type, False):
        why = f"there are {count} CUDA devices" if count else explain(found)[1]
        why = "torch finds no Apple GPU" if device.type == "mps" else why
        raise DeviceError(f"device {name!r} is not there ({why}); use cpu or auto")
    return device


@cache
def has_native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; False where torch cannot tell."""
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(is_supported()) if callable(is_supported) else False


def memory_cap() -> int | None:
    """Return the bytes that ``CFRSEG_MEMORY_GB`` allows; None without a limit."""
    given = os.environ.get(MEMORY_VARIABLE, "").strip()
    if not given:
        return None
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise DeviceError(f"{MEMORY_VARIABLE}={given!r}: expected gigabytes, such as 4")
    return int(gigabytes * 1e9)


def apply_cap(device: torch.device, cap: int | None) -> None:
    """Limit the bytes of a GPU that torch takes; the CPU has ``check_cap``."""
    if cap is None:
        return
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(cap / total, 1.0), device)
    elif device.type == "mps":
        total = torch.mps.recommended_max_memory()
        torch.mps.set_per_process_memory_fraction(min(cap / total, 2.0))


def check_cap(cap: int | None, needed: int) -> None:
    """Raise torch's OutOfMemoryError if this many bytes more would exceed the cap."""
    if cap is None:
        return
    taken = resident_bytes()
    if taken + needed > cap:
        raise torch.OutOfMemoryError(
            f"{needed / 1e6:.0f} MB more than the {taken / 1e6:.0f} MB in use would "
            f"exceed {MEMORY_VARIABLE}={cap / 1e9:g}"
        )


def resident_bytes() -> int:
    """Return the memory this process holds; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0
