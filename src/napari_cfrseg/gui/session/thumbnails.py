"""Small pictures of sessions for the menu that opens them.

They lie in the folder of unsaved sessions, by the session's identity, so that a session
that was saved, moved or lost in a crash keeps its picture; without one nothing is lost.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.io.axes import Pyramid
from napari_cfrseg.overlay import draw_overlay
from napari_cfrseg.session.unsaved_sessions import sessions_folder

if TYPE_CHECKING:
    from napari_cfrseg.gui.segment.controller import Controller

#: longest side of a picture
SIDE_PX = 96
#: pictures kept, and the bytes of a lazy plane up to which it is read for one
_MOST, _LARGEST_BYTES = 100, 1 << 24


def picture_path(identity: str) -> Path:
    """Return where a session's picture is, if there is one."""
    return sessions_folder() / "thumbnails" / f"{identity}.png"


class PictureTaker:
    """Writes pictures on a thread of its own, one at a time.

    The pixels may be far away: neither the window nor a click waits for a picture, and
    while a store does not answer there are no further ones.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def take(self, controller: Controller, identity: str) -> None:
        """Write the picture of what is shown now, if it can be read and written."""
        if self._thread is not None and self._thread.is_alive():
            return
        plane = controller.current_plane
        labels, step = _labels(controller, plane)
        work = partial(
            _keep_picture, controller.image.plane(plane), labels, step, identity
        )
        self._thread = threading.Thread(target=work, name="cfrseg-picture", daemon=True)
        self._thread.start()


def _keep_picture(
    pixels: Any, labels: NDArray[np.int32], step: int, identity: str
) -> None:
    try:
        found = _picture(pixels, labels, step)
    except Exception:  # noqa: BLE001 - stores raise whatever they like
        return
    if found is None:
        return
    from PIL import Image

    target = picture_path(identity)
    with suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            Image.fromarray(found).save(temporary, "PNG")
        kept = sorted(target.parent.glob("*.png"), key=lambda p: -p.stat().st_mtime)
        for old in kept[_MOST:]:
            old.unlink()


def _labels(controller: Controller, plane: Plane) -> tuple[NDArray[np.int32], int]:
    """Return the labels of every so many pixels of a plane, and how many those are."""
    height, width = controller.image.plane_shape
    step = max(1, -(-max(height, width) // SIDE_PX))
    labels = np.zeros((-(-height // step), -(-width // step)), np.int32)
    for number, whole in controller.objects.items():
        mask = whole.on(plane).mask
        y0, x0 = mask.offset
        inside = mask.mask[-y0 % step :: step, -x0 % step :: step]
        top, left = -(-y0 // step), -(-x0 // step)
        labels[top:, left:][: inside.shape[0], : inside.shape[1]][inside] = number
    return labels, step


def _picture(
    pixels: Any, labels: NDArray[np.int32], step: int
) -> NDArray[np.uint8] | None:
    """Return a plane's (h, w, 3) picture with outlines, None if it is too large."""
    if isinstance(pixels, Pyramid):
        pixels, _ = pixels.fitting(step)
    size = int(np.prod(pixels.shape)) * np.dtype(pixels.dtype).itemsize
    if not isinstance(pixels, np.ndarray) and size > _LARGEST_BYTES:
        return None
    whole_plane = np.asarray(pixels[: pixels.shape[0], : pixels.shape[1]])
    down, across = (
        np.arange(n) * length // n
        for n, length in zip(labels.shape, whole_plane.shape, strict=False)
    )
    return draw_overlay(whole_plane[np.ix_(down, across)], labels)
