"""Where to look: the window of a click, and how well the mask seen in one fits.

First click: nothing is known of the object's size, so several windows around the
click are tried (*automatic focus*), the best mask wins (``window_search``). Later
clicks: Zoom-In of the papers, the box of previous mask and clicks, expanded; an old
window that still fits is kept, and with it the image's embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cfrseg.clicks import Click, ClickList
from napari_cfrseg.geometry.windows import Box, Window, mask_box, shape_of, union

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
    click_margin: float = 0.06  #: least distance of the newest click to the border
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
    """The object's size, as far as it is known before its first click."""

    side_px: float  #: side of the windows that are tried
    spread: float = 2.0  #: windows up to so many times smaller or larger are tried, too

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
    newest, pixels = clicks[-1].pixel, ClickList.of(clicks).pixels
    (y0, x0), (y1, x1) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
    box = (y0, x0, y1 + 1, x1 + 1)
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
    centre = ((box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2)
    reach = side / 2 - settings.click_margin * side
    pairs = zip(centre, newest, strict=True)
    y, x = (min(max(at, click - reach), click + reach) for at, click in pairs)
    return Window.centred((y, x), side, grid, plane)


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
        is_at_start = start > 0 and pixel < start + margin
        if is_at_start or (end < length and pixel >= end - margin):
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


@dataclass(frozen=True, slots=True)
class WindowEvidence:
    """Measurements of a candidate window's mask, in the part that was clicked."""

    quality: float  #: the network's expected IoU, 1 if it gives none
    fill: float  #: the part's larger extent over the window's side, in [0, 1]
    #: share of the window's border (where it is not the plane's) inside the part
    border: float
    #: mean of |2p − 1| over the part; its share of the mask's area
    confidence: float
    purity: float
    octaves: float = 0.0  #: doublings from the narrowest window to this one, at least 0
    #: IoU of its mask with that of the next narrower or wider window, the better of
    #: both: real objects look alike at neighbouring scales
    agreement: float = 1.0


def weigh(
    probability: NDArray[np.float32],
    window: Window,
    plane: tuple[int, int],
    clicks: Sequence[Click],
    *,
    quality: float | None = None,
) -> WindowEvidence | None:
    """Measure a window's (grid, grid) mask; None if it misses the positive clicks."""
    mask = probability > 0.5
    component = clicked_component(mask, window, clicks)
    if component is None:
        return None
    extent = max(shape_of(mask_box(component) or (0, 0, 0, 0)))
    edges = border_cells(component, window, plane)
    return WindowEvidence(
        quality=1.0 if quality is None else quality,
        fill=extent / window.grid,
        border=float(edges.mean()) if edges.size else 0.0,
        confidence=float(np.abs(2 * probability[component] - 1).mean()),
        purity=int(component.sum()) / int(mask.sum()),
    )


def score(evidence: WindowEvidence | None, settings: FocusSettings) -> float:
    """Return how well a window's mask is supported, in [0, 1].

    ``quality^a · confidence^b · purity^c · (1 − border)^d · fit(fill) ·
    2^(−e · octaves) · (1 − w + w · agreement)``, fit a plateau of 1 with Gaussian
    flanks in log₂ of the fill. The last two keep a click in a wide field from
    selecting a patch of the field.
    """
    if evidence is None or evidence.fill <= 0:
        return 0.0
    fill, low, high = evidence.fill, settings.fill_low, settings.fill_high
    beyond = max(math.log2(low / fill), math.log2(fill / high), 0.0)
    return float(
        evidence.quality**settings.quality_power
        * evidence.confidence**settings.confidence_power
        * evidence.purity**settings.purity_power
        * (1 - evidence.border) ** settings.border_power
        * math.exp(-0.5 * (beyond / settings.fill_falloff) ** 2)
        * 2 ** (-settings.octave_cost * evidence.octaves)
        * (1 - settings.agreement_weight * (1 - evidence.agreement))
    )


def agreement(
    one: tuple[NDArray[np.float32], Window], other: tuple[NDArray[np.float32], Window]
) -> float:
    """Return the IoU of two windows' masks in the plane; 0 if both are empty.

    Both are (grid, grid) probabilities, compared on the narrower window's cells; the
    wider mask's area beyond that window counts as disagreement.
    """
    (fine, narrow), (coarse, wide) = sorted((one, other), key=lambda x: x[1].side)
    narrow_mask, wide_mask = fine > 0.5, coarse > 0.5
    cells = []
    for start, wide_start in ((narrow.y0, wide.y0), (narrow.x0, wide.x0)):
        centres = start + (np.arange(narrow.grid) + 0.5) * narrow.px_per_cell
        cells.append(np.floor((centres - wide_start) / wide.px_per_cell).astype(int))
    rows, columns = (np.clip(c, 0, wide.grid - 1) for c in cells)
    inside = (cells[0] == rows)[:, None] & (cells[1] == columns)
    both = narrow_mask & inside & wide_mask[rows][:, columns]
    shared = np.count_nonzero(both) * narrow.px_per_cell**2
    total = (
        np.count_nonzero(narrow_mask) * narrow.px_per_cell**2
        + np.count_nonzero(wide_mask) * wide.px_per_cell**2
    )
    union = total - shared
    return float(shared / union) if union > 0 else 0.0


def clicked_component(
    mask: NDArray[np.bool_], window: Window, clicks: Sequence[Click]
) -> NDArray[np.bool_] | None:
    """Return the parts of a grid mask that hold a positive click, None if none do."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return None
    listed = ClickList.of(clicks)
    cells = np.floor(window.on_grid(listed.yx[listed.positive]) + 0.5).astype(np.intp)
    inside = ((cells >= 0) & (cells < window.grid)).all(axis=1)
    wanted = np.unique(labels[tuple(cells[inside].T)])
    if not wanted.any():
        return None
    return np.isin(labels, wanted[wanted > 0])


def border_cells(
    mask: NDArray[np.bool_], window: Window, plane: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return the mask along those borders of the window that are not the plane's."""
    y0, x0, y1, x1 = window.box
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    inside = (y0 > 0, y1 < plane[0], x0 > 0, x1 < plane[1])
    return np.concatenate([mask[:0, 0], *compress(edges, inside)])
