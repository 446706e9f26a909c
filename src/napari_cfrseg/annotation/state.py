"""Objects, with their clicks and edits on each plane, as frozen values.

A change makes a new value; the old one stays in the undo history as it was, with the
rounds the network computed for it. So undo never computes anything.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.geometry.masks import MaskPatch, Plane

if TYPE_CHECKING:
    from napari_cfrseg.engine.prediction import Prediction

#: hue step of the golden angle: neighbours in number are far apart in hue
_GOLDEN = 0.61803398875
#: lightness and saturation cycle apart from the hue, for those who see few hues
_SHADES = ((0.55, 0.90), (0.72, 0.75), (0.42, 0.85), (0.82, 0.85))
#: objects whose colours are all different; then the colours start again
PALETTE_SIZE = 64


def default_colour(object_id: int) -> str:
    """Return the colour (``#rrggbb``) of an object that was given none."""
    index = (object_id - 1) % PALETTE_SIZE
    lightness, saturation = _SHADES[index % len(_SHADES)]
    rgb = colorsys.hls_to_rgb((0.13 + index * _GOLDEN) % 1.0, lightness, saturation)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


@dataclass(frozen=True, slots=True)
class ClickEntry:
    """A click and the settings its round is computed with.

    ``threshold`` is the object's when the click was made: the mask that it corrects
    does not follow the slider afterwards. ``candidate`` is which of the masks found at
    a first click was taken.
    """

    click_id: int
    click: Click
    refinement: Refinement
    focus_shift: int = 0
    hint: FocusHint | None = None
    threshold: float = 0.5
    candidate: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PaintEntry:
    """Pixels a person added and removed by hand.

    ``threshold`` is the object's when it was painted: the mask under the edit, and so
    the next click's feedback, does not follow the slider afterwards. ``holds`` as in
    :class:`~napari_cfrseg.annotation.events.Painted`.
    """

    added: MaskPatch
    removed: MaskPatch
    threshold: float
    holds: bool = False


Entry = ClickEntry | PaintEntry


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """The result of an entry: a prediction for a click, a mask for a painted edit."""

    prediction: Prediction | None = None
    mask: MaskPatch | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """Marks a plane whose mask was carried there and not confirmed.

    Attributes
    ----------
    confidence
        The IoU to expect, in [0, 1].
    stop
        Why the run ended on this plane; None if it did not.
    source
        What it was computed from: the anchors' indices and their states' stamps, and
        whether the object was said to span the range.
    """

    confidence: float
    stop: str | None = None
    source: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PlaneState:
    """One object on one plane.

    Attributes
    ----------
    start
        The mask it began with (imported), or None.
    entries
        Clicks and painted edits in order.
    rounds
        One per entry, each computed from the one before it.
    mask
        The mask now, at the object's threshold; what it would own if it were alone.
    stamp
        Number of the act that changed it last.
    carried
        Set where the start mask came from a propagation.
    """

    start: MaskPatch | None = None
    entries: tuple[Entry, ...] = ()
    rounds: tuple[Round, ...] = ()
    mask: MaskPatch = field(default_factory=MaskPatch.empty)
    stamp: int = 0
    carried: Carried | None = None

    @property
    def clicks(self) -> tuple[ClickEntry, ...]:
        """The clicks, in order."""
        return tuple(e for e in self.entries if isinstance(e, ClickEntry))

    @property
    def is_empty(self) -> bool:
        """True when nothing was done on the plane and nothing imported."""
        return self.start is None and not self.entries and self.carried is None

    @property
    def is_anchor(self) -> bool:
        """True when a person annotated the plane: propagation never changes it."""
        return bool(self.entries) or (self.start is not None and self.carried is None)


@dataclass(frozen=True, slots=True, eq=False)
class ObjectState:
    """One object.

    Attributes
    ----------
    object_id
        Its label, ≥ 1.
    name, colour
        What the table shows; the colour as ``#rrggbb``.
    object_class
        What it is, in the person's words; may be empty.
    locked
        Nothing changes a locked object.
    threshold
        Probability from which a pixel belongs to it.
    planes
        What was done to it, by plane.
    """

    object_id: int
    name: str
    colour: str
    locked: bool = False
    threshold: float = 0.5
    object_class: str = ""
    planes: Mapping[Plane, PlaneState] = field(
        default_factory=lambda: MappingProxyType({})
    )

    def on(self, plane: Plane) -> PlaneState:
        """Return its state on a plane (an empty one where nothing was done)."""
        return self.planes.get(plane, PlaneState())

    def with_plane(self, plane: Plane, state: PlaneState) -> ObjectState:
        """Return the object with another state on one plane."""
        planes = {key: value for key, value in self.planes.items() if key != plane}
        if not state.is_empty:
            planes[plane] = state
        return replace(self, planes=MappingProxyType(planes))

    @property
    def click_count(self) -> int:
        """Number of its clicks on all planes."""
        return sum(len(state.clicks) for state in self.planes.values())

    def clicks(self) -> tuple[tuple[Plane, ClickEntry], ...]:
        """Return its clicks on all planes, in order within each plane."""
        return tuple(
            (plane, entry)
            for plane, state in self.planes.items()
            for entry in state.clicks
        )
