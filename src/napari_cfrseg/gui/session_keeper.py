"""A controller's session: begun with the first act, saved, moved, reopened. No Qt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cfrseg.errors import CfrSegError, SessionError
from napari_cfrseg.gui.layers import WorkingImage
from napari_cfrseg.session.exports import export
from napari_cfrseg.session.fingerprint import fingerprint
from napari_cfrseg.session.folders import note_recent, unsaved_path
from napari_cfrseg.session.models import model_reference
from napari_cfrseg.session.pixels import axis_names, open_image, reference_of
from napari_cfrseg.session.values import (
    SUFFIX,
    ImageReference,
    ModelReference,
    SessionContent,
    SessionSettings,
)
from napari_cfrseg.session.writer import SessionWriter

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_cfrseg.gui.controller import Controller

#: where a layer's metadata say which session it came with
METADATA_KEY = "cfrseg_session"


class SessionKeeper:
    """Keeps one controller's session on the disk.

    Parameters
    ----------
    controller
        A controller on which nothing was done yet.
    model
        Returns the name or path of the model in use.
    notify
        Told (level, message).

    Attributes
    ----------
    changed
        Emitted with one line for the dock: where the session is, or what is wrong.
    """

    changed = Signal(str)

    def __init__(
        self,
        controller: Controller,
        model: Callable[[], str],
        notify: Callable[[str, str], None],
    ) -> None:
        self.controller = controller
        self._model = model
        self._notify = notify
        self._failed: str | None = None
        self._identity = SessionContent(_placeholder()).identity
        controller.annotator.open_writer = self._begin
        path = controller.image.layer.metadata.get(METADATA_KEY)
        if isinstance(path, str | Path):
            self.reopen(Path(path))

    @property
    def writer(self) -> SessionWriter | None:
        """The session being written, None before the first act."""
        return self.controller.annotator.writer

    @property
    def is_saved(self) -> bool:
        """Whether the session has a place of its own (not the unsaved ones' folder)."""
        writer = self.writer
        return writer is not None and writer.path != unsaved_path(self._identity)

    def status(self) -> str:
        """Return where the session is, or what is wrong, in one line."""
        writer = self.writer
        problem = self._failed if writer is None else writer.problem
        if problem is not None:
            return f"⚠ {problem}"
        if writer is None:
            return "Nothing to save yet."
        acts = f"{writer.event_count} acts"
        if not self.is_saved:
            return f"Not saved yet; {acts} kept in case of a crash."
        return f"{writer.path.name}: {acts}, all saved."

    def reopen(self, path: Path) -> None:
        """Go on with a session file: clicks, labels, objects and undo come back."""
        try:
            writer = SessionWriter.open(path)
        except (CfrSegError, OSError) as error:
            self._notify("warning", f"{error}; what you do is kept apart from it")
            return
        self._remove_read_layers(path)
        content = writer.content
        self._identity = content.identity
        annotator = self.controller.annotator
        annotator.writer = writer
        self._listen(writer)

        def failed(error: Exception) -> None:
            # acts from here on would not fit what the file says
            annotator.writer = None
            writer.close()
            self._identity = SessionContent(_placeholder()).identity
            self._notify("warning", f"{path.name} cannot be reopened: {error}")
            if not isinstance(error, CfrSegError):
                raise error

        self.controller.restore(content, failed)
        if self.is_saved:
            note_recent(path)
        self.changed.emit(self.status())

    def save(self, path: Path | None = None, *, keep_pixels: bool = False) -> None:
        """Save, under another name if one is given.

        Parameters
        ----------
        path
            Gets the ending ``.cfrseg.json`` where it is missing.
        keep_pixels
            For an image that is in no file: write it beside the session as TIFF.

        Raises
        ------
        SessionError
            There is nothing to save, or the name is taken by an open session.
        OSError
            It could not be written; the session goes on as before.
        """
        writer, annotator = self.writer, self.controller.annotator
        if writer is None:
            msg = "nothing was done yet: there is nothing to save"
            raise SessionError(msg)
        if self.controller.view.pending:
            msg = "clicks are still being computed (each is kept): save in a moment"
            raise SessionError(msg)
        if path is None:
            writer.save(annotator.snapshot(writer.event_count))
        else:
            if not path.name.endswith(SUFFIX):
                path = path.with_name(path.name.removesuffix(".json") + SUFFIX)
            content = replace(writer.content, image=self._image_in(path.parent))
            if keep_pixels and content.image.path is None:
                content = replace(content, image=self._write_pixels(path))
            snapshot = annotator.snapshot(writer.event_count)
            writer.move_to(path, replace(content, snapshot=snapshot))
        if self.is_saved:
            note_recent(writer.path)
        self.changed.emit(self.status())

    def export(self, path: Path) -> Path:
        """Write results in the format that the ending says (see session.exports)."""
        writer, annotator = self.writer, self.controller.annotator
        if writer is None:
            msg = "nothing was done yet: there is nothing to export"
            raise SessionError(msg)
        leading = self.controller.image.shape[:-2]
        labels = annotator.labels_array(leading)
        return export(path, writer.content, writer.objects, labels)

    def close(self) -> None:
        """Let go of the session; one that was not saved waits to be reopened."""
        annotator = self.controller.annotator
        annotator.open_writer = None
        writer, annotator.writer = annotator.writer, None
        if writer is not None:
            with suppress(OSError):
                writer.save(annotator.snapshot(writer.event_count))
            writer.close()

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
        self._failed = None
        self._listen(writer)
        return writer

    def _listen(self, writer: SessionWriter) -> None:
        def problem(_: str | None) -> None:
            self.changed.emit(self.status())

        writer.on_problem = problem

    def _content(self, folder: Path) -> SessionContent:
        import torch

        model: ModelReference | None = None
        with suppress(CfrSegError, OSError):
            model = model_reference(self._model())
        device = self.controller.view.timing.partition(" ")[0] or "cpu"
        settings = SessionSettings(
            device=device,
            backend=f"torch {torch.__version__}",
            threads=torch.get_num_threads(),
            rgb=self.controller.image.rgb,
        )
        return SessionContent(
            self._image_in(folder), model, settings, identity=self._identity
        )

    def _image_in(self, folder: Path) -> ImageReference:
        return layer_reference(self.controller.image, folder)

    def _write_pixels(self, path: Path) -> ImageReference:
        """Write an image that is in no file beside the session."""
        import tifffile

        image = self.controller.image
        target = path.with_name(path.name.removesuffix(SUFFIX) + ".tif")
        data = np.asarray(image.data)
        tifffile.imwrite(
            target, data, photometric="rgb" if image.layer.rgb else "minisblack"
        )
        return reference_of(
            data,
            path=target,
            folder=path.parent,
            rgb=bool(image.layer.rgb),
            spacing=_spacing(image),
            units=_units(image),
        )

    def _remove_read_layers(self, path: Path) -> None:
        """Take away the layers the reader showed: the controller makes its own."""
        layers = self.controller.viewer.layers
        mine = {self.controller.image.layer}
        mine |= {self.controller.labels.layer, self.controller.clicks.layer}
        shown: list[Layer] = [
            layer
            for layer in layers
            if layer not in mine and layer.metadata.get(METADATA_KEY) == str(path)
        ]
        for layer in shown:
            layers.remove(layer)


def layer_reference(image: WorkingImage, folder: Path) -> ImageReference:
    """Describe a layer's pixels for a session in a folder.

    The file the layer was read from is named only if it holds these pixels, whole or
    at one index of one axis (a channel that was split off).
    """
    layer = image.layer
    rgb = bool(layer.rgb)
    described: dict[str, Any] = {
        "folder": folder,
        "rgb": rgb,
        "spacing": _spacing(image),
        "units": _units(image),
        "level": image.level,
        "axes": axis_names(len(image.data.shape), rgb),
    }
    source = getattr(layer.source, "path", None)
    if source:
        select = _selection(Path(source), image)
        if select is not None:
            return reference_of(image.data, path=source, select=select, **described)
    return reference_of(image.data, **described)


def _selection(path: Path, image: WorkingImage) -> tuple[tuple[int, int], ...] | None:
    """Return what to take of a file to get a layer's pixels; None: it has others."""
    try:
        array = open_image(path, image.level).array
    except CfrSegError:
        return None
    wanted = tuple(int(n) for n in image.data.shape)
    found = tuple(int(n) for n in array.shape)
    rgb = bool(image.layer.rgb)
    mark = fingerprint(image.data, rgb)
    if found == wanted:
        return () if fingerprint(array, rgb) == mark else None
    for axis in range(len(found) - 2):
        if found[:axis] + found[axis + 1 :] == wanted:
            for index in range(found[axis]):
                part = np.asarray(array[(slice(None),) * axis + (index,)])
                if fingerprint(part, rgb) == mark:
                    return ((axis, index),)
    return None


def _spacing(image: WorkingImage) -> tuple[float, ...]:
    return tuple(abs(float(s)) or 1.0 for s in np.asarray(image.placement()["scale"]))


def _units(image: WorkingImage) -> tuple[str, ...]:
    return tuple(str(unit) for unit in image.layer.units)


def _placeholder() -> ImageReference:
    return ImageReference(None, (1, 1), "uint8", ("y", "x"), "0" * 64)
