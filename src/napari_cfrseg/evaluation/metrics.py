"""How good one mask is: IoU, boundary IoU, average symmetric surface distance.

P predicted, G annotated, V pixels that are not ignored.

===================  =============================================================
IoU                  |P ∧ G ∧ V| / |(P ∨ G) ∧ V|
boundary IoU         IoU of the bands B(P), B(G); B(M) = M minus its erosion by d
                     steps of a 3×3 square, d = max(1, round(0.02 · diagonal))
ASSD                 (Σ_{s ∈ S(P)} dist(s, S(G)) + Σ_{s ∈ S(G)} dist(s, S(P)))
                     / (|S(P)| + |S(G)|), S(M) the boundary pixels of M
===================  =============================================================

Where the evaluator published with FCFI has a fault, ``published=True`` gives its
number and the default is the corrected one; each docstring says what differs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BoolPlane = NDArray[np.bool_]
#: share of the plane's diagonal that the boundary band is deep (FCFI, BIoU)
BOUNDARY_RATIO = 0.02


def iou(
    predicted_mask: BoolPlane,
    truth_mask: BoolPlane,
    ignore_mask: BoolPlane | None = None,
) -> float:
    """Intersection over union of two masks.

    Parameters
    ----------
    predicted_mask, truth_mask
        Bool arrays of one shape, any number of dimensions.
    ignore_mask
        Bool or None: pixels left out of both.

    Returns
    -------
    float in [0, 1]; 1.0 when both masks are empty.
    """
    _check_shapes(predicted_mask, truth_mask, ignore_mask)
    both = predicted_mask & truth_mask
    either = predicted_mask | truth_mask
    if ignore_mask is not None:
        both &= ~ignore_mask
        either &= ~ignore_mask
    union = int(np.count_nonzero(either))
    return int(np.count_nonzero(both)) / union if union else 1.0


def error_area(
    predicted_mask: BoolPlane,
    truth_mask: BoolPlane,
    ignore_mask: BoolPlane | None = None,
) -> int:
    """Count the pixels that are missed or wrong, ignored ones left out."""
    _check_shapes(predicted_mask, truth_mask, ignore_mask)
    wrong = predicted_mask ^ truth_mask
    if ignore_mask is not None:
        wrong &= ~ignore_mask
    return int(np.count_nonzero(wrong))


def boundary_iou(
    predicted_mask: BoolPlane,
    truth_mask: BoolPlane,
    ignore_mask: BoolPlane | None = None,
    *,
    ratio: float = BOUNDARY_RATIO,
    published: bool = False,
) -> float:
    """IoU of the two masks' boundary bands.

    Parameters
    ----------
    predicted_mask, truth_mask
        (Y, X) bool. Pixels off the plane count as outside the masks.
    ignore_mask
        (Y, X) bool or None. By default ignored pixels are taken out of both masks
        before the bands are drawn, so a prediction that is right wherever it counts
        has boundary IoU 1.
    ratio
        Band depth over the plane's diagonal; the depth is at least one pixel and is
        rounded half to even.
    published
        True: FCFI's evaluator, which takes ignored pixels out of the annotation's
        band only after drawing it, and leaves them in the prediction: a prediction
        that is right wherever it counts can then score less than 1.

    Returns
    -------
    float in [0, 1]; 1.0 when both bands are empty.
    """
    _check_shapes(predicted_mask, truth_mask, ignore_mask)
    depth = max(1, round(ratio * math.hypot(*truth_mask.shape)))
    if ignore_mask is None:
        window = _common_box(predicted_mask | truth_mask)
        predicted_band = _band(predicted_mask[window], depth)
        return iou(predicted_band, _band(truth_mask[window], depth))
    if published:
        return _published_boundary_iou(predicted_mask, truth_mask, ignore_mask, depth)
    return boundary_iou(
        predicted_mask & ~ignore_mask, truth_mask & ~ignore_mask, ratio=ratio
    )


def _published_boundary_iou(
    predicted_mask: BoolPlane, truth_mask: BoolPlane, ignore_mask: BoolPlane, depth: int
) -> float:
    """FCFI's bands: the annotation as bytes 0, 1 and, ignored, 255."""
    known = truth_mask & ~ignore_mask
    codes = np.where(ignore_mask, 255, known).astype(np.uint8)
    size = 2 * depth + 1
    eroded = ndimage.minimum_filter(codes, size, mode="constant", cval=0)
    truth_band = codes - eroded
    return iou(_band(predicted_mask, depth), truth_band == 1, truth_band == 255)


def _band(mask: BoolPlane, depth: int) -> BoolPlane:
    """Pixels of the mask within ``depth`` chessboard steps of its outside."""
    size = 2 * depth + 1
    eroded = ndimage.minimum_filter(
        mask.astype(np.uint8), size, mode="constant", cval=0
    )
    band: BoolPlane = mask & (eroded == 0)
    return band


def assd(
    predicted_mask: BoolPlane,
    truth_mask: BoolPlane,
    ignore_mask: BoolPlane | None = None,
    *,
    spacing: tuple[float, ...] | None = None,
    published: bool = False,
) -> float:
    """Average symmetric surface distance of two masks.

    Parameters
    ----------
    predicted_mask, truth_mask
        Bool arrays of one shape, (Y, X) or (Z, Y, X).
    ignore_mask
        Bool or None: ignored pixels are taken out of both masks first.
    spacing
        Size of a pixel along each axis, for example in micrometres; the result has
        its unit. None: pixels.
    published
        True: FCFI's evaluator, which looks at outer contours only, so that holes and
        what lies in them do not count (planes only; ignored pixels are the
        object's background). By default holes have surfaces too.

    Returns
    -------
    float; 0.0 when both masks are empty, NaN when one is (there is no distance to
    nothing: averages leave NaN out and reports count them).
    """
    _check_shapes(predicted_mask, truth_mask, ignore_mask)
    if ignore_mask is not None:
        predicted_mask = predicted_mask & ~ignore_mask
        truth_mask = truth_mask & ~ignore_mask
    if not predicted_mask.any() or not truth_mask.any():
        return 0.0 if predicted_mask.any() == truth_mask.any() else math.nan
    window = _common_box(predicted_mask | truth_mask)
    surfaces = [
        _surface(mask[window], outer_only=published)
        for mask in (predicted_mask, truth_mask)
    ]
    distances = [
        ndimage.distance_transform_edt(~surface, sampling=spacing)
        for surface in surfaces
    ]
    total = distances[1][surfaces[0]].sum() + distances[0][surfaces[1]].sum()
    return float(total / sum(int(np.count_nonzero(s)) for s in surfaces))


def _surface(mask: BoolPlane, *, outer_only: bool) -> BoolPlane:
    """Pixels of the mask that touch its outside by a side (the plane's edge too)."""
    solid = ndimage.binary_fill_holes(mask) if outer_only else mask
    surface: BoolPlane = solid & ~ndimage.binary_erosion(solid)
    return surface


def _common_box(mask: BoolPlane) -> tuple[slice, ...]:
    """Bounding box of a mask; the whole array when it is empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        used = np.flatnonzero(mask.any(axis=others))
        box.append(slice(used[0], used[-1] + 1) if used.size else slice(None))
    return tuple(box)


def _check_shapes(
    predicted_mask: BoolPlane, truth_mask: BoolPlane, ignore_mask: BoolPlane | None
) -> None:
    shapes = {predicted_mask.shape, truth_mask.shape}
    if ignore_mask is not None:
        shapes.add(ignore_mask.shape)
    if len(shapes) > 1:
        msg = f"masks must have one shape, got {sorted(shapes)}"
        raise ValueError(msg)
