"""Which program computes the network on the CPU: torch, or OpenVINO where faster.

torch is the reference. OpenVINO (extra ``fast``) is used after it has computed the same
window as torch, within ``TOLERANCE``, in less time.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal
from weakref import WeakValueDictionary

import torch

from napari_cfrseg.engine.side_by_side import run_side_by_side
from napari_cfrseg.errors import DeviceError
from napari_cfrseg.model.blocks.packed import forget_reordered
from napari_cfrseg.model.cfrnet import CfrNet
from napari_cfrseg.model.network import ClickNetwork

Backend = Literal["auto", "torch", "openvino"]

#: Greatest difference of a pixel's probability from torch's: float32, bfloat16.
TOLERANCE, HALF_TOLERANCE = 1e-3, 0.25
#: OpenVINO must take at most this share of torch's time.
WORTHWHILE = 0.95
_ROUNDS = 4

#: networks that compute now, by weights and program: for all segmenters alike
_computing: WeakValueDictionary[Hashable, ClickNetwork] = WeakValueDictionary()
#: milliseconds of torch and OpenVINO in a trial, by weights
_trials: dict[Hashable, list[float]] = {}
_lock = threading.RLock()


def shared(
    origin: Hashable, program: Hashable, make: Callable[[], ClickNetwork]
) -> ClickNetwork:
    """Return the network another segmenter computes with, or make one.

    ``origin`` tells its weights from others; None: they are shared with nobody.
    """
    if origin is None:
        return make()
    with _lock:
        found = _computing.get((origin, program))
        if found is None:
            found = _computing[origin, program] = make()
        return found


@dataclass(frozen=True, slots=True)
class Choice:
    """The network that computes, its program, and one line that says why."""

    network: ClickNetwork
    name: str
    reason: str
    can_prepare: bool = False  #: whether OpenVINO could be used after ``prepare``


def choose(
    network: ClickNetwork,
    fast: ClickNetwork,
    backend: Backend,
    device: torch.device,
    *,
    half: torch.dtype | None,
    origin: Hashable = None,
) -> Choice:
    """Choose what computes a network, ``fast`` its copy for inference by torch.

    "auto" tries OpenVINO where it was prepared for these weights; "openvino" prepares
    it, which takes seconds, and raises DeviceError where it cannot be used. ``origin``
    is as for :func:`shared`.
    """
    if backend not in ("auto", "torch", "openvino"):
        raise ValueError(f"backend {backend!r}: expected auto, torch or openvino")
    by_torch = f"torch {torch.__version__.split('+')[0]}"
    if backend == "torch":
        return Choice(fast, by_torch, "as asked for")
    cannot = _obstacle(network, fast, device, half)
    if cannot:
        if backend == "openvino":
            raise DeviceError(f"OpenVINO cannot be used: {cannot}")
        return Choice(fast, by_torch, cannot)
    try:
        with _lock:  # a trial is no place for two
            return _tried(network, fast, backend, by_torch, half=half, origin=origin)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        cannot = f"OpenVINO failed ({' '.join(str(error).split())[:120]})"
        if backend == "openvino":
            raise DeviceError(cannot) from error
        return Choice(fast, by_torch, cannot)


def prepare(network: ClickNetwork) -> bool:
    """Trace a network for OpenVINO; False where that cannot be done."""
    cpu = torch.device("cpu")
    if _obstacle(network, network, cpu) or not isinstance(network, CfrNet):
        return False
    from napari_cfrseg.model import openvino_network

    openvino_network.trace(network)
    return True


def _obstacle(
    network: ClickNetwork,
    fast: ClickNetwork,
    device: torch.device,
    half: torch.dtype | None = None,
) -> str:
    """Return why OpenVINO cannot compute a network, "" if it can."""
    if device.type != "cpu":
        return f"{device} computes"
    if find_spec("openvino") is None:
        return "OpenVINO is not installed (pip install 'napari-cfrseg[fast]')"
    if half is torch.float16:
        return "OpenVINO computes in float32 or bfloat16 on a CPU"
    if type(network) is not CfrNet or type(fast) is not CfrNet:
        return "OpenVINO computes networks of the default's kind only"
    return ""


def _tried(
    network: ClickNetwork,
    fast: ClickNetwork,
    backend: Backend,
    by_torch: str,
    *,
    half: torch.dtype | None,
    origin: Hashable,
) -> Choice:
    from napari_cfrseg.model import openvino_network as openvino

    if not isinstance(network, CfrNet) or not isinstance(fast, CfrNet):
        raise TypeError(type(network))
    folder = openvino.traced_folder(network)
    if not folder.is_dir():
        if backend == "auto":
            reason = "OpenVINO is not prepared for this model yet"
            return Choice(fast, by_torch, reason, can_prepare=True)
        openvino.trace(network)
    threads = torch.get_num_threads()
    program = ("openvino", threads, half)

    def make() -> ClickNetwork:
        is_half = half is not None
        made = openvino.OpenVinoNetwork(fast, folder, threads=threads, half=is_half)
        off = _difference(fast, made)
        if off > (HALF_TOLERANCE if half else TOLERANCE):
            raise RuntimeError(f"its probabilities differ from torch's by {off:.2g}")
        return made

    other = shared(origin, program, make)
    name = f"OpenVINO {openvino.openvino_version()}"
    if backend == "openvino":
        forget_reordered(fast)
        return Choice(other, name, "as asked for")
    known = None if origin is None else _trials.get((origin, program))
    torch_ms, other_ms = known or trial(fast, other)
    if origin is not None:
        _trials[origin, program] = [torch_ms, other_ms]
    figures = f"{other_ms:.0f} ms, torch {torch_ms:.0f} ms in a trial"
    if other_ms > WORTHWHILE * torch_ms:
        return Choice(fast, by_torch, f"OpenVINO is no faster here ({figures})")
    forget_reordered(fast)
    return Choice(other, name, f"it is faster here ({figures})")


def trial(*networks: ClickNetwork) -> list[float]:
    """Return the median milliseconds that networks take for a first and a next click.

    They take turns, so that a busy machine slows all of them.
    """
    clicks = [_clicks(network) for network in networks]
    spent: list[list[float]] = [[] for _ in networks]
    for _ in range(1 + _ROUNDS):
        for (first, following), seconds in zip(clicks, spent, strict=True):
            start = time.perf_counter()
            run_side_by_side([first] * torch.get_num_threads())
            following()
            seconds.append(time.perf_counter() - start)
    return [1000 * statistics.median(seconds[1:]) for seconds in spent]


def _difference(one: ClickNetwork, other: ClickNetwork) -> float:
    """Return how far two networks' probabilities are apart, at most."""
    pairs = [(first(), following()) for first, following in map(_clicks, (one, other))]
    both = zip(*pairs, strict=True)
    return max(float((left - right).abs().max()) for left, right in both)


def _clicks(network: ClickNetwork) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return functions that click once, and once more, on a made-up window."""
    grid = network.grid_size
    axis = torch.linspace(-1, 1, grid)
    disk = torch.sigmoid(20 * (0.5 - torch.hypot(axis[:, None], axis[None])))
    noise = torch.rand(1, 3, grid, grid, generator=torch.Generator().manual_seed(1))
    image = 0.2 + 0.5 * disk + 0.1 * noise
    image = image.contiguous(memory_format=torch.channels_last)
    middle = grid / 2
    points = torch.tensor([[[middle, middle, 0.0], [-1.0, -1.0, -1.0]]])
    newest = torch.tensor([[middle, middle, 1.0]])
    with torch.inference_mode():
        embedding = network.embed_image(image)

    def first() -> Any:
        with torch.inference_mode():
            features = network.embed_clicks(network.embed_image(image), points)
            return network.refine(features, None, newest).logits.float().sigmoid()

    def following() -> Any:
        with torch.inference_mode():
            features = network.embed_clicks(embedding, points)
            return network.refine(features, disk[None, None], newest).logits.sigmoid()

    return first, following
