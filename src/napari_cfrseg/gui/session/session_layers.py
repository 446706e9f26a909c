"""Layers and sessions: napari's reader and writer, and imports from other layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from napari import current_viewer
from napari.layers import Image, Labels, Layer, Points
from numpy.typing import NDArray
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.errors import ImageError, JobCancelled, SessionError, counted
from napari_cfrseg.geometry.masks import LabelRuns, Plane
from napari_cfrseg.gui.dock_widget import notify
from napari_cfrseg.gui.segment.click_layer import COLOURS, SYMBOLS, features_of
from napari_cfrseg.gui.segment.label_layer import OPACITY
from napari_cfrseg.gui.segment.layer_axes import METADATA_AXES, METADATA_CHANNELS
from napari_cfrseg.gui.segment.layers import labels_on, points_on
from napari_cfrseg.gui.segment.working_image import METADATA_ORDER, WorkingImage
from napari_cfrseg.gui.session.layer_imports import painted_since, said_by
from napari_cfrseg.gui.session.layer_references import (
    METADATA_IMAGE,
    METADATA_KEY,
    layer_reference,
)
from napari_cfrseg.gui.session.server_layers import arriving, wait_for
from napari_cfrseg.io.addresses import address_of
from napari_cfrseg.io.axes import Pyramid, select_from
from napari_cfrseg.io.images import (
    count_levels,
    left_out,
    open_image,
    read_small,
    reading,
)
from napari_cfrseg.io.named_axes import OpenImage, axis_names
from napari_cfrseg.io.tiled_labels import TiledLabels, is_large, label_runs
from napari_cfrseg.session.format import (
    SUFFIX,
    ImageReference,
    SessionContent,
    Snapshot,
)
from napari_cfrseg.session.imported_events import (
    events_from_labels,
    events_from_points,
    hidden_labels,
)
from napari_cfrseg.session.references import (
    as_clicked,
    check_same,
    find_image,
    open_as_shown,
    relative_path,
)
from napari_cfrseg.session.session import Session, objects_after
from napari_cfrseg.session.session_writer import SessionWriter
from napari_cfrseg.session.unsaved_sessions import note_recent

LayerData = tuple[Any, dict[str, Any], str]
ValueT = TypeVar("ValueT")
#: napari's word for a file that gives no layers
_NO_LAYERS: list[Any] = [(None,)]


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
    try:
        found, shown, (pixels, more) = _find_pixels(session)
    except JobCancelled:
        return _NO_LAYERS
    note_recent(file)
    stem = found.stem  # as napari names the image when it is opened alone
    image = _image_of(session, shown)
    metadata = {METADATA_KEY: str(file), METADATA_AXES: image.names}
    described: dict[str, Any] = {
        "scale": image.layer.scale,
        "units": image.layer.units,
        "translate": image.layer.translate,
        "name": stem,
        "rgb": image.is_rgb,
        "metadata": {
            **metadata,
            METADATA_IMAGE: str(found),
            METADATA_ORDER: session.image.order,
            METADATA_CHANNELS: session.image.channels,
        },
    }
    layers: list[LayerData] = [(pixels, {**described, **more}, "image")]
    labels = session.saved_labels()
    own = {**image.placement(), "metadata": metadata}
    if labels is not None:
        named = {**own, "name": f"{stem} objects", "opacity": OPACITY}
        drawn: Any = image.own_array(labels)
        if isinstance(labels, TiledLabels):
            levels = labels.with_pyramid().levels
            drawn = [image.own_array(level) for level in levels]
            named["multiscale"] = True
        layers.append((drawn, named, "labels"))
    layers.append((*_points(session, image, stem, own), "points"))
    return layers


def _image_of(session: Session, shown: OpenImage) -> WorkingImage:
    """Return where a session's image lies, by a layer that no viewer has."""
    ndim = len(shown.shape) - shown.is_rgb
    fits = shown.spacing is not None and len(shown.spacing) == ndim
    layer = Image(
        np.broadcast_to(np.zeros((), np.uint8), shown.shape),
        rgb=shown.is_rgb,
        contrast_limits=(0, 1),
        scale=shown.spacing if fits else None,
        units=shown.units if fits else None,
        translate=shown.origin if fits else None,
    )
    return WorkingImage(
        layer, shown.axes[:ndim], (layer,), (), None, (), session.image.order
    )


def get_slide_reader(path: str | list[str]) -> Callable[..., list[LayerData]] | None:
    """Return the reader of slides, OME-TIFFs and Zarr addresses; None for several."""
    return read_slide if isinstance(path, str) else None


def read_slide(path: str | list[str]) -> list[LayerData]:
    """Return an image as a layer, or as one for each channel that is no colour.

    A large pyramid is a layer of levels; of one on a server all levels are.
    """
    file = Path(path if isinstance(path, str) else path[0])
    try:
        return _unless_far(file, lambda: _slide_layers(file))
    except JobCancelled:
        return _NO_LAYERS


def _unless_far(file: Path, work: Callable[[], ValueT]) -> ValueT:
    """Do what reads a file; where it is on a server, while the window answers."""
    address = address_of(file)
    if address is None:
        return work()
    return wait_for(work, f"Opening {address} …")


def _slide_layers(file: Path) -> list[LayerData]:
    with reading(file):
        levels, missing = count_levels(file), left_out(file)
    is_far = address_of(file) is not None
    image = open_image(file, levels=levels if is_far else 1)
    sides = [n for n, name in zip(image.shape, image.axes, strict=True) if name in "yx"]
    placed: dict[str, Any] = {"rgb": image.is_rgb}
    if levels > 1 and not is_far and is_large(sides):
        image = open_image(file, levels=levels)
    if missing:
        notify("info", missing)
    image = image.arranged()
    if image.spacing is not None:
        placed["scale"] = image.spacing
    if image.units is not None:
        placed["units"] = image.units
    if image.origin is not None:
        placed["translate"] = image.origin
    parts, counted = [image.array], len(image.shape) - image.has_channels
    if is_far:  # napari does not look into it
        placed["metadata"] = {METADATA_AXES: image.axes[:counted]}
        placed["name"] = file.stem  # napari finds none where it ends in "/"
    if image.has_channels and not image.is_rgb:
        placed["blending"] = "additive"
        parts = [
            select_from(image.array, ((counted, i),)) for i in range(image.shape[-1])
        ]
    read = [p if isinstance(p, Pyramid) else read_small(p, file) for p in parts]
    found = [_as_layer(part, file, rgb=image.is_rgb) for part in read]
    return [(data, {**placed, **more}, "image") for data, more in found]


def _as_layer(array: Any, file: Path, *, rgb: bool) -> tuple[Any, dict[str, Any]]:
    """Return an image's pixels as a layer shows them, and what to say of them."""
    levels = list(array.levels) if isinstance(array, Pyramid) else [array]
    more: dict[str, Any] = {}
    if address_of(file) is not None:
        levels, more = arriving(levels, rgb)
    if isinstance(array, Pyramid):
        return levels, {**more, "multiscale": True}
    return levels[0], more


def _points(
    session: Session, image: WorkingImage, stem: str, placed: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    clicks = [(o, plane, c) for o in session.objects() for plane, c in o.clicks()]
    places = [image.to_own((*plane, *c.click.yx)) for _, plane, c in clicks]
    signs = [c.click.is_positive for *_, c in clicks]
    kwargs = {
        **placed,
        "name": f"{stem} clicks",
        "ndim": image.own_ndim,
        "size": max(3.0, min(session.image.plane_shape) / 64),
        "features": features_of(
            (c.click.is_positive, o.object_id, c.click_id) for o, _, c in clicks
        ),
    }
    if clicks:
        kwargs["symbol"] = [SYMBOLS[s] for s in signs]
        kwargs["face_color"] = [COLOURS[s] for s in signs]
    return np.array(places, float).reshape(-1, image.own_ndim), kwargs


#: an image's file, how it is shown, and its pixels as a layer's
_Found = tuple[Path, OpenImage, tuple[Any, dict[str, Any]]]


def _find_pixels(session: Session) -> _Found:
    """Open the session's image; where it is gone, ask for its new place."""
    image = session.image
    try:
        path = find_image(image, session.path.parent)
    except SessionError:
        asked = ask_for_image(image, session.path.parent)
        if asked is None:
            raise
        path = asked

    def find() -> _Found:
        shown = open_as_shown(image, path)
        try:
            check_same(image, as_clicked(image, shown), str(path))
        except ValueError as error:
            raise ImageError(f"{path}: {error}") from error
        return path, shown, _as_layer(shown.array, path, rgb=shown.is_rgb)

    try:
        return _unless_far(path, find)
    except ImageError as error:
        if address_of(path) is None:
            raise
        msg = f"{error}; or open the image yourself, choose its layer, then Open again"
        raise SessionError(msg) from error


def ask_for_image(image: ImageReference, start: Path) -> Path | None:
    """Ask where a session's image is now, beginning in a folder.

    None without a window, or if cancelled.
    """
    if QApplication.instance() is None:
        return None
    name, size = Path(image.path or "the image").name, " × ".join(map(str, image.shape))
    asked = f"Where is {name} ({size}) now?"
    chosen, _ = QFileDialog.getOpenFileName(None, asked, str(start))
    return Path(chosen) if chosen else None


def write_session(path: str, layers: Sequence[LayerData]) -> list[str]:
    """Save Points and Labels layers as a session on the image saved with them.

    Layers of a session take its events along, and what was painted on its labels
    since; other labels become objects with their mask as first feedback, other points
    clicks. All are brought to the image's pixels, and numbers that are taken are
    replaced. What cannot be used is a SessionError, and nothing is written.
    """
    target = Path(path)
    if not target.name.endswith(SUFFIX):
        target = target.with_name(target.name.removesuffix(".json") + SUFFIX)
    sources = {_session_of(item) for item in layers} - {None}
    if len(sources) > 1:
        msg = f"these layers are of {len(sources)} sessions: save each by itself"
        raise SessionError(msg)
    if sources:
        session = Session.open(str(sources.pop()))
        content = _moved(session, target.parent)
        own = [item for item in layers if _session_of(item)]
        image = _image_by(session, own[0])
        content = _with_edits(image, session, content, own)
    else:
        own = [item for item in layers if item[2] == "image"]
        if len(own) != 1:
            msg = "select the image with the points and labels to save a session"
            raise SessionError(msg)
        image = WorkingImage.of(_shown(own[0][0]) or _layer(own[0]))
        content = SessionContent(layer_reference(image, target.parent))
    others = [_layer(item) for item in layers if not any(item is o for o in own)]
    added = _added(image, content, others)
    if added:
        content = replace(content, events=(*content.events, *added), snapshot=None)
    objects_after(content.events, content.image.plane_shape)  # each event fits
    SessionWriter.create(target, content).close()
    note_recent(target)
    return [str(target)]


def _session_of(item: LayerData) -> str | None:
    found: str | None = item[1].get("metadata", {}).get(METADATA_KEY)
    return found


def _layer(item: LayerData) -> Any:
    data, kwargs, kind = item
    return Layer.create(data, dict(kwargs), kind)


def _shown(data: Any) -> Any:
    """Return the open viewer's layer of this data, which knows its file; or None."""
    viewer = current_viewer()
    layers = () if viewer is None else viewer.layers
    return next((layer for layer in layers if layer.data is data), None)


def _image_by(session: Session, own: LayerData) -> WorkingImage:
    """Return where a session's image lies, by one of the session's layers."""
    layer, said = _layer(own), session.image
    names = tuple(own[1]["metadata"].get(METADATA_AXES, ()))
    if len(names) > layer.ndim:  # labels and clicks do without leading channels
        names = tuple(name for name in names if name != "c")
    names = names if len(names) == layer.ndim else axis_names(layer.ndim, False)
    shape = (*said.leading, *said.plane_shape)
    return WorkingImage(layer, names, (layer,), (), None, shape, said.order)


def _moved(session: Session, folder: Path) -> SessionContent:
    """Return a session's content for a file in another folder, as a new session."""
    content = session.content
    image = content.image
    if image.path is not None and address_of(Path(image.path)) is None:
        where = relative_path(session.path.parent / image.path, folder)
        image = replace(image, path=where)
    return replace(content, image=image, identity=SessionContent(image).identity)


def _with_edits(
    image: WorkingImage,
    session: Session,
    content: SessionContent,
    own: Sequence[LayerData],
) -> SessionContent:
    """Add what was painted on the labels that were read from a session.

    Where more was done since they were saved, they are the dock's, which has recorded
    each stroke.
    """
    labels = [(d, k) for d, k, kind in own if kind == "labels"]
    saved = session.saved_labels()
    if saved is None or len(labels) != 1 or labels[0][1].get("multiscale"):
        return content
    painted = painted_since(image, labels[0][0], saved)
    events = (*content.events, *painted)
    if not painted:
        return content
    edited = np.asarray(image.of_own_array(labels[0][0]))
    shown = [label_runs(edited, p) for p in np.ndindex(saved.shape[:-2])]
    snapshot = Snapshot(len(events), tuple(runs for runs in shown if runs.size))
    return replace(content, events=events, snapshot=snapshot)


def _without_hidden(
    content: SessionContent, layers: Sequence[Any], found: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """Return layers' labels without those that would get no pixel, and say how many.

    Such lie under the session's objects, as far as its file says, or under labels of
    the layers before them; where objects take pixels, of those after them.
    """
    if not found:
        return []
    rules = [e.rule for e in content.events if isinstance(e, ev.OverlapChanged)]
    keeps = (content.settings.rule, *rules)[-1] is ev.OverlapRule.KEEP
    snapshot, events = content.snapshot, len(content.events)
    held = np.zeros(found[0].shape, bool)
    if keeps and snapshot is not None and snapshot.events == events:
        for runs in snapshot.labels:
            held[runs.plane][runs.indices()] = True
    left = list(found)

    def taken(plane: Plane) -> LabelRuns:
        return LabelRuns.from_mask(held[plane])

    for place in range(len(left))[:: 1 if keeps else -1]:
        labels = left[place]
        hidden = hidden_labels(labels, taken)
        if hidden:
            left[place] = np.where(np.isin(labels, hidden), 0, labels)
            said = f"{counted(len(hidden), 'label')} of “{layers[place].name}”"
            notify("warning", f"{said} not saved: wholly under other objects.")
        np.logical_or(held, labels > 0, out=held)
    return left


def _added(
    image: WorkingImage, content: SessionContent, layers: Sequence[Any]
) -> list[ev.Event]:
    """Return the events that make objects of Labels, and clicks of Points layers."""
    known = objects_after(content.events, content.image.plane_shape)
    taken = {found.object_id for found in known}
    used = [c.click_id for found in known for _, c in found.clicks()]
    first_click = 1 + max(used, default=0)
    events: list[ev.Event] = []
    drawn, found = [x for x in layers if isinstance(x, Labels)], []
    for layer in drawn:
        found.append(labels_on(image, layer, taken))
        taken |= set(np.unique(found[-1]).tolist()) - {0}
    for labels in _without_hidden(content, drawn, found):
        events += events_from_labels(labels)
    for layer in (x for x in layers if isinstance(x, Points) and len(x.data)):
        if layer.ndim > len(image.shape):
            msg = f"{layer.name} has {layer.ndim} axes, the image {len(image.shape)}"
            raise SessionError(msg)
        points = points_on(image, layer)
        off = ~((points >= -0.5) & (points < np.array(image.shape) - 0.5)).all(axis=1)
        if off.any():
            msg = f"{off.sum()} points of “{layer.name}” do not lie on the image"
            raise SessionError(msg)
        objects, signs = said_by(layer.features)
        made = events_from_points(
            points,
            objects=objects,
            positive=signs,
            first_object=max(taken, default=0) + 1,
            first_click=first_click,
        )
        first_click += len(points)
        taken |= {e.object_id for e in made if isinstance(e, ev.ObjectCreated)}
        events += made
    return events
