"""Which controller has which session, and the dock's place to see and change it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cfrseg.engine.rounds import SegmenterLike
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.gui.session_keeper import METADATA_KEY, SessionKeeper
from napari_cfrseg.gui.session_panel import SessionPanel
from napari_cfrseg.session.pixels import check_same
from napari_cfrseg.session.reading import parse_at

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

    from napari_cfrseg.gui.controller import Controller

_PLUGIN = "napari-cfrseg"


class SessionDesk:
    """The sessions of one dock.

    Parameters
    ----------
    viewer
        Where session files are opened.
    load
        Loads a segmenter by model name or path; called on the worker.
    notify
        Told (level, message).

    Attributes
    ----------
    panel
        The group of controls.
    """

    def __init__(
        self,
        viewer: napari.Viewer,
        load: Callable[[str], SegmenterLike],
        notify: Callable[[str, str], None],
    ) -> None:
        self._viewer = viewer
        self._load = load
        self._notify = notify
        self._keepers: dict[Controller, SessionKeeper] = {}
        self._shown: SessionKeeper | None = None
        self.panel = SessionPanel(self.open, notify)

    def begin(self, controller: Controller) -> bool:
        """Keep a new controller's session; True if it goes on with an opened one."""
        keeper = SessionKeeper(controller, self._load, self._notify)
        self._keepers[controller] = keeper
        return keeper.writer is not None

    def show(self, controller: Controller | None) -> None:
        """Show a controller's session in the panel, or that there is none."""
        self._shown = None if controller is None else self._keepers.get(controller)
        self.panel.show_keeper(self._shown)

    def end(self, controller: Controller) -> None:
        """Save a closed controller's session and let go of it."""
        keeper = self._keepers.pop(controller, None)
        if keeper is None:
            return
        if keeper is self._shown:
            self.show(None)
        keeper.close()

    def open(self, path: Path) -> None:
        """Open a session: on the image shown if it is made on that, else with its own.

        Raises
        ------
        CfrSegError
            It is no session, or its image cannot be had.
        """
        keeper = self._shown
        if keeper is not None and keeper.writer is None and self._fits(keeper, path):
            keeper.reopen(path)
            return
        self._viewer.open(str(path), plugin=_PLUGIN)

    @staticmethod
    def _fits(keeper: SessionKeeper, path: Path) -> bool:
        """Whether a session was made on the pixels that are on the screen."""
        image = keeper.controller.image
        try:
            check_same(parse_at(path).image, image.data, image.layer.name)
        except CfrSegError:
            return False
        return True


def came_with_session(layer: Layer) -> bool:
    """Whether an image layer was opened by opening a session."""
    from napari.layers import Image

    return type(layer) is Image and METADATA_KEY in layer.metadata
