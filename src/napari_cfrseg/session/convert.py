"""Values that several parts of a file share: to the file, and back."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.refinement import Refinement, RefinementKind
from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.session.fields import (
    Hint,
    LabelsPart,
    MaskPart,
    RefinementPart,
    ScalingPart,
)


def refinement_part(value: Refinement) -> RefinementPart:
    """Return a refinement as the file says it."""
    return RefinementPart(
        kind=value.kind,
        extra_steps=value.extra_steps,
        stop_changed_px=value.stop_changed_px,
    )


def refinement_of(part: RefinementPart) -> Refinement:
    """Return the refinement a file says."""
    return Refinement(
        cast("RefinementKind", part.kind),
        part.extra_steps,
        part.stop_changed_px,
    )


def scaling_part(value: Scaling | None) -> ScalingPart | None:
    """Return a scaling as the file says it."""
    if value is None:
        return None
    return ScalingPart(low=list(value.low), high=list(value.high))


def scaling_of(part: ScalingPart | None) -> Scaling | None:
    """Return the scaling a file says."""
    return None if part is None else Scaling(tuple(part.low), tuple(part.high))


def labels_part(runs: LabelRuns) -> LabelsPart:
    """Return labels as the file says them."""
    numbers = np.stack([runs.starts, runs.lengths, runs.after], axis=1)
    return LabelsPart(shape=list(runs.shape), runs=numbers.ravel().tolist())


def labels_of(part: LabelsPart) -> LabelRuns:
    """Return the labels a file says; what is no label raises ValueError."""
    if len(part.runs) % 3:
        msg = f"{len(part.runs)} numbers are no list of start, length, label"
        raise ValueError(msg)
    return _runs(part.shape, np.array(part.runs, np.int64).reshape(-1, 3))


def mask_part(runs: LabelRuns) -> MaskPart:
    """Return a mask as the file says it."""
    numbers = np.stack([runs.starts, runs.lengths], axis=1)
    return MaskPart(shape=list(runs.shape), runs=numbers.ravel().tolist())


def mask_of(part: MaskPart) -> LabelRuns:
    """Return the mask a file says; what is no mask raises ValueError."""
    if len(part.runs) % 2:
        msg = f"{len(part.runs)} numbers are no list of start, length"
        raise ValueError(msg)
    numbers = np.array(part.runs, np.int64).reshape(-1, 2)
    return _runs(part.shape, np.insert(numbers, 2, 1, axis=1))


def _runs(shape: list[int], numbers: NDArray[np.int64]) -> LabelRuns:
    height, width = shape
    starts, lengths, labels = numbers.T
    return LabelRuns((height, width), starts, lengths, labels)


def hint_part(hint: FocusHint | None) -> Hint | None:
    """Return a focus hint as the file says it."""
    if hint is None:
        return None
    return Hint(side_px=float(hint.side_px), spread=float(hint.spread))


def hint_of(part: Hint | None) -> FocusHint | None:
    """Return the focus hint a file says."""
    return None if part is None else FocusHint(part.side_px, part.spread)
