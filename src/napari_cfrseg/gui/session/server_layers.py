"""Images on a server as layers: the window never waits for their pixels.

napari reads what it shows in the window's thread. So what it asks for is read on other
threads, and shown coarser, or black, until it has come. Whoever else reads a layer's
data gets its pixels.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from napari import current_viewer
from numpy.typing import NDArray
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication, QProgressDialog
from superqt.utils import ensure_main_thread

from napari_cfrseg.errors import CfrSegError, ImageError, JobCancelled, said_of
from napari_cfrseg.gui.dock_widget import images_of, notify
from napari_cfrseg.io.plane_image import open_plane
from napari_cfrseg.latest import Latest

ValueT = TypeVar("ValueT")
#: an index, or a range of them, along each axis of a level
_Places = tuple[int | range, ...]

#: what reads an array to show it
_CANVAS = "napari.layers._scalar_field"
#: parts that were shown are kept, in bytes; parts on their way, and that wait
_KEPT_BYTES, _AT_ONCE, _MOST_WANTED = 1 << 27, 4, 2
#: a coarsest level of at most so many pixels is read first; of others a part of it
_FIRST_PX, _PART_PX = 1 << 22, 512
#: so long nothing is said; what did not come is asked for again after so long
_SOON_MS, _POLL_MS, _AGAIN_MS = 400, 20, 10_000


def wait_for(work: Callable[[], ValueT], said: str) -> ValueT:
    """Do something on a thread while the window answers, and say what, with Cancel.

    Without a window it is just done. A JobCancelled says that it was given up; the
    thread then comes to its end by itself.
    """
    is_window = threading.current_thread() is threading.main_thread()
    if QApplication.instance() is None or not is_window:
        return work()
    done: Future[ValueT] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - passed to who waits
            done.set_exception(error)

    threading.Thread(target=run, name="cfrseg-opening", daemon=True).start()
    loop, poll, soon = QEventLoop(), QTimer(), QTimer()
    dialog = QProgressDialog(said, "Cancel", 0, 0)
    dialog.setWindowTitle("Opening")
    dialog.setWindowModality(Qt.WindowModality.ApplicationModal)
    soon.setSingleShot(True)
    soon.timeout.connect(dialog.show)
    soon.start(_SOON_MS)
    dialog.canceled.connect(loop.quit)
    poll.timeout.connect(lambda: done.done() and loop.quit())
    poll.start(_POLL_MS)
    loop.exec()
    poll.stop()
    soon.stop()
    was_cancelled = dialog.wasCanceled()
    dialog.deleteLater()
    if was_cancelled and not done.done():
        raise JobCancelled("it was cancelled")
    return done.result()


def arriving(levels: Sequence[Any], rgb: bool) -> tuple[list[Arriving], dict[str, Any]]:
    """Return levels, the finest first, for a layer, and the contrast to show them with.

    Reads the coarsest one, or a part of it: call it off the window's thread.
    """
    shared = _Arrivals(levels)
    last = len(levels) - 1
    coarse = Arriving(shared, last)
    leading = tuple((n - 1) // 2 for n in coarse.shape[: coarse.ndim - 2 - rgb])
    whole = coarse[leading]
    height, width = whole.shape[:2]
    if height * width > _FIRST_PX:
        middle = [slice(max(n - _PART_PX, 0) // 2, None) for n in (height, width)]
        whole = whole[tuple(middle)][:_PART_PX, :_PART_PX]
    pixels, shown = whole.read(), {}
    if not rgb:
        with suppress(ImageError):  # nothing but NaN
            scaling = open_plane(pixels).scaling
            low, high = min(scaling.low), max(scaling.high)
            shown["contrast_limits"] = (low, high if high > low else low + 1)
    return [Arriving(shared, number) for number in range(len(levels))], shown


class Arriving:
    """A level of an image on a server, or a part of one; nothing of it is read.

    Slicing returns a part. As an array it has its pixels; where napari asks for what
    is in view, in the window's thread, those that are there.
    """

    def __init__(
        self, shared: _Arrivals, number: int, places: _Places | None = None
    ) -> None:
        array = shared.levels[number]
        self.shared, self._number = shared, number
        self._places = places or tuple(range(int(n)) for n in array.shape)
        self.shape = tuple(len(p) for p in self._places if isinstance(p, range))
        self.dtype = np.dtype(array.dtype)
        self.ndim, self.size = len(self.shape), math.prod(self.shape)

    def __getitem__(self, key: Any) -> Arriving:
        """Return a part by whole numbers and slices, from the first axis on."""
        parts = iter(key if isinstance(key, tuple) else (key,))
        places = tuple(
            p[next(parts, slice(None))] if isinstance(p, range) else p
            for p in self._places
        )
        return Arriving(self.shared, self._number, places)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        asks = str(sys._getframe(1).f_globals.get("__name__"))  # noqa: SLF001
        is_window = threading.current_thread() is threading.main_thread()
        if asks.startswith(_CANVAS) and is_window:
            found = self.shared.there(self._number, self._places)
        else:
            found = self.read()
        return np.asarray(found, dtype=dtype)

    def read(self) -> NDArray[Any]:
        """Return the pixels, when they have come."""
        return self.shared.read(self._number, self._places)


class _Arrivals:
    """The parts of an image's levels that have come, and those on their way."""

    def __init__(self, levels: Sequence[Any]) -> None:
        self.levels = tuple(levels)
        self._came = Latest(_KEPT_BYTES, lambda part: part.nbytes, least=_AT_ONCE)
        self._lock = threading.Lock()
        self._wanted: list[tuple[int, _Places]] = []
        self._coming: list[tuple[int, _Places]] = []
        self._was_told = False

    def read(self, number: int, places: _Places) -> NDArray[Any]:
        """Read a part of a level and keep it."""
        key = tuple(
            slice(p.start, p.stop, p.step) if isinstance(p, range) else p
            for p in places
        )
        return self._came.get(
            (number, places), lambda: np.asarray(self.levels[number][key])
        )

    def there(self, number: int, places: _Places) -> NDArray[Any]:
        """Return what there is of a part now, and have the rest read."""
        found: NDArray[Any] | None = self._came.find((number, places))
        if found is not None:
            return found
        with self._lock:
            wanted = number, places
            if wanted not in self._coming:
                rest = [w for w in self._wanted if w != wanted]
                self._wanted = [*rest[1 - _MOST_WANTED :], wanted]
        self._begin()
        return self._coarser(number, places)

    def _coarser(self, number: int, places: _Places) -> NDArray[Any]:
        fine, coarse = (self.levels[i].shape for i in (number, -1))
        on_coarse = tuple(
            range(int(m)) if isinstance(p, range) else int(p * m // n)
            for p, n, m in zip(places, fine, coarse, strict=True)
        )
        ranges = [
            np.asarray(p) * int(m) // int(n)
            for p, n, m in zip(places, fine, coarse, strict=True)
            if isinstance(p, range)
        ]
        found = self._came.find((len(self.levels) - 1, on_coarse))
        if found is None:
            dtype = self.levels[number].dtype
            return np.zeros([len(indices) for indices in ranges], dtype)
        shown: NDArray[Any] = found[np.ix_(*ranges)]
        return shown

    def _begin(self) -> None:
        with self._lock:
            if not self._wanted or len(self._coming) == _AT_ONCE:
                return
            self._coming.append(self._wanted.pop())
            part = self._coming[-1]
        work = threading.Thread(
            target=self._fetch, args=part, name="cfrseg-view", daemon=True
        )
        work.start()

    def _fetch(self, number: int, places: _Places) -> None:
        failure = ""
        try:
            self.read(number, places)
        except CfrSegError as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - stores raise whatever they like
            failure = said_of(error)
        with self._lock:
            self._coming.remove((number, places))
        self._show(failure)
        self._begin()

    @ensure_main_thread  # type: ignore[untyped-decorator]  # superqt is untyped
    def _show(self, failure: str) -> None:
        """Show what came, or say once what did not, and ask again in a while."""
        if not failure:
            self._was_told = False
            self._refresh()
            return
        if not self._was_told:
            notify("warning", failure)
        self._was_told = True
        QTimer.singleShot(_AGAIN_MS, self._refresh)

    def _refresh(self) -> None:
        viewer = current_viewer()
        for layer in [] if viewer is None else images_of(viewer):
            level = layer.data[0] if layer.multiscale else layer.data
            if isinstance(level, Arriving) and level.shared is self:
                layer.refresh(extent=False, highlight=False)
