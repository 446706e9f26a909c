"""A controller's session: begun with the first act, saved, moved, reopened. No Qt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.errors import (
    CfrSegError,
    JobCancelled,
    SessionError,
    counted,
    said_of,
)
from napari_cfrseg.gui.segment.layer_axes import METADATA_AXES
from napari_cfrseg.gui.segment.worker import Failure, Job, Report
from napari_cfrseg.gui.session.layer_imports import take_over
from napari_cfrseg.gui.session.layer_references import (
    METADATA_KEY,
    axes_in_session,
    forget_session,
    image_file,
    is_of,
    known_reference,
    note_as_closed,
    remember_session,
    session_to_go_on,
    write_pixels,
)
from napari_cfrseg.model.weights_file import installed_name
from napari_cfrseg.session.format import (
    SUFFIX,
    ImageReference,
    ModelReference,
    SessionContent,
    SessionSettings,
    new_identity,
)
from napari_cfrseg.session.references import described, find_weights
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_exports import Table, export, measure
from napari_cfrseg.session.session_writer import SessionWriter
from napari_cfrseg.session.unsaved_sessions import note_recent, unsaved_path

if TYPE_CHECKING:
    from napari_cfrseg.gui.segment.controller import Controller


class SessionKeeper:
    """Keeps the session of a controller, on which nothing was done yet, on the disk.

    ``load`` loads a segmenter by model name or path, on the runner; ``notify`` is
    called with (level, message).
    """

    #: emitted with one line: where the session is, or what is wrong
    changed = Signal(str)

    def __init__(
        self,
        controller: Controller,
        load: Callable[[str], SegmenterLike],
        notify: Callable[[str, str], None],
    ) -> None:
        self.controller = controller
        self._load = load
        self._notify = notify
        self._reopening: SessionWriter | None = None
        self._not_installed: list[str] = []
        self._failed: str | None = None
        self._identity = new_identity()
        controller.annotator.open_writer = self._begin
        controller.annotator.model_source = self._source
        controller.applied.connect(self._mark_layers)
        path, problem = session_to_go_on(controller.image, controller.viewer.layers)
        if problem:
            notify("warning", problem)
        if path is not None:
            self.reopen(path)

    @property
    def writer(self) -> SessionWriter | None:
        """The session being written or reopened, None before the first act."""
        return self._reopening or self.controller.annotator.writer

    @property
    def has_events(self) -> bool:
        """Whether anything was done, on the disk or still in memory."""
        return self.writer is not None or bool(self.controller.annotator.waiting)

    @property
    def lacks_file(self) -> bool:
        """Whether the image is in no file that a session could refer to."""
        writer = self.writer
        image = self._image_in(Path()) if writer is None else writer.content.image
        return image.path is None

    @property
    def is_saved(self) -> bool:
        """Whether the session has a place of its own (not the unsaved ones' folder)."""
        writer = self.writer
        return writer is not None and writer.path != unsaved_path(self._identity)

    @property
    def problem(self) -> str | None:
        """Why acts are not on the disk; None if they are."""
        return self._failed if self.writer is None else self.writer.problem

    def status(self) -> str:
        """Return where the session is, or what is wrong, in one line."""
        writer = self.writer
        if self.problem is not None:
            return f"⚠ {self.problem}"
        if self._reopening:
            return "Reopening …"
        if writer is None:
            return "Nothing to save yet."
        actions = counted(writer.event_count, "action")
        if not self.is_saved:
            return f"Not saved yet; {actions} kept in case of a crash."
        return f"{writer.path.name}: {actions}, all on the disk."

    def reopen(self, path: Path) -> None:
        """Go on with a session file: clicks, labels, objects and undo come back."""
        try:
            writer = SessionWriter.open(path)
        except (CfrSegError, OSError) as error:
            self._notify("warning", f"{error}; what you do is kept apart from it")
            return
        content = writer.content
        self._identity = content.identity
        annotator = self.controller.annotator
        self._listen(writer)
        self._reopening = writer

        def restored() -> None:
            self._reopening = None
            self._take_names(writer)
            self._note_whereabouts(writer)
            self._mark_layers()
            kept = take_over(self.controller, Session(path, content))
            for text in dict.fromkeys((*self._not_installed, *kept)):
                self._notify("warning", text)
            self._not_installed.clear()
            self.changed.emit(self.status())

        def failed(error: Failure) -> None:
            self._reopening = None
            # acts from here on would not fit what the file says
            annotator.writer = None
            writer.close()
            self._identity = new_identity()
            if isinstance(error, JobCancelled):
                self.controller.say(f"{path.name} was not reopened; it stays as it is.")
                return
            said = f"{path.name} cannot be reopened: {error}"
            self.controller.say(said)
            self._notify("warning", said)
            if not isinstance(error, CfrSegError):
                raise error

        self.controller.restore(writer, restored, failed)
        if self.is_saved:
            note_recent(path)
        self.changed.emit(self.status())

    def reopen_here(self, path: Path, elsewhere: Callable[[], object]) -> None:
        """Go on with a session made on these pixels; ``elsewhere`` opens another."""
        controller, image = self.controller, self.controller.image
        if self.has_events or not controller.view.is_untouched:
            elsewhere()
            return

        def go_on(same: bool) -> None:
            go_here = same and not controller.queue.closed
            self.reopen(path) if go_here else elsewhere()

        def ended() -> None:
            if not self._reopening:
                controller.go_on()

        if isinstance(image.data, np.ndarray):
            go_on(is_of(path, image))
        else:
            said = f"Comparing the image with {path.name} …"
            did = "", f"{path.name} was not opened."
            controller.hold()
            self.later(lambda _: is_of(path, image), go_on, said, *did, ended)

    def save(self, path: Path | None = None, *, keep_pixels: bool = False) -> None:
        """Save, under another name if one is given (``.cfrseg.json`` is added to it).

        With ``keep_pixels`` an image that is in no file is written beside the session
        as TIFF. Raises SessionError if there is nothing to save, or the name is taken
        by an open session; after an OSError the session continues as before.
        """
        self._check_ready("save")
        if path is not None:
            self._save_as(path, keep_pixels)
        elif self.writer is None:
            raise SessionError(f"{self._failed}: save it under a name")
        else:
            count = self.writer.event_count
            self.writer.save(self.controller.annotator.snapshot(count))
        self._note_saved()

    def save_later(self, path: Path) -> None:
        """Save under a name, with the image's pixels, on the worker; Esc ends it.

        A SessionError says that there is nothing to save yet.
        """
        self._check_ready("save")
        self.later(
            lambda report: self._save_as(path, True, report),
            lambda _: self._note_saved(),
            f"Saving {path.name} with its image …",
            f"Saved {path.name} with its image.",
            f"{path.name} was not saved.",
        )

    def _save_as(
        self, path: Path, keep_pixels: bool, report: Report = lambda _: None
    ) -> None:
        writer, annotator = self.writer, self.controller.annotator
        if not path.name.endswith(SUFFIX):
            path = path.with_name(path.name.removesuffix(".json") + SUFFIX)
        if writer is None:  # the folder of unsaved sessions cannot be written
            writer = SessionWriter.create(path, self._content(path.parent))
            self._failed = None
            self._listen(writer)
            annotator.write_to(writer)
        snapshot = annotator.snapshot(writer.event_count)
        image = self._image_in(path.parent)
        if keep_pixels and image.path is None:
            image = write_pixels(self.controller.image, path, report)
        content = replace(writer.content, image=image, snapshot=snapshot)
        writer.move_to(path, content, keep=self.is_saved)

    def _note_saved(self) -> None:
        self._mark_layers()
        if self.writer is not None and self.is_saved:
            note_recent(self.writer.path)
        self.changed.emit(self.status())

    def export(self, path: Path) -> Path:
        """Write results in the format that the ending says (see session.exports).

        Measurements become the labels layer's features, too.
        """
        self._check_ready("export")
        written, table = self._write(path)
        self._show_measured(table)
        return written

    def export_later(self, path: Path) -> None:
        """Export on the worker, so that the window answers; say when it is done.

        A SessionError says that there is nothing to export yet.
        """
        self._check_ready("export")
        self.later(
            lambda _: self._write(path),
            lambda found: self._show_measured(found[1]),
            f"Exporting to {path.name} …",
            f"Exported to {path.name}.",
            f"{path.name} was not exported.",
        )

    def later(
        self,
        work: Callable[[Report], Any],
        done: Callable[[Any], object],
        doing: str,
        did: str,
        did_not: str,
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        """Do something on the worker, and say how far it is and how it ended."""
        controller = self.controller

        def finished(found: Any) -> None:
            controller.say(did, progress=(0, 0))
            try:
                done(found)
                ended()
            except (CfrSegError, OSError) as error:
                failed(error)

        def failed(error: Failure) -> None:
            controller.say(did_not, progress=(0, 0))
            ended()
            if isinstance(error, JobCancelled):
                return
            if not isinstance(error, CfrSegError | OSError):
                raise error
            self._notify("warning", said_of(error))

        def reported(progress: tuple[int, int]) -> None:
            if not job.is_cancelled:
                controller.show_progress(progress)

        job = Job(work, finished, failed, reported, controller.stalled)
        controller.begin_long(job, doing)
        controller.show(progress=(0, 1))
        controller.runner.submit(job)

    def _write(self, path: Path) -> tuple[Path, Table | None]:
        """Export; return where, and the measurements if they were asked for."""
        image, annotator = self.controller.image, self.controller.annotator
        writer, labels = self.writer, annotator.labels_array(image.shape[:-2])
        if writer is None:
            content = replace(self._content(path.parent), events=annotator.waiting)
        else:
            content = writer.content
        objects = [o for _, o in sorted(annotator.objects.items())]
        origin = image.of_layer(image.layer.translate)[: labels.ndim]
        own = (objects, labels, image.data, image_file(image.layer), origin)
        written = export(path, content, *own)
        if not path.name.endswith(".measurements.csv"):
            return written, None
        return written, measure(labels, objects, content.image, image.data)

    def _show_measured(self, table: Table | None) -> None:
        if table is not None:
            named = {"index": table.get("object", []), **table}
            self.controller.labels.layer.features = named

    def close(self) -> None:
        """Let go of the session; one that was not saved waits to be reopened.

        The image's layer names it, for when the dock is opened again.
        """
        annotator, is_saved = self.controller.annotator, self.is_saved
        self.controller.applied.disconnect(self._mark_layers)
        annotator.open_writer = None
        writer, annotator.writer = self.writer, None
        if writer is None:
            return
        if not (is_saved or annotator.objects or self._is_busy):
            writer.discard()  # nothing is left to come back to
            forget_session(self.controller.image.layer)
        else:
            remember_session(self.controller.image, writer.path)
            unsaved = list(self.controller.own_layers)
            if not self._is_busy:  # else the labels are not those of the events
                with suppress(OSError):
                    writer.save(annotator.snapshot(writer.event_count))
                    unsaved = []
            for layer in unsaved:
                note_as_closed(layer)
            writer.close()

    def _check_ready(self, act: str) -> None:
        if not self.has_events:
            raise SessionError(f"nothing was done yet: there is nothing to {act}")
        if self._is_busy:
            msg = f"clicks are still being computed (each is kept): {act} in a moment"
            raise SessionError(msg)

    @property
    def _is_busy(self) -> bool:
        return self._reopening is not None or self.controller.view.pending > 0

    # -- beginning -------------------------------------------------------------------

    def _begin(self) -> SessionWriter | None:
        """Begin a session in the folder of the unsaved ones (on the worker)."""
        path = unsaved_path(self._identity)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = SessionWriter.create(path, self._content(path.parent))
        except (OSError, CfrSegError) as error:
            self._failed = f"this session is not being saved ({error})"
            self.changed.emit(self.status())
            return None
        except JobCancelled:  # the act is taken back; the next one begins it
            return None
        self._failed = None
        self._listen(writer)
        return writer

    def _listen(self, writer: SessionWriter) -> None:
        writer.on_problem = lambda _: self.changed.emit(self.status())

    def _content(self, folder: Path) -> SessionContent:
        import torch

        name, view = self.controller.annotator.model, self.controller.view
        model = described(name) if name else None
        settings = SessionSettings(
            device=view.device or "cpu",
            precision=view.precision,
            backend=view.backend or f"torch {torch.__version__}",
            threads=torch.get_num_threads(),
            rgb=self.controller.image.rgb,
        )
        image = self._image_in(folder)
        return SessionContent(image, model, settings, identity=self._identity)

    def _source(self, model: ModelReference) -> tuple[SegmenterLike, str] | None:
        """Load the model a session was made with (on the worker)."""
        try:
            name = installed_name(find_weights(model))
        except CfrSegError as error:
            self._not_installed.append(
                f"{error}. The masks were computed with another model"
            )
            return None
        return self._load(name), name

    def _image_in(self, folder: Path) -> ImageReference:
        known = None if self.writer is None else self.writer.content.image
        return known_reference(self.controller.image, known, folder)

    def _note_whereabouts(self, writer: SessionWriter) -> None:
        """Record where the image is now, if the session has another place."""
        image = self._image_in(writer.path.parent)
        known = writer.content.image
        if image.path is not None and image.path != known.path:
            writer.update(image=replace(known, path=image.path))

    def _take_names(self, writer: SessionWriter) -> None:
        """Name the image's axes as a reopened session does."""
        image = self.controller.image
        said = writer.content.image.axes[: len(image.shape)]
        names = list(image.names)
        for axis, name in zip(image.axes, said, strict=True):
            names[axis] = name
        if tuple(names) != image.names:
            self.controller.stack.name_axes(tuple(names))

    def note_axes(self) -> None:
        """Write the axes' names down, after a person gave them others."""
        if self.writer is not None:
            axes = axes_in_session(self.controller.image)
            self.writer.update(image=replace(self.writer.content.image, axes=axes))

    def _mark_layers(self, _: object = None) -> None:
        """Note in our layers' metadata which session they belong to."""
        if self.writer is not None:
            for layer in self.controller.own_layers:
                layer.metadata[METADATA_KEY] = str(self.writer.path)
                layer.metadata[METADATA_AXES] = self.controller.image.names
