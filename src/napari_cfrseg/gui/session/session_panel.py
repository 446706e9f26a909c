"""The dock's session group: where it is, save, open with pictures, export."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QFileDialog, QMenu, QWidget
from superqt.utils import ensure_main_thread

from napari_cfrseg.errors import CfrSegError, counted, said_of
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.dock_widget import (
    TextLine,
    ask_where,
    asks,
    button,
    column_in,
    row,
)
from napari_cfrseg.gui.segment.worker import Report
from napari_cfrseg.gui.session.layer_imports import (
    Here,
    Imports,
    importable,
    read_layer,
    read_objects,
    read_table,
)
from napari_cfrseg.gui.session.layer_references import image_file
from napari_cfrseg.gui.session.session_keeper import SessionKeeper
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.io.axes import Pyramid
from napari_cfrseg.io.tiled_labels import is_large
from napari_cfrseg.overlay import VERMILION, draw_overlay, hex_of
from napari_cfrseg.session.format import SUFFIX
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_exports import FORMATS
from napari_cfrseg.session.session_writer import SessionWriter
from napari_cfrseg.session.unsaved_sessions import (
    recent_sessions,
    sessions_folder,
    unsaved_sessions,
)

if TYPE_CHECKING:
    from napari.layers import Labels, Points

    from napari_cfrseg.gui.segment.controller import Controller

_FILTER = f"Click sessions (*{SUFFIX})"
_OBJECT_FILES = (
    "Labels and outlines (*.tif *.tiff *.png *.bmp *.npy *.geojson *.json *.zip "
    "*.roi);;"
    "All files (*)"
)
_TABLES = "Tables (*.csv *.tsv *.txt);;All files (*)"


class SessionPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """Shows a keeper's state and calls it.

    ``open_file`` opens a session file in the viewer; ``notify`` is called with
    (level, message).
    """

    def __init__(
        self, open_file: Callable[[Path], None], notify: Callable[[str, str], None]
    ) -> None:
        super().__init__()
        self._open_file = open_file
        self._notify = notify
        self.keeper: SessionKeeper | None = None
        self._lost = ""
        #: what is saved; laid out where it stays in sight
        self.label = TextLine()
        self.open_button = button("Open", "Open a session, or reopen a lost one")
        said = "Labels to correct, clicks made elsewhere"
        self.import_button = button("Import", said)
        self.save_button = button("Save as…", "Give the session a place")
        self.export_button = button(
            "Export…", "Labels, outlines, clicks, a methods paragraph"
        )
        self.menu, self.import_menu = QMenu(self), QMenu(self)
        self.menu.setStyleSheet(f"QMenu {{ icon-size: {_ICON_PX}px; }}")
        self._pictures = PictureTaker()
        self._idle = QTimer(self)
        self._idle.setSingleShot(True)
        self._idle.setInterval(_IDLE_MS)
        self._idle.timeout.connect(self._keep_picture)
        self.menu.aboutToShow.connect(self.fill_menu)
        self.import_menu.aboutToShow.connect(self.fill_import_menu)
        self.open_button.setMenu(self.menu)
        self.import_button.setMenu(self.import_menu)
        self.save_button.clicked.connect(self._save)
        self.export_button.clicked.connect(self._export)
        column = column_in(self)
        files = (self.open_button, self.import_button)
        column.addLayout(row(*files, self.save_button, self.export_button))
        self.show_keeper(None)

    def show_keeper(self, keeper: SessionKeeper | None) -> None:
        """Show another image's session, or none."""
        if self.keeper is not None:
            self.keeper.changed.disconnect(self._follow)
            self.keeper.controller.changed.disconnect(self._follow)
        self.keeper = keeper
        lost = sum(_age_s(path) < _REMINDED_S for path in unsaved_sessions())
        unsaved = counted(lost, "unsaved session")
        self._lost = f"{unsaved} from before: Session → Open." if lost else ""
        if keeper is not None:
            keeper.changed.connect(self._follow)
            keeper.controller.changed.connect(self._follow)
        self._follow()

    def fill_menu(self) -> None:
        """List what can be opened now."""
        self.menu.clear()
        self.menu.addAction("Open a session…", self._choose)
        for title, paths in (
            ("Reopen unsaved sessions", unsaved_sessions()),
            ("Recent", recent_sessions()),
        ):
            if not paths:
                continue
            self.menu.addSection(title)
            for path in paths:
                title, icon = _listed(path)
                action = self.menu.addAction(icon, title)
                action.setToolTip(str(path))
                action.triggered.connect(lambda _=False, p=path: self.open(p))
        if unsaved_sessions():
            self.menu.addSeparator()
            self.menu.addAction("Discard unsaved sessions…", self._discard)

    def fill_import_menu(self) -> None:
        """List what can be imported now."""
        self.import_menu.clear()
        if self.keeper is None:
            self.import_menu.addAction("Choose an image first").setEnabled(False)
            return
        labels, points = importable(self.keeper.controller)
        for title, layers in (
            ("Objects from labels", labels),
            ("Clicks from points", points),
        ):
            self.import_menu.addSection(title)
            for layer in layers:
                action = self.import_menu.addAction(layer.name)
                action.triggered.connect(lambda _=False, x=layer: self._import(x))
            if not layers:
                self.import_menu.addAction("(no such layer)").setEnabled(False)
        self.import_menu.addSection("From a file")
        for text, kinds, take in (
            ("Objects of another program…", _OBJECT_FILES, read_objects),
            ("CSV of clicks, with the columns y and x…", _TABLES, read_table),
        ):
            ask = partial(self._import_file, text.rstrip("…"), kinds, take)
            action = self.import_menu.addAction(text)
            action.triggered.connect(lambda _=False, ask=ask: ask())

    @ensure_main_thread  # type: ignore[untyped-decorator]  # the worker reports problems
    def _follow(self, _: Any = None) -> None:
        keeper = self.keeper
        problem = None if keeper is None else keeper.problem
        if keeper is None or (keeper.writer is None and problem is None):
            text = self._lost or "Nothing to save yet."
        else:
            text = keeper.status()
        if keeper is not None and keeper.writer is not None:
            self._idle.start()
        self.label.setText(text)
        style = "" if problem is None else f"color: {hex_of(VERMILION)}"
        if style != self.label.styleSheet():
            self.label.setStyleSheet(style)

    def _keep_picture(self) -> None:
        """Write the session's picture, once nothing has been done for a while."""
        if self.keeper is not None and self.keeper.writer is not None:
            identity = self.keeper.writer.content.identity
            self._pictures.take(self.keeper.controller, identity)

    def _choose(self) -> None:
        chosen = self._ask("Open a session", _FILTER)
        if chosen:
            self.open(Path(chosen))

    def _ask(self, title: str, kinds: str) -> str:
        """Ask for a file, beginning where the session or the image is; "" for none."""
        start = "" if self.keeper is None else str(self._place(self.keeper).parent)
        return str(QFileDialog.getOpenFileName(self, title, start, kinds)[0])

    def open(self, path: Path) -> None:
        """Open a session file; say why if that fails."""
        self._try(lambda: self._open_file(path))

    def _discard(self) -> None:
        """Delete sessions that were never saved, if the person really wants it."""
        paths = unsaved_sessions()
        listed = "\n".join(_listed(path)[0] for path in paths)
        if asks(self, "Discard", f"Delete these sessions for good?\n\n{listed}"):

            def discard() -> None:
                for path in paths:
                    writer = SessionWriter.open(path)
                    picture_path(writer.content.identity).unlink(missing_ok=True)
                    writer.discard()

            self._try(discard)
            self.show_keeper(self.keeper)

    def _save(self) -> None:
        keeper = self.keeper
        if keeper is None or not keeper.has_events:
            self._notify("info", "Nothing was done yet.")
            return
        start = str(self._place(keeper))
        chosen = ask_where(self, "Save as", start, {SUFFIX: "Click sessions"})
        if chosen is None:
            return
        said = "This image is not in a file. Save its pixels beside the session?"

        def save() -> None:
            small = not is_large(keeper.controller.image.plane_shape)
            lacks = small and keeper.lacks_file
            if lacks and asks(self, "Save the image too?", said):
                keeper.save_later(chosen)
            else:
                keeper.save(chosen)

        self._try(save)

    def _place(self, keeper: SessionKeeper) -> Path:
        """Return where the session is if it was saved, else a name beside the image."""
        if keeper.writer is not None and keeper.is_saved:
            return keeper.writer.path
        layer = keeper.controller.image.layer
        folder = (image_file(layer) or Path()).parent
        name = f"{layer.name}{SUFFIX}".replace("/", "-")
        return folder / name if folder.is_dir() else Path(name)

    def _export(self) -> None:
        keeper = self.keeper
        if keeper is None:
            return
        start = str(self._place(keeper)).removesuffix(SUFFIX) + " objects"
        chosen = ask_where(self, "Export", start, FORMATS)
        if chosen is not None:
            self._try(lambda: keeper.export_later(chosen))

    def _import(self, layer: Labels | Points) -> None:
        """Import a layer and hide it."""

        def hide() -> None:
            layer.visible = False

        self._take(layer.name, lambda c, here: read_layer(c, layer, here), hide)

    def _import_file(
        self, title: str, kinds: str, read: Callable[[Controller, Path, Here], Imports]
    ) -> None:
        chosen = Path(self._ask(title, kinds))
        if chosen.name:
            self._take(chosen.name, lambda c, here: read(c, chosen, here))

    def _take(
        self,
        name: str,
        read: Callable[[Controller, Here], Imports],
        then: Callable[[], object] = lambda: None,
    ) -> None:
        """Import on the worker, say what came of it, and let clicks correct it."""
        keeper = self.keeper
        if keeper is None:
            return

        def act(controller: Controller) -> None:
            here = Here.of(controller)

            def work(report: Report) -> Imports:
                found = read(controller, here)
                report((1, 1))  # ends it here where it was given up
                return found

            def done(found: Imports) -> None:
                if controller.queue.closed:  # its image is gone, or has other pixels
                    self._notify("warning", did_not)
                    return
                found.send(controller)
                then()
                self._say(found)
                if self.keeper is keeper:  # else another image is being worked on
                    controller.ready_to_click()

            doing = f"Importing {name} …"
            did_not = f"{name} was not imported."
            controller.hold()
            keeper.later(
                work, done, doing, f"Imported {name}.", did_not, controller.go_on
            )

        keeper.controller.do(act)

    def _say(self, found: Imports) -> None:
        """Report what was imported: objects, and what was left out."""
        if found.left:
            self._notify("warning", found.left)
        if found.objects is not None:
            said = counted(found.objects, "object")
            self._notify("info", f"{said} imported: click to correct.")

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (CfrSegError, OSError) as error:
            self._notify("warning", said_of(error))


#: unsaved sessions older than this are in the menu, but not announced
_REMINDED_S = 86_400
#: a session's picture is made when nothing has happened for so long
_IDLE_MS = 1500
#: side of the pictures in the menu
_ICON_PX = 48
#: larger files are listed without looking into them
_LARGEST_READ_BYTES = 5_000_000


def _age_s(path: Path) -> float:
    return max(time.time() - path.stat().st_mtime, 0.0)


def _listed(path: Path) -> tuple[str, QIcon]:
    """Return a session's name, image, number of objects and age, and its picture."""
    name, icon = path.name.removesuffix(SUFFIX), QIcon()
    facts = []
    with suppress(CfrSegError, OSError):
        if path.stat().st_size < _LARGEST_READ_BYTES:
            session = Session.open(path)
            icon = QIcon(str(picture_path(session.content.identity)))
            count = sum(1 for _ in session.objects())
            image = session.image.path
            facts = [] if image is None else [Path(image).name]
            facts.append(counted(count, "object"))
    age = _age_s(path)
    units = ((86_400, "days"), (3600, "h"), (60, "min"))
    ages = [f"{age // s:.0f} {unit} ago" for s, unit in units if age >= s]
    text = ", ".join((*facts, ages[0] if ages else "just now"))
    is_unsaved = name.startswith("unsaved-")
    return f"Not saved: {text}" if is_unsaved else f"{name}  ({text})", icon


#: longest side of a picture
SIDE_PX = 96
#: pictures kept, and the bytes of a lazy plane up to which it is read for one
_MOST, _LARGEST_BYTES = 100, 1 << 24


def picture_path(identity: str) -> Path:
    """Return where a session's picture is, if there is one.

    Pictures lie by the session's identity: one that was saved, moved or lost in a crash
    keeps its own. Without one nothing is lost.
    """
    return sessions_folder() / "thumbnails" / f"{identity}.png"


class PictureTaker:
    """Writes pictures on a thread of its own, one at a time.

    The pixels may be far away: neither the window nor a click waits for a picture, and
    while a store does not answer there are no further ones.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def take(self, controller: Controller, identity: str) -> None:
        """Write the picture of what is shown now, if it can be read and written."""
        if self._thread is not None and self._thread.is_alive():
            return
        plane = controller.current_plane
        labels, step = _labels(controller, plane)
        target = picture_path(identity)
        work = partial(
            _keep_picture, controller.image.plane(plane), labels, step, target
        )
        self._thread = threading.Thread(target=work, name="cfrseg-picture", daemon=True)
        self._thread.start()


def _keep_picture(
    pixels: Any, labels: NDArray[np.int32], step: int, target: Path
) -> None:
    try:
        found = _picture(pixels, labels, step)
    except Exception:  # noqa: BLE001 - stores raise whatever they like
        return
    if found is None:
        return
    from PIL import Image

    with suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            Image.fromarray(found).save(temporary, "PNG")
        kept = sorted(target.parent.glob("*.png"), key=lambda p: -p.stat().st_mtime)
        for old in kept[_MOST:]:
            old.unlink()


def _labels(controller: Controller, plane: Plane) -> tuple[NDArray[np.int32], int]:
    """Return the labels of every so many pixels of a plane, and how many those are."""
    height, width = controller.image.plane_shape
    step = max(1, -(-max(height, width) // SIDE_PX))
    labels = np.zeros((-(-height // step), -(-width // step)), np.int32)
    for number, whole in controller.objects.items():
        mask = whole.on(plane).mask
        y0, x0 = mask.offset
        inside = mask.mask[-y0 % step :: step, -x0 % step :: step]
        top, left = -(-y0 // step), -(-x0 // step)
        labels[top:, left:][: inside.shape[0], : inside.shape[1]][inside] = number
    return labels, step


def _picture(
    pixels: Any, labels: NDArray[np.int32], step: int
) -> NDArray[np.uint8] | None:
    """Return a plane's (h, w, 3) picture with outlines, None if it is too large."""
    if isinstance(pixels, Pyramid):
        pixels, _ = pixels.fitting(step)
    size = int(np.prod(pixels.shape)) * np.dtype(pixels.dtype).itemsize
    if not isinstance(pixels, np.ndarray) and size > _LARGEST_BYTES:
        return None
    whole_plane = np.asarray(pixels[: pixels.shape[0], : pixels.shape[1]])
    down, across = (
        np.arange(n) * length // n
        for n, length in zip(labels.shape, whole_plane.shape, strict=False)
    )
    return draw_overlay(whole_plane[np.ix_(down, across)], labels)
