"""Networks one can predict by hand, for candidates and moved outlines."""

from __future__ import annotations

import numpy as np
import torch
from similarity import SimilarityNetwork
from torch import Tensor

from napari_cfrseg.model.network import NetworkOutput


class NestedNetwork(SimilarityNetwork):
    """In narrow windows it finds the bright core, in wide ones the whole cell."""

    def refine(
        self, features: object, feedback: Tensor | None, newest_click: Tensor
    ) -> NetworkOutput:
        self.calls["refine"] += 1
        image = features.image
        level = 0.8 if image.mean() > 0.35 else 0.3
        logits = 20 * (image - level)[:, None]
        if feedback is not None:
            logits = 0.5 * logits + 4 * (feedback - 0.5)
        return NetworkOutput(logits, quality_logits=torch.full((1,), 1.5))


class ShownNetwork(SimilarityNetwork):
    """Keeps the feedback it is shown, and answers with it."""

    def refine(
        self, features: object, feedback: Tensor | None, newest_click: Tensor
    ) -> NetworkOutput:
        if feedback is None:
            return super().refine(features, feedback, newest_click)
        self.feedback = feedback
        return NetworkOutput(torch.logit(feedback.clamp(1e-4, 1 - 1e-4)))


def nested_image() -> np.ndarray:
    """A disk of radius 40 with a brighter one of radius 12 in it."""
    rows, columns = np.ogrid[:256, :256]
    distance = np.hypot(rows - 100, columns - 100)
    return (20 + 90 * (distance < 40) + 140 * (distance < 12)).astype(np.uint8)
