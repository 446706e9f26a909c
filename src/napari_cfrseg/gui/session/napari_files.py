"""napari's reader and writer of sessions, and the sample session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_cfrseg.errors import SessionError
from napari_cfrseg.gui.manifest import LayerData
from napari_cfrseg.gui.segment.click_layer import COLOURS, NAMES, SYMBOLS
from napari_cfrseg.gui.segment.layers import METADATA_ORDER
from napari_cfrseg.gui.session.import_layers import said_by
from napari_cfrseg.gui.session.session_keeper import METADATA_IMAGE, METADATA_KEY
from napari_cfrseg.io.axes import back, put, turned
from napari_cfrseg.io.files import open_image
from napari_cfrseg.session.content import SUFFIX, ImageReference, SessionContent
from napari_cfrseg.session.imported_events import events_from_labels, events_from_points
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_image import (
    check_same,
    find_image,
    open_reference,
    reference_of,
    relative_path,
)
from napari_cfrseg.session.session_models import model_reference
from napari_cfrseg.session.sessions_folder import note_recent, sessions_folder
from napari_cfrseg.session.writer import SessionWriter


def get_session_reader(path: str | list[str]) -> Callable[..., list[LayerData]] | None:
    """Return the reader of ``*.cfrseg.json`` files, None for others."""
    if isinstance(path, str) and path.endswith(SUFFIX):
        return read_session
    return None


def read_session(path: str | list[str]) -> list[LayerData]:
    """Return a session's image, labels as saved and clicks, as layers.

    The layers' metadata name the session: the dock goes on with it.
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
    of_image = {
        "metadata": {
            **metadata,
            METADATA_IMAGE: str(found),
            METADATA_ORDER: session.image.order,
        }
    }
    rgb = image.has_channels
    layers: list[LayerData] = [
        (
            turned(array, own),
            {**placed, **of_image, "name": stem, "rgb": rgb},
            "image",
        )
    ]
    if labels is not None:
        shown = turned(labels, own)
        layers.append((shown, {**placed, "name": f"{stem} objects"}, "labels"))
    layers.append((*_points(session, ndim, stem, placed), "points"))
    return layers


def _points(
    session: Session, ndim: int, stem: str, placed: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    clicks = [(o, c) for o in session.objects() for c in o.clicks]
    own = back(session.image.order)
    data = np.array([put((*c.plane, *c.click.yx), own) for _, c in clicks], float)
    signs = [c.click.is_positive for _, c in clicks]
    kwargs = {
        **placed,
        "name": f"{stem} clicks",
        "ndim": ndim,
        "size": max(3.0, min(session.image.plane_shape) / 64),
        "features": {
            "polarity": np.array([NAMES[s] for s in signs], object),
            "object": np.array([str(o.object_id) for o, _ in clicks], object),
            "click": np.array([str(c.click_id) for _, c in clicks], object),
        },
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
    name = Path(image.path or "the image").name
    chosen, _ = QFileDialog.getOpenFileName(
        None, f"Where is {name} ({' × '.join(map(str, image.shape))}) now?"
    )
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
        image = Path(source).parent / (content.image.path or "")
        if content.image.path is not None:
            relative = reference_of_file(image, content.image, target.parent)
            content = SessionContent(
                relative,
                content.model,
                content.settings,
                content.events,
                content.scalings,
                content.snapshot,
            )
    else:
        content = _from_layers(layers, target.parent)
    SessionWriter.create(target, content).close()
    note_recent(target)
    return [str(target)]


def reference_of_file(
    path: Path, image: ImageReference, folder: Path
) -> ImageReference:
    """Return a reference with its path made relative to another folder."""
    return replace(image, path=relative_path(path, folder))


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
    highest = max((max(e.labels.values, default=0) for e in events), default=0)
    for points, said, kind in layers:
        if kind == "points" and len(points):
            objects, signs = said_by(said.get("features") or {})
            made = events_from_points(
                np.asarray(points),
                objects=objects,
                positive=signs,
                first_object=highest + 1,
                first_click=1 + sum(hasattr(e, "click_id") for e in events),
            )
            events += made
    return SessionContent(reference, events=tuple(events))


def sample_session() -> list[LayerData]:
    """Open the demo's clicks on its micrograph as a session."""
    from contextlib import suppress
    from importlib.resources import as_file, files

    from napari_cfrseg.annotation import events as ev
    from napari_cfrseg.clicks import Click
    from napari_cfrseg.errors import CfrSegError
    from napari_cfrseg.samples import load_demo

    demo = load_demo()
    folder = sessions_folder()
    path = folder / f"sample-{demo.sample}{SUFFIX}"
    if not path.exists():
        events: list[ev.Event] = []
        clicks: list[tuple[int, Click]] = [
            (number, click)
            for number, made in enumerate(demo.objects, start=1)
            for click in made
        ]
        known: set[int] = set()
        for click_id, (number, click) in enumerate(clicks, start=1):
            if number not in known:
                events.append(ev.ObjectCreated(number))
                known.add(number)
            events.append(ev.ClickAdded(number, (), click, click_id))
        model = None
        with suppress(CfrSegError, OSError):
            model = model_reference("default")
        place = files("napari_cfrseg") / "sample_data" / f"{demo.sample}.image.tif"
        with as_file(place) as image_path:
            opened = open_image(image_path)
            reference = reference_of(
                opened.array,
                path=image_path,
                folder=folder,
                rgb=opened.has_channels,
            )
        folder.mkdir(parents=True, exist_ok=True)
        content = SessionContent(reference, model, events=tuple(events))
        SessionWriter.create(path, content).close()
    return read_session(str(path))
