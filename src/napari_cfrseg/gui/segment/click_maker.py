"""Points a person sets, and events made elsewhere, become numbered clicks.

Nothing is sent on its way here; see
:class:`napari_cfrseg.gui.segment.outcomes.Outcomes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.state import ClickEntry
from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.segment.click_layer import ClickRow
from napari_cfrseg.gui.segment.dock_state import DockState
from napari_cfrseg.gui.segment.layers import MOST_OBJECTS
from napari_cfrseg.gui.segment.places import Places

#: an event, the points that stand for it, and the creation of its object (None: there
#: is one, or it is no click)
Act = tuple[ev.Event, tuple[ClickRow, ...], ev.ObjectCreated | None]


class ClickMaker:
    """Makes events of clicks and gives each click its number.

    Parameters
    ----------
    places
        Where points lie.
    state
        Whose the next click is; told why a point is no click.

    Attributes
    ----------
    next_number
        The number of the next click.
    focus_shift
        Steps that the next click looks wider (> 0) or closer (< 0).
    """

    def __init__(self, places: Places, state: DockState) -> None:
        self._places = places
        self._state = state
        self.next_number = 1
        self.focus_shift = 0

    def of_point(self, index: Sequence[float], other_polarity: bool) -> Act | None:
        """Return the act a new point is; None (and say why) if it is no click.

        Parameters
        ----------
        index
            The point's coordinates in its layer.
        other_polarity
            Whether it means the opposite of what a left click means now.
        """
        view, notify = self._state.view, self._state.notify
        why_not = self._places.why_not_here()
        if why_not:
            notify("info", why_not)
            return None
        place = self._places.of_point(index)
        if place is None:
            notify("info", "That click is not on the image.")
            return None
        plane, yx = place
        is_positive = view.is_positive != other_polarity
        object_id, first = view.selected, None
        if object_id is None:
            if not is_positive:
                notify("info", "The first click of an object must be positive.")
                return None
            object_id = view.next_id
            if object_id > MOST_OBJECTS:
                notify("warning", f"No more than {MOST_OBJECTS} objects fit.")
                return None
            first = ev.ObjectCreated(object_id, threshold=view.threshold)
        row = ClickRow(self.next_number, object_id, plane, yx, is_positive)
        self.next_number += 1
        shift, self.focus_shift = self.focus_shift, 0
        event = ev.ClickAdded(
            object_id,
            plane,
            Click(yx, is_positive),
            row.click_id,
            shift,
            self._hint(object_id, plane),
        )
        return event, (row,), first

    def of_events(self, events: Iterable[ev.Event]) -> Iterator[Act]:
        """Yield the acts that events made elsewhere are, in order.

        An object's creation is one act with the click that follows it.
        """
        created: ev.ObjectCreated | None = None
        for event in events:
            first, created = created, None
            if isinstance(event, ev.ObjectCreated):
                if first is not None:
                    yield first, (), None
                created = event
            elif isinstance(event, ev.ClickAdded):
                yx, sign = event.click.yx, event.click.is_positive
                number = event.click_id
                row = ClickRow(number, event.object_id, event.plane, yx, sign)
                self.next_number = max(self.next_number, number + 1)
                yield event, (row,), first
            else:
                yield event, (), first
        if created is not None:
            yield created, (), None

    def refocus(self, step: int) -> ev.ClickRefocused | None:
        """Look closer (−1) or wider (+1) at the selected object's newest click here.

        Without one, None is returned and the next click will look so.
        """
        selected, objects = self._state.view.selected, self._state.objects
        clicks: tuple[ClickEntry, ...] = ()
        if selected in objects:
            clicks = objects[selected].on(self._places.current_plane).clicks
        if not clicks:
            self.focus_shift += step
            self._state.show(status=f"Focus of the next click: {self.focus_shift:+d}")
            return None
        newest = clicks[-1]
        shift = newest.focus_shift + step
        self._state.show(status=f"Focus of the newest click: {shift:+d}")
        return ev.ClickRefocused(newest.click_id, shift)

    def number_after(self, events: Iterable[ev.Event]) -> None:
        """Go on counting after the clicks of a session."""
        used = [e.click_id for e in events if isinstance(e, ev.ClickAdded)]
        self.next_number = max(used, default=0) + 1

    def _hint(self, object_id: int, plane: Plane) -> FocusHint | None:
        found = self._state.objects.get(object_id)
        if found is not None and not found.on(plane).is_empty:
            return None
        return self._places.hint(self._state.objects)
