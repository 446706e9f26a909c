"""Measure one mask (IoU, surfaces) and a click's changes (mended, spoilt).

P predicted, G annotated, V pixels that are not ignored.

===================  =============================================================
IoU                  |P ∧ G ∧ V| / |(P ∨ G) ∧ V|
boundary IoU         IoU of the bands B(P), B(G); B(M) = M minus its erosion by d
                     steps of a 3×3 square, d = max(1, round(0.02 · diagonal))
ASSD                 (Σ_{s ∈ S(P)} dist(s, S(G)) + Σ_{s ∈ S(G)} dist(s, S(P)))
                     / (|S(P)| + |S(G)|), S(M) the boundary pixels of M
surface dice         share of S(P) and S(G) within a tolerance of the other's surface
mended, spoilt       pixels that a click made right and wrong
===================  =============================================================

Where the evaluator published with FCFI has a fault, ``published=True`` gives its
number and the default is the corrected one; each docstring says what differs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

BoolPlane = NDArray[np.bool_]
#: share of the plane's diagonal that the boundary band is deep (FCFI, BIoU)
BOUNDARY_RATIO = 0.02
#: an outline is acceptable at this IoU …
ACCEPTABLE_IOU = 0.90
#: … or at this one, where this share of both outlines lies within the tolerance
ACCEPTABLE_LOWER_IOU, ACCEPTABLE_SURFACE_DICE = 0.75, 0.95
#: the tolerance: this share of the object's equivalent diameter, one pixel at least
SURFACE_TOLERANCE = 0.02


def iou(
    predicted_mask: BoolPlane,
    truth_mask: BoolPlane,
    ignore_mask: BoolPlane | None = None,
) -> float:
    """Intersection over union of two masks, in [0, 1]; 1.0 when both are empty.

    Masks are bool, of one shape with any number of dimensions; pixels of
    ``ignore_mask`` are left out of both.
    """
    predicted_mask, truth_mask = _counted(predicted_mask, truth_mask, ignore_mask)
    union = int(np.count_nonzero(predicted_mask | truth_mask))
    return int(np.count_nonzero(predicted_mask & truth_mask)) / union if union else 1.0


def error_area(
    predicted_mask: BoolPlane,
    truth_mask: BoolPlane,
    ignore_mask: BoolPlane | None = None,
) -> int:
    """Count the pixels that are missed or wrong, ignored ones left out."""
    predicted_mask, truth_mask = _counted(predicted_mask, truth_mask, ignore_mask)
    return int(np.count_nonzero(predicted_mask ^ truth_mask))


def boundary_iou(
    predicted_mask: BoolPlane,
    truth_mask: BoolPlane,
    ignore_mask: BoolPlane | None = None,
    *,
    ratio: float = BOUNDARY_RATIO,
    published: bool = False,
) -> float:
    """IoU of the two masks' boundary bands, in [0, 1]; 1.0 when both bands are empty.

    Masks are (Y, X) bool, and pixels off the plane count as outside. The bands are
    ``ratio`` × the plane's diagonal deep, one pixel at least (rounded half to even).
    Ignored pixels are taken out of both masks before the bands are drawn; FCFI's
    evaluator (``published``) takes them out of the annotation's band only, after it is
    drawn: what is right wherever it counts can then score less than 1.
    """
    counted = _counted(predicted_mask, truth_mask, ignore_mask)
    depth = max(1, round(ratio * math.hypot(*truth_mask.shape)))
    if published and ignore_mask is not None:
        return _published_boundary_iou(predicted_mask, truth_mask, ignore_mask, depth)
    window = _common_box(counted[0] | counted[1])
    return iou(*(_band(mask[window], depth) for mask in counted))


def _published_boundary_iou(
    predicted_mask: BoolPlane, truth_mask: BoolPlane, ignore_mask: BoolPlane, depth: int
) -> float:
    """FCFI's bands: the annotation as bytes 0, 1 and, ignored, 255."""
    codes = np.where(ignore_mask, 255, truth_mask & ~ignore_mask).astype(np.uint8)
    eroded = ndimage.minimum_filter(codes, 2 * depth + 1, mode="constant", cval=0)
    truth_band = codes - eroded
    return iou(_band(predicted_mask, depth), truth_band == 1, truth_band == 255)


def _band(mask: BoolPlane, depth: int) -> BoolPlane:
    """Pixels of the mask within ``depth`` chessboard steps of its outside."""
    size = 2 * depth + 1
    eroded = ndimage.minimum_filter(mask.astype(np.uint8), size, mode="constant")
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
    """Average symmetric surface distance of two (Y, X) or (Z, Y, X) bool masks.

    0.0 when both masks are empty, NaN when one is (averages leave NaN out and reports
    count them). Ignored pixels are taken out of both masks first. ``spacing`` is the
    size of a pixel along each axis; the result has its unit (None: pixels). FCFI's
    evaluator (``published``, of planes) looks at outer contours only: holes, and what
    lies in them, do not count.
    """
    predicted_mask, truth_mask = _counted(predicted_mask, truth_mask, ignore_mask)
    if not predicted_mask.any() or not truth_mask.any():
        return 0.0 if predicted_mask.any() == truth_mask.any() else math.nan
    window = _common_box(predicted_mask | truth_mask)
    found, true = (
        _surface(mask[window], outer_only=published)
        for mask in (predicted_mask, truth_mask)
    )
    to_found, to_true = (
        ndimage.distance_transform_edt(~surface, sampling=spacing)
        for surface in (found, true)
    )
    total = to_true[found].sum() + to_found[true].sum()
    return float(total / (int(np.count_nonzero(found)) + int(np.count_nonzero(true))))


def surface_dice(
    predicted_mask: BoolPlane,
    truth_mask: BoolPlane,
    ignore_mask: BoolPlane | None = None,
) -> float:
    """Normalised surface dice: the share of both (Y, X) outlines that agree, in [0, 1].

    Boundary pixels agree within max(1, 0.02 · equivalent diameter of the annotation)
    pixels of the other mask's boundary. Ignored pixels are taken out of both masks
    first. 1.0 when both masks are empty, 0.0 when one is.
    """
    predicted_mask, truth_mask = _counted(predicted_mask, truth_mask, ignore_mask)
    if not predicted_mask.any() or not truth_mask.any():
        return float(predicted_mask.any() == truth_mask.any())
    diameter = math.sqrt(4 * np.count_nonzero(truth_mask) / math.pi)
    tolerance_px = max(1.0, SURFACE_TOLERANCE * diameter)
    window = _common_box(predicted_mask | truth_mask)
    found, true = (
        np.argwhere(_surface(mask[window], outer_only=False))
        for mask in (predicted_mask, truth_mask)
    )
    # the tree leaves out what lies exactly at its bound
    within = {"distance_upper_bound": tolerance_px + 1e-9}
    agreeing = sum(
        int(np.isfinite(KDTree(there).query(here, **within)[0]).sum())
        for here, there in ((found, true), (true, found))
    )
    return agreeing / (len(found) + len(true))


def is_acceptable(iou: float, surface_dice: float) -> bool:
    """Whether people would accept the outline: NoC@ok counts the clicks until then.

    It is with an IoU of 0.90 or more, or with 0.75 or more where the surface dice is
    0.95 or more; compared as float32, as IoUs are everywhere.
    """
    if np.float32(iou) >= np.float32(ACCEPTABLE_IOU):
        return True
    is_close = np.float32(surface_dice) >= np.float32(ACCEPTABLE_SURFACE_DICE)
    return bool(is_close and np.float32(iou) >= np.float32(ACCEPTABLE_LOWER_IOU))


@dataclass(frozen=True, slots=True)
class ClickEffect:
    """Pixels that a click changed."""

    #: pixels that became right, and wrong
    mended_px: int
    spoilt_px: int
    #: the part of ``spoilt_px`` that lies farther from the click than the clicked error
    #: reaches
    spoilt_far_px: int


def click_effect(
    before_mask: BoolPlane,
    after_mask: BoolPlane,
    truth_mask: BoolPlane,
    ignore_mask: BoolPlane | None,
    pixel: tuple[int, int],
) -> ClickEffect:
    """Count what a click at ``pixel``, (row, column), mended and spoilt.

    The clicked error is the connected region (8-neighbours) of missed or of wrong
    pixels that the click is on; it reaches as far as its pixel farthest from the click.
    Masks are (Y, X) bool; ignored pixels are not counted.
    """
    changed = before_mask ^ after_mask
    if ignore_mask is not None:
        changed &= ~ignore_mask
    spoilt = changed & (after_mask ^ truth_mask)
    spoilt_px = int(np.count_nonzero(spoilt))
    mended_px = int(np.count_nonzero(changed)) - spoilt_px
    if not spoilt_px:
        return ClickEffect(mended_px, 0, 0)
    missed = bool(truth_mask[pixel])
    error = (truth_mask & ~before_mask) if missed else (before_mask & ~truth_mask)
    if ignore_mask is not None:
        error &= ~ignore_mask
    far = _squared_distances(spoilt, pixel) > _reach(error, pixel)
    return ClickEffect(mended_px, spoilt_px, int(np.count_nonzero(far)))


def _reach(error: BoolPlane, pixel: tuple[int, int]) -> int:
    """Squared distance from a pixel to the farthest one of its region; 0 off it."""
    if not error[pixel]:
        return 0
    window = _common_box(error)
    regions, _ = ndimage.label(error[window], np.ones((3, 3), bool))
    y, x = pixel[0] - window[0].start, pixel[1] - window[1].start
    return int(_squared_distances(regions == regions[y, x], (y, x)).max())


def _squared_distances(mask: BoolPlane, pixel: tuple[int, int]) -> NDArray[np.int64]:
    rows, columns = np.nonzero(mask)
    squared: NDArray[np.int64] = (rows - pixel[0]) ** 2 + (columns - pixel[1]) ** 2
    return squared


def _surface(mask: BoolPlane, *, outer_only: bool) -> BoolPlane:
    """Pixels of the mask that touch its outside by a side (the plane's edge too)."""
    solid = ndimage.binary_fill_holes(mask) if outer_only else mask
    surface: BoolPlane = solid & ~ndimage.binary_erosion(solid)
    return surface


def _common_box(mask: BoolPlane) -> tuple[slice, ...]:
    """Bounding box of a mask; the whole array when it is empty."""
    found: list[tuple[slice, ...]] = ndimage.find_objects(mask.astype(np.uint8))
    return found[0] if found else (slice(None),) * mask.ndim


def _counted(
    predicted_mask: BoolPlane, truth_mask: BoolPlane, ignore_mask: BoolPlane | None
) -> tuple[BoolPlane, BoolPlane]:
    """Take ignored pixels out of both masks; ValueError if their shapes differ."""
    masks = [m for m in (predicted_mask, truth_mask, ignore_mask) if m is not None]
    if len({mask.shape for mask in masks}) > 1:
        msg = f"masks must have one shape, got {[mask.shape for mask in masks]}"
        raise ValueError(msg)
    if ignore_mask is None:
        return predicted_mask, truth_mask
    return predicted_mask & ~ignore_mask, truth_mask & ~ignore_mask
