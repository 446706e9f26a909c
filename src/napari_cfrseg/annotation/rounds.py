"""Rounds: each click's mask, computed from the one before it.

An object's mask on a plane is a function of the image, its start mask, its ordered
clicks and painted edits, and their settings, and of nothing else::

    round_0 = start
    round_i = predict(clicks up to i, feedback = round_{i-1})     for a click
    round_i = (mask of round_{i-1} + added) - removed             for a painted edit

A stroke that holds is laid over the masks of later clicks, too. A round computed before
its click is made (:meth:`RoundComputer.look_ahead`) is the same as one computed then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from scipy import ndimage

from napari_cfrseg.annotation.state import (
    ClickEntry,
    Entry,
    PaintEntry,
    PlaneState,
    Round,
)
from napari_cfrseg.clicks import Click, ClickList
from napari_cfrseg.engine.adapted import Adaptation
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.probability_patch import Patch, Shelf
from napari_cfrseg.errors import CfrSegError, CheckpointError
from napari_cfrseg.geometry.masks import LabelArray, MaskPatch, Plane
from napari_cfrseg.geometry.windows import Box
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.propagation.planes import SegmenterPlanes

if TYPE_CHECKING:
    from napari_cfrseg.engine.segmenter import Segmenter
    from napari_cfrseg.engine.window_search import Attempt

FoundT = TypeVar("FoundT")
#: the annotator's segmenter, as a name that needs no torch
SegmenterLike: TypeAlias = "Segmenter"
PreviewCallback = Callable[[MaskPatch], None]
#: called before each run of the network; what it raises ends the work
Check: TypeAlias = Callable[[], None]
#: first clicks whose other masks are kept: those of earlier ones are computed again
_KEPT_CHOICES = 8
_NO_MODEL = "no model is loaded, so nothing can be"


def mask_patch(prediction: Prediction, threshold: float) -> MaskPatch:
    """Return a prediction's mask, cropped to the box it fills."""
    y0, x0, mask = prediction.mask_patch(threshold)
    return MaskPatch.from_mask(mask, (y0, x0))


def within(prediction: Prediction, entry: Entry) -> Prediction:
    """Return a prediction that ends at its click's box, if it has one."""
    if not isinstance(entry, ClickEntry) or entry.box is None:
        return prediction
    return replace(prediction, patch=prediction.patch.within(entry.box))


def shown_mask(
    start: MaskPatch | None,
    entries: Sequence[Entry],
    rounds: Sequence[Round],
    threshold: float,
) -> MaskPatch:
    """Return the mask after the last entry at a threshold, running no network."""
    mask = start if start is not None else MaskPatch.empty()
    first = 0
    for index in range(len(rounds) - 1, -1, -1):
        prediction = rounds[index].prediction
        if prediction is not None:
            first = index + 1
            mask = with_strokes(mask_patch(prediction, threshold), entries[:first])
            break
    for entry in entries[first:]:
        if isinstance(entry, PaintEntry):
            mask = mask.edited(entry.added, entry.removed)
    return mask


def with_strokes(mask: MaskPatch, entries: Sequence[Entry]) -> MaskPatch:
    """Return a click's mask with the strokes before it that hold."""
    if PaintEntry not in map(type, entries):  # nothing slower: there may be thousands
        return mask
    clicks: list[Click] = []
    strokes: list[tuple[MaskPatch, MaskPatch]] = []
    for entry in reversed(entries):
        if isinstance(entry, ClickEntry):
            clicks.append(entry.click)
        elif entry.holds:
            negative = [c.pixel for c in clicks if not c.is_positive]
            positive = [c.pixel for c in clicks if c.is_positive]
            kept = _without(entry.added, negative), _without(entry.removed, positive)
            strokes.append(kept)
    for added, removed in reversed(strokes):
        mask = mask.edited(added, removed)
    return mask


def _without(stroke: MaskPatch, pixels: Sequence[tuple[int, int]]) -> MaskPatch:
    """Return a stroke without the connected parts that the pixels lie in."""
    y0, x0, y1, x1 = stroke.box
    inside = [(y - y0, x - x0) for y, x in pixels if y0 <= y < y1 and x0 <= x < x1]
    if not any(stroke.mask[pixel] for pixel in inside):
        return stroke
    parts, _ = ndimage.label(stroke.mask, structure=np.ones((3, 3)))
    taken = {int(parts[pixel]) for pixel in inside} - {0}
    return MaskPatch.from_mask(stroke.mask & ~np.isin(parts, list(taken)), (y0, x0))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Everything a click's prediction depends on, beside the one before it."""

    plane: Plane
    clicks: ClickList
    entry: ClickEntry
    scaling: Scaling | None
    side_px: float | None = None  #: of the one window looked at; None: all


#: what was asked, the prediction it starts from, and what came of it
_Known: TypeAlias = tuple[_Asked, Prediction | None, Any]


class RoundComputer:
    """Computes rounds with a segmenter, on the planes of one image.

    Without ``plane_image`` there are no pixels, and rounds are empty. ``scalings``
    holds the black and white of the planes clicked on.
    """

    def __init__(
        self,
        plane_image: Callable[[Plane], Any] | None,
        plane_shape: tuple[int, int],
        segmenter: SegmenterLike | None = None,
        *,
        rgb: bool | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        self._rgb = rgb
        self._scaling = scaling
        self.scalings: dict[Plane, Scaling] = {}
        self._plane_image = plane_image
        self._plane_shape = plane_shape
        self._segmenter = segmenter
        self._set: tuple[Plane, Scaling | None] | None = None  # what the engine has
        self._adaptation: Adaptation | None = None
        # a click's, a glance at the object it would begin, and that one's first click
        self._ahead: deque[_Known] = deque(maxlen=3)
        self._with_choices: deque[_Known] = deque(maxlen=_KEPT_CHOICES)
        self._shelf = Shelf()
        self.steps, self.runs = 0, 0
        self.seconds, self.network_s = 0.0, 0.0

    @property
    def sees_pixels(self) -> bool:
        """Whether there is an image."""
        return self._plane_image is not None

    def use(self, segmenter: SegmenterLike) -> None:
        """Compute further rounds with another segmenter."""
        self._segmenter = segmenter
        self._set = None
        self._forget()

    def _forget(self) -> None:
        self._ahead.clear()
        self._with_choices.clear()

    def adapt(self, adaptation: Adaptation | None) -> None:
        """Let first clicks use what finished objects taught; None: no longer."""
        if adaptation != self._adaptation:
            self._adaptation = adaptation
            self._forget()

    def save_model(self, path: Path, base: str) -> None:
        """Write the network with what finished objects taught; ``base`` is its name."""
        from napari_cfrseg.engine.adaptation import save_model

        if self._segmenter is not None:
            save_model(path, self._segmenter.network, self._adaptation, base)

    def planes(
        self,
        plane_at: Callable[[int], Plane],
        count: int,
        sampling: tuple[float, float, float],
        taken: Callable[[int, int, Box], LabelArray],
    ) -> SegmenterPlanes:
        """Return a line of planes to propagate along, by their index on it."""
        if self._segmenter is None:
            raise CheckpointError(f"{_NO_MODEL} propagated: load one first")
        self._set = None
        return SegmenterPlanes(
            self._segmenter,
            lambda index: self._pixels(plane_at(index)),
            count=count,
            shape=self._plane_shape,
            sampling=sampling,
            taken=taken,
            rgb=self._rgb,
            scaling=lambda index: self._scaling_of(plane_at(index)),
            on_run=self._count,
        )

    def on(self, plane: Plane) -> SegmenterLike:
        """Return the segmenter with a plane's image set."""
        if self._segmenter is None:
            raise CheckpointError(f"{_NO_MODEL} computed: load one first")
        self.prepare(plane)
        self._segmenter.adapt(self._adaptation)
        return self._segmenter

    def prepare(self, plane: Plane) -> None:
        """Set a plane's image, so that its first click need not."""
        wanted = plane, self._scaling_of(plane)
        if self._segmenter is not None and self.sees_pixels and self._set != wanted:
            self._set = None
            pixels = self._pixels(plane)
            self._segmenter.set_image(pixels, rgb=self._rgb, scaling=wanted[1])
            self._set = wanted

    def _pixels(self, plane: Plane) -> Any:
        if self._plane_image is None:
            raise RuntimeError("there is no image to read planes from")
        return self._plane_image(plane)

    def _scaling_of(self, plane: Plane) -> Scaling | None:
        return self.scalings.get(plane, self._scaling)

    def compute(
        self,
        plane: Plane,
        state: PlaneState,
        first: int,
        threshold: float,
        on_preview: PreviewCallback | None = None,
    ) -> tuple[Round, ...]:
        """Compute the rounds of a plane from entry ``first`` on; keep those before.

        ``on_preview`` gets the mask of the last click after each refinement step; what
        it raises ends the computation.
        """
        if not self.sees_pixels:
            return (Round(),) * len(state.entries)
        rounds = list(state.rounds[:first])
        clicks = _clicks_of(state, first)
        places = range(len(state.entries) - 1, -1, -1)
        last_click = next(
            (i for i in places if isinstance(state.entries[i], ClickEntry)), -1
        )
        for index, entry in enumerate(state.entries[first:], first):
            if isinstance(entry, PaintEntry):
                before = state.entries[:index]
                base = shown_mask(state.start, before, rounds, entry.threshold)
                rounds.append(Round(mask=base.edited(entry.added, entry.removed)))
                continue
            earlier, clicks = clicks, clicks.followed_by(entry.click)
            if entry.given:
                rounds.append(Round(mask=state.start))
                continue
            preview = None
            if on_preview is not None and index == last_click:
                shown = state.entries[: index + 1]
                preview = _step_callback(on_preview, threshold, shown)
            previous = self._feedback(state, rounds, earlier)
            rounds.append(self._round(plane, clicks, previous, entry, preview))
        return tuple(rounds)

    def _feedback(
        self, state: PlaneState, rounds: Sequence[Round], earlier: ClickList
    ) -> Prediction | None:
        """Return what the click after the earlier ones starts from."""
        last = rounds[-1] if rounds else Round(mask=state.start)
        if last.prediction is not None or last.mask is None:
            return last.prediction
        mask = last.mask
        entry = state.entries[len(rounds) - 1] if rounds else None
        if isinstance(entry, ClickEntry) and entry.given:
            return Prediction(Patch.softened(self._plane_shape, mask), earlier)
        patch = Patch(self._plane_shape, *mask.offset, mask.mask.astype(np.float32))
        return Prediction(patch, earlier)

    def _round(
        self,
        plane: Plane,
        clicks: ClickList,
        previous: Prediction | None,
        entry: ClickEntry,
        on_step: Callable[[Prediction], None] | None,
    ) -> Round:
        asked = self._asked(plane, clicks, entry)
        found = _answer(self._with_choices, asked, previous)
        is_new = found is None
        found = found or _answer(self._ahead, asked, previous)
        found = found or self._run(asked, previous, on_step)
        if is_new:
            self._count(found)
            if found.scaling is not None and plane not in self.scalings:
                self.scalings[plane] = found.scaling
                self._set = plane, found.scaling  # as the engine itself measured it
            if found.choices:
                asked = self._asked(plane, clicks, entry)  # now with its scaling
                self._with_choices.append((asked, previous, found))
        # each round is kept for undo: without the click's other masks
        prediction = replace(within(found.choose(entry.candidate), entry), choices=())
        self._shelf.add(prediction.patch, "probability")
        return Round(prediction, masks=len(found.choices))

    def _asked(self, plane: Plane, clicks: ClickList, entry: ClickEntry) -> _Asked:
        # its number and what happens to its mask afterwards do not matter
        entry = replace(entry, click_id=0, candidate=0, box=None)
        return _Asked(plane, clicks, entry, self._scaling_of(plane))

    def _run(
        self,
        asked: _Asked,
        previous: Prediction | None,
        on_step: Callable[[Prediction], None] | None = None,
    ) -> Prediction:
        entry = asked.entry
        return self.on(asked.plane).predict(
            asked.clicks,
            previous=previous,
            refinement=entry.refinement,
            hint=entry.hint,
            focus_shift=entry.focus_shift,
            threshold=entry.threshold,
            on_step=on_step,
        )

    def look_ahead(
        self, plane: Plane, state: PlaneState, entry: ClickEntry, check: Check
    ) -> Prediction:
        """Compute the round that a click would add, and keep it for that click.

        What was embedded until ``check`` raises is kept. An image that cannot be read
        is not read again for the click: that fails alike.
        """
        made = _clicks_of(state, len(state.entries))
        asked = self._asked(plane, made.followed_by(entry.click), entry)
        previous = self._feedback(state, state.rounds, made)
        return self._look(asked, previous, check, lambda: self._run(asked, previous))

    def glance(
        self, plane: Plane, entry: ClickEntry, side_px: float, check: Check
    ) -> Attempt:
        """Look at an object's first click in one window only, of about this side."""
        asked = self._asked(plane, ClickList.of([entry.click]), entry)

        def look() -> Attempt:
            return self.on(plane).try_windows(entry.click, entry.hint, side_px)[0]

        return self._look(replace(asked, side_px=side_px), None, check, look)

    def _look(
        self,
        asked: _Asked,
        previous: Prediction | None,
        check: Check,
        work: Callable[[], FoundT],
    ) -> FoundT:
        """Return what comes of a question, computed now unless that is known."""
        known: FoundT | None = _answer(self._ahead, asked, previous)
        if known is not None:
            return known
        try:
            with self.on(asked.plane).giving_way(check):
                found = work()
        except (CfrSegError, OSError) as error:
            self._ahead.append((asked, previous, error))
            raise
        self._ahead.append((asked, previous, found))
        return found

    def _count(self, prediction: Prediction) -> None:
        self.runs += 1
        self.network_s += prediction.stages.network
        self.steps, self.seconds = prediction.steps, prediction.seconds


def _answer(known: deque[_Known], asked: _Asked, previous: Prediction | None) -> Any:
    """Return what came of the same question, or raise it; None: it was not asked."""
    for one in known:
        if one[1] is previous and one[0] == asked:
            if isinstance(one[2], Exception):
                known.clear()  # who asks now is told, the next one tries again
                raise one[2]
            return one[2]
    return None


def _clicks_of(state: PlaneState, count: int) -> ClickList:
    """Return the clicks among a plane's first entries, which have their rounds."""
    since = count
    clicks = ClickList()
    while since > 0:
        prediction = state.rounds[since - 1].prediction
        if prediction is not None:
            clicks = ClickList.of(prediction.clicks)
            break
        since -= 1
    for entry in state.entries[since:count]:
        if isinstance(entry, ClickEntry):
            clicks = clicks.followed_by(entry.click)
    return clicks


def _step_callback(
    on_preview: PreviewCallback, threshold: float, entries: Sequence[Entry]
) -> Callable[[Prediction], None]:
    def on_step(prediction: Prediction) -> None:
        shown = within(prediction, entries[-1])
        on_preview(with_strokes(mask_patch(shown, threshold), entries))

    return on_step
