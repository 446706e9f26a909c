"""An annotator that records its events in a session and can restore one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator, Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.annotation.transaction import PatchCallback
from napari_cfrseg.io.tiled_labels import (
    AnyLabels,
    empty_labels,
    label_runs,
    write_runs,
)
from napari_cfrseg.session.format import ModelReference, SessionContent, Snapshot
from napari_cfrseg.session.references import described
from napari_cfrseg.session.session_writer import SessionWriter

ModelSource = Callable[[ModelReference], tuple[SegmenterLike, str] | None]


class RecordedAnnotator(Annotator):
    """An :class:`Annotator` that records each step once it is done."""

    #: where it records; None: nowhere yet
    writer: SessionWriter | None = None
    #: begins a session at the first event that is not only a setting
    open_writer: Callable[[], SessionWriter | None] | None = None
    #: loads the model an event or a session names: (segmenter, what it is called
    #: here), or None to go on with the one in use; None: the one given does all
    model_source: ModelSource | None = None
    #: name or path of the model in use
    model = ""
    #: shape of the axes before Y, where there are any
    leading: tuple[int, ...] = ()
    _early: tuple[ev.Event, ...] = ()
    _reference: ModelReference | None = None
    _before: Mapping[int, object] | None = None
    _depths = (0, 0)

    def begin_again(self) -> None:
        """Be as if nothing had been done; model and writer stay."""
        super().begin_again()
        self._early, self._before, self._depths = (), None, (0, 0)

    def use(self, segmenter: SegmenterLike, model: str = "") -> None:
        """Compute rounds with another segmenter from now on; nothing is recomputed.

        A change of ``model``, its name or path, is recorded.
        """
        super().use(segmenter)
        if not model:
            return
        self.model, before = model, self._reference
        self._reference = found = described(model)
        if self.writer is not None and found != before:
            self._write_down(ev.ModelChanged(found.name, found.sha256))

    def save_model(self, path: Path) -> None:
        """Write the model in use, with what finished objects taught, to a new file.

        CheckpointError if nothing was learnt with it.
        """
        self._computer.save_model(path, self.model)

    def begin_with(self, reference: ModelReference | None, source: ModelSource) -> None:
        """Set the model in use, and where the models that events name come from."""
        self._reference, self.model_source = reference, source

    def _switch(self, wanted: ModelReference) -> None:
        if self.model_source is None or wanted == self._reference:
            return
        found = self.model_source(wanted)
        if found is not None:
            segmenter, self.model = found
            self._reference = wanted
            super().use(segmenter)

    def apply(
        self,
        event: ev.Event,
        *more: ev.Event,
        on_preview: PatchCallback | None = None,
        if_apart: Sequence[ev.Event] = (),
    ) -> Change:
        """Apply events as one step (see :class:`Annotator`) and write them down.

        The model that an event names is used from then on, if it is installed.
        """
        if isinstance(event, ev.ModelChanged):
            self._switch(ModelReference(event.name, event.sha256))
        change = super().apply(event, *more, on_preview=on_preview, if_apart=if_apart)
        if self._has_changed(change):
            self._write_down(*change.events)
        return change

    def _write_down(self, *events: ev.Event) -> None:
        """Record events, and those that waited for a session to begin."""
        if self.writer is None and self.open_writer is None:
            return
        self._early += events
        is_act = not all(event.is_setting for event in events)
        if self.writer is None and self.open_writer is not None and is_act:
            self.writer = self.open_writer()
        if self.writer is not None:
            self.write_to(self.writer)

    @property
    def waiting(self) -> tuple[ev.Event, ...]:
        """Events that no session holds, because none could be begun."""
        done = any(not event.is_setting for event in self._early)
        return self._early if done else ()

    def write_to(self, writer: SessionWriter) -> None:
        """Record in a session from now on, first of all what waits for one."""
        self.writer = writer
        waiting, self._early = self._early, ()
        writer.record(*waiting)

    def _has_changed(self, change: Change) -> bool:
        """Whether a step changed anything; one that did not is not recorded."""
        before, depths = self._before or {}, self._depths
        self._before = change.objects
        self._depths = (change.undo_depth, change.redo_depth)
        if change.events[0].is_setting:
            return True
        return (
            bool(change.patches)
            or depths != self._depths
            or before.keys() != change.objects.keys()
            or any(before[i] is not change.objects[i] for i in before)
        )

    def restore(self, content: SessionContent) -> Iterator[Change]:
        """Apply a session's events without recording them; yield after each event."""
        for event in content.events:
            if isinstance(event, ev.ClickAdded) and event.scaling is not None:
                self._computer.scalings.setdefault(event.plane, event.scaling)
        writer, self.writer = self.writer, None
        opener, self.open_writer = self.open_writer, None
        self._early = ()
        try:
            if content.model is not None:
                self._switch(content.model)
            settings = content.settings
            self.apply(ev.RefinementChanged(settings.refinement))
            self.apply(ev.OverlapChanged(settings.rule))
            for event in content.events:
                yield self.apply(event)
        finally:
            self.writer, self.open_writer = writer, opener

    def snapshot(self, events: int) -> Snapshot:
        """Return the labels of all planes, marked as those after ``events`` events."""
        found = [replace(label_runs(self.labels(p)), plane=p) for p in self.planes]
        return Snapshot(events, tuple(runs for runs in found if runs.size))


def snapshot_array(
    snapshot: Snapshot, leading: tuple[int, ...], plane_shape: tuple[int, int]
) -> AnyLabels:
    """Return a snapshot's labels, (*leading, Y, X) int32.

    Planes that the image does not have are a ValueError.
    """
    labels = empty_labels((*leading, *plane_shape))
    for runs in snapshot.labels:
        plane = runs.plane
        inside = len(plane) == len(leading) and all(
            i < n for i, n in zip(plane, leading, strict=True)
        )
        if not inside or runs.shape != plane_shape:
            msg = f"the snapshot's plane {plane} of {runs.shape} is not in the image"
            raise ValueError(msg)
        write_runs(labels, plane, runs)
    return labels
