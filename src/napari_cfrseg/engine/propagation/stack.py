"""A stack read plane by plane, the next one ahead, with a segmenter on it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.cascade import Refinement
from napari_cfrseg.engine.masks import LabelArray
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.images import Scaling
from napari_cfrseg.window import Box, PlaneLike

#: planes larger than this many bytes are read by windows, not whole and ahead
_READ_WHOLE_BYTES = 1 << 26


class CarryingSegmenter(Protocol):
    """What a propagation asks of a segmenter."""

    def set_image(
        self, image: Any, *, rgb: bool | None = None, scaling: Scaling | None = None
    ) -> None:
        """Make (Y, X[, C]) pixels the ones that predictions are made on."""

    def carry(
        self,
        clicks: list[Click],
        previous: Prediction,
        refinement: Refinement | None = None,
    ) -> Prediction:
        """Run the network with clicks that are not forced on its answer."""


class PlaneReader:
    """Reads planes of a stack; the neighbour in the direction of travel in advance.

    Two planes are held at most, so memory does not grow with the stack. Large planes
    are not read whole: the windows that are looked at are.

    Parameters
    ----------
    plane
        Returns a plane, (Y, X) or (Y, X, C), lazy or not.
    count
        How many there are.
    """

    def __init__(self, plane: Callable[[int], PlaneLike], count: int) -> None:
        self._plane = plane
        self._count = count
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[PlaneLike]] | None = None
        self._here: tuple[int, PlaneLike] | None = None
        self.reads = 0

    def __getitem__(self, index: int) -> PlaneLike:
        """Return a plane, read if it is not large."""
        if self._here is not None and self._here[0] == index:
            return self._here[1]
        before = None if self._here is None else self._here[0]
        if self._ahead is not None and self._ahead[0] == index:
            plane = self._ahead[1].result()
        else:
            plane = self._read(index)
        self._here, self._ahead = (index, plane), None
        following = index + (1 if before is None or index >= before else -1)
        if 0 <= following < self._count and not isinstance(
            self._plane(following), np.ndarray
        ):
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "cfrseg-read-ahead")
            self._ahead = following, self._pool.submit(self._read, following)
        return plane

    def close(self) -> None:
        """End the reading thread."""
        self._here = self._ahead = None
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _read(self, index: int) -> PlaneLike:
        self.reads += 1
        plane = self._plane(index)
        size = int(np.prod(plane.shape)) * np.dtype(plane.dtype).itemsize
        if isinstance(plane, np.ndarray) or size > _READ_WHOLE_BYTES:
            return plane
        return np.asarray(plane[: plane.shape[0], : plane.shape[1]])


class SegmenterPlanes:
    """The planes of a (Z, Y, X[, C]) stack with a segmenter on them.

    Parameters
    ----------
    segmenter
        Its image is set plane by plane.
    stack
        NumPy or lazy (dask, zarr); or a function that returns a plane.
    count, shape
        Of the planes; needed for a function only.
    sampling
        (between planes, y, x) size of a voxel, in any one unit.
    taken
        Labels of other objects on a plane's box that are settled; None: none.
    rgb, scaling
        As for ``Segmenter.set_image``.
    """

    def __init__(
        self,
        segmenter: CarryingSegmenter,
        stack: Any,
        *,
        count: int | None = None,
        shape: tuple[int, int] | None = None,
        sampling: tuple[float, float, float] = (1.0, 1.0, 1.0),
        taken: Callable[[int, int, Box], LabelArray] | None = None,
        rgb: bool | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        plane = stack if callable(stack) else stack.__getitem__
        self.count = int(len(stack) if count is None else count)
        found = stack.shape[1:3] if shape is None else shape
        self.shape = (int(found[0]), int(found[1]))
        self.sampling = checked_sampling(sampling)
        self.runs = 0
        self.reader = PlaneReader(plane, self.count)
        self._segmenter = segmenter
        self._taken = taken
        self._rgb = rgb
        self._scaling = scaling
        self._set: int | None = None

    def forget(self) -> None:
        """Set the next plane anew: the segmenter was used elsewhere."""
        self._set = None

    def read(self, index: int, box: Box) -> NDArray[Any]:
        """Return the pixels of a plane's box."""
        return np.asarray(self.reader[index][box[0] : box[2], box[1] : box[3]])

    def carry(
        self,
        index: int,
        clicks: list[Click],
        previous: Prediction,
        refinement: Refinement,
    ) -> Prediction:
        """Run the network on a plane."""
        if self._set != index:
            self._segmenter.set_image(
                self.reader[index], rgb=self._rgb, scaling=self._scaling
            )
            self._set = index
        self.runs += 1
        return self._segmenter.carry(clicks, previous, refinement)

    def taken(self, index: int, object_id: int, box: Box) -> LabelArray:
        """Return other objects' labels."""
        if self._taken is None:
            return np.zeros((box[2] - box[0], box[3] - box[1]), np.int32)
        return self._taken(index, object_id, box)


def planes_along(
    segmenter: CarryingSegmenter,
    stack: Any,
    axis: int,
    *,
    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0),
    rgb: bool | None = None,
    scaling: Scaling | None = None,
) -> SegmenterPlanes:
    """Return the planes of a (Z, Y, X[, C]) stack across any of its axes.

    Parameters
    ----------
    axis
        0, 1 or 2: the axis walked along; the other two, in their order, are a plane's
        rows and columns.
    voxel
        (z, y, x) size of a voxel. Give moments the size of a pixel.

    Notes
    -----
    A lazy stack is read by slices, ``stack[:, y]`` for planes across Y: how fast that
    is depends on how it is chunked.
    """
    if axis not in (0, 1, 2):
        msg = f"axis {axis}: expected 0, 1 or 2"
        raise ValueError(msg)
    rest = [i for i in range(3) if i != axis]

    def plane(index: int) -> Any:
        return stack[tuple(index if i == axis else slice(None) for i in range(3))]

    return SegmenterPlanes(
        segmenter,
        plane,
        count=int(stack.shape[axis]),
        shape=(int(stack.shape[rest[0]]), int(stack.shape[rest[1]])),
        sampling=(voxel[axis], voxel[rest[0]], voxel[rest[1]]),
        rgb=rgb,
        scaling=scaling,
    )


def checked_sampling(
    sampling: tuple[float, float, float],
) -> tuple[float, float, float]:
    """Return a voxel size; anything but positive numbers raises ValueError."""
    z, y, x = (float(v) for v in sampling)
    if not (z > 0 and y > 0 and x > 0):
        msg = f"voxel size {sampling!r}: expected three positive numbers (z, y, x)"
        raise ValueError(msg)
    return z, y, x
