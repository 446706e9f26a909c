"""Learn from finished objects for the first clicks on others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from napari_cfrseg.annotation.model_events import ModelAdapted
from napari_cfrseg.annotation.rounds import RoundComputer
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.geometry.masks import Plane


def lesson(
    objects: Mapping[int, ObjectState],
    computer: RoundComputer,
    plane: Plane,
    left_out: Collection[int] = (),
) -> Iterator[ModelAdapted | None]:
    """Yield after each short step; last, if it was worth it, the event to apply.

    Only objects that a person clicked on teach, not masks from elsewhere.
    """
    finished = sorted(
        (state.stamp, object_id)
        for object_id, whole in objects.items()
        for state in (whole.on(plane),)
        if object_id not in left_out and state.clicks and state.mask.mask.size
    )
    ids = [object_id for _, object_id in finished]
    learning = computer.lesson(plane, [objects[i].on(plane) for i in ids])
    yield from learning.run()
    found = learning.result
    if found is not None:
        taught = tuple(ids[-learning.taught :])
        yield ModelAdapted(taught, found.base, found.numbers, found.gain)
