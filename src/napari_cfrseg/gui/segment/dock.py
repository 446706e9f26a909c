"""The dock: controls only. It shows a DockView and calls the controller."""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from napari_cfrseg.gui.dock_widget import (
    DockWidget,
    Section,
    column_in,
    form,
    images_of,
    notify,
)
from napari_cfrseg.gui.preferences import (
    PLUGIN,
    Preferences,
    bind_keys,
    remember_unfolded,
)
from napari_cfrseg.gui.segment.axes_panel import AxesPanel
from napari_cfrseg.gui.segment.canvas_extras import CanvasExtras
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.gui.segment.dock_view import DockView
from napari_cfrseg.gui.segment.layers import Listener, import_for_layers
from napari_cfrseg.gui.segment.model_loading import (
    SegmenterLoader,
    ShortCollections,
    load_segmenter,
)
from napari_cfrseg.gui.segment.no_image import NoImage
from napari_cfrseg.gui.segment.object_panel import ObjectPanel
from napari_cfrseg.gui.segment.resting_pointer import RestingPointer
from napari_cfrseg.gui.segment.settings_panel import SettingsPanel, StatusPanel
from napari_cfrseg.gui.segment.stack_panel import StackPanel
from napari_cfrseg.gui.segment.worker import Job, Runner, Worker
from napari_cfrseg.gui.segment.working_image import is_turned, show_planes_of
from napari_cfrseg.gui.session.layer_references import (
    forget_session,
    read_whole,
    session_of,
)
from napari_cfrseg.gui.session.session_keeper import SessionKeeper
from napari_cfrseg.gui.session.session_panel import SessionPanel
from napari_cfrseg.model.weights_file import list_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import napari
    from napari.layers import Image, Layer

    from napari_cfrseg.annotation.rounds import SegmenterLike


class ClickDock(DockWidget):
    """Segment the objects of an image by clicks.

    ``load`` loads a segmenter by model name, on the worker (None: the installed
    models'); ``runner`` is where clicks are computed, closed with the dock.
    ``controller`` is that of the image chosen, None without one.
    """

    def __init__(
        self,
        napari_viewer: napari.Viewer,
        load: SegmenterLoader | None = None,
        runner: Runner | None = None,
    ) -> None:
        super().__init__()
        self.left.connect(self.let_go)
        self.viewer = napari_viewer
        self._load = load
        self._runner: Runner = Worker() if runner is None else runner
        self._preferences = Preferences.load()
        self._controllers: dict[Layer, Controller] = {}
        self._pixels: dict[Layer, Listener] = {}
        self._keepers: dict[Controller, SessionKeeper] = {}
        self._unbind: Callable[[], None] | None = None
        self.controller: Controller | None = None
        self.closed = False
        self._collections = ShortCollections()
        self.canvas = CanvasExtras(lambda: self.controller, self._preferences.keys)
        self._on_the_spot = runner is not None
        self._opened = threading.Event()
        if self._on_the_spot:
            self._opened.set()
        self.image_choice = ComboBox(
            label="Image",
            choices=lambda _: images_of(self.viewer),
            nullable=True,
            tooltip="The image to segment",
        )
        self.model_choice = ComboBox(
            label="Model",
            choices=[self._preferences.model],
            value=self._preferences.model,
            tooltip="The network that draws the masks",
        )
        self.axes = AxesPanel(
            lambda: self.controller,
            self._afresh,
            lambda controller: self._keepers[controller].note_axes(),
        )
        self.objects = ObjectPanel(self._preferences.keys)
        self.settings = SettingsPanel(self._preferences)
        self.stack = StackPanel()
        self.status = StatusPanel(self._preferences.keys)
        self.sessions = SessionPanel(self.open_session, notify)
        self.resting = RestingPointer(
            self.viewer,
            self._runner,
            lambda: self.controller,
            self._preferences.resting,
        )
        self.without = NoImage(
            self.viewer, self.image_choice, self.sessions, self.show_view
        )
        self._lay_out()
        self.image_choice.changed.connect(self._on_image)
        self.model_choice.changed.connect(self._on_model)
        layers, dims = self.viewer.layers.events, self.viewer.dims.events
        self._listener = Listener(
            (layers.inserted, self._on_inserted),
            (layers.removed, self._on_removed),
            (layers.renamed, self._on_renamed),
            (dims.order, self._on_turned),
            (dims.ndisplay, self._on_turned),
        )
        self.settings.resting.changed.connect(self.resting.set_mode)
        for panel in (self.objects, self.settings, self.stack, self.status):
            panel.connect_to(lambda: self.controller)
        # Qt passes the dying widget, which is not the runner's timeout
        close_runner = self._runner.close
        self.destroyed.connect(lambda *_: close_runner())
        self._start()
        # importing torch holds the interpreter: let the dock be drawn first
        QTimer.singleShot(0, self._opened.set)

    def docked(self) -> None:
        """Bind keys that Qt, or a keyboard layout, keeps from napari on the canvas."""
        super().docked()
        if not self.closed:
            self.canvas.find(self.window())

    def let_go(self) -> None:
        """End the worker, give layers and keys back; empty layers of ours go."""
        if self.closed:
            return
        self.closed = True
        self._opened.set()
        for part in (self.canvas, self._collections, self._listener, self.resting):
            part.close()
        self.without.close()
        self._leave()
        self._runner.close()
        for layer, found in list(self._controllers.items()):
            empty = found.own_layers if found.is_empty else ()
            self._drop(layer)
            self._remove(empty)

    def open_session(self, path: Path) -> None:
        """Open a session: on the image shown if it was made on that, else with its own.

        Raises
        ------
        CfrSegError
            It is no session, or its image cannot be opened.
        """
        keeper = self.sessions.keeper

        def elsewhere() -> None:
            self.viewer.open(str(path), plugin=PLUGIN)

        if keeper is None:
            elsewhere()
        else:
            keeper.reopen_here(path, elsewhere)

    # -- images ----------------------------------------------------------------------

    def _start(self) -> None:
        from napari.layers import Image

        self._preferences.say_problems(notify)
        images = images_of(self.viewer)
        active = self.viewer.layers.selection.active
        of_sessions = [layer for layer in images if session_of(layer)]
        if isinstance(active, Image):
            self.image_choice.value = active
        elif images:
            self.image_choice.value = (of_sessions or images)[-1]
        else:
            self.without.show()

    def _on_renamed(self) -> None:
        """Offer layers under their new names; the one chosen stays chosen."""
        controller = self.controller
        with self.image_choice.changed.blocked():
            self.image_choice.reset_choices()
            if controller is not None:
                self.image_choice.value = controller.image.layer

    def _on_inserted(self, event: Any) -> None:
        self.image_choice.reset_choices()
        images = images_of(self.viewer)
        nothing_chosen = self.controller is None and self.image_choice.value is None
        is_only = nothing_chosen and images == [event.value]
        if session_of(event.value) or is_only:
            # a session's labels and clicks are still to come
            QTimer.singleShot(0, lambda: self.choose(event.value))

    def choose(self, layer: Image) -> None:
        """Work on an image of the viewer."""
        if layer in self.viewer.layers and not self.closed:
            self.image_choice.value = layer

    def _on_removed(self) -> None:
        """Drop sessions that lost a layer, and begin none: all may be going."""
        self._collections.thaw()
        layers = self.viewer.layers
        for layer, controller in list(self._controllers.items()):
            own = (layer, *controller.own_layers)
            gone = [x.name for x in own if x not in layers]
            if not gone:
                continue
            is_current = controller is self.controller
            writer = self._keepers[controller].writer
            self._drop(layer)
            if is_current:
                self.without.lost(layer, gone[0], writer.path if writer else None)
        with self.image_choice.changed.blocked():
            self.image_choice.reset_choices()
            if self.controller is None:
                self.image_choice.value = None

    def _afresh(self, layer: Image, why: str = "", **said: Any) -> None:
        """Begin again on an image, with what its metadata are to say.

        Objects and their session are set aside; ``why`` is said then.
        """
        before = self._controllers[layer]
        is_current, own = before is self.controller, before.own_layers
        untouched, empty = before.view.is_untouched, before.is_empty
        self._drop(layer)
        forget_session(layer)
        layer.metadata.update(said)
        if empty:
            self._remove(own)
        else:
            for one in own:
                one.name = f"{one.name} (before)"
        if not untouched:
            notify(
                "warning",
                f"{why} its objects and session are kept as they were, and the next "
                "click begins a new session.",
            )
        if is_current:
            self._enter(layer)

    def _remove(self, layers: Iterable[Layer]) -> None:
        """Remove layers of ours."""
        with self.viewer.layers.events.removed.blocker(self._on_removed):
            for layer in layers:
                self.viewer.layers.remove(layer)

    def _drop(self, layer: Layer) -> None:
        """Leave an image, and end what was done on it."""
        controller = self._controllers.pop(layer)
        if controller is self.controller:
            self._leave()
        self._pixels.pop(layer).close()
        controller.close()
        self._keepers.pop(controller).close()
        if self.controller is None:  # this session can be reopened from now on
            self.sessions.show_keeper(None)

    def _on_image(self, layer: Image | None) -> None:
        if layer is None or self.closed:
            return
        self._leave()
        if "pandas" in sys.modules or self._on_the_spot:
            self._enter(layer)
            return
        # napari imports it for its first Points or Labels layer; not in our opening
        self.show_view(DockView(loading=True, status="Getting ready …"))
        self._runner.submit(
            Job(
                lambda _: self._opened.wait() and import_for_layers(),
                lambda _: self._on_image(self.image_choice.value),
                lambda error: notify("error", str(error)),
            )
        )

    def _on_turned(self) -> None:
        """Work on the planes that are shown now, unless objects are on others."""
        found = self.controller
        if found and found.view.is_untouched and is_turned(self.viewer, found.image):
            self._afresh(found.image.layer)

    def _enter(self, layer: Image) -> None:
        controller = self._controllers.get(layer)
        if controller is None:
            controller = self._begin(layer)
        self.controller = controller
        self.settings.apply_to(controller)
        self._unbind = bind_keys(controller, self._preferences.keys)
        controller.changed.connect(self.show_view)
        controller.sent.connect(self.resting.give_way)
        self.sessions.show_keeper(self._keepers[controller])
        controller.ready_to_click()
        self.show_view(controller.view)
        if controller.view.is_untouched:
            self._on_turned()
        else:
            show_planes_of(self.viewer, controller.image)
            controller.say(f"Clicks go to “{layer.name}” again.")

    def _begin(self, layer: Image) -> Controller:
        first = not self._controllers
        model = self.model_choice.value
        load = partial(self._load_when_open, model)
        controller = Controller(self.viewer, layer, self._runner, load, notify, model)
        self._controllers[layer] = controller

        def other_pixels() -> None:
            self._afresh(layer, f"The pixels of “{layer.name}” were replaced:")

        def other_channels() -> None:
            self.axes.follow_visible(controller)

        shown = [one.events for one in controller.image.layers]
        self._pixels[layer] = Listener(
            *((events.data, other_pixels) for events in shown),
            *((events.visible, other_channels) for events in shown),
        )
        controller.go_to = self.choose
        controller.show_keys = self.status.show_keys
        controller.show_band = self.canvas.show_band
        show_planes_of(self.viewer, controller.image)
        if first:
            self._runner.submit(
                Job(
                    lambda _: list_models(),
                    lambda names: self._offer_models(names, self.model_choice.value),
                    # the model that did load is on offer all the same
                    lambda error: notify("warning", f"models not listed: {error}"),
                )
            )
        # a session's own layers take the place of those that were read
        with self.viewer.layers.events.removed.blocker(self._on_removed):
            keeper = SessionKeeper(controller, self._load_when_open, notify)
        self._keepers[controller] = keeper
        if said := read_whole(layer):
            notify("info", said)
        if keeper.writer is None:
            controller.set_refinement(self._preferences.refinement)
            controller.set_rule(self._preferences.rule)
            controller.set_threshold(self._preferences.threshold)
        return controller

    def _leave(self) -> None:
        self.resting.stop()
        if self.controller is not None:
            self.controller.changed.disconnect(self.show_view)
            self.controller.sent.disconnect(self.resting.give_way)
            self.controller = None
            self.sessions.show_keeper(None)
        if self._unbind is not None:
            self._unbind()
            self._unbind = None

    # -- models ----------------------------------------------------------------------

    def _load_when_open(self, name: str) -> SegmenterLike:
        self._opened.wait()
        said = self._preferences
        if self._load is None:
            loaded = load_segmenter(name, said.device, said.precision)
        else:
            loaded = self._load(name)
        self._collections.freeze()
        return loaded

    def _offer_models(self, names: Iterable[str], chosen: str) -> None:
        with self.model_choice.changed.blocked():
            self.model_choice.choices = sorted({*names, chosen})
            self.model_choice.value = chosen

    def _on_model(self, name: str) -> None:
        if self.controller is not None:
            load = partial(self._load_when_open, name)
            self.controller.do(lambda c: c.load_model(load, name))

    # -- looks -----------------------------------------------------------------------

    def show_view(self, view: DockView) -> None:
        """Show a state."""
        found = self.controller
        if view.model and view.model != self.model_choice.value:
            self._offer_models(self.model_choice.choices, view.model)
        self.axes.show_image(None if found is None else found.image)
        self.objects.show_view(view)
        self.settings.show_view(view)
        self.stack.show_view(view)
        self.sections["stack"].setVisible(len(view.stack.cells) > 1)
        self.status.show_view(view)

    def _lay_out(self) -> None:
        inner, folded = QWidget(), QWidget()
        column, inside = column_in(inner, 4), column_in(folded, 4)
        column.setContentsMargins(6, 4, 6, 4)
        column.addLayout(form(self.image_choice))
        column.addWidget(self.axes)
        column.addWidget(self.objects, stretch=1)
        column.addWidget(self.status)
        inside.addLayout(self.objects.more)
        inside.addWidget(self.settings)
        inside.addLayout(form(self.model_choice))
        self.sections = {
            "outline": Section("Outline, display and model", folded),
            "stack": Section("Stack: fill the other planes", self.stack),
            "session": Section("Session", self.sessions),
        }
        self.fold_where_full(self.sections.values())
        for name, section in self.sections.items():
            if name in self._preferences.unfolded:
                section.expand(animate=False)
            section.toggled.connect(self._remember_sections)
            column.addWidget(section)
        column.addWidget(self.sessions.label)
        self.sections["stack"].hide()
        self.fill_with(inner, 376)

    def _remember_sections(self) -> None:
        remember_unfolded(n for n, s in self.sections.items() if s.isExpanded())
