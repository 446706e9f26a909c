"""Propagation in the window: what the strip shows, what its controls do. No Qt."""

from __future__ import annotations

from dataclasses import replace

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.state import PlaneState
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.segment.dock_view import StackView, StripCell
from napari_cfrseg.gui.segment.layers import Listener
from napari_cfrseg.gui.segment.workspace import Workspace
from napari_cfrseg.io.named_axes import walking_spacing
from napari_cfrseg.propagation.decisions import Suggestion, suggest


class Propagator:
    """Turns the stack controls into events, and objects into a strip."""

    def __init__(self, work: Workspace) -> None:
        self._work, self._planes, self._image = work, work.planes, work.image
        names = self._image.plane_names[:-2]
        self.view = StackView(names, max(len(names) - 1, 0))
        self.close = Listener((work.viewer.dims.events.current_step, self._moved)).close
        work.chosen.connect(self.refresh)
        self.refresh()

    # -- what a person does ----------------------------------------------------------

    def choose_all(self, every: bool) -> None:
        """Propagate every unlocked object from now on, not only the selected one."""
        self.view = replace(self.view, all_objects=every)
        self.refresh()

    def choose_axis(self, axis: int) -> None:
        """Walk along another of the axes from now on."""
        if 0 <= axis < len(self.view.axes):
            self.view = replace(self.view, axis=axis)
            self.refresh()

    def name_axes(self, names: tuple[str, ...]) -> None:
        """Give the image's axes other names, channels staying channels."""
        self._image.names = names
        self.view = replace(self.view, axes=self._image.plane_names[:-2])
        self._work.show(pixel_size=self._image.pixel_size)
        self.refresh()

    def forward(self) -> None:
        """Propagate to the last plane, from the one shown or the anchors before it."""
        self.over(min(self._from(-1)), len(self.view.cells) - 1)

    def backward(self) -> None:
        """Propagate to the first plane, from the one shown or the anchors after it."""
        self.over(0, max(self._from(1)))

    def both(self) -> None:
        """Propagate to all planes; what is up to date stays."""
        self.over(0, len(self.view.cells) - 1)

    def over(self, first: int, last: int, spans: bool = False) -> None:
        """Propagate within a range of planes; ``spans``: the object is on each."""
        objects = self._chosen()
        if not self.view.cells:
            self._work.say("The image has one plane only.")
            return
        if not objects:
            self._work.say("Click an object on a plane first.")
            return
        low, high = min(first, last), max(first, last)
        where = (self._planes.current_plane, self.view.axis)
        planes = (low, high, len(self.view.cells))
        self._work.submit(
            ev.Propagated(objects, *where, *planes, self.spacing(), spans=spans)
        )

    def confirm(self) -> None:
        """Take the propagated mask on the plane shown for right."""
        plane = self._planes.current_plane
        for object_id in self._chosen():
            here = self._line(object_id).get(self.view.here, PlaneState())
            if here.carried is not None and not here.is_anchor:
                self._work.submit(ev.PlaneConfirmed(object_id, plane))

    def jump_to_worst(self) -> None:
        """Show the plane of least confidence, select its object, say where to click."""
        object_id, found = self.suggestion()
        if found is None:
            self._work.say("Nothing is propagated yet.")
            return
        self.jump(found.index)
        self._work.select(object_id)
        name, (y, x) = self._work.objects[object_id].name, map(round, found.yx)
        self._work.say(
            f"{name} on plane {found.index}: expected IoU {found.confidence:.2f}; look "
            f"at row {y}, column {x}."
        )

    def jump(self, index: int) -> None:
        """Show a plane along the axis."""
        plane = list(self._planes.current_plane)
        plane[self.view.axis] = index
        self._planes.show(tuple(plane))

    def suggestion(self) -> tuple[int, Suggestion | None]:
        """Return which object to click next, and where; (0, None): nowhere."""
        best: tuple[int, Suggestion | None] = (0, None)
        for object_id in self._chosen():
            on = self._line(object_id)
            sure = {
                i: s.carried.confidence
                for i, s in on.items()
                if s.carried is not None and not s.is_anchor and s.mask.mask.size
            }
            masks = {i: s.mask for i, s in on.items()}
            found = suggest(masks, sure)
            if found and (best[1] is None or found.confidence < best[1].confidence):
                best = object_id, found
        return best

    # -- what is shown ---------------------------------------------------------------

    def refresh(self) -> None:
        """Show the objects as they are now."""
        if not self.view.axes:
            return
        lines = [self._line(object_id) for object_id in self._chosen()]
        count = self._image.shape[self.view.axis]
        cells = tuple(_cell(i, lines) for i in range(count))
        _, found = self.suggestion()
        self.view = replace(
            self.view,
            cells=cells,
            here=self._planes.current_plane[self.view.axis],
            worst=None if found is None else found.index,
        )
        self._work.show(stack=self.view)

    def summary(self) -> str:
        """Return how many planes are propagated, and which is the least sure."""
        kinds = [cell.kind for cell in self.view.cells]
        worst = self.view.worst
        if worst is None:
            return "Nothing was propagated."
        sure = self.view.cells[worst].confidence
        return (
            f"{kinds.count('carried')} planes propagated from "
            f"{kinds.count('anchor')} annotated; least sure: plane {worst} "
            f"(expected IoU {sure:.2f})."
        )

    def line(self) -> tuple[int | None, tuple[float, float, float]]:
        """Return the axis that is walked along (None: one plane) and the spacing."""
        if not self.view.axes:
            return None, (1.0, 1.0, 1.0)
        return self.view.axis, self.spacing()

    def spacing(self) -> tuple[float, float, float]:
        """Return (between planes, y, x); moments are taken for as near as pixels."""
        axis = self.view.axis
        sizes, units = (
            [said[i] for i in (axis, -2, -1)]
            for said in (self._image.spacing, self._image.units)
        )
        return walking_spacing(sizes, units, self.view.axes[axis])

    def _chosen(self) -> tuple[int, ...]:
        """Return the objects in question: the one selected, or all that can be."""
        selected = self._work.view.selected
        if selected is not None and not self.view.all_objects:
            return (selected,)
        return tuple(
            i
            for i, state in sorted(self._work.objects.items())
            if not state.locked and any(s.is_anchor for s in self._line(i).values())
        )

    def _from(self, side: int) -> list[int]:
        """Return the plane shown, and each object's next anchor to one side of it."""
        here, found = self.view.here, [self.view.here]
        for one in self._chosen():
            line = self._line(one).items()
            away = (side * (i - here) for i, state in line if state.is_anchor)
            found.append(here + side * min((n for n in away if n >= 0), default=0))
        return found

    def _line(self, object_id: int) -> dict[int, PlaneState]:
        """Return an object's planes along the axis, through the plane shown.

        None where its first click is being computed.
        """
        found = self._work.objects.get(object_id)
        if found is None or not self.view.axes:
            return {}
        here, axis = self._planes.current_plane, self.view.axis
        return {
            plane[axis]: on_plane
            for plane, on_plane in found.planes.items()
            if _elsewhere(plane, axis) == _elsewhere(here, axis)
        }

    def _moved(self) -> None:
        if not self.view.axes:
            return
        here = self._planes.current_plane
        if here[self.view.axis] != self.view.here:
            self.refresh()


def _elsewhere(plane: Plane, axis: int) -> Plane:
    return (*plane[:axis], *plane[axis + 1 :])


def _cell(index: int, lines: list[dict[int, PlaneState]]) -> StripCell:
    """Return what a plane's cell shows: the least sure of the objects there."""
    cells = [_state_cell(line[index]) for line in lines if index in line]
    order = {"stopped": 0, "carried": 1, "anchor": 2, "none": 3}
    cells.sort(key=lambda c: (c.kind == "stopped", c.confidence, order[c.kind]))
    if not cells:
        return StripCell(text=f"plane {index}: nothing")
    return replace(cells[0], text=f"plane {index}: {cells[0].text}")


def _state_cell(state: PlaneState) -> StripCell:
    if state.is_anchor:
        return StripCell("anchor", 1.0, "annotated")
    if state.carried is None:
        return StripCell()
    sure, stop = state.carried.confidence, state.carried.stop
    ended = f"; ended here: {stop}" if stop else ""
    if not state.mask.mask.size:
        return StripCell("stopped", sure, f"nothing{ended}")
    return StripCell("carried", sure, f"propagated, expected IoU {sure:.2f}{ended}")
