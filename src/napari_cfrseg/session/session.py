"""Read a session from its file, and replay it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator, Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.errors import CfrSegError, SessionError
from napari_cfrseg.io.axes import plane_of
from napari_cfrseg.io.tiled_labels import AnyLabels
from napari_cfrseg.session import references
from napari_cfrseg.session.format import ImageReference, ModelReference, SessionContent
from napari_cfrseg.session.recording import RecordedAnnotator, snapshot_array
from napari_cfrseg.session.session_file import journal_path, parse_at, read_journal

_TRIES = 20


class Session:
    """Everything a person did on one image, as its file says; never changes.

    Examples
    --------
    >>> session = Session.open("cells.cfrseg.json")  # doctest: +SKIP
    >>> [o.name for o in session.objects()]  # doctest: +SKIP
    >>> labels = session.apply(image, Segmenter.load())  # doctest: +SKIP
    """

    def __init__(self, path: Path, content: SessionContent) -> None:
        self.path = path
        self.content = content

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Session:
        """Read a session with its journal; it may be open for writing elsewhere.

        A SessionError says in one line why it cannot be read.
        """
        target = Path(path)
        for _ in range(_TRIES):
            before = _state(target)
            content = parse_at(target)
            start = len(content.events)
            found = read_journal(journal_path(target), content.identity, start)
            if _state(target) == before:
                break  # else it was saved between the two readings
        return cls(target, replace(content, events=(*content.events, *found.events)))

    @property
    def image(self) -> ImageReference:
        """The image it was made on."""
        return self.content.image

    def objects(self) -> tuple[ObjectState, ...]:
        """Return the objects in the end, by id, with their clicks and empty masks.

        Neither the image nor a network is needed. A SessionError names an event that
        does not fit those before it.
        """
        return objects_after(self.content.events, self.image.plane_shape)

    def open_image(self) -> Any:
        """Open the image the session was made on, lazily where the file allows.

        A CfrSegError says that it is missing, cannot be read, or has other pixels.
        """
        path = references.find_image(self.image, self.path.parent)
        array = references.open_reference(self.image, path).array
        references.check_same(self.image, array, str(path))
        return array

    def saved_labels(self) -> AnyLabels | None:
        """Return the labels as they were saved; None if more was done since.

        Labels that do not fit the image are a SessionError.
        """
        snapshot = self.content.snapshot
        if snapshot is None or snapshot.events != len(self.content.events):
            return None
        try:
            return snapshot_array(snapshot, self.image.leading, self.image.plane_shape)
        except ValueError as error:
            raise SessionError(str(error)) from error

    def apply(
        self, image: Any = None, segmenter: SegmenterLike | None = None
    ) -> AnyLabels:
        """Apply all events and return the labels.

        ``image`` are pixels of the session's shape, or another image of the same kind,
        axes in the session's order (``session.image.axes``); None: the session's own,
        from its file. ``segmenter`` computes all rounds; None: the session's model is
        loaded, or its models, each for the rounds it computed.

        Returns int32 labels of shape (leading axes, Y, X), 0 = background, in tiles
        where the planes are large (``numpy.asarray`` makes them one array); axes in the
        session's order. Raises CfrSegError if image or model is missing, or an event
        does not fit.
        """
        annotator = self.annotator(image, segmenter)
        for _ in annotator.restore(self.content):
            pass
        return annotator.labels_array(annotator.leading)

    def rounds(
        self, image: Any = None, segmenter: SegmenterLike | None = None
    ) -> Iterator[Change]:
        """Apply the events as :meth:`apply` does and yield what each one changed."""
        yield from self.annotator(image, segmenter).restore(self.content)

    def annotator(
        self, image: Any = None, segmenter: SegmenterLike | None = None
    ) -> RecordedAnnotator:
        """Return an annotator of the image on which nothing is done yet."""
        content = self.content
        array = self.open_image() if image is None else image
        loads = segmenter is None
        if segmenter is None:
            segmenter = references.load_segmenter(content)
        shape = tuple(int(n) for n in array.shape)
        if len(shape) != len(self.image.shape):
            raise SessionError(
                f"an image of shape {shape}; the session was made on one of shape "
                f"{self.image.shape}"
            )
        depth = len(self.image.leading)
        check_planes(content.events, shape[:depth])
        annotator = RecordedAnnotator(
            lambda plane: plane_of(array, plane),
            (shape[depth], shape[depth + 1]),
            segmenter,
            rgb=content.settings.rgb,
            scaling=content.settings.scaling,
        )
        annotator.leading = shape[:depth]
        if loads:

            def source(model: ModelReference) -> tuple[SegmenterLike, str]:
                own = references.load_segmenter(replace(content, model=model))
                return own, model.name

            annotator.begin_with(content.model, source)
        return annotator


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return what distinguishes a file from the one that replaces it."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def check_planes(events: Iterable[ev.Event], leading: tuple[int, ...]) -> None:
    """Raise SessionError where an event is on a plane that the image does not have."""
    for number, event in enumerate(events):
        plane = getattr(event, "plane", None)
        if plane is None:
            continue
        if len(plane) != len(leading) or any(
            not 0 <= i < n for i, n in zip(plane, leading, strict=True)
        ):
            raise SessionError(
                f"event {number} is on plane {plane}; the image's leading axes are "
                f"{leading}"
            )


def objects_after(
    events: Iterable[ev.Event], plane_shape: tuple[int, int] | None = None
) -> tuple[ObjectState, ...]:
    """Return the objects after the events, by id; needs neither pixels nor a network.

    Without its shape a plane is as large as the clicks and labels need.

    The first event that does not fit those before it raises SessionError.
    """
    if plane_shape is None:
        events = tuple(events)
        places = [e.yx for e in events if isinstance(e, ev.ClickAdded)]
        shapes = [e.labels.shape for e in events if isinstance(e, ev.LabelsImported)]
        needed = np.ceil(np.max([*places, *shapes, (0, 0)], axis=0)) + 1
        plane_shape = shapes[0] if shapes else (int(needed[0]), int(needed[1]))
    annotator = Annotator(None, plane_shape)
    for number, event in enumerate(events):
        try:
            annotator.apply(event)
        except CfrSegError as error:
            raise SessionError(f"event {number}: {error}") from error
    return tuple(state for _, state in sorted(annotator.objects.items()))
