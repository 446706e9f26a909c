"""Changes of the annotation become layers and one frozen DockView."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Change
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.annotation.transaction import Progress
from napari_cfrseg.errors import counted
from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.gui.segment import status_lines
from napari_cfrseg.gui.segment.dock_view import ObjectRow
from napari_cfrseg.gui.segment.event_queue import Pending
from napari_cfrseg.gui.segment.layers import usual_side
from napari_cfrseg.gui.segment.learning import Learning
from napari_cfrseg.gui.segment.propagator import Propagator
from napari_cfrseg.gui.segment.suggesting import Suggesting
from napari_cfrseg.gui.segment.worker import Failure
from napari_cfrseg.gui.segment.workspace import Workspace
from napari_cfrseg.io.tiled_labels import label_runs

#: acts after which the status says what is left of the objects they changed
_OF_OBJECTS = (
    ev.Painted,
    ev.ClicksMoved,
    ev.ClicksRemoved,
    ev.ObjectDeleted,
    ev.ObjectsMerged,
)


class Projection:
    """Shows what comes of a workspace's steps, in its layers, its view and the parts.

    Attributes
    ----------
    segmenter
        What computes, for ``show_placement``.
    """

    def __init__(
        self,
        work: Workspace,
        stack: Propagator,
        suggestions: Suggesting,
        learning: Learning,
    ) -> None:
        self._work, self._annotator, self._labels = work, work.annotator, work.labels
        self._stack, self._suggestions, self._learning = stack, suggestions, learning
        self.segmenter: object = None
        self._noted = 0
        self._areas: Counter[int] = Counter()
        work.queue.settled, work.queue.failed = self._settled, self._failed
        work.queue.preview = self.preview

    def show_placement(self) -> None:
        """Show where the segmenter computes, and each of its notices once."""
        placement = getattr(self.segmenter, "placement", None)
        if placement is None:
            self._work.show(device=str(getattr(self.segmenter, "device", "")))
            return
        self._work.show(
            device=placement.device,
            backend=placement.backend,
            placement=placement.reason,
            precision=placement.precision,
        )
        notices = tuple(self.segmenter.notices.texts)  # type: ignore[attr-defined]  # it has a placement
        for text in notices[self._noted :]:
            self._work.say(text)
        self._noted = len(notices)

    def show_all(self, last: Change | None) -> None:
        """Show all that the annotator holds after a session was restored.

        ``last`` is what the session's last event changed, None where it has none.
        """
        work, annotator = self._work, self._annotator
        self._labels.restore({p: annotator.labels(p) for p in annotator.planes})
        for plane in annotator.planes:
            self._count(label_runs(annotator.labels(plane)), 1)
        self._show_objects(annotator.objects)
        work.show(
            refinement=annotator.refinement,
            rule=annotator.rule,
            next_id=max(work.objects, default=0) + 1,
            undo_depth=0 if last is None else last.undo_depth,
            redo_depth=0 if last is None else last.redo_depth,
            progress=(0, 0),
            status=f"Session reopened: {counted(len(work.objects), 'object')}.",
        )
        self._labels.select(work.view.next_id)
        self._stack.refresh()

    # -- called by the queue ---------------------------------------------------------

    def _settled(self, pending: Pending, changes: Sequence[Change]) -> None:
        """Show what a step changed; an event of its own may have taken it back."""
        work, event = self._work, pending.event
        with work.one_view():
            for one in (one for change in changes for one in change.events):
                work.applied.emit(one)
                self._learning.follow(one)
            patches = [patch for change in changes for patch in change.patches]
            self._labels.paste(patches)
            for patch in patches:
                self._count(patch, 1)
                self._count(patch.inverted(), -1)
            last, before = changes[-1], work.objects
            self._show_objects(last.objects)
            both = before.keys() | work.objects.keys()
            touched = {i for i in both if before.get(i) is not work.objects.get(i)}
            made = work.objects.keys() - before.keys()
            if isinstance(event, ev.Painted) and len(made) == 1:
                work.show(selected=made.pop())
            begun = pending.began(changes[0])
            self._select_begun(event, begun)
            self._follow(event, touched)
            work.show(undo_depth=last.undo_depth, redo_depth=last.redo_depth)
            for change in changes:
                if change.runs:
                    work.show(seconds=change.seconds, steps=change.steps)
            self._stack.refresh()
            self._suggestions.refresh()
            if isinstance(event, _OF_OBJECTS):
                left = [work.objects[i] for i in touched if i in work.objects]
                px = sum(self._areas[i] for i in touched)
                gone = (before[i] for i in touched if i in before)
                work.say(status_lines.of_left(left, gone, px))
            self._say_what_happened(event, begun)
            self.show_placement()
            self._learning.consider()
            for note in last.notes:
                work.say(note)
            if last.notes:
                self._restore(pending)

    def _failed(self, pending: Pending, error: Failure) -> None:
        """Show the annotation without a step that was refused or cancelled."""
        self._labels.paste(())
        self._restore(pending)
        self._follow(pending.event, set())
        self._stack.refresh()
        self._suggestions.refresh()
        self._work.show(progress=(0, 0))
        self._work.show_pending()
        self._work.warn(error)

    def preview(self, value: LabelRuns | Progress) -> None:
        """Show a first mask, or how far a propagation is."""
        if isinstance(value, Progress):
            self._labels.preview_more(value.patches)
            self._work.show(progress=(value.done, value.total))
        else:
            self._labels.preview(value)

    # -- one thing each --------------------------------------------------------------

    def _count(self, runs: LabelRuns, sign: int) -> None:
        """Count labelled pixels, or (−1) pixels that lost their label."""
        for number, count in runs.areas().items():
            self._areas[number] += sign * count

    def _show_objects(self, objects: Mapping[int, ObjectState]) -> None:
        work, px = self._work, self._areas
        work.objects = dict(objects)
        self._labels.show_objects(objects)
        work.clicks.markers.fit(usual_side(objects))
        work.show_pending()
        work.show(
            objects=tuple(
                ObjectRow(
                    *(i, s.name, s.colour, s.click_count, s.locked, s.object_class),
                    px[i],
                    sum(one.mask.mask.size > 0 for one in s.planes.values()),
                )
                for i, s in sorted(objects.items())
            )
        )

    def _select_begun(self, click: ev.Event, made: int) -> None:
        """Select the object that a click apart began, unless another was chosen."""
        if made in self._work.objects and isinstance(click, ev.ClickAdded):
            self._work.begun = (click.object_id, made)
            if self._work.view.selected == click.object_id:
                self._work.show(selected=made)

    def _say_what_happened(self, event: ev.Event, made: int) -> None:
        work, objects = self._work, self._work.objects
        marker, before = work.clicks.markers.image_px, objects.get(work.begun[0])
        if before is not None and made in objects and isinstance(event, ev.ClickAdded):
            new = objects[made]
            under = status_lines.hidden(new.on(event.plane), marker)
            joins = f"{work.join_key} joins it to {before.name}."
            work.say(f"{new.name} started{under}. {joins}")
        elif isinstance(event, ev.Propagated):
            work.say(self._stack.summary(), progress=(0, 0))
        elif isinstance(event, ev.Undone | ev.Redone):
            found = objects.get(work.view.selected or 0)
            act = "Undone" if isinstance(event, ev.Undone) else "Redone"
            goes = "a new object" if found is None else found.name
            work.say(f"{act}. The next click goes to {goes}.")
        elif isinstance(event, ev.CandidateChosen):
            said = status_lines.of_mask_chosen(objects, event.click_id, marker)
            work.say(said or work.view.status)
        elif isinstance(event, ev.ObjectSplit) and event.new_id in objects:
            part = objects[event.new_id].name
            work.say(f"{part}: split off, {self._areas[event.new_id]} px.")
        elif isinstance(event, ev.SuggestionsAccepted):
            self._say_judged("Accepted", len(event.accepted))
        elif isinstance(event, ev.SuggestionsRejected):
            self._say_judged("Rejected", len(event.rejected))
        elif isinstance(event, ev.ClickAdded) and event.object_id in objects:
            found, px = objects[event.object_id], self._areas[event.object_id]
            said = status_lines.of_click(found, event, px, marker)
            work.say(said)

    def _say_judged(self, act: str, count: int) -> None:
        left = len(self._suggestions.found) or "none"
        self._work.say(f"{act} {counted(count, 'suggestion')}; {left} left.")

    def _follow(self, event: ev.Event, touched: set[int]) -> None:
        """Keep the selection on an object that exists, and its number free.

        Undo and redo select the object they changed: the next click goes there.
        """
        work = self._work
        made = (i for one in work.waiting_events for i in ev.object_ids(one))
        known = {*work.objects, *made}
        selected = work.view.selected
        if isinstance(event, ev.Undone | ev.Redone) and selected not in touched:
            selected = max(touched, default=selected)
        if selected is not None and selected not in known:
            before, begun = work.begun
            selected = before if selected == begun and before in known else None
        free = max(known, default=0) + 1
        self._labels.select(selected or free)
        work.show(selected=selected, next_id=free)
        work.follow_threshold()

    def _restore(self, pending: Pending) -> None:
        """Take back what a stroke did to pixels it may not change."""
        painted = [e.plane for e in pending.events if isinstance(e, ev.Painted)]
        if painted:
            self._labels.restore({p: self._annotator.labels(p) for p in painted})
