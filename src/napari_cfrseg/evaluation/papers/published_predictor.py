"""The published predictor over any network in three stages.

One evaluation is: Zoom-In window from the previous answer → crop of image and previous
probability → network on the crop and its mirror image → mean of the two in logit space
→ sigmoid → pasted into zeros. CFR-n repeats the evaluation n times on the same clicks,
each with its own window and fed with the whole-image probability of the one before::

    Yⁱ = f(x, clicks, Yⁱ⁻¹),  i = 1 … n;   A-CFR stops at |Yⁱ > t  xor  Yⁱ⁻¹ > t| ≤ 20
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cfrseg.clicks import Click, points_array
from napari_cfrseg.evaluation import papers
from napari_cfrseg.evaluation.datasets import as_rgb
from napari_cfrseg.model.blocks import resize
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput


@dataclass(frozen=True, slots=True, eq=False)
class PublishedPrediction:
    """Result of one click, with what the next one needs."""

    #: (Y, X) float32 in [0, 1]; exactly 0 outside the last window
    probability: NDArray[np.float32]
    #: (Y, X) float32, what the next window follows: the same, or M^u (FCFI)
    window_probability: NDArray[np.float32]
    roi: papers.Roi | None  #: the last evaluation's window; None: the whole image
    #: evaluations this click took (a first click predicted again counts twice)
    steps: int
    threshold: float  #: where ``mask`` cuts

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(Y, X) bool: probability > threshold."""
        return self.probability > self.threshold


class PublishedSegmenter:
    """A click network (in evaluation mode) run as its paper's evaluator ran it."""

    def __init__(self, network: ClickNetwork, protocol: papers.Protocol) -> None:
        self._network = network
        self._protocol = protocol
        self._image: Tensor | None = None
        self._embedded: tuple[papers.Roi | None, Any] | None = None

    def set_image(self, image: NDArray[Any]) -> None:
        """Take a (Y, X) or (Y, X, C) image; uint8 is divided by 255, as published.

        Other types are scaled between robust percentiles, as the product does.
        """
        tensor = torch.from_numpy(as_rgb(image, keep_bytes=True)).permute(2, 0, 1)[None]
        self._image = tensor.to(self._network.device)
        self._embedded = None

    def predict(
        self, clicks: Sequence[Click], previous: PublishedPrediction | None
    ) -> PublishedPrediction:
        """Evaluate the network for the newest of all the object's clicks.

        ``previous`` is what the click before returned; None at the first one.
        """
        if not clicks:
            raise ValueError("the published predictors need at least one click")
        protocol = self._protocol
        cascading = len(clicks) <= protocol.cascade_clicks
        steps, state = 0, previous
        for index in range(1 + (protocol.extra_steps if cascading else 0)):
            before = state
            state = self._evaluate(clicks, before)
            steps += state.steps
            if index and protocol.adaptive and before is not None:
                changed = np.count_nonzero(before.mask != state.mask)
                if changed <= protocol.stop_changed_px:
                    break
        if state is None:
            raise ValueError(f"{protocol} makes no evaluation")
        return replace(state, steps=steps)

    def _evaluate(
        self, clicks: Sequence[Click], before: PublishedPrediction | None
    ) -> PublishedPrediction:
        """Evaluate once, or twice where the first window proves too wide."""
        result = self._evaluate_in(clicks, before, self._choose(clicks, before))
        zoom, seen = self._protocol.zoom, (result.window_probability, result.roi)
        if zoom is None or not zoom.predicts_again(*seen):
            return result
        # the feedback stays that of the click before; only the window moves
        roi = self._choose(clicks, result)
        return replace(self._evaluate_in(clicks, before, roi), steps=2)

    def _choose(
        self, clicks: Sequence[Click], seen: PublishedPrediction | None
    ) -> papers.Roi | None:
        zoom = self._protocol.zoom
        if zoom is None:
            return None
        height, width = self._ready().shape[2:]
        last = (None, None) if seen is None else (seen.window_probability, seen.roi)
        return zoom.choose_roi((height, width), clicks, *last)

    def _evaluate_in(
        self,
        clicks: Sequence[Click],
        before: PublishedPrediction | None,
        roi: papers.Roi | None,
    ) -> PublishedPrediction:
        zoom, image = self._protocol.zoom, self._ready()
        feedback = None
        if before is not None:
            feedback = torch.from_numpy(before.probability)[None, None]
            feedback = feedback.to(image.device)
        if zoom is not None and roi is not None:
            clicks = zoom.to_crop(clicks, roi)
            feedback = None if feedback is None else zoom.crop(feedback, roi)
        with torch.inference_mode():
            output, size = self._run(clicks, feedback, roi)
            logits = self._merge_flip(output.logits, size)
            probability = self._place(torch.sigmoid(logits), roi)
            followed = probability
            if self._protocol.roi_from_updated and output.updated is not None:
                followed = self._place(self._merge_flip(output.updated, size), roi)
        return PublishedPrediction(
            papers.as_probability_array(probability),
            papers.as_probability_array(followed),
            roi,
            1,
            self._protocol.threshold,
        )

    def _run(
        self, clicks: Sequence[Click], feedback: Tensor | None, roi: papers.Roi | None
    ) -> tuple[NetworkOutput, tuple[int, int]]:
        embedding, size = self._embed(roi)
        limit = self._protocol.clicks_limit
        signs = [click.is_positive for click in clicks]
        slots = max(sum(signs), len(signs) - sum(signs), 1)
        if limit is not None:
            clicks, slots = clicks[:limit], max(1, min(limit, slots))
        views = [list(clicks)]
        if self._protocol.flip:
            places = ((c.yx[0], size[1] - c.yx[1] - 1) for c in clicks)
            pairs = zip(places, clicks, strict=True)
            views.append([Click(yx, click.is_positive) for yx, click in pairs])
            feedback = None if feedback is None else _with_mirror(feedback)
        device = self._network.device
        points = np.stack([points_array(view, slots=slots) for view in views])
        rows = [[*view[-1].yx, float(view[-1].is_positive)] for view in views]
        newest = np.array(rows, np.float32)
        slotted, last = (torch.from_numpy(a).to(device) for a in (points, newest))
        features = self._network.embed_clicks(embedding, slotted)
        return self._network.refine(features, feedback, last), size

    def _embed(self, roi: papers.Roi | None) -> tuple[Any, tuple[int, int]]:
        """Embed the window's pixels, once while the window stays."""
        zoom, image = self._protocol.zoom, self._ready()
        if zoom is not None and roi is not None:
            size = zoom.crop_size(roi)
        else:
            size = (image.shape[2], image.shape[3])
        if self._embedded is None or self._embedded[0] != roi:
            if zoom is not None and roi is not None:
                image = zoom.crop(image, roi)
            if self._protocol.flip:
                image = _with_mirror(image)
            self._embedded = (roi, self._network.embed_image(image))
        return self._embedded[1], size

    def _merge_flip(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """(2, 1, h, w) of the crop and its mirror image → (1, 1, *size), their mean."""
        values = resize(values, size)
        if not self._protocol.flip:
            return values
        straight, mirrored = values.chunk(2)
        return 0.5 * (straight + mirrored.flip(3))

    def _place(self, values: Tensor, roi: papers.Roi | None) -> Tensor:
        if roi is None:
            return values
        height, width = self._ready().shape[2:]
        return papers.paste_roi(values, roi, (height, width))

    def _ready(self) -> Tensor:
        if self._image is None:
            raise ValueError("set_image must be called before predict")
        return self._image


def _with_mirror(values: Tensor) -> Tensor:
    return torch.cat([values, values.flip(3)])
