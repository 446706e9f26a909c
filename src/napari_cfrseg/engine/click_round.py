"""One click's round: choose the window, embed it, run the cascade, put it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cfrseg.clicks import Click, ClickList, effective_clicks
from napari_cfrseg.engine.corrections import Affinity
from napari_cfrseg.engine.focus import (
    FocusHint,
    FocusSettings,
    agreement,
    next_window,
    shifted,
)
from napari_cfrseg.engine.one_way import settle
from napari_cfrseg.engine.prediction import (
    Candidate,
    Prediction,
    StageSeconds,
    touches_border,
)
from napari_cfrseg.engine.probability_patch import put_back
from napari_cfrseg.engine.refinement import Refinement, run_cascade
from napari_cfrseg.engine.side_by_side import Stopwatch
from napari_cfrseg.engine.stages import Stages, grid_probability, newest_row
from napari_cfrseg.engine.window_search import (
    Attempt,
    Look,
    WindowSearch,
    newest_positive,
    ranked,
)
from napari_cfrseg.geometry.windows import Box, Window, crop, shape_of
from napari_cfrseg.io.plane_image import PlaneImage
from napari_cfrseg.model.network import NetworkOutput

#: Masks of a first click whose IoU is at least this count as the same one.
SAME_MASK = 0.8

#: Called with the Prediction so far after each step that another one follows.
StepCallback = Callable[[Prediction], None]


@dataclass(frozen=True, slots=True)
class Task:
    """One click's round."""

    clicks: tuple[Click, ...]
    previous: Prediction
    refinement: Refinement
    hint: FocusHint | None
    focus_shift: int = 0
    on_step: StepCallback | None = None
    #: False: carried from a neighbouring plane; the network may ignore them
    forced: bool = True
    threshold: float = 0.5
    on_window: Callable[[Window], None] | None = None

    #: at most one click per pixel, the later one
    effective: ClickList = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "effective", effective_clicks(self.clicks))

    @property
    def aside(self) -> tuple[Click, ...]:
        """Earlier clicks that changed nothing and that no click has replaced."""
        newest = self.clicks[-1].pixel
        return tuple(c for c in self.previous.aside if c.pixel != newest)


class ClickRound:
    """Computes one click's Prediction from the one before it."""

    def __init__(self, stages: Stages, focus: FocusSettings, image: PlaneImage) -> None:
        self.stages = stages
        self.focus = focus
        self.image = image
        self.search = WindowSearch(stages, focus, image)

    def compute(self, task: Task) -> Prediction:
        """Return the Prediction after the task's newest click."""
        if task.forced and _is_aside(task):
            return _kept_as_it_is(task)
        watch = Stopwatch(self.stages.device)
        look = self._look(task, watch)
        result = self._answer(task, look, watch)
        # a search has tried wider windows; a negative shift wants a closer one
        if look.tried or not task.forced or task.focus_shift < 0:
            return result
        for _ in range(self.focus.most_widenings):
            wider = self._wider(task, result)
            if wider is None:
                break
            look = Look(wider, self._embed(wider, task, watch))
            result = self._answer(task, look, watch)
        return result

    def _wider(self, task: Task, result: Prediction) -> Window | None:
        """Return a wider window if a mask was cut by its own, None if it was not."""
        window = result.window
        if window is None or not result.touches_border:
            return None
        area = result.patch.mask_box(task.threshold)
        wider = self._zoom_in(area, task, old=window, old_touched=True)
        return wider if wider.side > window.side else None

    def _zoom_in(self, area: Box | None, task: Task, **old: Any) -> Window:
        """Lay a window around a mask and the clicks; ``old`` as for ``next_window``."""
        plane, grid, clicks = self.image.shape, self.stages.grid, task.effective
        if aside := task.aside:
            clicks = ClickList.of([click for click in clicks if click not in aside])
        return next_window(area, clicks, plane, grid, self.focus, **old)

    def _answer(self, task: Task, look: Look, watch: Stopwatch) -> Prediction:
        """Run the cascade in a window and put its answer back into the plane."""
        if task.on_window is not None:
            task.on_window(look.window)
        feedback = None
        if task.previous.has_mask:
            with watch.time("crop"):
                feedback = crop(task.previous.patch, look.window)[0]
        newest = newest_row(look.window, task.clicks[-1])
        outputs: list[NetworkOutput] = []

        def step(mask: Tensor | None, index: int) -> Tensor:
            if index == 0 and look.first is not None:
                outputs.append(look.first)
            else:
                outputs.append(self.stages.refine(look.features, mask, newest, watch))
            return grid_probability(outputs[-1])

        def finish(answer: Tensor) -> Prediction:
            return self._finish(task, look, feedback, outputs, answer, watch)

        def on_step(answer: Tensor, _: int) -> None:
            if task.on_step is not None:
                task.on_step(finish(answer))

        # the network sees, and answers with, masks cut at 1/2
        initial = None
        if feedback is not None:
            initial = torch.from_numpy(recut(feedback, task.threshold, 0.5))
        return finish(run_cascade(step, initial, task.refinement, on_step=on_step)[-1])

    def _look(self, task: Task, watch: Stopwatch) -> Look:
        """Choose the window and embed it."""
        old, touched = task.previous.window, task.previous.touches_border
        area = task.previous.patch.mask_box(task.threshold)
        if area is None and old is None:
            return self._search(task, watch)
        shift = task.focus_shift
        window = self._zoom_in(
            area, task, old=old, old_touched=touched, focus_shift=shift
        )
        return Look(window, self._embed(window, task, watch))

    def _embed(self, window: Window, task: Task, watch: Stopwatch) -> Any:
        return self.stages.features(window, task.effective, self.image.crop, watch)

    def _search(self, task: Task, watch: Stopwatch) -> Look:
        """Automatic focus: keep the window of the best supported mask."""
        found = self.search.attempts(task.effective, task.hint, watch)
        tried = ranked(found, self.focus.quality_lead)
        look, yx = tried[0].look, newest_positive(task.effective).yx
        plane = self.image.shape
        window = shifted(look.window, yx, task.focus_shift, plane, self.focus)
        if window == look.window:
            return replace(look, tried=tried)
        return Look(window, self._embed(window, task, watch), tried=tried)

    def _finish(
        self,
        task: Task,
        look: Look,
        feedback: NDArray[np.float32] | None,
        outputs: Sequence[NetworkOutput],
        answer: Tensor,
        watch: Stopwatch,
    ) -> Prediction:
        """Put the last step's answer back into the plane and honour the clicks."""
        window, before, clicks = look.window, task.previous, task.effective
        output, probability = outputs[-1], answer.cpu().numpy()
        with watch.time("paste"):
            if before.has_mask:
                probability = recut(probability, 0.5, task.threshold)
            affinity = _affinity(output, window)
            corrected: tuple[Click, ...] = ()
            if task.forced:
                patch, corrected = settle(
                    before.patch,
                    probability,
                    window,
                    clicks,
                    threshold=task.threshold,
                    affinity=affinity,
                    push=self.stages.network.late_push,
                    odds=self.stages.network.change_odds,
                    feedback=feedback,
                )
            else:
                patch = put_back(before.patch, probability, window)
            mask = probability > task.threshold
            touches = touches_border(mask, window, clicks, before.shape)
        quality = self.stages.judge(output)
        best = Candidate.of(probability, window, affinity, quality)
        return Prediction(
            patch=patch,
            clicks=task.clicks,
            window=window,
            steps=len(outputs),
            quality=quality,
            touches_border=touches,
            corrected=corrected,
            stages=watch.read(),
            threshold=task.threshold,
            aside=task.aside,
            choices=self._choices(best, look.tried) if look.tried else (),
        )

    @staticmethod
    def _choices(best: Candidate, tried: tuple[Attempt, ...]) -> tuple[Candidate, ...]:
        """Keep the different masks among those tried, the chosen one first."""
        chosen = [best]
        for attempt in tried:
            look, mine = attempt.look, (attempt.probability, attempt.look.window)
            if attempt.evidence is None or look.first is None:
                continue
            others = ((other.probability, other.window) for other in chosen)
            if all(agreement(mine, other) < SAME_MASK for other in others):
                affinity = _affinity(look.first, look.window)
                chosen.append(Candidate.of(*mine, affinity, attempt.quality))
        return tuple(chosen)


def _is_aside(task: Task) -> bool:
    """Whether a negative click is farther from the mask's box than its longer side."""
    click, area = task.clicks[-1], task.previous.patch.mask_box(task.threshold)
    if click.is_positive or area is None:
        return False
    (y, x), (y0, x0, y1, x1), reach = click.pixel, area, max(shape_of(area))
    return not (y0 - reach <= y < y1 + reach and x0 - reach <= x < x1 + reach)


def _kept_as_it_is(task: Task) -> Prediction:
    """Return the Prediction after a click that changes nothing."""
    return replace(
        task.previous,
        clicks=task.clicks,
        steps=0,
        stages=StageSeconds(),
        threshold=task.threshold,
        corrected=(),
        aside=(*task.aside, task.clicks[-1]),
        choices=(),
        choice=0,
    )


def recut(
    probability: NDArray[np.float32], threshold: float, wanted: float
) -> NDArray[np.float32]:
    """Move the logits so that a mask cut at one threshold is one cut at another."""
    if threshold == wanted:
        return probability
    odds = wanted * (1 - threshold) / (threshold * (1 - wanted))
    inside = probability * np.float32(odds)
    return inside / (inside + (1 - probability))


def _affinity(output: NetworkOutput, window: Window) -> Affinity | None:
    if output.affinity is None:
        return None
    values = output.affinity[0, 0].float().cpu().numpy()
    return Affinity(replace(window, grid=values.shape[0]), values)
