"""A click network one can predict by hand: no weights, the real three stages.

It fills the region of like grey value around each positive click and gives every pixel
that is nearer to a negative click than to any positive one back. A previous mask adds
to it; with negative clicks alone the previous mask is what they correct.
"""

from __future__ import annotations

import numpy as np
import torch
from skimage.segmentation import flood
from torch import Tensor, nn

from napari_cfrseg.model.network import ClickNetwork, NetworkOutput


class FloodNetwork(ClickNetwork):
    grid_size = 96

    def __init__(self, tolerance: float = 0.25) -> None:
        super().__init__()
        self.tolerance = tolerance
        self.nothing = nn.Parameter(torch.zeros(1))
        self.calls = {"embed_image": 0, "embed_clicks": 0, "refine": 0}

    def architecture(self) -> dict[str, object]:
        return {"family": "flood"}

    def embed_image(self, image: Tensor) -> Tensor:
        self.calls["embed_image"] += 1
        return image.mean(dim=1)

    def embed_clicks(self, embedding: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        self.calls["embed_clicks"] += 1
        base, near = [], []
        for grey, rows in zip(embedding, points, strict=True):
            half = len(rows) // 2
            filled, keep = self._fill(grey.numpy(), rows[:half], rows[half:])
            base.append(torch.from_numpy(filled))
            near.append(torch.from_numpy(keep))
        return torch.stack(base)[:, None], torch.stack(near)[:, None]

    def refine(
        self,
        features: tuple[Tensor, Tensor],
        feedback: Tensor | None,
        newest_click: Tensor,
    ) -> NetworkOutput:
        self.calls["refine"] += 1
        filled, keep = features
        p = filled
        if feedback is not None:
            # without a positive click: the previous mask alone
            p = 0.7 * filled + 0.3 * feedback if filled.any() else feedback
        return NetworkOutput(logits=12 * (p * keep - 0.45))

    def _fill(self, grey, positives, negatives):
        height, width = grey.shape
        yy, xx = np.mgrid[:height, :width]
        filled = np.zeros(grey.shape, np.float32)
        nearest = {
            True: np.full(grey.shape, np.inf),
            False: np.full(grey.shape, np.inf),
        }
        for sign, rows in ((True, positives), (False, negatives)):
            for y, x, order in rows.tolist():
                if order < 0:
                    continue
                seed = (
                    min(max(round(y), 0), height - 1),
                    min(max(round(x), 0), width - 1),
                )
                distance = (yy - y) ** 2 + (xx - x) ** 2
                nearest[sign] = np.minimum(nearest[sign], distance)
                if sign:
                    region = flood(grey, seed, tolerance=self.tolerance)
                    filled = np.maximum(filled, region.astype(np.float32))
        if not np.isfinite(nearest[True]).any():
            nearest[True][:] = 15.0**2
        keep = nearest[True] <= nearest[False]
        return filled, keep.astype(np.float32)
