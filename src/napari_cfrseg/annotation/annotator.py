"""Annotate one image: apply events to objects and labels, undo and redo them.

The window, a saved session and a headless replay all drive this one class with the
same events, so they give the same labels. It knows neither Qt nor napari.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.ahead import first_click_s, lesson, mask_after
from napari_cfrseg.annotation.apart import is_apart
from napari_cfrseg.annotation.handlers import perform
from napari_cfrseg.annotation.propagated_planes import carried_to
from napari_cfrseg.annotation.rounds import RoundComputer, SegmenterLike
from napari_cfrseg.annotation.state import (
    History,
    Judged,
    ObjectState,
    Settings,
    Transaction,
    continues,
)
from napari_cfrseg.annotation.transaction import Draft, PatchCallback, put_object
from napari_cfrseg.engine.likeness import Likeness
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.suggestions import Batch, ObjectSuggestion, Verdict, rescored
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import LabelRuns, MaskPatch, Plane
from napari_cfrseg.geometry.windows import Box, slices
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.io.tiled_labels import (
    AnyLabels,
    TiledLabels,
    empty_labels,
    write_runs,
)

#: objects worked on last that suggestions are learnt from
MOST_LEARNT = 12


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """The result of one step (:meth:`Annotator.apply`)."""

    events: tuple[ev.Event, ...]  #: the events, as they are to be recorded
    #: pixels whose label changed, to be written in this order
    patches: tuple[LabelRuns, ...]
    objects: Mapping[int, ObjectState]
    undo_depth: int
    redo_depth: int
    #: rounds the network computed for it, and the last one's refinement steps and time
    runs: int = 0
    steps: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()  #: what the person should know, in their words


class Annotator:
    """One image's annotation.

    ``plane_image`` returns the pixels of a plane, (Y, X) or (Y, X, C), by its index;
    None: there are no pixels, and objects, clicks and undo are as with them, masks are
    empty. ``segmenter`` computes the rounds; it may be given later with :meth:`use`.
    ``rgb``: C counts colours (None: the engine tells from the dtype). ``scaling`` are
    the values painted black and white on every plane (None: each plane's own
    percentiles).
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
        self.plane_shape = (int(plane_shape[0]), int(plane_shape[1]))
        self._computer = RoundComputer(
            plane_image, self.plane_shape, segmenter, rgb=rgb, scaling=scaling
        )
        self.begin_again()

    def begin_again(self) -> None:
        """Be as if nothing had been done; the segmenter stays."""
        self._objects: dict[int, ObjectState] = {}
        self._labels: dict[Plane, AnyLabels] = {}
        self._history = History()
        self._follow(Settings())
        self._click_ids: set[int] = set()
        self._stamp = 0
        #: suggestions that were accepted and rejected so far
        self.judged: Judged = ()
        self._computer.scalings.clear()

    @property
    def objects(self) -> Mapping[int, ObjectState]:
        """All objects by id, as they are now."""
        return MappingProxyType(dict(self._objects))

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The planes that have had labels, in order."""
        return tuple(sorted(self._labels))

    @property
    def refinement(self) -> Refinement:
        """The refinement the next click gets."""
        return self._settings.refinement

    @property
    def rule(self) -> ev.OverlapRule:
        """The overlap rule."""
        return self._settings.rule

    @property
    def network_s(self) -> float:
        """Seconds the network's own stages have taken so far."""
        return self._computer.network_s

    def labels(self, plane: Plane = ()) -> AnyLabels:
        """Return a plane's labels, (Y, X) int32, 0 = background; read-only."""
        labels = self._labels_of(plane)
        if isinstance(labels, TiledLabels):
            return labels
        view = labels.view()
        view.flags.writeable = False
        return view

    def labels_array(self, leading: tuple[int, ...] = ()) -> AnyLabels:
        """Return all planes' labels as one array of shape (*leading, Y, X).

        Large planes are in tiles; ``numpy.asarray`` makes them one array.
        """
        out = empty_labels((*leading, *self.plane_shape))
        for plane, labels in self._labels.items():
            out[plane] = labels
        return out

    def use(self, segmenter: SegmenterLike) -> None:
        """Compute further rounds with another segmenter, which is taught nothing."""
        self._computer.use(segmenter)
        self._follow(replace(self._settings, adapted=ev.ModelAdapted()))

    def _follow(self, settings: Settings) -> None:
        self._settings = settings
        self._computer.adapt(settings.adapted.adaptation)

    def prepare(self, plane: Plane) -> None:
        """Look at a plane ahead of its first click (its range of grey values)."""
        self._computer.prepare(plane)

    def first_click_s(self, plane: Plane) -> float:
        """Return how long a first click takes here, measured on a small window."""
        return first_click_s(self._computer, plane, self.plane_shape)

    def look_ahead(
        self,
        *events: ev.Event,
        check: Callable[[], None],
        if_apart: Sequence[ev.Event] = (),
    ) -> MaskPatch:
        """Return the pixels that an object would have after a click; nothing changes.

        The click itself is then faster and gives the same. The events are the click, or
        an object's creation and its first click; ``if_apart`` as in :meth:`apply`;
        ``check`` is called before each run of the network, and what it raises ends the
        work.
        """
        own = self._objects, self._computer, self._settings, self._labels_of
        return mask_after(*own, events, if_apart, check)

    def learn(self, plane: Plane = ()) -> Likeness:
        """Learn what the finished objects have in common, to suggest further ones.

        They are those of the plane; if it has none, of the plane with the most objects.
        Raises SessionError if no object has pixels.
        """
        finished: dict[Plane, list[tuple[int, MaskPatch]]] = {}
        for whole in self._objects.values():
            for index, state in whole.planes.items():
                if state.mask.mask.size:
                    finished.setdefault(index, []).append((state.stamp, state.mask))
        if not finished:
            msg = "Finish an object first, better three: others are found by likeness."
            raise SessionError(msg)
        if plane not in finished:
            plane = max(finished, key=lambda index: len(finished[index]))
        newest = sorted(finished[plane], key=lambda one: -one[0])[:MOST_LEARNT]
        return self._computer.on(plane).learn([mask for _, mask in newest])

    def lesson(
        self, plane: Plane = (), left_out: Collection[int] = ()
    ) -> Iterator[ev.ModelAdapted | None]:
        """Learn from a plane's objects, but those left out, for first clicks on others.

        Yields after each step of about a tenth of a second; events may be applied in
        between. What is to be applied comes last, if the lesson was worth it.
        """
        yield from lesson(self._objects, self._computer, plane, left_out)

    def suggest(
        self,
        plane: Plane = (),
        *,
        region: Box | None = None,
        known: Likeness | None = None,
        along: int | None = None,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        earlier: Sequence[Batch] = (),
    ) -> Iterator[Batch]:
        """Suggest objects like the finished ones, in small batches; nothing is changed.

        ``region`` is the part of the plane to look at (None: all of it); its centre
        comes first. ``known`` is what :meth:`learn` returned, here or on another image
        (None: of this plane). ``along`` is the axis of a stack or time-lapse: objects
        of the plane before or after that are not on this one are looked for first, as a
        propagation does, and continued when they are accepted. ``spacing`` is the
        (between planes, y, x) size of a pixel. What ``earlier`` batches found, and the
        tiles they completed, are left out.

        Steps may be applied between batches. A suggestion becomes an object with
        ``SuggestionsAccepted``; every verdict so far counts in the scores.
        """
        if known is None:
            known = self.learn(plane)

        def taken(box: Box) -> NDArray[np.bool_]:
            return np.not_equal(self._labels_of(plane)[slices(box)], 0)

        verdicts = [
            verdict if index == plane else replace(verdict, mask=MaskPatch.empty())
            for index, verdict in self._verdicts()
        ]

        def search() -> Iterator[Batch]:
            found = list(earlier)
            for batch in carried:
                found.append(batch)
                yield batch
            yield from self._computer.on(plane).suggest(
                known, region=region, taken=taken, verdicts=verdicts, earlier=found
            )

        carried: Iterator[Batch] = iter(())
        if along is not None:
            left_out = {s.continues for batch in earlier for s in batch.found}
            left_out |= {j.proposal.continues for j in self.judged if j.plane == plane}
            objects = [o for i, o in self._objects.items() if i not in left_out]
            carried = carried_to(
                self._computer, self._labels_of, objects, plane, along, spacing, region
            )
        return search()

    def still_open(
        self, plane: Plane, found: Sequence[ObjectSuggestion]
    ) -> list[ObjectSuggestion]:
        """Return suggestions that are neither objects nor rejected, scored again."""
        rejected = (j for j in self.judged if j.plane == plane and not j.object_id)
        closed = {judged.proposal.yx for judged in rejected}
        labels = self._labels_of(plane)
        left = [s for s in found if s.seed not in closed and not labels[s.seed]]
        return rescored(left, [verdict for _, verdict in self._verdicts()])

    def _verdicts(self) -> Iterator[tuple[Plane, Verdict]]:
        """Yield what was said of suggestions; one that was corrected was wrong."""
        for one in self.judged:
            whole, proposal = self._objects.get(one.object_id), one.proposal
            right = whole is not None and whole.is_as_suggested(one.plane)
            yield one.plane, Verdict(proposal.mask.mask(), proposal.traits, right)

    def apply(
        self,
        event: ev.Event,
        *more: ev.Event,
        on_preview: PatchCallback | None = None,
        if_apart: Sequence[ev.Event] = (),
    ) -> Change:
        """Apply an event, or several as one step: all of them or none.

        Each event must continue the one before it
        (:func:`~napari_cfrseg.annotation.state.continues`), as an object's first click
        continues its creation, so that a replay of the single events has the same undo
        steps; else ValueError. ``on_preview`` gets the labels' changes so far after
        each refinement step of the newest click; an exception it raises cancels
        everything. A propagation calls it with its
        :class:`~napari_cfrseg.annotation.transaction.Progress`; where it returns True,
        the propagation ends and keeps the planes done. ``if_apart`` are applied instead
        where the last event is a click apart from its object
        (:mod:`~napari_cfrseg.annotation.apart`): its creation of another one.

        Raises LockedObjectError if an event would change a locked object, SessionError
        if one does not fit the objects, clicks or image there are. After any exception
        everything is as before.
        """
        events = (event, *more)
        for first, second in (*pairwise(events), *pairwise(if_apart)):
            if not continues(first, second):
                raise ValueError(
                    f"{type(second).__name__} does not continue "
                    f"{type(first).__name__}: apply them one after the other"
                )
        match event:
            case ev.Undone():
                return self._change(events, self._write(self._history.undo()))
            case ev.Redone():
                return self._change(events, self._write(self._history.redo()))
        return self._perform(events, on_preview, tuple(if_apart))

    def _perform(
        self,
        events: tuple[ev.Event, ...],
        on_preview: PatchCallback | None,
        if_apart: tuple[ev.Event, ...] = (),
    ) -> Change:
        known = self._objects, self._computer, self._settings
        if is_apart(*known, events[-1], if_apart):
            return self._perform(if_apart, on_preview)
        click_ids = self._new_click_ids(events)
        own = self._objects, self._labels_of, self._computer, self.plane_shape
        draft = Draft(*own, self._settings, self._stamp, on_preview, self.judged)
        runs = self._computer.runs
        try:
            recorded = tuple(_record(event, draft) for event in events)
            if if_apart and draft.is_apart(recorded[-1]):
                draft.roll_back()
                return self._perform(if_apart, on_preview)
            transaction = draft.transaction(recorded[-1])
        except BaseException:
            draft.roll_back()
            raise
        self._stamp = draft.stamp
        self._follow(draft.settings)
        self.judged = draft.judged
        self._click_ids |= click_ids
        if transaction is not None:
            self._history.push(transaction, recorded[0])
        return self._change(
            recorded,
            transaction.patches if transaction else (),
            runs=self._computer.runs - runs,
            notes=tuple(dict.fromkeys(draft.notes)),
        )

    def _new_click_ids(self, events: tuple[ev.Event, ...]) -> set[int]:
        """Return the events' click ids; one that was used before is refused."""
        new: set[int] = set()
        for click_id in chain.from_iterable(map(ev.click_ids, events)):
            if click_id in self._click_ids or click_id in new:
                raise SessionError(f"click id {click_id} is used twice")
            new.add(click_id)
        return new

    def _write(self, transaction: Transaction | None) -> tuple[LabelRuns, ...]:
        """Write a step that was computed before."""
        if transaction is None:
            return ()
        self.judged = transaction.judged[1]
        for object_id, change in transaction.changes.items():
            put_object(self._objects, object_id, change.after)
        for patch in transaction.patches:
            write_runs(self._labels_of(patch.plane), (), patch)
        return transaction.patches

    def _change(
        self,
        events: tuple[ev.Event, ...],
        patches: tuple[LabelRuns, ...],
        runs: int = 0,
        notes: tuple[str, ...] = (),
    ) -> Change:
        seen = self._computer.sees_pixels
        return Change(
            events,
            patches,
            self.objects if seen else MappingProxyType(self._objects),
            self._history.undo_depth,
            self._history.redo_depth,
            runs,
            self._computer.steps if runs else 0,
            self._computer.seconds if runs else 0.0,
            notes,
        )

    def _labels_of(self, plane: Plane) -> AnyLabels:
        if not self._computer.sees_pixels:
            return np.broadcast_to(np.int32(0), self.plane_shape)
        if plane not in self._labels:
            self._labels[plane] = empty_labels(self.plane_shape)
        return self._labels[plane]


def _record(event: ev.Event, draft: Draft) -> ev.Event:
    """Perform an event and return it as it is to be recorded."""
    draft.stamp += 1
    draft.recorded = event
    perform(event, draft)
    return draft.recorded
