"""Read and embed the next plane of a stack while the present one is decoded.

One thread works one plane ahead: it reads the plane, measures its black and white, and
embeds the focus windows that the present plane used. The next plane uses the same ones
unless the object outgrew or left them; a missing one is embedded when it is needed.

At most four planes are held: also the one before, which the segmenter still shows, and
one requested out of turn (an anchor). A plane that cannot be read raises ImageError
when it is requested, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import CfrSegError, ImageError
from napari_cfrseg.geometry.windows import Box, PlaneLike, Window
from napari_cfrseg.io.plane_image import PlaneImage

#: windows embedded ahead on a plane; more would push each other out again
MOST_WINDOWS = 8
#: planes of more bytes are read by windows, not whole
_READ_WHOLE_BYTES = 1 << 26

ValueT = TypeVar("ValueT")
#: errors of reading pixels from files and stores
_READ_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError)
#: returns an embedding made ahead; None: there is none after all
Early = Callable[[], Any]


class HeldPlane:
    """A lazy plane's pixels, read; otherwise it behaves like the lazy plane.

    Black and white of a large lazy plane are measured on other pixels than an array's.
    """

    def __init__(self, plane: PlaneLike) -> None:
        self._pixels = np.array(plane[: plane.shape[0], : plane.shape[1]])
        self.shape = tuple(int(n) for n in plane.shape)
        self.dtype = np.dtype(plane.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Return a rectangle."""
        return np.asarray(self._pixels[key])


def held(plane: PlaneLike) -> PlaneLike:
    """Read a plane, unless it is in memory already or very large."""
    in_memory = isinstance(plane, np.ndarray) and not isinstance(plane, np.memmap)
    size = int(np.prod(plane.shape)) * np.dtype(plane.dtype).itemsize
    return plane if in_memory or size > _READ_WHOLE_BYTES else HeldPlane(plane)


class PlanesAhead:
    """Planes by index; those that are expected are read in advance.

    ``read`` returns a plane's pixels, ``open_plane`` measures the black and white of
    one, ``embed`` embeds a window of one (None: nothing is embedded ahead); all are
    called on the thread, too. ``hits`` counts the embeddings that were used.
    """

    def __init__(
        self,
        read: Callable[[int], PlaneLike],
        open_plane: Callable[[int, PlaneLike], PlaneImage],
        embed: Callable[[PlaneImage, Window], Any] | None,
    ) -> None:
        self._read = read
        self._open = open_plane
        self._embed = embed
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[int, _Plane] = {}
        self._here: int | None = None
        self._other: _Plane | None = None
        self.hits = 0

    def expect(self, index: int, following: int | None) -> None:
        """Set the present plane and the one after it."""
        wanted = [index] if following is None else [index, following]
        for gone in [i for i in self._coming if i not in wanted]:
            self._coming.pop(gone).cancel()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "cfrseg-ahead")
        for one in wanted:
            if one not in self._coming:
                self._coming[one] = self._plane(one, self._pool)
        self._here, self._other = index, None

    def read(self, index: int, box: Box) -> NDArray[Any]:
        """Return the pixels of a plane's box; one not expected is read now."""
        pixels = self._find(index).pixels.get()
        return np.asarray(pixels[box[0] : box[2], box[1] : box[3]])

    def image(self, index: int) -> PlaneImage:
        """Return a plane ready to be embedded."""
        return self._find(index).image.get()

    def early(self, index: int) -> dict[Window, Early]:
        """Return the embeddings of a plane that are made ahead, by window."""
        plane = self._coming.get(index)
        early: Mapping[Window, Future[Any]] = {} if plane is None else plane.early
        return {window: self._taking(future) for window, future in early.items()}

    def used(self, index: int, window: Window) -> None:
        """Embed this window of the next plane: the present one's is being decoded."""
        coming = [p for i, p in self._coming.items() if i != self._here]
        if index != self._here or not coming or self._embed is None:
            return
        (plane,), embed = coming, self._embed
        if self._pool is None or window in plane.early:
            return
        if len(plane.early) < MOST_WINDOWS:
            plane.early[window] = self._pool.submit(
                copy_context().run, lambda: embed(plane.image.get(), window)
            )

    def close(self) -> None:
        """Drop everything and end the thread; waits for its current task."""
        for plane in self._coming.values():
            plane.cancel()
        self._coming.clear()
        self._other = self._here = None
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _find(self, index: int) -> _Plane:
        expected = self._coming.get(index)
        if expected is not None:
            return expected
        if self._other is None or self._other.index != index:
            self._other = self._plane(index, None)
        return self._other

    def _plane(self, index: int, pool: ThreadPoolExecutor | None) -> _Plane:
        # one thread, first come first served: the pixels are there before the image
        pixels = _Value(lambda: self._pixels(index), pool)
        image = _Value(lambda: self._image(index, pixels.get()), pool)
        return _Plane(index, pixels, image)

    def _pixels(self, index: int) -> PlaneLike:
        try:
            return self._read(index)
        except CfrSegError:
            raise
        except _READ_ERRORS as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ImageError(f"plane {index} cannot be read: {reason}") from error

    def _image(self, index: int, pixels: PlaneLike) -> PlaneImage:
        try:
            return self._open(index, pixels)
        except ImageError as error:
            raise ImageError(f"plane {index}: {error}") from error

    def _taking(self, future: Future[Any]) -> Early:
        def take() -> Any:
            if future.cancel():  # not begun: embedding it now is as fast
                return None
            self.hits += 1
            return future.result()

        return take


class _Value(Generic[ValueT]):
    """A value made once, on a thread or at the first ``get``; errors are kept, too."""

    def __init__(
        self, make: Callable[[], ValueT], pool: ThreadPoolExecutor | None
    ) -> None:
        self._make = make
        self.future = None if pool is None else pool.submit(copy_context().run, make)

    def get(self) -> ValueT:
        if self.future is None:
            made = self._make()
            self.future = Future()
            self.future.set_result(made)
        return self.future.result()


@dataclass(frozen=True, slots=True)
class _Plane:
    """One plane, read or on its way."""

    index: int
    pixels: _Value[PlaneLike]
    image: _Value[PlaneImage]
    early: dict[Window, Future[Any]] = field(default_factory=dict)

    def cancel(self) -> None:
        for future in (self.pixels.future, self.image.future, *self.early.values()):
            if future is not None:
                future.cancel()
