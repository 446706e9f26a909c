"""Do labels follow their images at all? A permutation test that needs no network.

Three measures of a label map on its image: how steep the image is along the labels'
outlines, how far the grey level inside differs from that just outside, and how the
roughness does. Each is measured for the labels where they are and for the same labels
mirrored and rolled to other places. Labels that belong to the image stand out in at
least one; those of another image do not. Fine-tuning on the latter can even lower the
clicks on further labels of the kind (a blob about the click is what they have in
common), so the number of clicks alone would not tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cfrseg_training.loop.labelled import LabelledPlane, to_uint8

#: rolled copies each label map is compared with
ROLLS = 59
#: planes looked at, and the longest side they are thinned to
MOST_PLANES, LONGEST_PX = 8, 512


def chance_of_fit(planes: Sequence[LabelledPlane], seed: int = 0) -> float:
    """Return the share of moved label maps that fit as well: a p-value.

    Parameters
    ----------
    planes
        Labelled planes; at most eight are looked at, spread evenly.
    seed
        Of the rolls.

    Returns
    -------
    Between 1 / (ROLLS + 1) (the labels follow the images) and 1.
    """
    rng = np.random.default_rng(seed)
    step = max(1, len(planes) // MOST_PLANES)
    chosen = list(planes)[::step][:MOST_PLANES]
    # (rolls + 1, measures), the first row of the labels where they are
    total = np.zeros((ROLLS + 1, 3))
    for plane in chosen:
        total += _standardised(_measures(plane, rng))
    total /= np.sqrt(len(chosen))
    extreme = np.abs(total).max(axis=1)
    return float((extreme >= extreme[0]).mean())


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = values - values.mean(axis=0)
    scaled: NDArray[np.float64] = centred / (values.std(axis=0) + 1e-9)
    return scaled


def _measures(plane: LabelledPlane, rng: np.random.Generator) -> NDArray[np.float64]:
    thin = max(1, -(-max(plane.labels.shape) // LONGEST_PX))
    grey = to_uint8(plane.image).mean(axis=2)[::thin, ::thin].astype(np.float32)
    labels = plane.labels[::thin, ::thin]
    smooth = ndimage.gaussian_filter(grey, 1)
    steep = ndimage.gaussian_gradient_magnitude(grey, 1)
    rough = np.sqrt(np.maximum(ndimage.gaussian_filter(grey**2, 2) - smooth**2, 0))
    inside = labels > 0
    grown = ndimage.maximum_filter(labels, 3)
    outline = grown != ndimage.minimum_filter(labels, 3)
    ring = ndimage.binary_dilation(inside, iterations=4) & ~inside
    height, width = labels.shape
    rows = []
    for index in range(ROLLS + 1):
        masks = [outline, inside, ring]
        if index:
            down, across = rng.random(2) < 0.5
            shift = (int(rng.integers(height)), int(rng.integers(width)))
            masks = [_moved(m, shift, bool(down), bool(across)) for m in masks]
        line, core, rim = masks
        rows.append(
            [
                _mean(steep, line),
                _mean(smooth, core) - _mean(smooth, rim),
                _mean(rough, core) - _mean(rough, rim),
            ]
        )
    return np.array(rows, float)


def _moved(
    mask: NDArray[np.bool_], shift: tuple[int, int], down: bool, across: bool
) -> NDArray[np.bool_]:
    """Mirror a mask and roll it."""
    mask = mask[::-1] if down else mask
    mask = mask[:, ::-1] if across else mask
    return np.roll(mask, shift, axis=(0, 1))


def _mean(values: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    return float(values[where].mean()) if where.any() else 0.0
