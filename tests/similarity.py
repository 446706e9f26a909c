"""A click network in closed form, cheap enough for property tests.

A pixel belongs to the object as far as its grey value is like that of a positive click
nearby; what was in the mask before and is like the newest click stays. No weights, the
real three stages, an affinity and a quality.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from napari_cfrseg.model.network import ClickNetwork, NetworkOutput


class SimilarityFeatures(NamedTuple):
    image: Tensor  # (B, H, W)
    evidence: Tensor  # (B, H, W) in [0, 1]


class SimilarityNetwork(ClickNetwork):
    """Counts its stages; ``stubborn`` makes it ignore every click after the first."""

    def __init__(
        self,
        grid_size: int = 32,
        *,
        stubborn: bool = False,
        inertia: float = 0.3,
        reach: float = 0.6,
    ) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.stubborn = stubborn
        self.inertia = inertia
        self.reach = reach
        self.nothing = nn.Parameter(torch.zeros(1))
        self.calls = {"embed_image": 0, "embed_clicks": 0, "refine": 0}
        self.newest: list[tuple[float, float, float]] = []
        self.gates: list[bool] = []

    def architecture(self) -> dict[str, object]:
        return {"family": "similarity"}

    def embed_image(self, image: Tensor) -> Tensor:
        self.calls["embed_image"] += 1
        return image.mean(dim=1)

    def embed_clicks(self, embedding: Tensor, points: Tensor) -> SimilarityFeatures:
        self.calls["embed_clicks"] += 1
        evidence = torch.zeros_like(embedding)
        half = points.shape[1] // 2
        rows = [
            (row.tolist(), index < half)
            for index, row in enumerate(points[0])
            if max(row[0], row[1]) >= 0
        ]
        rows.sort(key=lambda item: item[0][2])
        for (y, x, _), positive in rows[:1] if self.stubborn else rows:
            like = self._like(embedding, y, x, reach=self.reach if positive else 0.15)
            if positive:
                evidence = torch.maximum(evidence, like)
            else:
                evidence = evidence * (1 - like)
        return SimilarityFeatures(embedding, evidence)

    def refine(
        self,
        features: SimilarityFeatures,
        feedback: Tensor | None,
        newest_click: Tensor,
    ) -> NetworkOutput:
        self.calls["refine"] += 1
        self.gates.append(feedback is not None)
        y, x, label = newest_click[0].tolist()
        self.newest.append((y, x, label))
        p = features.evidence
        if feedback is not None:
            p = (1 - self.inertia) * p + self.inertia * feedback[:, 0]
        affinity = self._like(features.image, y, x, reach=0.3)
        logits = (12 * (p - 0.5))[:, None]
        quality = torch.full((len(p),), 1.5)
        return NetworkOutput(logits, quality_logits=quality, affinity=affinity[:, None])

    def _like(self, image: Tensor, y: float, x: float, reach: float) -> Tensor:
        size = image.shape[-1]
        row, column = (min(max(round(v), 0), size - 1) for v in (y, x))
        grey = image[:, row, column][:, None, None]
        cells = torch.arange(size, dtype=torch.float32)
        distance = torch.hypot(cells[:, None] - y, cells[None, :] - x)
        near = (distance <= reach * size).float()
        return (1 - (image - grey).abs() * 4).clamp(0, 1) * near


class ShyNetwork(SimilarityNetwork):
    """Draws too small; ten times its light parameter is added to the logits."""

    def __init__(self, shyness: float = 2.0) -> None:
        super().__init__()
        self.light = nn.Parameter(torch.tensor([-shyness / 10]))

    def refine(
        self,
        features: SimilarityFeatures,
        feedback: Tensor | None,
        newest_click: Tensor,
    ) -> NetworkOutput:
        output = super().refine(features, feedback, newest_click)
        return replace(output, logits=output.logits + 10 * self.light)

    def light_parameters(self) -> list[nn.Parameter]:
        return [self.light]


#: middles of the places in ``cones``
CONES = [(24 + 44 * y, 24 + 44 * x) for y in range(3) for x in range(4)]


def cones() -> np.ndarray:
    """Bright places that fade outwards, to half at a distance of ten pixels."""
    rows, columns = np.indices((136, 180))
    away = [np.hypot(rows - y, columns - x) for y, x in CONES]
    faded = 1 - np.min(away, axis=0) / 20
    return np.clip(200 * faded + 20, 20, 255).astype(np.uint8)
