"""A pointer that rests, or a button that is pressed: the click is computed ahead.

Between a button's press and its release pass some 70 ms, and before that a hand mostly
rests: the click is then answered at once, and its outline can be shown before it.
Another step never waits for this: it ends the work before the network's next run, and
finds what was embedded until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_cfrseg.geometry.masks import MaskPatch, Plane
from napari_cfrseg.gui.segment.click_layer import (
    DRAG_PX,
    Gesture,
    gesture_of,
    is_edited,
    moved_px,
)
from napari_cfrseg.gui.segment.event_queue import Pending, Step
from napari_cfrseg.gui.segment.layers import Listener, PlaneView
from napari_cfrseg.gui.segment.outline_layer import OutlineLayer
from napari_cfrseg.gui.segment.worker import Job, Runner
from napari_cfrseg.overlay import PURPLE, hex_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cfrseg.gui.segment.controller import Controller

#: how long the pointer must rest
REST_MS = 150
#: no outline is drawn where a first click takes longer
SLOWEST_S = 0.8
_COLOUR = hex_of(PURPLE)


class Resting(StrEnum):
    """Choices of what a resting pointer does."""

    NOTHING = "nothing"
    PREPARE = "prepare"
    """the click is computed ahead; not on battery"""
    OUTLINE = "outline"
    """and its outline is drawn, on a machine that is fast enough"""


class RestingPointer:
    """Watches the pointer and its buttons over a viewer's canvas.

    Clicks are computed on ``runner``; ``current`` returns the controller of the image
    being segmented, or None. ``mode``, what a rest does, may be changed at any time; a
    press begins the click in any.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        runner: Runner,
        current: Callable[[], Controller | None],
        mode: Resting,
    ) -> None:
        self._viewer = viewer
        self._runner = runner
        self._current = current
        self.mode = mode
        self._job: Job | None = None
        self._expected = Step()
        self._outline: OutlineLayer | None = None
        self._timer = QTimer(singleShot=True, interval=REST_MS)
        self._timer.timeout.connect(self._rested)
        self._listener = Listener(
            (viewer.mouse_move_callbacks, self._on_move),
            (viewer.mouse_drag_callbacks, self._on_press),
            (viewer.dims.events.current_step, self.stop),
        )

    def close(self) -> None:
        """Watch no more."""
        self.stop()
        self.remove()
        self._listener.close()

    def stop(self) -> None:
        """Compute no further, and show no outline."""
        self.give_way(None)

    def give_way(self, step: Pending | None) -> None:
        """Stop for a step that was submitted, unless it is what is being computed.

        A click that is refined in steps begins again, to show its first mask at once.
        """
        self._timer.stop()
        if self._job is not None:
            click = None if step is None or self._in_steps else step.job
            if step is not None and click is not None and step.step == self._expected:
                click.ahead = self._job
            else:
                self._job.cancel()
        self._job = None
        if self._outline is not None:
            self._outline.hide()

    def remove(self) -> None:
        """Take the outline's layer away."""
        if self._outline is not None:
            layer, self._outline = self._outline.layer, None
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def set_mode(self, mode: Resting) -> None:
        """Do something else from now on; say so where this machine is too slow."""
        self.stop()
        self.mode = mode
        controller = self._current()
        if mode is not Resting.OUTLINE:
            self.remove()
        elif controller is not None and controller.first_click_s > SLOWEST_S:
            controller.say(
                f"No outline under the pointer: a click takes about "
                f"{controller.first_click_s:.1f} s on this machine."
            )

    def _on_move(self, *_: Any) -> None:
        self.stop()
        if self.mode is not Resting.NOTHING:
            self._timer.start()

    @property
    def _in_steps(self) -> bool:
        """Whether clicks are refined in steps, each of which is shown."""
        controller = self._current()
        return controller is not None and controller.view.refinement.extra_steps > 0

    def _on_press(self, _: Any, event: Any) -> Iterator[None]:
        """Begin to compute the click that a press is, until it becomes a drag."""
        self._timer.stop()
        gesture, start = gesture_of(event), np.asarray(event.pos)
        if gesture in (Gesture.CLICK, Gesture.OTHER) and not self._in_steps:
            self._compute(event.position, is_other=gesture is Gesture.OTHER)
        yield
        while event.type == "mouse_move":
            if moved_px(event, start) >= DRAG_PX:
                self.stop()
            yield

    def _rested(self) -> None:
        controller = self._current()
        if controller is None:
            return
        shows = self.mode is Resting.OUTLINE and controller.first_click_s <= SLOWEST_S
        if shows or not on_battery():
            self._compute(self._viewer.cursor.position, shows=shows)

    def _compute(
        self, world: Any, *, is_other: bool = False, shows: bool = False
    ) -> None:
        """Compute the click at a world position, if it would be one."""
        controller = self._current()
        if controller is None or not _takes_clicks(controller):
            return
        if self._viewer.layers.selection.active == controller.clicks.layer:
            world = controller.clicks.of_point(world)
        is_positive = controller.view.is_positive != is_other
        step = controller.steps.expected(world, is_positive)
        if self._job is not None and step == self._expected:
            return
        self.stop()
        if not step.events:
            return
        plane = controller.current_plane

        def done(mask: MaskPatch) -> None:
            if self._job is job and shows:
                self._draw(controller.planes, plane, mask)

        def waits(job: Job) -> None:
            click = controller.waiting
            if click is None or click.job is None or click.job.ahead is not job:
                job.cancel()
            else:  # a click waits for it
                controller.stalled(click.job)

        job = Job(
            lambda _: controller.annotator.look_ahead(
                *step.events, check=job.check, if_apart=step.if_apart
            ),
            done,
            lambda _: None,  # the click itself says what is wrong
            waits=waits,
        )
        self._job, self._expected = job, step
        self._runner.submit(job)

    def _draw(self, planes: PlaneView, plane: Plane, mask: MaskPatch) -> None:
        if not mask.mask.size:
            return
        if self._outline is None or self._outline.planes is not planes:
            self.remove()
            self._outline = OutlineLayer(planes, "next click", (_COLOUR,))
        # outlines need the pixels around it
        labels, (y, x) = np.pad(mask.mask.astype("uint8"), 1), mask.offset
        self._outline.paint((*plane, y - 1, x - 1), labels)


def _takes_clicks(controller: Controller) -> bool:
    """Whether nothing else is being computed, and no layer is being edited."""
    view, active = controller.view, controller.viewer.layers.selection.active
    busy = view.loading or view.pending or view.progress[1] or view.suggestions.running
    adds = active == controller.clicks.layer and str(active.mode) == "add"
    return not busy and (adds or not is_edited(active))


def on_battery() -> bool:
    """Whether the machine runs on its battery; False where that is not known."""
    with suppress(ImportError, OSError):  # napari needs it, on some systems it is less
        psutil = import_module("psutil")
        battery = getattr(psutil, "sensors_battery", lambda: None)()
        return battery is not None and not battery.power_plugged
    return False
