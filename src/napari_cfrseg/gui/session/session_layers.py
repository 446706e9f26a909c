"""Layers and sessions: napari's reader and writer, and imports from other layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.errors import SessionError
from napari_cfrseg.gui.segment.click_layer import COLOURS, SYMBOLS, features_of
from napari_cfrseg.gui.segment.layers import (
    METADATA_ORDER,
    MOST_OBJECTS,
    split_index,
    world_to_index,
)
from napari_cfrseg.gui.session.session_keeper import METADATA_IMAGE, METADATA_KEY
from napari_cfrseg.io.axes import Pyramid, back, put, turned
from napari_cfrseg.io.tiled_labels import TiledLabels
from napari_cfrseg.session.format import SUFFIX, ImageReference, SessionContent
from napari_cfrseg.session.imported_events import (
    events_from_csv,
    events_from_labels,
    events_from_points,
    renumbered,
)
from napari_cfrseg.session.references import (
    check_same,
    find_image,
    open_reference,
    reference_of,
    relative_path,
)
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.storage import SessionWriter, note_recent

if TYPE_CHECKING:
    from napari.layers import Labels, Points

    from napari_cfrseg.gui.segment.controller import Controller

LayerData = tuple[Any, dict[str, Any], str]


def get_session_reader(path: str | list[str]) -> Callable[..., list[LayerData]] | None:
    """Return the reader of ``*.cfrseg.json`` files, None for others."""
    if isinstance(path, str) and path.endswith(SUFFIX):
        return read_session
    return None


def read_session(path: str | list[str]) -> list[LayerData]:
    """Return a session's image, labels as saved and clicks, as layers.

    The layers' metadata name the session: the dock continues it.
    """
    file = Path(path if isinstance(path, str) else path[0])
    session = Session.open(file)
    image = session.image.in_the_file
    own = back(session.image.order)
    array, found = _find_pixels(session)
    note_recent(file)
    metadata = {METADATA_KEY: str(file)}
    stem = file.name.removesuffix(SUFFIX)
    ndim = len(image.leading) + 2
    placed: dict[str, Any] = {"metadata": metadata}
    if image.spacing is not None and len(image.spacing) == ndim:
        placed["scale"] = image.spacing
    if image.units is not None and len(image.units) == ndim:
        placed["units"] = image.units
    labels = session.saved_labels()
    of_image = {METADATA_IMAGE: str(found), METADATA_ORDER: session.image.order}
    described = {**placed, "name": stem, "rgb": image.has_channels}
    described["metadata"] = {**metadata, **of_image}
    pixels = turned(array, own)
    if isinstance(pixels, Pyramid):
        pixels, described["multiscale"] = list(pixels.levels), True
    layers: list[LayerData] = [(pixels, described, "image")]
    if labels is not None:
        named = {**placed, "name": f"{stem} objects"}
        shown: Any = turned(labels, own)
        if isinstance(labels, TiledLabels):
            shown = [turned(level, own) for level in labels.with_pyramid().levels]
            named["multiscale"] = True
        layers.append((shown, named, "labels"))
    layers.append((*_points(session, ndim, stem, placed), "points"))
    return layers


def _points(
    session: Session, ndim: int, stem: str, placed: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    clicks = [(o, plane, c) for o in session.objects() for plane, c in o.clicks()]
    own = back(session.image.order)
    data = np.array([put((*plane, *c.click.yx), own) for _, plane, c in clicks], float)
    signs = [c.click.is_positive for *_, c in clicks]
    kwargs = {
        **placed,
        "name": f"{stem} clicks",
        "ndim": ndim,
        "size": max(3.0, min(session.image.plane_shape) / 64),
        "features": features_of(
            (c.click.is_positive, o.object_id, c.click_id) for o, _, c in clicks
        ),
    }
    if clicks:
        kwargs["symbol"] = [SYMBOLS[s] for s in signs]
        kwargs["face_color"] = [COLOURS[s] for s in signs]
    return data.reshape(-1, ndim), kwargs


def _find_pixels(session: Session) -> tuple[Any, Path]:
    """Open the session's image; where it is gone, ask for its new place."""
    try:
        path = find_image(session.image, session.path.parent)
    except SessionError:
        asked = ask_for_image(session.image)
        if asked is None:
            raise
        path = asked
    array = open_reference(session.image, path).array
    check_same(session.image, array, str(path))
    return array, path


def ask_for_image(image: ImageReference) -> Path | None:
    """Ask where a session's image is now; None without a window, or if cancelled."""
    from qtpy.QtWidgets import QApplication, QFileDialog

    if QApplication.instance() is None:
        return None
    name, size = Path(image.path or "the image").name, " × ".join(map(str, image.shape))
    chosen, _ = QFileDialog.getOpenFileName(None, f"Where is {name} ({size}) now?")
    return Path(chosen) if chosen else None


def write_session(path: str, layers: Sequence[LayerData]) -> list[str]:
    """Save Points and Labels layers as a session on the image saved with them.

    Layers that came from a session take its events along; other labels become objects
    with their mask as first feedback, other points positive clicks.
    """
    target = Path(path)
    if not target.name.endswith(SUFFIX):
        target = target.with_name(target.name.removesuffix(".json") + SUFFIX)
    named = [kw.get("metadata", {}).get(METADATA_KEY) for _, kw, _ in layers]
    source = next((n for n in named if n), None)
    if source is not None:
        content = Session.open(source).content
        if content.image.path is not None:
            image = Path(source).parent / content.image.path
            moved = replace(content.image, path=relative_path(image, target.parent))
            content = SessionContent(
                moved,
                content.model,
                content.settings,
                content.events,
                content.snapshot,
            )
    else:
        content = _from_layers(layers, target.parent)
    SessionWriter.create(target, content).close()
    note_recent(target)
    return [str(target)]


def _from_layers(layers: Sequence[LayerData], folder: Path) -> SessionContent:
    images = [(data, kw) for data, kw, kind in layers if kind == "image"]
    if len(images) != 1:
        msg = "select the image together with the points and labels to save a session"
        raise SessionError(msg)
    data, kwargs = images[0]
    rgb = bool(kwargs.get("rgb"))
    array = data[0] if kwargs.get("multiscale") else data
    reference = reference_of(array, folder=folder, rgb=rgb)
    events: list[Any] = []
    for labels, _, kind in layers:
        if kind == "labels":
            events += events_from_labels(np.asarray(labels))
    highest = max((int(e.labels.after.max(initial=0)) for e in events), default=0)
    for points, said, kind in layers:
        if kind == "points" and len(points):
            objects, signs = said_by(said.get("features") or {})
            events += events_from_points(
                np.asarray(points),
                objects=objects,
                positive=signs,
                first_object=highest + 1,
                first_click=1 + sum(hasattr(e, "click_id") for e in events),
            )
    return SessionContent(reference, events=tuple(events))


def importable(controller: Controller) -> tuple[list[Labels], list[Points]]:
    """Return the Labels and Points layers of the viewer that are not the dock's own."""
    from napari.layers import Labels, Points

    own = (controller.labels.layer, controller.clicks.layer)
    layers = [x for x in controller.viewer.layers if x not in own]
    labels = [layer for layer in layers if isinstance(layer, Labels)]
    return labels, [layer for layer in layers if isinstance(layer, Points)]


def import_labels(controller: Controller, layer: Labels) -> int:
    """Make an object of every label, return how many; the layer stays as it is.

    Labels of one plane's shape instead of the image's go to the plane shown.

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
    controller.submit_all(events_from_labels(labels))
    return len(np.unique(labels[labels > 0]))


def import_points(controller: Controller, layer: Points) -> tuple[int, int]:
    """Make clicks of points; each is an object of its own unless a column says whose.

    The feature columns "object" and "polarity" count where there are any.

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
    first, click = controller.view.next_id, controller.next_click
    events = events_from_csv(path, first_object=first, first_click=click)
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
    controller.submit_all(
        event
        for event in listed
        if (isinstance(event, ev.ObjectCreated) and event.object_id in owners)
        or (isinstance(event, ev.ClickAdded) and event.click_id in inside)
    )
    return len(inside), len(clicks) - len(inside)
