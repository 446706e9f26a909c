"""The automatic focus: try windows around a first click, weigh the mask of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click, ClickList
from napari_cfrseg.engine.focus import (
    SAME_SIDE,
    FocusHint,
    FocusSettings,
    WindowEvidence,
    agreement,
    candidate_windows,
    clicked_component,
    next_window,
    score,
    weigh,
)
from napari_cfrseg.engine.side_by_side import Stopwatch
from napari_cfrseg.engine.stages import Stages, grid_probability
from napari_cfrseg.geometry.windows import Window, mask_box
from napari_cfrseg.io.plane_image import PlaneImage
from napari_cfrseg.model.network import NetworkOutput


@dataclass(frozen=True, slots=True)
class Look:
    """A window and the network's features of it."""

    window: Window
    features: Any
    first: NetworkOutput | None = None  #: the network's first answer, if there is one
    tried: tuple[Attempt, ...] = ()  #: what the automatic focus compared, best first


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """A window the automatic focus tried."""

    look: Look
    probability: NDArray[np.float32]  #: (grid, grid), the network's answer
    evidence: WindowEvidence | None  #: None where its mask misses the click
    score: float  #: in [0, 1], or in [−1, 0) without a mask
    quality: float | None = None  #: the IoU that the network expects, if it gives one


def ranked(attempts: Sequence[Attempt], quality_lead: float) -> tuple[Attempt, ...]:
    """Return the windows tried, best first: by score, unless one leads by quality."""

    def quality(attempt: Attempt) -> float:
        return attempt.evidence.quality if attempt.evidence else -math.inf

    found = sorted(attempts, key=lambda attempt: -attempt.score)
    leader = max(found, key=quality)
    leads = quality(leader) >= quality(found[0]) + quality_lead
    if leads and found[0].evidence is not None:
        found.remove(leader)
        found.insert(0, leader)
    return tuple(found)


def newest_positive(clicks: ClickList) -> Click:
    """Return the click that the automatic focus centres on."""
    return next(click for click in reversed(clicks) if click.is_positive)


class WindowSearch:
    """The automatic focus in one image."""

    def __init__(self, stages: Stages, focus: FocusSettings, image: PlaneImage) -> None:
        self.stages = stages
        self.focus = focus
        self.image = image

    def attempts(
        self,
        clicks: ClickList,
        hint: FocusHint | None,
        watch: Stopwatch,
        side_px: float | None = None,
    ) -> tuple[Attempt, ...]:
        """Try the automatic focus's windows, small to large, then one that fits.

        Wide windows are left out where a narrower one is sure. The last one is laid
        around the best mask so far, as Zoom-In would. With ``side_px`` only the window
        of the nearest side is tried. ``clicks`` are all of the object, no two on one
        pixel.
        """
        yx, plane, grid = newest_positive(clicks).yx, self.image.shape, self.stages.grid
        windows = candidate_windows(yx, plane, grid, self.focus, hint)
        if side_px is not None:
            nearest = min(windows, key=lambda one: abs(math.log(one.side / side_px)))
            return tuple(self._in_turn([nearest], clicks, watch))
        tried: list[Attempt] = []
        for attempt in self._in_turn(windows, clicks, watch):
            tried.append(attempt)
            for i in range(max(0, len(tried) - 2), len(tried)):
                others = (*tried[max(i - 1, 0) : i], *tried[i + 1 :])
                tried[i] = self._compared(tried[i], others)
            best = max(tried, key=lambda attempt: attempt.score)
            wider = len(tried) - 1 - tried.index(best)
            if wider >= self.focus.sure_after and self._is_sure(best):
                break
        fitted = self._fitted(best, clicks)
        if fitted is None:
            return tuple(tried)
        (last,) = self._in_turn([fitted], clicks, watch)
        return (*tried, self._compared(last, (best,)))

    def _is_sure(self, attempt: Attempt) -> bool:
        """Whether no wider window is worth trying."""
        evidence, least = attempt.evidence, self.focus.sure_quality
        is_likely = evidence is not None and evidence.quality >= least
        return is_likely and attempt.score > self.focus.sure_score

    def _compared(self, attempt: Attempt, others: tuple[Attempt, ...]) -> Attempt:
        """Weigh an attempt again, now with the masks of neighbouring windows."""
        if attempt.evidence is None:
            return attempt
        window = attempt.look.window
        mine = (attempt.probability, window)
        shared = [
            agreement(mine, (o.probability, o.look.window)) if o.evidence else 0.0
            for o in others
        ]
        evidence = replace(
            attempt.evidence,
            octaves=max(0.0, math.log2(window.side / self.focus.first_side)),
            agreement=max(shared, default=1.0),
        )
        return replace(attempt, evidence=evidence, score=score(evidence, self.focus))

    def _in_turn(
        self, windows: Sequence[Window], clicks: ClickList, watch: Stopwatch
    ) -> Iterator[Attempt]:
        """Try windows in order, a few of them ahead where that costs no time."""
        looks = self.stages.first_looks(windows, clicks, self.image.crop, watch)
        plane = self.image.shape
        for window, look in zip(windows, looks, strict=True):
            probability = grid_probability(look.output).cpu().numpy()
            evidence = weigh(probability, window, plane, clicks, quality=look.quality)
            value = score(evidence, self.focus)
            if evidence is None:  # no mask here: how close it is to one
                cell = window.cell(newest_positive(clicks).yx)
                y, x = (min(max(v, 0), window.grid - 1) for v in cell)
                value = float(probability[y, x]) - 1
            seen = Look(window, look.features, look.output)
            yield Attempt(seen, probability, evidence, value, look.quality)

    def _fitted(self, best: Attempt, clicks: ClickList) -> Window | None:
        """Return the window that fits the best mask, None if its own nearly does."""
        window = best.look.window
        component = clicked_component(best.probability > 0.5, window, clicks)
        box = None if component is None else mask_box(component)
        if box is None:
            return None
        area, plane, grid = window.plane_box(box), self.image.shape, self.stages.grid
        fitted = next_window(area, clicks, plane, grid, self.focus)
        ratio = fitted.side / window.side
        return None if 1 / SAME_SIDE < ratio < SAME_SIDE else fitted
