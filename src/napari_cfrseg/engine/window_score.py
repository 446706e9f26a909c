"""How well the mask seen in a window is supported: the score of the automatic focus.

It compares the candidate windows of a first click
(:mod:`napari_cfrseg.engine.focus`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cfrseg.clicks import Click, ClickList
from napari_cfrseg.engine.focus import FocusSettings
from napari_cfrseg.geometry.windows import Window, mask_box, shape_of


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
