"""One object's result: what every click did to it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import DatasetError


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object's run of clicks.

    Attributes
    ----------
    key
        The object's name (:attr:`BenchmarkObject.key`).
    set_name, image_name, plane
        Where it is.
    area_px
        Annotated pixels.
    shape
        (Y, X) of the plane.
    clicks
        (row, column, 1 positive / 0 negative) in order.
    ious
        IoU after each click, in [0, 1].
    error_px
        Missed plus wrong pixels after each click.
    seconds
        Seconds of ``predict`` for each click, the mask's reading included.
    steps
        Network steps of each click; empty if the segmenter does not tell.
    boundary_ious, assds_px, assds_um
        After each click; empty when not asked for (micrometres: when the spacing is
        not known). NaN: no mask, no distance.
    set_image_s
        Seconds of ``set_image`` for the object's plane.
    seed
        Of the robot; 0 for the exact one.
    mask_box, mask_bits
        The last mask: (first row, first column, height, width) of its bounding box,
        and its pixels there (:func:`pack_mask`); for pictures in reports.
    """

    key: str
    set_name: str
    image_name: str
    plane: int | None
    area_px: int
    shape: tuple[int, int]
    clicks: tuple[tuple[int, int, int], ...]
    ious: tuple[float, ...]
    error_px: tuple[int, ...]
    seconds: tuple[float, ...]
    steps: tuple[int, ...] = ()
    boundary_ious: tuple[float, ...] = ()
    assds_px: tuple[float, ...] = ()
    assds_um: tuple[float, ...] = ()
    set_image_s: float = 0.0
    seed: int = 0
    mask_box: tuple[int, ...] = (0, 0, 0, 0)
    mask_bits: str = ""

    def last_mask(self) -> NDArray[np.bool_]:
        """(Y, X) bool: the mask after the last click."""
        mask = np.zeros(self.shape, bool)
        y, x, height, width = self.mask_box
        if height and width:
            packed = zlib.decompress(base64.b64decode(self.mask_bits))
            bits = np.unpackbits(
                np.frombuffer(packed, np.uint8), count=height * width
            ).astype(bool)
            mask[y : y + height, x : x + width] = bits.reshape(height, width)
        return mask

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ObjectRow:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        DatasetError
            If a field is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            odd = sorted(set(values) ^ known)
            msg = f"a result row has missing or unknown fields {odd}: run it again"
            raise DatasetError(msg)
        frozen = {name: _freeze(value) for name, value in values.items()}
        return cls(**frozen)


def pack_mask(mask: NDArray[np.bool_]) -> tuple[tuple[int, ...], str]:
    """Pack a (Y, X) bool mask: its bounding box, and base64 of its deflated bits."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return (0, 0, 0, 0), ""
    y, x = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) - y + 1, int(columns[-1]) - x + 1
    bits = np.packbits(mask[y : y + height, x : x + width])
    packed = base64.b64encode(zlib.compress(bits.tobytes(), 6)).decode("ascii")
    return (y, x, height, width), packed


def _freeze(value: Any) -> Any:
    return tuple(_freeze(v) for v in value) if isinstance(value, list) else value
