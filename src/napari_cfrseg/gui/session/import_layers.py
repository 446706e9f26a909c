"""Objects and clicks made elsewhere: Labels layers, Points layers, CSV. No Qt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.errors import SessionError
from napari_cfrseg.gui.segment.layers import MOST_OBJECTS, split_index, world_to_index
from napari_cfrseg.io.axes import turned
from napari_cfrseg.session.imported_events import (
    events_from_csv,
    events_from_labels,
    events_from_points,
    renumbered,
)

if TYPE_CHECKING:
    from napari.layers import Labels, Layer, Points

    from napari_cfrseg.gui.segment.controller import Controller


def importable(controller: Controller) -> tuple[list[Labels], list[Points]]:
    """Return the Labels and Points layers of the viewer that are not the dock's own."""
    from napari.layers import Labels, Points

    own = (controller.labels.layer, controller.clicks.layer)
    layers: list[Layer] = [x for x in controller.viewer.layers if x not in own]
    return (
        [layer for layer in layers if isinstance(layer, Labels)],
        [layer for layer in layers if isinstance(layer, Points)],
    )


def import_labels(controller: Controller, layer: Labels) -> int:
    """Make an object of every label; clicks then correct it. The layer stays as it is.

    Parameters
    ----------
    controller
        Whose image the labels are of.
    layer
        Labels of the image's shape, or of one plane's, which go to the plane shown.

    Returns
    -------
    How many objects there are more.

    Raises
    ------
    SessionError
        They are of another shape, or too many.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    if len(data.shape) == len(controller.image.shape):
        data = turned(data, controller.image.order)
    shape, wanted = tuple(int(n) for n in data.shape), controller.image.shape
    on_one_plane = shape == wanted[-2:] != wanted
    if shape != wanted and not on_one_plane:
        msg = f"{layer.name} has the shape {shape}, the image {wanted}: not imported"
        raise SessionError(msg)
    labels = renumbered(np.asarray(data), controller.view.next_id, MOST_OBJECTS)
    if on_one_plane:
        whole = np.zeros(wanted, labels.dtype)
        whole[controller.current_plane] = labels
        labels = whole
    events = list(events_from_labels(labels))
    controller.do(events)
    return len({i for event in events for i in _values(event)})


def import_points(controller: Controller, layer: Points) -> tuple[int, int]:
    """Make clicks of points; each is an object of its own unless a column says whose.

    Parameters
    ----------
    controller
        Whose image is clicked on.
    layer
        Its feature columns "object" and "polarity" count where there are any.

    Returns
    -------
    How many became clicks, and how many do not lie on the image.
    """
    target = controller.labels.layer
    leading = tuple(controller.viewer.dims.point)
    data = []
    for point in np.asarray(layer.data, float):
        world = tuple(layer.data_to_world(point))
        world = (*leading[: max(target.ndim - len(world), 0)], *world)
        place = controller.image.of_layer(world_to_index(target, world))
        plane, yx = split_index(place)
        data.append((*plane, *yx))
    points = np.array(data, float).reshape(-1, target.ndim)
    objects, positive = said_by(layer.features)
    events = events_from_points(
        points,
        objects=objects,
        positive=positive,
        first_object=controller.view.next_id,
        first_click=controller.next_click,
    )
    return _import(controller, events)


def import_csv(controller: Controller, path: Path) -> tuple[int, int]:
    """Make clicks of a table's rows (see session.imports).

    Returns
    -------
    How many became clicks, and how many do not lie on the image.

    Raises
    ------
    SessionError
        It is no table of clicks.
    """
    events = events_from_csv(
        path,
        first_object=controller.view.next_id,
        first_click=controller.next_click,
    )
    return _import(controller, events)


def said_by(
    features: Mapping[str, Any],
) -> tuple[list[object] | None, list[bool] | None]:
    """Return whose each point is and its sign, as far as feature columns say."""
    objects = list(features["object"]) if "object" in features else None
    if "polarity" not in features:
        return objects, None
    return objects, [str(sign) != "negative" for sign in features["polarity"]]


def _import(controller: Controller, events: Iterable[ev.Event]) -> tuple[int, int]:
    shape, inside = controller.image.shape, set()
    listed = list(events)
    clicks = [e for e in listed if isinstance(e, ev.ClickAdded)]
    for click in clicks:
        place = (*click.plane, *click.click.yx)
        fits = len(place) == len(shape)
        if fits and all(-0.5 <= v < n - 0.5 for v, n in zip(place, shape, strict=True)):
            inside.add(click.click_id)
    owners = {c.object_id for c in clicks if c.click_id in inside}
    if max(owners, default=0) > MOST_OBJECTS:
        msg = f"no more than {MOST_OBJECTS} objects fit"
        raise SessionError(msg)
    controller.do(
        event
        for event in listed
        if (isinstance(event, ev.ObjectCreated) and event.object_id in owners)
        or (isinstance(event, ev.ClickAdded) and event.click_id in inside)
    )
    return len(inside), len(clicks) - len(inside)


def _values(event: ev.Event) -> tuple[int, ...]:
    return event.labels.values if isinstance(event, ev.LabelsImported) else ()
