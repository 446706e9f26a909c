"""Where to look: the window of a click, and how well a mask seen in it is supported.

First click: nothing is known of the object's size, so several windows around the
click are tried and the mask that is best supported wins (*automatic focus*). Later
clicks: Zoom-In of the papers, the box of previous mask and clicks, expanded; an old
window that still fits is kept, and with it the image's embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cfrseg.clicks import Click, ClickList
from napari_cfrseg.geometry.windows import Box, Window, mask_box, shape_of, union

#: Windows whose sides differ by less than this factor count as equal.
SAME_SIDE = 1.25


@dataclass(frozen=True, slots=True)
class FocusSettings:
    """Constants of the focus; lengths in plane pixels.

    Attributes
    ----------
    first_side, ladder, most_candidates
        The windows tried at the first click: the smallest, the factor from one to the
        next until the plane is covered, and how many at most. The factor is below
        fill_high / fill_low, so that one of them always fits.
    min_side, max_side
        Bounds of Zoom-In's windows.
    expansion
        Zoom-In's window over the box of mask and clicks (papers: 1.4 to 3.5).
    widening, most_widenings
        Growth of the window after a mask that ran into its border, and how often a
        click looks again, wider, before that is left to the next click.
    click_margin
        Least distance of the newest click from the window's border, as a share of
        the side.
    keep_from, keep_to
        An old window is kept while (needed side / its side) lies between these.
    fill_low, fill_high
        A mask's extent over the window's side is best between these …
    fill_falloff
        … and loses a factor e^(−½) for this many octaves beyond.
    quality_power, confidence_power, purity_power, border_power
        Weights (exponents) of the parts of the score.
    octave_cost
        Octaves of score that a window loses for each octave it is wider than
        ``first_side``: in a wide field most objects are small.
    agreement_weight
        Share of the score that depends on the next narrower or wider window showing
        the same mask.
    shift_factor
        Factor of the window's side per step of ``focus_shift``.
    """

    first_side: int = 32
    ladder: float = 2.0
    most_candidates: int = 7
    min_side: int = 32
    max_side: int = 8192
    expansion: float = 1.6
    widening: float = 1.6
    most_widenings: int = 3
    click_margin: float = 0.06
    keep_from: float = 0.5
    keep_to: float = 1.25
    fill_low: float = 0.24
    fill_high: float = 0.95
    fill_falloff: float = 2.3
    quality_power: float = 0.0
    confidence_power: float = 0.2
    purity_power: float = 2.7
    border_power: float = 15.0
    octave_cost: float = 0.05
    agreement_weight: float = 0.3
    shift_factor: float = math.sqrt(2)


@dataclass(frozen=True, slots=True)
class FocusHint:
    """The object's size, as far as it is known before its first click.

    Windows of the side ``side_px`` (plane pixels) are tried, and those up to the factor
    ``spread`` smaller or larger.
    """

    side_px: float
    spread: float = 2.0

    def __post_init__(self) -> None:
        if not (self.side_px > 0 and self.spread >= 1):
            msg = f"{self}: side_px must be > 0 and spread ≥ 1"
            raise ValueError(msg)

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
    widest = min(max(*plane, settings.min_side), settings.max_side)
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

    Parameters
    ----------
    mask_area
        Box of the previous mask, None if it is empty.
    old, old_touched
        The previous window, and whether the mask ran into its border: then the new
        one is wider.
    focus_shift
        −1 looks closer, +1 wider, by √2 each.
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
    widest = min(max(*plane, settings.min_side), settings.max_side)
    side = round(min(max(needed, settings.min_side), widest))
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
    widest = min(max(*plane, settings.min_side), settings.max_side)
    side = window.side * settings.shift_factor**shift
    side = round(min(max(side, settings.min_side), widest))
    return Window.centred(yx, side, window.grid, plane)


def _clicks_box(clicks: Sequence[Click]) -> Box:
    pixels = ClickList.of(clicks).pixels
    (y0, x0), (y1, x1) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
    return y0, x0, y1 + 1, x1 + 1


@dataclass(frozen=True, slots=True)
class WindowEvidence:
    """Measurements of a candidate window's mask, in the part that was clicked.

    Attributes
    ----------
    quality
        The network's expected IoU, 1 if it gives none.
    fill
        The part's larger extent over the window's side, in [0, 1].
    border
        Share of the window's border (where it is not the plane's) inside the part.
    confidence, purity
        Mean of |2p − 1| over the part; its share of the mask's area.
    octaves
        Doublings from the narrowest window to this one, at least 0.
    agreement
        IoU of its mask with that of the next narrower or wider window, the better of
        both: real objects look alike at neighbouring scales.
    """

    quality: float
    fill: float
    border: float
    confidence: float
    purity: float
    octaves: float = 0.0
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
    area = int(component.sum())
    box = mask_box(component)
    extent = 0 if box is None else max(shape_of(box))
    edges = border_cells(component, window, plane)
    return WindowEvidence(
        quality=1.0 if quality is None else quality,
        fill=extent / window.grid,
        border=float(edges.mean()) if edges.size else 0.0,
        confidence=float(np.abs(2 * probability[component] - 1).mean()),
        purity=area / int(mask.sum()),
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
    fill = evidence.fill
    beyond = max(
        math.log2(settings.fill_low / fill), math.log2(fill / settings.fill_high), 0.0
    )
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
    at = window.on_grid(listed.yx[listed.positive])
    cells = np.floor(at + 0.5).astype(np.intp)
    inside = ((cells >= 0) & (cells < window.grid)).all(axis=1)
    wanted = np.unique(labels[tuple(cells[inside].T)])
    if not wanted.any():
        return None
    component: NDArray[np.bool_] = np.isin(labels, wanted[wanted > 0])
    return component


def border_cells(
    mask: NDArray[np.bool_], window: Window, plane: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return the mask along those borders of the window that are not the plane's."""
    y0, x0, y1, x1 = window.box
    edges = [
        mask[0] if y0 > 0 else None,
        mask[-1] if y1 < plane[0] else None,
        mask[:, 0] if x0 > 0 else None,
        mask[:, -1] if x1 < plane[1] else None,
    ]
    kept = [edge for edge in edges if edge is not None]
    return np.concatenate(kept) if kept else np.zeros(0, dtype=bool)
