"""What a propagation walks through: planes, a network on them, what others hold."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.cascade import Refinement
from napari_cfrseg.engine.masks import LabelArray
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.window import Box


class Planes(Protocol):
    """A stack, the network on it, and what other objects hold."""

    @property
    def count(self) -> int:
        """How many planes."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of each."""

    @property
    def sampling(self) -> tuple[float, float, float]:
        """(between planes, y, x) size of a voxel, in any one unit."""

    def expect(self, index: int, following: int | None) -> None:
        """Take note of which plane comes now, and which one after it: read ahead."""

    def rest(self) -> None:
        """Take note that no plane is to come: end what reads ahead."""

    def read(self, index: int, box: Box) -> NDArray[Any]:
        """Return the pixels of a plane's box, (h, w) or (h, w, C)."""

    def carry(
        self,
        index: int,
        clicks: list[Click],
        previous: Prediction,
        refinement: Refinement,
    ) -> Prediction:
        """Run the network on a plane (``Segmenter.carry``)."""

    def taken(self, index: int, object_id: int, box: Box) -> LabelArray:
        """Return the labels of other objects that are settled on a plane's box."""


def px_sampling(planes: Planes) -> tuple[float, float]:
    """(y, x) size of a pixel over the smaller of the two."""
    _, y, x = planes.sampling
    least = min(y, x)
    return y / least, x / least


def plane_steps(planes: Planes) -> float:
    """How much farther apart planes are than pixels."""
    z, y, x = planes.sampling
    return z / min(y, x)
