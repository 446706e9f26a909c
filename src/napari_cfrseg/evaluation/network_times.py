"""Time a click on one network: ``cfrseg bench --all-models``.

One window at the network's own grid, batch 1, without crop and paste. A first click
embeds the image and the click and refines; a next click finds the image embedded. Both
run A-CFR-4 once, every step timed: standard inference is its first step, CFR-1 its
first two.

Each repetition also times the reference, RITM HRNet-18s, right before, and the ratio
is the median over these pairs: a neighbour that slows the machine slows both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from napari_cfrseg.clicks import Click, points_array
from napari_cfrseg.engine.refinement import Refinement, run_cascade
from napari_cfrseg.model.network import ClickNetwork

REFERENCE = "ritm_hrnet18s"
CASCADE = Refinement.adaptive(4)

HalfOrFull = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Where and how to compute."""

    device: str = "cpu"
    precision: HalfOrFull = "float32"  #: float32 (tf32 on CUDA), or autocast
    compiled: bool = False  #: by ``torch.compile``
    threads: int | None = None  #: None: torch's choice
    #: count the processor's seconds, which a busy machine does not change, instead of
    #: the clock's: on the CPU with one thread only
    cpu_time: bool = False

    def __post_init__(self) -> None:
        if self.cpu_time and (self.device != "cpu" or self.threads != 1):
            msg = "processor seconds count on the CPU with one thread: --threads 1"
            raise ValueError(msg)

    def __str__(self) -> str:
        words = [self.device, self.precision]
        words += ["compiled"] * self.compiled
        words += [f"{self.threads} threads"] * (self.threads is not None)
        return " ".join([*words, *["processor time"] * self.cpu_time])


@dataclass(frozen=True, slots=True)
class ClickCost:
    """Cost of one kind of click with one refinement."""

    click: str  #: "first" or "next"
    refinement: str
    steps: float  #: mean number of refinement steps
    ms: float  #: median of milliseconds
    ratio: float  #: median of its time over the reference's standard click of this kind


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """Costs of a network on this machine."""

    #: its name, and "random" or the installed model that was run
    network: str
    weights: str = "random"
    #: its trainable numbers, and the side of its grid in pixels
    parameters: int = 0
    grid_px: int = 0
    #: where and how it was computed, in words and by parts
    arithmetic: str = ""
    device: str = "cpu"
    precision: str = "float32"
    #: 10⁹ multiply-accumulates of a first and a next click (standard)
    gmac: float = 0.0
    #: peak memory of these clicks: of the process on the CPU (0: unknown), of the
    #: tensors on CUDA
    peak_mb: float = 0.0
    #: costs by click and refinement; median of one refinement step
    clicks: tuple[ClickCost, ...] = ()
    refine_ms: float = 0.0
    error: str = ""  #: why there are no figures, or ""

    def cost(self, click: str, refinement: str) -> ClickCost:
        """Return the cost of one kind of click."""
        return {(c.click, c.refinement): c for c in self.clicks}[click, refinement]


Seconds = list[float]
"""Of one click: what precedes its first refinement step, then each step."""


class ClickTimer:
    """Clicks twice on one window of a network and times every stage.

    The network is moved to the device and set to evaluation; ``pixels`` are (3, grid,
    grid) float32 in [0, 1], the clicks lie on that grid.
    """

    def __init__(
        self,
        network: ClickNetwork,
        arithmetic: Arithmetic,
        pixels: Tensor,
        first: Click,
        following: Click,
    ) -> None:
        self.arithmetic = arithmetic
        self.device = torch.device(arithmetic.device)
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.network.to(memory_format=torch.channels_last)
        # as the segmenter runs it
        self.fast = self.network.for_inference()
        if arithmetic.compiled:
            for stage in ("embed_image", "embed_clicks", "refine"):
                compiled = torch.compile(getattr(self.fast, stage), dynamic=False)
                setattr(self.fast, stage, compiled)
        image = pixels[None].to(self.device)
        self.image = image.contiguous(memory_format=torch.channels_last)
        self.clicks = (first, following)

    def run(
        self, refinement: Refinement = CASCADE, *, network: ClickNetwork | None = None
    ) -> list[Seconds]:
        """Click twice, on another network if one is given; return both clicks' seconds.

        Embedding the image counts as the first click's.
        """
        network = self.fast if network is None else network
        half = getattr(torch, self.arithmetic.precision)
        with (
            torch.inference_mode(),
            torch.autocast(
                self.device.type, dtype=half, enabled=half is not torch.float32
            ),
        ):
            embedding, image_s = self.timed(lambda: network.embed_image(self.image))
            feedback, first = self._click(network, embedding, 1, None, refinement)
            _, following = self._click(network, embedding, 2, feedback, refinement)
        return [[image_s + first[0], *first[1:]], following]

    def _click(
        self,
        network: ClickNetwork,
        embedding: Any,
        count: int,
        feedback: Tensor | None,
        refinement: Refinement,
    ) -> tuple[Tensor, Seconds]:
        clicks = self.clicks[:count]
        points = torch.from_numpy(points_array(list(clicks)))[None].to(self.device)
        newest = torch.tensor([[*clicks[-1].yx, 1.0]]).to(self.device, torch.float32)
        features, embed_s = self.timed(lambda: network.embed_clicks(embedding, points))
        seconds = [embed_s]

        def step(mask: Tensor | None, _: int) -> Tensor:
            output, spent = self.timed(lambda: network.refine(features, mask, newest))
            seconds.append(spent)
            return torch.sigmoid(output.logits.float())

        return run_cascade(step, feedback, refinement)[-1], seconds

    def timed(self, work: Callable[[], Any]) -> tuple[Any, float]:
        """Do some work; return its result and the seconds it took."""
        start = self._now()
        result = work()
        return result, self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        if self.arithmetic.cpu_time:
            return time.process_time()
        return time.perf_counter()


def measure(
    timer: ClickTimer, reference: Callable[[], ClickTimer], repeats: int
) -> NetworkCost:
    """Time a network beside the reference, in ``repeats`` pairs of runs.

    The timer's first run only gives the memory and the number of operations;
    ``reference`` is called afterwards. The caller fills in the names.
    """
    network, device = timer.network, timer.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    counter = FlopCounterMode(display=False)
    with counter:  # it knows torch's operations, not kernels called by their name
        timer.run(Refinement.standard(), network=network)
    gmac = counter.get_total_flops() / 2e9
    if timer.fast is not network or device.type == "cuda":
        timer.run()
    peak_mb = _peak_mb(device)
    beside = reference()
    beside.run(Refinement.standard())
    pairs = [(beside.run(Refinement.standard()), timer.run()) for _ in range(repeats)]
    costs = []
    for kind, click in enumerate(("first", "next")):
        for name, most in (("standard", 1), ("CFR-1", 2), (str(CASCADE), 5)):
            seconds = [sum(own[kind][: 1 + most]) for _, own in pairs]
            ratios = [sum(own[kind][: 1 + most]) / sum(ref[kind]) for ref, own in pairs]
            steps = statistics.fmean(len(own[kind][1 : 1 + most]) for _, own in pairs)
            ms, ratio = 1000 * statistics.median(seconds), statistics.median(ratios)
            costs.append(ClickCost(click, name, steps, ms, ratio))
    every_step = [s for _, own in pairs for click in own for s in click[1:]]
    return NetworkCost(
        network="",
        parameters=sum(p.numel() for p in network.parameters()),
        grid_px=timer.image.shape[-1],
        arithmetic=str(timer.arithmetic),
        device=timer.arithmetic.device,
        precision=timer.arithmetic.precision,
        gmac=gmac,
        peak_mb=peak_mb,
        clicks=tuple(costs),
        refine_ms=1000 * statistics.median(every_step),
    )


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peaks[0]) / 1e3 if peaks else 0.0
