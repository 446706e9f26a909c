"""From anchors to all planes: one sweep up, one sweep down, joined between anchors.

Planes beyond an object's outermost anchors are done in one sweep; between two anchors
both sweeps come by and are joined, so that each side decides near its own anchor::

    F(z) = (1 − t) · F_below(z) + t · F_above(z)      t = (z − z₀) / (z₁ − z₀)

Only cropped logit maps between anchors are kept from the first sweep to the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from napari_cfrseg.geometry.masks import LabelArray, MaskPatch, overlap_iou
from napari_cfrseg.geometry.windows import Box, Window
from napari_cfrseg.propagation import decisions
from napari_cfrseg.propagation.planes import SegmenterPlanes, common_windows
from napari_cfrseg.propagation.step import Answer, Running, advance, look_at
from napari_cfrseg.propagation.stretches import (
    Run,
    Stretch,
    prior_of,
    sibling_labels,
    sigma_of,
    stretches_of,
)
from napari_cfrseg.propagation.tracks import (
    Evidence,
    PlaneResult,
    PropagationSettings,
    StopReason,
    Track,
)


def propagate(
    planes: SegmenterPlanes,
    tracks: Sequence[Track],
    settings: PropagationSettings | None = None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> Generator[PlaneResult]:
    """Find objects on the planes between and beyond their anchors.

    Results come plane by plane, in an order that depends on the arguments only. There
    is none for the anchors, which are never changed; one outside the stack raises
    ValueError. ``cancelled`` is called before each object on each plane: True ends it.
    """
    chosen = PropagationSettings() if settings is None else settings
    for track in tracks:
        inside = track.first >= 0 and track.last < planes.count
        if not inside or any(not 0 <= a < planes.count for a in track.anchors):
            raise ValueError(
                f"planes {track.first} to {track.last} and anchors "
                f"{sorted(track.anchors)} of a stack of {planes.count}"
            )
    sweep = _Sweep(planes, chosen, cancelled)
    stretches = [s for track in tracks for s in stretches_of(track)]
    try:
        for direction in (1, -1):
            yield from sweep.walk(stretches, direction)
            if sweep.stopped:
                return
    finally:
        planes.rest()


@dataclass(slots=True)
class _Sweep:
    planes: SegmenterPlanes
    settings: PropagationSettings
    cancelled: Callable[[], bool]
    stopped: bool = False

    def walk(self, stretches: list[Stretch], direction: int) -> Iterator[PlaneResult]:
        """Walk all stretches in one direction, plane by plane."""
        runs = [
            Run(stretch, direction, start, len(stretch.planes))
            for stretch in stretches
            for start in [stretch.below if direction > 0 else stretch.above]
            if start is not None
        ]
        indices = sorted({i for r in runs for i in r.stretch.planes})[::direction]
        for place, index in enumerate(indices):
            here = [r for r in runs if r.goes_to(index)]
            if not here:
                continue
            later = indices[place + 1 :]
            following = (i for i in later if any(r.goes_to(i) for r in runs))
            self.planes.expect(index, next(following, None))
            answers: list[tuple[Run, Running, Answer]] = []
            shared = common_windows([r.seen_through() for r in here], self.planes.shape)
            for run, window in zip(here, shared, strict=True):
                if self.cancelled():
                    self.stopped = True
                    return
                used = [answer.window for _, _, answer in answers]
                siblings = sibling_labels(here, run)
                before = self._begin(run) if run.running is None else run.running
                answer = self._advance(run, before, index, siblings, (window, *used))
                answers.append((run, before, answer))
            decisions.compete([answer for _, _, answer in answers])
            for run, before, answer in answers:
                result = self._decide(run, before, index, answer)
                track = run.stretch.track
                if result is not None and track.first <= index <= track.last:
                    yield result

    def _advance(
        self,
        run: Run,
        before: Running,
        index: int,
        siblings: Callable[[Box], LabelArray] | None,
        windows: Sequence[Window | None],
    ) -> Answer:
        stretch = run.stretch
        return advance(
            self.planes,
            before,
            index,
            stretch.object_id,
            self.settings,
            prior=prior_of(self.planes, stretch),
            sigma=sigma_of(self.planes, self.settings, stretch, index),
            trust=stretch.trust_on(index),
            siblings=siblings,
            windows=tuple(dict.fromkeys(w for w in windows if w is not None)),
        )

    def _begin(self, run: Run) -> Running:
        stretch, anchors = run.stretch, run.stretch.track.anchors
        mask = anchors[run.start]
        look, picture = look_at(self.planes, run.start, mask)
        for end in stretch.ends:
            if end not in stretch.trust:
                own = end, anchors[end], stretch.object_id
                trust = decisions.measure_trust(self.planes, *own, self.settings)
                stretch.trust[end] = trust
        largest = max(anchor.area for anchor in anchors.values())
        run.running = Running(run.start, mask, picture, look, look, largest)
        return run.running

    def _decide(
        self, run: Run, before: Running, index: int, answer: Answer
    ) -> PlaneResult | None:
        """Go on or stop; between two anchors, join the answers of both sides."""
        stretch = run.stretch
        mask = answer.logits.mask()
        run.left -= 1
        if stretch.is_gap:
            self._go_on(run, before, index, mask, answer)
            if run.direction > 0:
                stretch.stored[index] = answer
                return None
            return self._join(stretch, index, stretch.stored.pop(index), answer)
        same = overlap_iou(mask, answer.carried)
        evidence = self._evidence(stretch, index, answer, same)
        known = mask, before, answer, evidence, stretch.track.spans
        stop = decisions.stop_reason(self.planes, self.settings, *known)
        if stop is not None:
            run.left = 0
            return _result(stretch, index, MaskPatch.empty(), evidence, stop)
        self._go_on(run, before, index, mask, answer)
        if run.left == 0:
            last = self.planes.count - 1
            stop = StopReason.EDGE if index in (0, last) else StopReason.RANGE
        return _result(stretch, index, mask, evidence, stop)

    def _go_on(
        self, run: Run, before: Running, index: int, mask: MaskPatch, answer: Answer
    ) -> None:
        look, picture = look_at(self.planes, index, mask)
        if not answer.network_ran or mask.area < self.settings.least_area_px:
            look = before.look
        run.running = replace(
            before,
            index=index,
            mask=mask,
            picture=picture,
            look=look,
            window=answer.window or before.window,
            least_contrast=min(before.least_contrast, answer.contrast),
            strayed=answer.strayed,
        )

    def _join(
        self, stretch: Stretch, index: int, below: Answer, above: Answer
    ) -> PlaneResult:
        t = stretch.share(index)
        logits = decisions.mixed(below.logits, above.logits, t)
        both = replace(
            above,
            agreement=(1 - t) * below.agreement + t * above.agreement,
            certainty=(1 - t) * below.certainty + t * above.certainty,
        )
        passes = overlap_iou(below.logits.mask(), above.logits.mask())
        evidence = self._evidence(stretch, index, both, passes)
        return _result(stretch, index, logits.mask(), evidence, None)

    def _evidence(
        self, stretch: Stretch, index: int, answer: Answer, passes: float
    ) -> Evidence:
        areas = [stretch.track.anchors[a].area for a in stretch.ends]
        radius = max(math.sqrt(max(areas) / math.pi), 1.0)
        steps = min(abs(index - a) for a in stretch.ends)
        distance = steps * self.planes.plane_steps / radius
        seen = answer.agreement, answer.certainty, passes
        return Evidence(*seen, stretch.trust_on(index), distance)


def _result(
    stretch: Stretch,
    index: int,
    mask: MaskPatch,
    evidence: Evidence,
    stop: StopReason | None,
) -> PlaneResult:
    found = stretch.object_id, index, mask, decisions.confidence_of(evidence), stop
    return PlaneResult(*found, stretch.below, stretch.above, evidence)
