"""Objects, clicks and strokes from other layers, and from tables of clicks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import LabelRuns, Plane
from napari_cfrseg.gui.segment.layers import (
    MOST_OBJECTS,
    holds,
    labels_on,
    points_on,
)
from napari_cfrseg.gui.session.layer_references import (
    METADATA_KEY,
    image_file,
    is_as_closed,
)
from napari_cfrseg.io.click_tables import is_positive
from napari_cfrseg.io.images import read_labels
from napari_cfrseg.io.outline_files import OUTLINE_SUFFIXES, read_outlines
from napari_cfrseg.session.imported_events import (
    events_from_csv,
    events_from_labels,
    events_from_outlines,
    events_from_points,
    hidden_labels,
    renumbered,
    taken_beside,
)

if TYPE_CHECKING:
    from napari.layers import Labels, Layer, Points

    from napari_cfrseg.gui.segment.controller import Controller
    from napari_cfrseg.gui.segment.working_image import WorkingImage
    from napari_cfrseg.io.tiled_labels import AnyLabels
    from napari_cfrseg.session.session import Session


@dataclass(frozen=True, slots=True)
class Imports:
    """Events read from a layer or a file, and not sent yet.

    ``steps`` are events, sent step by step; ``objects`` says how many objects they make
    (None: their clicks say it). ``left`` is what is left out, and why.
    """

    steps: Sequence[Sequence[ev.Event]]
    objects: int | None = None
    left: str = ""

    def send(self, controller: Controller) -> None:
        """Send the steps on their way."""
        for step in self.steps:
            controller.submit(*step)


@dataclass(frozen=True, slots=True)
class Here:
    """The plane and the point that the viewer showed as an import began."""

    plane: Plane
    point: tuple[float, ...]

    @classmethod
    def of(cls, controller: Controller) -> Here:
        """Return what a controller's viewer shows."""
        return cls(controller.current_plane, tuple(controller.viewer.dims.point))


def importable(controller: Controller) -> tuple[list[Labels], list[Points]]:
    """Return the Labels and Points layers of the viewer that are not the dock's own."""
    from napari.layers import Labels, Points

    layers = [x for x in controller.viewer.layers if x not in controller.own_layers]
    labels = [layer for layer in layers if isinstance(layer, Labels)]
    return labels, [layer for layer in layers if isinstance(layer, Points)]


def read_layer(controller: Controller, layer: Labels | Points, here: Here) -> Imports:
    """Make objects of labels, or clicks of points; the layer stays as it is."""
    from napari.layers import Labels

    read = read_labels_layer if isinstance(layer, Labels) else read_points
    return read(controller, layer, here)


def read_objects(controller: Controller, path: Path, here: Here) -> Imports:
    """Make objects of a file of labels, whose pixels lie on the image's, or outlines.

    Raises ImageError if it cannot be read or holds no whole numbers, SessionError if it
    has another shape or no outline that gets a pixel.
    """
    from napari.layers import Labels

    if path.suffix.lower() in OUTLINE_SUFFIXES:
        return _read_outlines(controller, path, here)
    found, image = read_labels(path), controller.image
    placed = image.placement() if found.ndim == image.own_ndim else {}
    layer = Labels(found, name=path.name, **placed)
    return read_labels_layer(controller, layer, here)


def _read_outlines(controller: Controller, path: Path, here: Here) -> Imports:
    image = controller.image
    if image.order:
        msg = "outlines lie on the file's own planes: roll the axes back (Ctrl+E)"
        raise SessionError(msg)
    file = image_file(image.layer)
    names = {image.layer.name} if file is None else {image.layer.name, file.stem}
    outlines = read_outlines(path, names)
    for outline in outlines:
        if outline.size not in (None, image.plane_shape):
            height, width = outline.size
            msg = (
                f"{path.name} is of an image of {height} × {width} pixels, not of this"
            )
            raise SessionError(msg)
        if outline.index and len(outline.index) != len(here.plane):
            raise SessionError(f"{path.name} is of an image with other axes")
    events = events_from_outlines(
        outlines,
        image.shape,
        axes=image.plane_names[:-2],
        here=here.plane,
        first_object=_free_number(controller),
        most=MOST_OBJECTS,
        taken=taken_beside(controller.annotator),
    )
    left = len(outlines) - sum(isinstance(e, ev.MaskImported) for e in events)
    said = (
        f"{left} of {len(outlines)} outlines have no pixel of the image that no "
        "object and no smaller outline has: left out."
    )
    made = sum(isinstance(event, ev.ObjectCreated) for event in events)
    return Imports([events], made, said if left else "")


def _free_number(controller: Controller) -> int:
    """Return the first number of which no object is, on its way or done."""
    done = max(controller.annotator.objects, default=0)
    return max(controller.view.next_id, done + 1)


def read_labels_layer(controller: Controller, layer: Labels, here: Here) -> Imports:
    """Make an object of every label; the layer stays as it is.

    Labels of one plane's shape instead of the image's go to the plane shown; errors
    are those of :func:`labels_on`.
    """
    image, first = controller.image, _free_number(controller)
    if layer.data.shape == image.plane_shape != image.shape:
        labels = np.zeros(image.shape, np.int64)
        labels[here.plane] = renumbered(layer.data, first, MOST_OBJECTS)
    else:
        labels = labels_on(image, layer, range(1, first))
    count = len(np.unique(labels[labels > 0]))
    hidden = hidden_labels(labels, taken_beside(controller.annotator))
    if hidden:
        labels = np.where(np.isin(labels, hidden), 0, labels)
    said = f"{len(hidden)} of {count} labels lie wholly under other objects: left out."
    steps = [[event] for event in events_from_labels(labels)]
    return Imports(steps, count - len(hidden), said if hidden else "")


def read_points(controller: Controller, layer: Points, here: Here) -> Imports:
    """Make clicks of points; each is an object of its own unless a column says whose.

    The feature columns "object" and "polarity" count where there are any.
    """
    points = points_on(controller.image, layer, here.point)
    objects, positive = said_by(layer.features)
    events = events_from_points(
        points,
        objects=objects,
        positive=positive,
        first_object=_free_number(controller),
        first_click=controller.next_click,
        most=MOST_OBJECTS,
    )
    return _on_image(controller, events)


def read_table(controller: Controller, path: Path, _: Here) -> Imports:
    """Make clicks of a table's rows (:func:`.events_from_csv`).

    Raises SessionError if it is no table of clicks.
    """
    image = controller.image
    events = events_from_csv(
        path,
        first_object=_free_number(controller),
        first_click=controller.next_click,
        most=MOST_OBJECTS,
        axes=image.plane_names[:-2],
        pixel_size=(image.spacing[-2], image.spacing[-1]),
    )
    return _on_image(controller, events)


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
    whose points were deleted or dragged are removed or moved. Returns one line for each
    layer that stays, renamed, because of other changes.
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
                _look_like(controller, own, shown)
                layers.remove(shown)
            except SessionError as error:
                shown.name = f"{name} (before)"
                shown.metadata.pop(METADATA_KEY)  # what is opened next has its own
                kept.append(f"“{shown.name}” was kept: {error}")
            break  # others are copies that a person made
        own.name = name
        own.refresh()  # just filled, it is not drawn when another one is removed
    return kept


def _look_like(controller: Controller, own: Layer, shown: Any) -> None:
    """Let a layer of a controller look as the person made the one it replaces look."""
    for look in ("opacity", "blending", "visible"):
        setattr(own, look, getattr(shown, look))
    if own is controller.clicks.layer:
        controller.clicks.markers.take_over(shown)
    elif shown.contour:  # else the dock's own choice stays
        controller.labels.layer.contour = shown.contour


def _take_changes(controller: Controller, session: Session, shown: Any) -> None:
    """Do what was done on a session's layer; raise SessionError where that cannot be.

    Layers that were not saved at the end may have less than the session, a dock that
    is closed while it computes leaves such, but must be as they were then.
    """
    from napari.layers import Labels

    if not isinstance(shown, Labels):
        _take_points(controller, session, shown)
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


def _take_points(controller: Controller, session: Session, shown: Points) -> None:
    """Remove the clicks whose points were deleted, and move those that were dragged."""
    own = controller.clicks.layer
    here, there = (_places_by_number(layer) for layer in (shown, own))
    if len(here) != len(shown.data) or not here.keys() <= there.keys():
        raise SessionError("it has points that are no clicks of the session")
    rows = {str(row.click_id): row for row in controller.clicks.rows}
    gone = [row for number, row in rows.items() if number not in here]
    moved = []
    for number, place in here.items():
        if not np.allclose(place, there[number], atol=1e-3):
            y, x = controller.image.of_own(np.array(place))[-2:]
            moved.append(replace(rows[number], yx=(y, x)))
    if not all(controller.planes.contains(row.yx) for row in moved):
        raise SessionError("it has points beside the image")
    if session.saved_labels() is None:
        if (gone or moved) and not is_as_closed(shown):
            raise SessionError("points were changed while the dock was closed")
        return
    if gone:
        controller.points_removed(gone)
    if moved:
        controller.points_moved(moved)


def _places_by_number(layer: Points) -> dict[str, list[float]]:
    """Return each point's place by the number of its click."""
    numbers = layer.features.get("click", [""] * len(layer.data))
    places = np.asarray(layer.data, float).tolist()
    return {str(n): place for n, place in zip(numbers, places, strict=True)}


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


def _on_image(controller: Controller, events: Sequence[ev.Event]) -> Imports:
    """Return the clicks on the image; an object's creation is a step with its first."""
    shape, left = controller.image.shape, 0
    steps: list[tuple[ev.Event, ...]] = []
    created: dict[int, ev.ObjectCreated] = {}
    for event in events:
        if isinstance(event, ev.ObjectCreated):
            created[event.object_id] = event
        elif isinstance(event, ev.ClickAdded):
            place = (*event.plane, *event.yx)
            if len(place) != len(shape) or not holds(shape, place):
                left += 1
                continue
            if event.object_id > MOST_OBJECTS:
                raise SessionError(f"no more than {MOST_OBJECTS} objects fit")
            begins = created.pop(event.object_id, None)
            step = (event,) if begins is None else (begins, event)
            if not steps:
                step = (replace(step[0], together=False), *step[1:])
            steps.append(step)
    said = f"{left} of {len(steps) + left} clicks are not on the image: left out."
    return Imports(steps, left=said if left else "")
