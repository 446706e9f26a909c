"""An annotator whose acts are written down, and that reads planes as it did before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator, Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.annotation.transaction import PatchCallback
from napari_cfrseg.geometry.masks import LabelRuns, Plane
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.session.content import ModelReference, SessionContent, Snapshot
from napari_cfrseg.session.session_models import described
from napari_cfrseg.session.writer import SessionWriter, line_of

ModelSource = Callable[[ModelReference], tuple[SegmenterLike, str] | None]
_SETTINGS = (ev.RefinementChanged, ev.OverlapChanged, ev.ModelChanged)


class RecordedAnnotator(Annotator):
    """An :class:`Annotator` that writes each act down once it is done.

    Parameters
    ----------
    plane_image, plane_shape, segmenter, rgb, scaling
        As for :class:`Annotator`.
    scalings
        Black and white of planes seen before.
    writer
        Where acts are written; None: nowhere yet. An attribute, too.
    """

    def __init__(
        self,
        plane_image: Callable[[Plane], Any],
        plane_shape: tuple[int, int],
        segmenter: SegmenterLike | None = None,
        *,
        rgb: bool | None = None,
        scaling: Scaling | None = None,
        scalings: Mapping[Plane, Scaling] | None = None,
        writer: SessionWriter | None = None,
    ) -> None:
        super().__init__(
            plane_image,
            plane_shape,
            segmenter,
            rgb=rgb,
            scaling=scaling,
            scalings=scalings,
        )
        self.writer = writer
        #: begins a session when the first act is done that is no mere setting
        self.open_writer: Callable[[], SessionWriter | None] | None = None
        self._early: list[tuple[ev.Event, Scaling | None]] = []
        #: loads the model an event or a session names: (segmenter, what it is called
        #: here), or None to go on with the one in use; None: the one given does all
        self.model_source: ModelSource | None = None
        #: name or path of the model in use
        self.model = ""
        self._reference: ModelReference | None = None
        self._before: Mapping[int, object] = {}
        self._depths = (0, 0)
        #: shape of the axes before Y, where there are any
        self.leading: tuple[int, ...] = ()

    def use(self, segmenter: SegmenterLike, model: str = "") -> None:
        """Compute rounds with another segmenter from now on; nothing is recomputed.

        Parameters
        ----------
        segmenter
            Computes them.
        model
            Its name or path; a change of it is written down.
        """
        super().use(segmenter)
        if not model:
            return
        self.model, before = model, self._reference
        self._reference = found = described(model)
        if self.writer is not None and found != before:
            self._write_down(ev.ModelChanged(found.name, found.sha256), None)

    def begin_with(self, reference: ModelReference | None, source: ModelSource) -> None:
        """Say which model is in use, and where others come from when events say so."""
        self._reference, self.model_source = reference, source

    def follow_model(self, event: ev.ModelChanged) -> None:
        """Use the model an event names, if there is a source of models."""
        self._switch(ModelReference(event.name, event.sha256))

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
    ) -> Change:
        """Apply events as one step and write them down (see :meth:`Annotator.apply`).

        Raises
        ------
        SessionError
            Also where an event has values that no session may hold.
        """
        if self.writer is not None or self.open_writer is not None:
            for one in (event, *more):
                line_of(one)
        change = super().apply(event, *more, on_preview=on_preview)
        if self._has_changed(change):
            for one in change.events:
                plane = getattr(one, "plane", None)
                seen = None if plane is None else self._computer.scalings.get(plane)
                self._write_down(one, seen)
        return change

    def _write_down(self, event: ev.Event, seen: Scaling | None) -> None:
        """Record an act, and those that waited for a session to begin."""
        if self.writer is None and self.open_writer is None:
            return
        self._early.append((event, seen))
        is_act = not isinstance(event, _SETTINGS)
        writer, opener = self.writer, self.open_writer
        if writer is None and opener is not None and is_act:
            writer = self.writer = opener()
        if writer is not None:
            waiting, self._early = self._early, []
            for early, scaling in waiting:
                writer.record(early, scaling)

    def _has_changed(self, change: Change) -> bool:
        """Whether an act did anything; one that did not is not written down."""
        before, depths = self._before, self._depths
        self._before = change.objects
        self._depths = (change.undo_depth, change.redo_depth)
        if isinstance(change.events[0], _SETTINGS):
            return True
        return (
            bool(change.patches)
            or depths != self._depths
            or before.keys() != change.objects.keys()
            or any(before[i] is not change.objects[i] for i in before)
        )

    def restore(self, content: SessionContent) -> Iterator[Change]:
        """Do all that a session says, writing nothing down; yield after each event."""
        self._computer.scalings.update(content.scalings)
        writer, self.writer = self.writer, None
        opener, self.open_writer = self.open_writer, None
        self._early.clear()
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
        """Return the labels of all planes, said to be those after ``events`` events."""
        planes = []
        for plane in self.planes:
            labels = self.labels(plane)
            if labels.any():
                runs = LabelRuns.from_labels(labels, labels != 0, self.plane_shape)
                planes.append((plane, runs))
        return Snapshot(events, tuple(planes))


def snapshot_array(
    snapshot: Snapshot, leading: tuple[int, ...], plane_shape: tuple[int, int]
) -> NDArray[np.int32]:
    """Return a snapshot's labels, (*leading, Y, X) int32.

    Raises
    ------
    ValueError
        It is of planes that the image does not have.
    """
    labels = np.zeros((*leading, *plane_shape), np.int32)
    for plane, runs in snapshot.labels:
        inside = len(plane) == len(leading) and all(
            i < n for i, n in zip(plane, leading, strict=True)
        )
        if not inside or runs.shape != plane_shape:
            msg = f"the snapshot's plane {plane} of {runs.shape} is not in the image"
            raise ValueError(msg)
        labels[plane][runs.indices()] = runs.values()
    return labels
