"""The dock while it works on no image: its words, and a way to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox
from qtpy.QtCore import QTimer

from napari_cfrseg.gui.dock_widget import images_of, notify
from napari_cfrseg.gui.segment.click_layer import DRAG_PX, is_edited, moved_px
from napari_cfrseg.gui.segment.dock_view import DockView, Remedy
from napari_cfrseg.gui.segment.layers import Listener
from napari_cfrseg.gui.session.layer_references import is_of
from napari_cfrseg.gui.session.session_panel import SessionPanel

if TYPE_CHECKING:
    import napari
    from napari.layers import Image


class NoImage:
    """Says how to go on, also at each click, while no image is chosen.

    ``choice`` chooses one, ``sessions`` opens its session, ``show_view`` gets what the
    dock is to show.
    """

    def __init__(
        self,
        viewer: napari.Viewer,
        choice: ComboBox,
        sessions: SessionPanel,
        show_view: Callable[[DockView], None],
    ) -> None:
        self._viewer, self._choice, self._sessions = viewer, choice, sessions
        self._show_view = show_view
        self._said = DockView(status="Open an image to begin.")
        self.close = Listener((viewer.mouse_drag_callbacks, self._on_press)).close

    def show(self) -> None:
        """Say it in the status line."""
        self._show_view(self._said)

    def lost(self, image: Image, removed: str, session: Path | None) -> None:
        """Say that a layer was removed which clicks on an image need.

        ``session`` had what was done. Where one other image is left, it is the next.
        """
        is_kept = session is not None and session.exists()
        kept = " What you did is kept: Session → Open." if is_kept else ""
        self._say(f"“{removed}” was removed: choose an image to go on.{kept}")

        def go_back() -> None:
            self._choose(image)
            keeper = self._sessions.keeper
            if session and is_kept and keeper and not keeper.has_events:
                pixels = keeper.controller.image
                if not isinstance(pixels.data, np.ndarray) or is_of(session, pixels):
                    keeper.reopen(session)

        def go_on() -> None:
            images = images_of(self._viewer)
            if not self._is_idle:
                return
            if image in images:
                said = f"“{removed}” was removed, which clicks on “{image.name}” need."
                self._say(
                    f"{said}{kept}", Remedy(f"Go on with “{image.name}”", go_back)
                )
            elif len(images) == 1:
                notify("info", f"“{removed}” was removed.{kept}")
                self._choose(images[0])
            elif not images:
                self._say(f"“{removed}” was removed: open an image to go on.{kept}")

        # all layers may be going, and the dock with them
        soon = QTimer(self._sessions, singleShot=True, interval=0)
        soon.timeout.connect(go_on)
        soon.start()

    def _say(self, status: str, remedy: Remedy | None = None) -> None:
        self._said = DockView(status=status, remedy=remedy)
        self.show()

    def _choose(self, image: Image) -> None:
        if image in self._viewer.layers:
            self._choice.value = image

    @property
    def _is_idle(self) -> bool:
        hears = self._on_press in self._viewer.mouse_drag_callbacks
        return hears and self._choice.value is None

    def _on_press(self, _: Any, event: Any) -> Iterator[None]:
        """Answer a click, which nothing else does now."""
        start, active = np.asarray(event.pos), self._viewer.layers.selection.active
        yield
        while event.type == "mouse_move":
            yield
        if self._is_idle and not is_edited(active) and moved_px(event, start) < DRAG_PX:
            self.show()
            notify("info", self._said.status)
