"""What each stage of a network costs on this machine, whatever its weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from napari_cfrseg.model.network import ClickNetwork


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Medians in milliseconds of one window.

    Attributes
    ----------
    image_ms, clicks_ms, refine_ms
        Of the three stages.
    """

    image_ms: float
    clicks_ms: float
    refine_ms: float

    def first_click_ms(self, refinements: int = 0) -> float:
        """Return a click's cost in a new window; CFR-n refines n times more."""
        return self.image_ms + self.next_click_ms(refinements)

    def next_click_ms(self, refinements: int = 0) -> float:
        """Return a click's cost where the image is embedded already."""
        return self.clicks_ms + (1 + refinements) * self.refine_ms


def time_stages(
    network: ClickNetwork,
    *,
    size: int | None = None,
    repeats: int = 5,
    device: str = "cpu",
) -> StageTimes:
    """Time the stages of one window with two clicks and a previous mask.

    Parameters
    ----------
    network
        In any state; it is moved to the device and set to evaluation.
    size
        Side of the square grid in pixels; by default the network's own.
    repeats
        Timed runs, after one that is not.
    device
        As torch names it.
    """
    side = network.grid_size if size is None else size
    network = network.to(device).eval()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, side, side, generator=generator).to(device)
    mask = torch.rand(1, 1, side, side, generator=generator).to(device)
    points = torch.tensor([[[side / 2, side / 2, 0.0], [9.0, 9.0, 1.0]]]).to(device)
    newest = torch.tensor([[9.0, 9.0, 0.0]]).to(device)
    runs = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            marks = [_now(image)]
            embedding = network.embed_image(image)
            marks.append(_now(image))
            features = network.embed_clicks(embedding, points)
            marks.append(_now(image))
            network.refine(features, mask, newest)
            marks.append(_now(image))
            runs.append([b - a for a, b in pairwise(marks)])
    medians = torch.tensor(runs[1:], dtype=torch.float64).median(dim=0).values * 1e3
    return StageTimes(*medians.tolist())


def _now(like: Tensor) -> float:
    if like.is_cuda:
        torch.cuda.synchronize(like.device)
    return time.perf_counter()
