"""Objects, clicks and strokes from other layers, and from tables of clicks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.gui.segment.layers import (
    MOST_OBJECTS,
    holds,
    labels_on,
    points_on,
)
from napari_cfrseg.gui.session.layer_references import METADATA_KEY, is_as_closed
from napari_cfrseg.io.click_tables import is_positive
from napari_cfrseg.io.images import read_labels
from napari_cfrseg.io.outline_files import OUTLINE_SUFFIXES, read_outlines
from napari_cfrseg.session.imported_events import (
    events_from_csv,
    events_from_labels,
    events_from_outlines,
    events_from_points,
    renumbered,
)

if TYPE_CHECKING:
    from napari.layers import Labels, Points

    from napari_cfrseg.gui.segment.controller import Controller
    from napari_cfrseg.gui.segment.working_image import WorkingImage
    from napari_cfrseg.io.tiled_labels import AnyLabels
    from napari_cfrseg.session.session import Session


#: how many objects, and None; or how many clicks, and how many more are off the image
Imported = tuple[int, int | None]


def importable(controller: Controller) -> tuple[list[Labels], list[Points]]:
    """Return the Labels and Points layers of the viewer that are not the dock's own."""
    from napari.layers import Labels, Points

    layers = [x for x in controller.viewer.layers if x not in controller.own_layers]
    labels = [layer for layer in layers if isinstance(layer, Labels)]
    return labels, [layer for layer in layers if isinstance(layer, Points)]


def import_layer(controller: Controller, layer: Labels | Points) -> Imported:
    """Make objects of labels, or clicks of points; the layer stays as it is."""
    from napari.layers import Labels

    take = import_labels if isinstance(layer, Labels) else import_points
    return take(controller, layer)


def import_objects_file(controller: Controller, path: Path) -> Imported:
    """Make objects of a file of labels, whose pixels lie on the image's, or outlines.

    Raises ImageError if it cannot be read or holds no whole numbers, SessionError if it
    has another shape or no outline that gets a pixel.
    """
    from napari.layers import Labels

    if path.suffix.lower() in OUTLINE_SUFFIXES:
        return _import_outlines(controller, path)
    found, image = read_labels(path), controller.image
    placed = image.placement() if found.ndim == image.own_ndim else {}
    return import_labels(controller, Labels(found, name=path.name, **placed))


def _import_outlines(controller: Controller, path: Path) -> Imported:
    image = controller.image
    if image.order:
        msg = "outlines lie on the file's own planes: roll the axes back (Ctrl+E)"
        raise SessionError(msg)
    outlines = read_outlines(path)
    events = events_from_outlines(
        outlines,
        image.shape,
        axes=image.plane_names[:-2],
        here=controller.current_plane,
        first_object=controller.view.next_id,
        most=MOST_OBJECTS,
    )
    controller.submit(*events)
    left = len(outlines) - sum(isinstance(e, ev.MaskImported) for e in events)
    if left:
        controller.refuse(
            f"{left} of {len(outlines)} outlines have no pixel of the image that no "
            "smaller outline has: left out."
        )
    return sum(isinstance(event, ev.ObjectCreated) for event in events), None


def import_labels(controller: Controller, layer: Labels) -> Imported:
    """Make an object of every label; the layer stays as it is.

    Labels of one plane's shape instead of the image's go to the plane shown; errors
    are those of :func:`labels_on`.
    """
    image, taken = controller.image, range(1, controller.view.next_id)
    if layer.data.shape == image.plane_shape != image.shape:
        labels = np.zeros(image.shape, np.int64)
        numbered = renumbered(layer.data, controller.view.next_id, MOST_OBJECTS)
        labels[controller.current_plane] = numbered
    else:
        labels = labels_on(image, layer, taken)
    _submit(controller, events_from_labels(labels))
    return len(np.unique(labels[labels > 0])), None


def import_points(controller: Controller, layer: Points) -> Imported:
    """Make clicks of points; each is an object of its own unless a column says whose.

    The feature columns "object" and "polarity" count where there are any.
    """
    leading = tuple(controller.viewer.dims.point)
    points = points_on(controller.image, layer, leading)
    objects, positive = said_by(layer.features)
    events = events_from_points(
        points,
        objects=objects,
        positive=positive,
        first_object=controller.view.next_id,
        first_click=controller.next_click,
        most=MOST_OBJECTS,
    )
    return _import(controller, events)


def import_csv(controller: Controller, path: Path) -> Imported:
    """Make clicks of a table's rows (:func:`.events_from_csv`).

    Raises SessionError if it is no table of clicks.
    """
    first, click = controller.view.next_id, controller.next_click
    events = events_from_csv(
        path, first_object=first, first_click=click, most=MOST_OBJECTS
    )
    return _import(controller, events)


def painted_since(
    image: WorkingImage, data: Any, saved: AnyLabels
) -> tuple[ev.Painted, ...]:
    """Return what was painted on a session's labels layer since it was saved.

    Labels that cannot be the session's are a SessionError.
    """
    edited = np.asarray(image.of_own_array(data))
    if edited.shape != saved.shape:
        msg = f"the session's labels have the shape {saved.shape}, not {edited.shape}"
        raise SessionError(msg)
    if int(edited.max(initial=0)) > MOST_OBJECTS:
        msg = f"label {int(edited.max())}: numbers up to {MOST_OBJECTS} can be used"
        raise SessionError(msg)
    return tuple(
        ev.Painted(plane, LabelRuns.from_labels(edited[plane], changed, changed.shape))
        for plane in np.ndindex(saved.shape[:-2])
        if (changed := np.asarray(edited[plane] != saved[plane])).any()
    )


def take_over(controller: Controller, session: Session) -> list[str]:
    """Let a controller's labels and points take the place of those shown of a session.

    What was painted on the labels since they were saved is done here, too, and clicks
    that were deleted are removed. Returns one line for each layer that stays, renamed,
    because of other changes.
    """
    layers, kept = controller.viewer.layers, []
    for own, kind in zip(controller.own_layers, ("objects", "clicks"), strict=True):
        name = f"{controller.image.layer.name} {kind}"
        for shown in list(layers):
            is_its = shown.metadata.get(METADATA_KEY) == str(session.path)
            if shown is own or type(shown) is not type(own) or not is_its:
                continue
            try:
                _take_changes(controller, session, shown)
                layers.remove(shown)
            except SessionError as error:
                shown.name = f"{name} (before)"
                shown.metadata.pop(METADATA_KEY)  # what is opened next has its own
                kept.append(f"“{shown.name}” was kept: {error}")
            break  # others are copies that a person made
        own.name = name
        own.refresh()  # just filled, it is not drawn when another one is removed
    return kept


def _take_changes(controller: Controller, session: Session, shown: Any) -> None:
    """Do what was done on a session's layer; raise SessionError where that cannot be.

    Layers that were not saved at the end may have less than the session, a dock that
    is closed while it computes leaves such, but must be as they were then.
    """
    from napari.layers import Labels

    if not isinstance(shown, Labels):
        here, there = set(_clicks_of(shown)), _clicks_of(controller.clicks.layer)
        if not here <= set(there):
            raise SessionError("it has points that are no clicks of the session")
        rows = zip(controller.clicks.rows, there, strict=True)
        gone = [row for row, key in rows if key not in here]
        if gone and session.saved_labels() is not None:
            controller.points_removed(gone)
        elif gone and not is_as_closed(shown):
            raise SessionError("points were deleted while the dock was closed")
    elif not shown.multiscale and (saved := session.saved_labels()) is not None:
        painted = painted_since(controller.image, shown.data, saved)
        if painted:
            controller.submit(*painted)
    elif not shown.multiscale:
        drawn, restored = np.asarray(shown.data), controller.labels.layer.data
        if drawn.shape != restored.shape or (drawn[drawn != restored] > 0).any():
            raise SessionError("it has labels that the session does not have")
        if not is_as_closed(shown):
            raise SessionError("labels were erased while the dock was closed")


def _clicks_of(layer: Points) -> list[tuple[object, ...]]:
    """Return each point's place and the number of its click."""
    numbers = layer.features.get("click", [""] * len(layer.data))
    places = np.round(layer.data, 3).tolist()
    return [(str(n), *place) for n, place in zip(numbers, places, strict=True)]


def said_by(
    features: Mapping[str, Any],
) -> tuple[list[object] | None, list[bool] | None]:
    """Return whose each point is and its sign, as far as feature columns say.

    A SessionError names a sign that is none.
    """
    objects = list(features["object"]) if "object" in features else None
    if "polarity" not in features:
        return objects, None
    try:
        return objects, [is_positive(str(sign)) for sign in features["polarity"]]
    except ValueError as error:
        raise SessionError(f"the feature polarity: {error}") from error


def _import(controller: Controller, events: Iterable[ev.Event]) -> Imported:
    shape, inside = controller.image.shape, set()
    listed = list(events)
    clicks = [e for e in listed if isinstance(e, ev.ClickAdded)]
    for click in clicks:
        place = (*click.plane, *click.click.yx)
        if len(place) == len(shape) and holds(shape, place):
            inside.add(click.click_id)
    owners = {c.object_id for c in clicks if c.click_id in inside}
    if max(owners, default=0) > MOST_OBJECTS:
        raise SessionError(f"no more than {MOST_OBJECTS} objects fit")
    kept = (
        event
        for event in listed
        if (isinstance(event, ev.ObjectCreated) and event.object_id in owners)
        or (isinstance(event, ev.ClickAdded) and event.click_id in inside)
    )
    _submit(controller, kept)
    return len(inside), len(clicks) - len(inside)


def _submit(controller: Controller, events: Iterable[ev.Event]) -> None:
    """Send events; a creation is one step with the click after it."""
    step: list[ev.Event] = []
    for event in events:
        number = getattr(event, "object_id", None)
        created = isinstance(event, ev.ObjectCreated)
        if step and (created or number != getattr(step[0], "object_id", 0)):
            controller.submit(*step)
            step = []
        step.append(event)
        if not created:
            controller.submit(*step)
            step = []
    if step:
        controller.submit(*step)
