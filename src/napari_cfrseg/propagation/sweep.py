"""From anchors to all planes: one sweep up, one sweep down, joined between anchors.

Every plane is visited twice at most, whatever the number of objects. Planes beyond an
object's outermost anchors are done in one sweep; between two anchors both sweeps come
by and are joined,

    F(z) = (1 − t) · F_below(z) + t · F_above(z)      t = (z − z₀) / (z₁ − z₀)

so that each side decides near its own anchor. Only cropped logit maps of planes between
anchors are kept from the first sweep to the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Window
from napari_cfrseg.propagation.decisions import (
    compete,
    confidence_of,
    measure_trust,
    mixed,
    sibling_labels,
    stop_reason,
)
from napari_cfrseg.propagation.planes import Planes, common_windows, plane_steps
from napari_cfrseg.propagation.priors import (
    Run,
    Stretch,
    gaps_of,
    others_of,
    planes_of,
    prior_of,
    seen_through,
    sigma_of,
    trust_of,
)
from napari_cfrseg.propagation.shapes import overlap_iou
from napari_cfrseg.propagation.step import Answer, Running, advance, look_at
from napari_cfrseg.propagation.tracks import (
    Evidence,
    PlaneResult,
    PropagationSettings,
    StopReason,
    Track,
)


def propagate(
    planes: Planes,
    tracks: Sequence[Track],
    settings: PropagationSettings | None = None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[PlaneResult]:
    """Find objects on the planes between and beyond their anchors.

    Parameters
    ----------
    planes
        The stack, the network on it, and the pixels of other objects.
    tracks
        The objects with their anchors. Anchors are never changed, and no result is
        given for them.
    settings
        Constants.
    cancelled
        Asked before each object on each plane; True ends the iteration.

    Yields
    ------
    Results, plane by plane, in an order that depends on the arguments only.

    Raises
    ------
    ValueError
        A range or an anchor lies outside the stack.
    """
    chosen = PropagationSettings() if settings is None else settings
    for track in tracks:
        inside = track.first >= 0 and track.last < planes.count
        if not inside or any(not 0 <= a < planes.count for a in track.anchors):
            msg = (
                f"planes {track.first} to {track.last} and anchors "
                f"{sorted(track.anchors)} of a stack of {planes.count}"
            )
            raise ValueError(msg)
    sweep = _Sweep(planes, chosen, cancelled)
    stretches = [s for track in tracks for s in sweep.stretches(track)]
    try:
        for direction in (1, -1):
            yield from sweep.walk(stretches, direction)
            if sweep.stopped:
                return
    finally:
        planes.rest()


class _Sweep:
    def __init__(
        self,
        planes: Planes,
        settings: PropagationSettings,
        cancelled: Callable[[], bool],
    ) -> None:
        self.planes = planes
        self.settings = settings
        self.cancelled = cancelled
        self.stopped = False

    def stretches(self, track: Track) -> Iterator[Stretch]:
        gaps = track.gaps
        if gaps is None:
            gaps = gaps_of(track.anchors, track.first, track.last)
        trust: dict[int, float] = {}
        for below, above in gaps:
            planes = planes_of((below, above), track.first, track.last)
            if planes:
                yield Stretch(track, below, above, planes, trust)

    def walk(self, stretches: list[Stretch], direction: int) -> Iterator[PlaneResult]:
        """Walk all stretches in one direction, plane by plane."""
        runs = [
            Run(s, direction, None, len(s.planes))
            for s in stretches
            if (s.below if direction > 0 else s.above) is not None
        ]
        indices = sorted({i for r in runs for i in r.stretch.planes})[::direction]
        for place, index in enumerate(indices):
            here = [r for r in runs if r.goes_to(index)]
            if not here:
                continue
            later = indices[place + 1 :]
            following = (i for i in later if any(r.goes_to(i) for r in runs))
            self.planes.expect(index, next(following, None))
            answers: list[tuple[Run, Answer]] = []
            shared = common_windows([seen_through(r) for r in here], self.planes.shape)
            for run, window in zip(here, shared, strict=True):
                if self.cancelled():
                    self.stopped = True
                    return
                used = [a.window for _, a in answers]
                others = others_of(here, run)
                answer = self._advance(run, index, others, (window, *used))
                answers.append((run, answer))
            compete([answer for _, answer in answers])
            for run, answer in answers:
                result = self._decide(run, index, answer)
                if result is not None:
                    yield result

    def _advance(
        self,
        run: Run,
        index: int,
        others: list[tuple[int, MaskPatch]],
        windows: Sequence[Window | None],
    ) -> Answer:
        stretch = run.stretch
        if run.running is None:
            run.running = self._begin(stretch, run.direction)
        return advance(
            self.planes,
            run.running,
            index,
            stretch.object_id,
            self.settings,
            prior=prior_of(self.planes, stretch),
            sigma=sigma_of(self.planes, self.settings, stretch, index),
            trust=trust_of(stretch, index),
            siblings=sibling_labels(others),
            windows=tuple(dict.fromkeys(w for w in windows if w is not None)),
        )

    def _begin(self, stretch: Stretch, direction: int) -> Running:
        index = stretch.below if direction > 0 else stretch.above
        if index is None:
            msg = "a run begins at an anchor"
            raise RuntimeError(msg)
        mask = stretch.track.anchors[index]
        look = look_at(self.planes, index, mask)
        for anchor in (stretch.below, stretch.above):
            if anchor is not None and anchor not in stretch.trust:
                stretch.trust[anchor] = measure_trust(
                    self.planes,
                    anchor,
                    stretch.track.anchors[anchor],
                    stretch.object_id,
                    self.settings,
                )
        return Running(index, mask, look, look)

    # -- decisions -------------------------------------------------------------------

    def _decide(self, run: Run, index: int, answer: Answer) -> PlaneResult | None:
        stretch, before = run.stretch, run.running
        if before is None:
            msg = "a run that has not begun"
            raise RuntimeError(msg)
        mask = answer.logits.mask()
        run.left -= 1
        if not stretch.is_gap:
            same = overlap_iou(mask, before.mask)
            evidence = self._evidence(stretch, index, answer, same)
            spans = stretch.track.spans
            stop = stop_reason(
                self.planes, self.settings, mask, before, answer, evidence, spans
            )
            if stop is None:
                self._go_on(run, before, index, mask, answer)
            return self._beyond(run, index, mask, evidence, stop)
        self._go_on(run, before, index, mask, answer)
        if run.direction > 0:
            stretch.stored[index] = answer
            return None
        return self._join(stretch, index, answer)

    def _go_on(
        self, run: Run, before: Running, index: int, mask: MaskPatch, answer: Answer
    ) -> None:
        look = before.look
        if answer.network_ran and mask.area >= self.settings.least_area_px:
            look = look_at(self.planes, index, mask)
        run.running = replace(
            before,
            index=index,
            mask=mask,
            look=look,
            window=answer.window or before.window,
            least_contrast=min(before.least_contrast, answer.contrast),
        )

    def _beyond(
        self,
        run: Run,
        index: int,
        mask: MaskPatch,
        evidence: Evidence,
        stop: StopReason | None,
    ) -> PlaneResult:
        stretch = run.stretch
        if stop is not None:
            run.left = 0
            mask = MaskPatch.empty()
        elif run.left == 0:
            last = self.planes.count - 1
            stop = StopReason.EDGE if index in (0, last) else StopReason.RANGE
        return PlaneResult(
            stretch.object_id,
            index,
            mask,
            confidence_of(evidence),
            stop,
            stretch.below,
            stretch.above,
            evidence,
        )

    def _join(self, stretch: Stretch, index: int, above: Answer) -> PlaneResult:
        below = stretch.stored.pop(index)
        if stretch.below is None or stretch.above is None:
            msg = "only planes between two anchors are joined"
            raise RuntimeError(msg)
        t = (index - stretch.below) / (stretch.above - stretch.below)
        logits = mixed(below.logits, above.logits, t)
        passes = overlap_iou(below.logits.mask(), above.logits.mask())
        both = replace(
            above,
            agreement=(1 - t) * below.agreement + t * above.agreement,
            certainty=(1 - t) * below.certainty + t * above.certainty,
        )
        evidence = self._evidence(stretch, index, both, passes)
        return PlaneResult(
            stretch.object_id,
            index,
            logits.mask(),
            confidence_of(evidence),
            None,
            stretch.below,
            stretch.above,
            evidence,
        )

    def _evidence(
        self, stretch: Stretch, index: int, answer: Answer, passes: float
    ) -> Evidence:
        anchors = [a for a in (stretch.below, stretch.above) if a is not None]
        masks = stretch.track.anchors
        radius = max(math.sqrt(max(masks[a].area for a in anchors) / math.pi), 1.0)
        steps = min(abs(index - a) for a in anchors)
        distance = steps * plane_steps(self.planes) / radius
        return Evidence(
            answer.agreement,
            answer.certainty,
            passes,
            trust_of(stretch, index),
            distance,
        )
