"""Where to look: the window of a click.

First click: nothing is known of the object's size, so several windows around the
click are tried (*automatic focus*), the best mask wins (``window_search``). Later
clicks: Zoom-In of the papers, the box of previous mask and clicks, expanded; an old
window that still fits is kept, and with it the image's embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_cfrseg.clicks import Click, ClickList
from napari_cfrseg.geometry.windows import Box, Window, shape_of, union

#: Windows whose sides differ by less than this factor count as equal.
SAME_SIDE = 1.25


@dataclass(frozen=True, slots=True)
class FocusSettings:
    """Constants of the focus; lengths in plane pixels."""

    #: windows tried at the first click: the smallest, the factor from one to the next
    #: until the plane is covered, and how many at most. The factor is below fill_high /
    #: fill_low, so that one of them always fits
    first_side: int = 32
    ladder: float = 2.0
    most_candidates: int = 7
    #: bounds of Zoom-In's windows; window over the box of mask and clicks (papers: 1.4
    #: to 3.5)
    min_side: int = 32
    max_side: int = 8192
    expansion: float = 1.6
    #: growth of the window after a mask that ran into its border, and how often a click
    #: looks again, wider, before that is left to the next click
    widening: float = 1.6
    most_widenings: int = 3
    click_margin: float = (
        0.06  #: least distance of the newest click to the border, / side
    )
    #: an old window is kept while (needed side / its side) lies between these
    keep_from: float = 0.5
    keep_to: float = 1.25
    #: a mask's extent over the window's side is best between the first two, and loses a
    #: factor e^(−½) for this many octaves beyond
    fill_low: float = 0.24
    fill_high: float = 0.95
    fill_falloff: float = 2.3
    #: exponents of the parts of the score
    quality_power: float = 0.0
    confidence_power: float = 0.2
    purity_power: float = 2.7
    border_power: float = 15.0
    #: octaves of score that a window loses for each octave it is wider than
    #: ``first_side``: in a wide field most objects are small
    octave_cost: float = 0.05
    #: share of the score that depends on the next narrower or wider window showing the
    #: same mask
    agreement_weight: float = 0.3
    #: the search ends once the best score and the IoU that the network expects there
    #: are above the first two, and so many wider windows were no better: narrow windows
    #: agree on a dot, of which it expects little
    sure_score: float = 0.7
    sure_quality: float = 0.65
    sure_after: int = 2
    #: a window of which the network expects so much more IoU than of the one that
    #: scores best is taken instead
    quality_lead: float = 0.2
    shift_factor: float = math.sqrt(2)  #: of the side, per step of ``focus_shift``


@dataclass(frozen=True, slots=True)
class FocusHint:
    """The object's size, as far as it is known before its first click.

    Windows of the side ``side_px`` are tried, and those up to ``spread`` times smaller
    or larger.
    """

    side_px: float
    spread: float = 2.0

    def __post_init__(self) -> None:
        if not (self.side_px > 0 and self.spread >= 1):
            raise ValueError(f"{self}: side_px must be > 0 and spread ≥ 1")

    @classmethod
    def from_extents(cls, extents_px: Sequence[float]) -> FocusHint | None:
        """Expect an object of the size of earlier ones (their larger box sides)."""
        known = [e for e in extents_px if e > 0]
        return cls(2.0 * float(np.median(known))) if known else None

    @classmethod
    def from_view(cls, visible_px: float) -> FocusHint:
        """Expect an object between a thirtieth of the visible side and all of it."""
        return cls(visible_px / 4, spread=4.0)


def candidate_windows(
    yx: tuple[float, float],
    plane: tuple[int, int],
    grid: int,
    settings: FocusSettings,
    hint: FocusHint | None = None,
) -> tuple[Window, ...]:
    """Return the windows to try at the first click, smallest first."""
    widest = _bounded(max(plane), plane, settings)
    smallest = min(settings.first_side, widest)
    if hint is not None:
        middle = min(max(hint.side_px, settings.min_side), widest)
        smallest = max(settings.min_side, round(middle / hint.spread))
        widest = min(widest, round(middle * hint.spread))
    sides = [smallest]
    while sides[-1] < widest and len(sides) < settings.most_candidates:
        sides.append(round(sides[-1] * settings.ladder))
    if sides[-1] >= widest:
        # a last window that adds little takes the place of the one before
        sides = [s for s in sides if s * SAME_SIDE < widest] + [widest]
    return tuple(Window.centred(yx, side, grid, plane) for side in sides)


def next_window(
    mask_area: Box | None,
    clicks: Sequence[Click],
    plane: tuple[int, int],
    grid: int,
    settings: FocusSettings,
    *,
    old: Window | None = None,
    old_touched: bool = False,
    focus_shift: int = 0,
) -> Window:
    """Zoom-In: the window of a click when a mask is there already.

    ``mask_area`` is the box of the previous mask, None if it is empty; ``old`` the
    previous window. If the mask ran into its border (``old_touched``), the new one is
    wider. ``focus_shift`` −1 looks closer, +1 wider, by √2 each.
    """
    newest = clicks[-1].pixel
    box = _clicks_box(clicks)
    if mask_area is not None:
        box = union(box, mask_area)
    extent = max(shape_of(box))
    needed = extent * settings.expansion
    if mask_area is None and old is not None:
        needed = max(needed, old.side)
    if old is not None and old_touched:
        needed = max(needed, old.side * settings.widening)
    needed *= settings.shift_factor**focus_shift
    side = _bounded(needed, plane, settings)
    if old is not None and _still_fits(old, side, box, newest, plane, settings):
        return old
    if side < extent:  # object and clicks do not fit: look at the newest click
        return Window.centred(newest, side, grid, plane)
    margin = settings.click_margin * side
    centre = ((box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2)
    reach = side / 2 - margin
    kept = (
        min(max(centre[0], newest[0] - reach), newest[0] + reach),
        min(max(centre[1], newest[1] - reach), newest[1] + reach),
    )
    return Window.centred(kept, side, grid, plane)


def _still_fits(
    old: Window,
    side: int,
    box: Box,
    newest: tuple[int, int],
    plane: tuple[int, int],
    settings: FocusSettings,
) -> bool:
    ratio = side / old.side
    if not (settings.keep_from <= ratio <= settings.keep_to and old.holds(box)):
        return False
    margin = settings.click_margin * old.side
    for pixel, start, length in zip(newest, (old.y0, old.x0), plane, strict=True):
        end = start + old.side
        if (start > 0 and pixel < start + margin) or (
            end < length and pixel >= end - margin
        ):
            return False
    return True


def shifted(
    window: Window,
    yx: tuple[float, float],
    shift: int,
    plane: tuple[int, int],
    settings: FocusSettings,
) -> Window:
    """Look closer (shift < 0) or wider (shift > 0) around a point."""
    if shift == 0:
        return window
    side = window.side * settings.shift_factor**shift
    return Window.centred(yx, _bounded(side, plane, settings), window.grid, plane)


def _bounded(side: float, plane: tuple[int, int], settings: FocusSettings) -> int:
    widest = min(max(*plane, settings.min_side), settings.max_side)
    return round(min(max(side, settings.min_side), widest))


def _clicks_box(clicks: Sequence[Click]) -> Box:
    pixels = ClickList.of(clicks).pixels
    (y0, x0), (y1, x1) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
    return y0, x0, y1 + 1, x1 + 1
