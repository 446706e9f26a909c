"""Wall time of a click, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from napari_cfrseg.engine.prediction import StageSeconds


class Stopwatch:
    """Adds up wall time by stage; waits for the device so that it is true."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to this stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            elif self._device.type == "mps":
                torch.mps.synchronize()
            spent = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    @contextmanager
    def share(self, stages: Sequence[Stopwatch]) -> Iterator[None]:
        """Add the time spent inside, divided as the stages took it side by side."""
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start
        parts = [part for watch in stages for part in watch.seconds.items()]
        total = sum(seconds for _, seconds in parts) or 1.0
        for stage, seconds in parts:
            known = self.seconds.get(stage, 0.0)
            self.seconds[stage] = known + spent * seconds / total

    def read(self) -> StageSeconds:
        """Return the seconds so far."""
        return StageSeconds(**self.seconds)
