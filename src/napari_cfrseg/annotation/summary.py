"""Objects that events make, without pixels and without a network."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.errors import CfrSegError, SessionError


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
            msg = f"event {number}: {error}"
            raise SessionError(msg) from error
    return tuple(state for _, state in sorted(annotator.objects.items()))
