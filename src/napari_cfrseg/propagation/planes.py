"""A stack read plane by plane, the next one ahead, with a segmenter on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.geometry.masks import LabelArray
from napari_cfrseg.geometry.windows import Box, PlaneLike, Window, shape_of, union
from napari_cfrseg.io.axes import plane_of, turned
from napari_cfrseg.io.plane_image import Scaling, open_plane
from napari_cfrseg.propagation.planes_ahead import PlanesAhead, held

if TYPE_CHECKING:
    from napari_cfrseg.engine.segmenter import Segmenter


class SegmenterPlanes:
    """The planes of a (Z, Y, X[, C]) stack with a segmenter on them.

    ``stack`` is NumPy or lazy (dask, zarr), or a function that returns a plane: then
    ``count`` and ``shape`` are the planes'. ``sampling`` is the (between planes, y, x)
    size of a voxel, in any one unit. ``taken`` returns the settled labels of other
    objects in a plane's box, for an object. ``rgb`` and ``scaling`` are as for
    ``Segmenter.set_image``; the scaling may be a function of the plane. With ``ahead``
    the next plane is read and embedded while one is decoded: results are the same
    without. ``on_run`` gets each answer of the network; ``runs`` counts them.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        stack: Any,
        *,
        count: int | None = None,
        shape: tuple[int, int] | None = None,
        sampling: tuple[float, float, float] = (1.0, 1.0, 1.0),
        taken: Callable[[int, int, Box], LabelArray] | None = None,
        rgb: bool | None = None,
        scaling: Scaling | Callable[[int], Scaling | None] | None = None,
        ahead: bool = True,
        on_run: Callable[[Prediction], None] | None = None,
    ) -> None:
        plane: Callable[[int], PlaneLike]
        plane = stack if callable(stack) else stack.__getitem__
        scaling_of = scaling if callable(scaling) else lambda _: scaling
        self.count = int(len(stack) if count is None else count)
        plane_shape = stack.shape[1:3] if shape is None else shape
        self.shape = (int(plane_shape[0]), int(plane_shape[1]))
        z, y, x = (float(v) for v in sampling)
        if not (z > 0 and y > 0 and x > 0):
            msg = f"voxel size {sampling!r}: expected three positive numbers (z, y, x)"
            raise ValueError(msg)
        self.sampling = z, y, x
        self.runs = 0
        self.ahead = PlanesAhead(
            lambda index: held(plane(index)),
            lambda i, pixels: open_plane(pixels, rgb=rgb, scaling=scaling_of(i)),
            segmenter.embed_ahead if ahead and segmenter.embeds_ahead else None,
        )
        self._walks_ahead = ahead
        self._segmenter = segmenter
        self._taken = taken
        self._on_run = on_run
        self._set: int | None = None

    @property
    def px_sampling(self) -> tuple[float, float]:
        """(y, x) size of a pixel over the smaller of the two."""
        _, y, x = self.sampling
        least = min(y, x)
        return y / least, x / least

    @property
    def plane_steps(self) -> float:
        """How much farther apart planes are than pixels."""
        return self.sampling[0] / min(self.sampling[1:])

    def expect(self, index: int, following: int | None) -> None:
        """Set the present plane and the one after it, which is read ahead."""
        if self._walks_ahead:
            self.ahead.expect(index, following)

    def rest(self) -> None:
        """End the thread that reads ahead: no further plane comes."""
        self.ahead.close()
        self._set = None

    def read(self, index: int, box: Box) -> NDArray[Any]:
        """Return the pixels of a plane's box, (h, w) or (h, w, C)."""
        return self.ahead.read(index, box)

    def carry(
        self,
        index: int,
        clicks: list[Click],
        previous: Prediction,
        refinement: Refinement,
    ) -> Prediction:
        """Run the network on a plane (``Segmenter.carry``)."""
        if self._set != index:
            self._set = None
            self._segmenter.show(self.ahead.image(index), self.ahead.early(index))
            self._set = index
        prediction = self._segmenter.carry(
            clicks,
            previous,
            refinement,
            on_window=lambda window: self.ahead.used(index, window),
        )
        self.runs += 1
        if self._on_run is not None:
            self._on_run(prediction)
        return prediction

    def taken(self, index: int, object_id: int, box: Box) -> LabelArray:
        """Return the labels of other objects that are settled on a plane's box."""
        if self._taken is None:
            return np.zeros(shape_of(box), np.int32)
        return self._taken(index, object_id, box)


def planes_along(
    segmenter: Segmenter,
    stack: Any,
    axis: int,
    *,
    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0),
    rgb: bool | None = None,
    scaling: Scaling | None = None,
) -> SegmenterPlanes:
    """Return the planes of a (Z, Y, X[, C]) stack across any of its axes.

    ``axis`` (0, 1 or 2) is walked along; the other two, in their order, are a plane's
    rows and columns. ``voxel`` is the (z, y, x) size of a voxel. A lazy stack is read
    by slices, ``stack[:, y]`` for planes across Y.
    """
    if axis not in (0, 1, 2):
        raise ValueError(f"axis {axis}: expected 0, 1 or 2")
    order = (axis, *(i for i in range(3) if i != axis))
    array = turned(stack, order)
    return SegmenterPlanes(
        segmenter,
        lambda index: plane_of(array, (index,)),
        count=int(array.shape[0]),
        shape=(int(array.shape[1]), int(array.shape[2])),
        sampling=(voxel[order[0]], voxel[order[1]], voxel[order[2]]),
        rgb=rgb,
        scaling=scaling,
    )


#: side of an object's own window over its size (that of a click)
_OWN = 1.6
#: side of a window of several objects over their common size
_COMMON = 1.3
#: a shared window may be so much wider or narrower than an object's own would be
_KEPT = (0.5, 1.1)


def fits(window: Window, box: Box) -> bool:
    """Whether a window shows an object well."""
    ratio = _OWN * _extent(box) / window.side
    return _KEPT[0] <= ratio <= _KEPT[1] and window.holds(box)


def common_windows(
    objects: Sequence[tuple[Box | None, Window | None]], plane: tuple[int, int]
) -> list[Window | None]:
    """Return for each object the window it shares with others, or None.

    ``objects`` says where each was on the plane before, and the window it was seen
    through. One that shows a group already is kept, so that it can be embedded ahead.
    """
    groups: list[tuple[list[int], Window | None]] = []
    for index, (box, window) in enumerate(objects):
        if box is None or window is None:
            continue
        for place, (members, _) in enumerate(groups):
            grown = [*members, index]
            shared = _common([objects[i] for i in grown], plane)
            if shared is not None:
                groups[place] = grown, shared
                break
        else:
            groups.append(([index], None))
    out: list[Window | None] = [None] * len(objects)
    for members, shared in groups:
        for index in members:
            out[index] = shared
    return out


def _common(
    members: Sequence[tuple[Box | None, Window | None]], plane: tuple[int, int]
) -> Window | None:
    boxes = [box for box, _ in members if box is not None]
    known = [window for _, window in members if window is not None]
    hull = union(*boxes)
    centre = (hull[0] + hull[2] - 1) / 2, (hull[1] + hull[3] - 1) / 2
    side = max(round(_COMMON * _extent(hull)), *(_extent(b) + 2 for b in boxes))
    laid = Window.centred(centre, side, known[0].grid, plane)
    for window in (*known, laid):
        if all(fits(window, box) for box in boxes):
            return window
    return None


def _extent(box: Box) -> int:
    return max(shape_of(box))
