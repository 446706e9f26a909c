"""An opened image: its pixels, what each of its axes is, and its channels.

The network reads three channels. One is given three times, two come with their mean,
and of four the last two are averaged (see :mod:`.plane_image`). Of more, the first
three are used unless a person chooses others.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.axes import ValueT, channels_of, view_of

#: lengths by their NGFF name: the sign that OME-XML has for them, metres, other
#: spellings in the singular
_LENGTHS = {
    "micrometer": ("µm", 1e-6, {"um", "μm", "micron", "micrometre"}),
    "nanometer": ("nm", 1e-9, {"nanometre"}),
    "millimeter": ("mm", 1e-3, {"millimetre"}),
    "centimeter": ("cm", 1e-2, {"centimetre"}),
    "decimeter": ("dm", 1e-1, {"decimetre"}),
    "meter": ("m", 1.0, {"metre"}),
    "kilometer": ("km", 1e3, {"kilometre"}),
    "picometer": ("pm", 1e-12, {"picometre"}),
    "inch": ("in", 0.0254, {"inche"}),
    "angstrom": ("Å", 1e-10, {"å"}),
}
#: the same of times, without their length
_TIMES = {
    "second": ("s", {"sec"}),
    "millisecond": ("ms", {"msec"}),
    "microsecond": ("µs", {"us", "μs"}),
    "nanosecond": ("ns", set[str]()),
    "minute": ("min", set[str]()),
    "hour": ("h", {"hr"}),
    "day": ("d", set[str]()),
}
#: names of leading axes that have none
_SPARE_NAMES = "tzqiwvuabdefghjklmnopr"
#: an array is read whole up to this size
MOST_BYTES = 1 << 33

#: channels that a person can choose together
MOST_CHANNELS = 4
#: channels that are used of more than can be chosen
USED_OF_MANY = 3


def unit_name(unit: object) -> str:
    """Return a unit's NGFF name; "pixel" for one that is unknown."""
    said = html.unescape(str(unit or "")).strip().replace("\\u00B5", "µ").lower()
    said = said.removesuffix("s") if len(said) > 3 else said  # "ms" is none
    for name, (sign, *_, spellings) in (_LENGTHS | _TIMES).items():
        if said in {name, sign.lower(), *spellings}:
            return name
    return "pixel"


def length_sign(unit: object) -> str:
    """Return the sign of a length in OME-XML; "pixel" for any other unit."""
    return _LENGTHS.get(unit_name(unit), ("pixel",))[0]


def time_sign(unit: object) -> str:
    """Return the sign of a time in OME-XML; "" for any other unit."""
    return _TIMES.get(unit_name(unit), ("",))[0]


def walking_spacing(
    sizes: Sequence[float], units: Sequence[object] | None, along: str
) -> tuple[float, float, float]:
    """Return (between planes, y, x) in one unit, of which two sizes may have another.

    Planes along an axis that has no length where pixels have one, or the other way
    round, are taken for as near as pixels; so are moments (``along`` is "t").

    Examples
    --------
    >>> walking_spacing((6, 500, 500), ("µm", "nm", "nm"), "z")
    (6000.0, 500.0, 500.0)
    >>> walking_spacing((60, 0.5, 0.5), ("second", "µm", "µm"), "t")
    (0.5, 0.5, 0.5)
    >>> walking_spacing((6e-13, 5e-13, 5e-13), None, "z")
    (6e-13, 5e-13, 5e-13)
    """
    known = [_LENGTHS.get(unit_name(unit)) for unit in units or (None,) * len(sizes)]
    metres = [1.0 if unit is None else unit[1] for unit in known]
    between, y, x = (
        float(f"{size * one / metres[1]:.12g}")
        for size, one in zip(sizes, metres, strict=True)
    )
    is_apart = along == "t" or (known[0] is None) != (known[1] is None)
    return (min(y, x) if is_apart else between), y, x


def default_channels(count: int) -> tuple[int, ...]:
    """Return which of ``count`` channels are used without a choice.

    Examples
    --------
    >>> default_channels(4), default_channels(5)
    ((0, 1, 2, 3), (0, 1, 2))
    """
    return tuple(range(count if count <= MOST_CHANNELS else USED_OF_MANY))


def ends_in_channels(shape: Sequence[int]) -> bool:
    """Whether the last of unnamed axes counts channels: planes of it would be slits."""
    return len(shape) > 2 and shape[-1] <= MOST_CHANNELS < min(shape[-3:-1])


def check_channels(chosen: Sequence[int], count: int) -> tuple[int, ...]:
    """Return chosen channels; an ImageError says why they cannot be used together."""
    if not chosen or not all(0 <= i < count for i in chosen):
        msg = f"channels {list(chosen)}: the image has {count}, counted from 0"
        raise ImageError(msg)
    if len(chosen) > MOST_CHANNELS or len(set(chosen)) < len(chosen):
        msg = f"channels {list(chosen)}: choose up to {MOST_CHANNELS} different ones"
        raise ImageError(msg)
    return tuple(chosen)


def axis_names(ndim: int, has_channels: bool) -> tuple[str, ...]:
    """Return names for axes nothing is known of: …, z, y, x, c."""
    depth = ndim - 2 - has_channels
    names = ("z",) if depth == 1 else tuple(_SPARE_NAMES[:depth])
    return (*names, "y", "x", *(["c"] if has_channels else []))


def _along(
    axes: Sequence[int], values: Sequence[ValueT] | None, of_channels: ValueT
) -> tuple[ValueT, ...] | None:
    """Return the values of some axes, where there are any."""
    return None if values is None else tuple((*values, of_channels)[i] for i in axes)


@dataclass(frozen=True, slots=True, eq=False)
class OpenImage:
    """An image's pixels and axes."""

    array: Any  #: NumPy or lazy, in the file's order
    #: one name per axis: "y", "x", "z", "t", "c" where they are known
    axes: tuple[str, ...]
    #: of all axes but a last "c"; None: unknown
    spacing: tuple[float, ...] | None = None
    units: tuple[str, ...] | None = None
    #: whether the axis "c" holds the colours of one light, as the file says
    is_rgb: bool = False
    #: where the first pixel's centre lies along these axes, in the units; None: at 0
    origin: tuple[float, ...] | None = None

    @classmethod
    def unnamed(cls, array: Any) -> OpenImage:
        """Return an image of whose axes nothing is known; 3 or 4 of uint8 are RGB."""
        names = tuple(f"axis {i}" for i in range(len(array.shape)))
        return cls(array, names, is_rgb=array.dtype == np.uint8)

    @property
    def has_channels(self) -> bool:
        """Whether the last axis counts channels."""
        return self.axes[-1] == "c"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(int(n) for n in self.array.shape)

    def named(self, axes: str) -> OpenImage:
        """Return the image with its axes named by a person.

        A letter for each axis, or for each longer than 1: Y and X, and Z, T, C
        (channels), S (colours) or any other; ImageError if they do not fit.
        """
        names = axes.lower()
        long = [i for i, n in enumerate(self.shape) if n > 1]
        image = self
        if len(names) == len(long) != len(self.axes):
            image = self.with_axes(long)
        shape = " × ".join(map(str, self.shape))
        if len(names) != len(image.axes):
            msg = f"axes {axes!r} do not fit an image of {shape}: one letter per axis"
            raise ImageError(msg)
        colours = "s" in names and "c" not in names
        names = names.replace("s", "c") if colours else names
        if len(set(names)) != len(names) or not {"x", "y"} <= set(names):
            raise ImageError(f"axes {axes!r}: each letter once, Y and X among them")
        image = replace(image, axes=tuple(names), is_rgb=colours)
        return image.with_axes(range(len(names)))

    def with_axes(self, chosen: Sequence[int]) -> OpenImage:
        """Return the image with some of its axes, in this order.

        Sizes, units and origin are there for as many axes as the image had, or for all
        but a last "c"; they get the new ones' length.
        """
        names = tuple(self.axes[i] for i in chosen)
        counted = chosen[: len(chosen) - (names[-1] == "c")]
        return OpenImage(
            view_of(self.array, chosen),
            names,
            _along(counted, self.spacing, 1.0),
            _along(counted, self.units, "pixel"),
            self.is_rgb and "c" in names,
            _along(counted, self.origin, 0.0),
        )

    def arranged(self, keep: str = "") -> OpenImage:
        """Return the image as (…, Y, X) or (…, Y, X, C), axes of length 1 left out.

        Of axes that ``keep`` does not name the first index is taken; "" keeps all.
        """
        shape, names = self.shape, self.axes
        y, x = names.index("y"), names.index("x")
        channel = None
        if "c" in names:
            channel = len(names) - 1 if self.has_channels else names.index("c")
        rest = [
            i
            for i, n in enumerate(shape)
            if n > 1 and i not in (y, x, channel) and (not keep or names[i] in keep)
        ]
        last = [] if channel is None or shape[channel] == 1 else [channel]
        return self.with_axes([*rest, y, x, *last])

    def placement(self, axes: Sequence[str]) -> dict[str, tuple[Any, ...] | None]:
        """Return what writers of labels take of some axes: names, spacing and so on."""
        found = self.with_axes([self.axes.index(name) for name in axes])
        return {
            "axes": found.axes,
            "spacing": found.spacing,
            "units": found.units,
            "origin": found.origin,
        }

    def read(self) -> NDArray[Any]:
        """Return all pixels; ImageError if unreadable or more than 8 GB."""
        size = math.prod(self.shape) * np.dtype(self.array.dtype).itemsize
        if size > MOST_BYTES:
            raise ImageError(
                f"{size / 1e9:.1f} GB of pixels: at most {MOST_BYTES / 1e9:.1f} GB are "
                "read at once"
            )
        return np.asarray(self.array)

    def with_channels(self, chosen: Sequence[int]) -> OpenImage:
        """Return an arranged image with some of its channels; one leaves no axis.

        A channel that it does not have is an ImageError.
        """
        chosen = check_channels(chosen, self.shape[-1] if self.has_channels else 1)
        if not self.has_channels:
            return self
        last = len(self.axes) - 1
        array = channels_of(self.array, last, chosen)
        axes = self.axes if len(chosen) > 1 else self.axes[:-1]
        is_rgb = self.is_rgb and len(chosen) > 2
        return replace(self, array=array, axes=axes, is_rgb=is_rgb)

    def with_few_channels(self) -> OpenImage:
        """Return an arranged image with the channels used without a choice."""
        count = self.shape[-1] if self.has_channels else 1
        chosen = default_channels(count)
        return self if len(chosen) == count else self.with_channels(chosen)

    def fitted(self, shape: tuple[int, ...], where: str) -> OpenImage:
        """Arrange the image as its labels are: their axes, then channels.

        Of many channels a few are used. An axis of another known name is not taken for
        channels, one of no known name is if it is short. Where no order fits ``shape``,
        an ImageError says so of ``where``, the image's name.
        """
        image = self.arranged() if "y" in self.axes else self
        found = image.shape
        if found == shape:
            return image
        candidates = [i for i, name in enumerate(image.axes) if name not in "tzyx"]
        for axis in sorted(candidates, key=lambda i: (image.axes[i] != "c", -i)):
            rest = [i for i in range(len(found)) if i != axis]
            is_c = image.axes[axis] == "c"
            short = is_c or found[axis] <= MOST_CHANNELS
            if tuple(found[i] for i in rest) == shape and short:
                names = list(image.axes)
                names[axis] = "c"
                named = replace(image, axes=tuple(names))
                return named.with_axes([*rest, axis]).with_few_channels()
        raise ImageError(
            f"{where}: the image has shape {found} (axes {' '.join(image.axes)}), its "
            f"labels {shape}; expected the same, or one axis of at most "
            f"{MOST_CHANNELS} channels more"
        )

    def plane(self, *index: int) -> NDArray[Any]:
        """Read one plane of an arranged image.

        Channels that are no colours come with 16 bits where they have 8: of 8 bits,
        three or four are taken for RGB(A).
        """
        pixels = np.asarray(self.array[index or slice(None)])
        if self.has_channels and not self.is_rgb and pixels.dtype == np.uint8:
            return pixels.astype(np.uint16)
        return pixels
