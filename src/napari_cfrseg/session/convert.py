"""Values that several parts of a file share: to the file, and back."""

from __future__ import annotations

from typing import cast

from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.refinement import Refinement, RefinementKind
from napari_cfrseg.geometry.masks import LabelRuns, MaskRuns
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
    numbers = [
        n
        for run in zip(runs.starts, runs.lengths, runs.values, strict=True)
        for n in run
    ]
    return LabelsPart(shape=list(runs.shape), runs=numbers)


def labels_of(part: LabelsPart) -> LabelRuns:
    """Return the labels a file says; what is no label raises ValueError."""
    runs = part.runs
    if len(runs) % 3:
        msg = f"{len(runs)} numbers are no list of start, length, label"
        raise ValueError(msg)
    values = tuple(runs[2::3])
    if values and max(values) > 2**31 - 1:
        msg = f"label {max(values)} is larger than any label can be (2147483647)"
        raise ValueError(msg)
    height, width = part.shape
    return LabelRuns((height, width), tuple(runs[::3]), tuple(runs[1::3]), values)


def mask_part(runs: MaskRuns) -> MaskPart:
    """Return a mask as the file says it."""
    numbers = [n for run in zip(runs.starts, runs.lengths, strict=True) for n in run]
    return MaskPart(shape=list(runs.shape), runs=numbers)


def mask_of(part: MaskPart) -> MaskRuns:
    """Return the mask a file says; what is no mask raises ValueError."""
    if len(part.runs) % 2:
        msg = f"{len(part.runs)} numbers are no list of start, length"
        raise ValueError(msg)
    height, width = part.shape
    starts, lengths = tuple(part.runs[::2]), tuple(part.runs[1::2])
    # the runs of labels are checked when they are made, with the same rules
    LabelRuns((height, width), starts, lengths, (1,) * len(starts))
    return MaskRuns((height, width), starts, lengths)


def hint_part(hint: FocusHint | None) -> Hint | None:
    """Return a focus hint as the file says it."""
    if hint is None:
        return None
    return Hint(side_px=float(hint.side_px), spread=float(hint.spread))


def hint_of(part: Hint | None) -> FocusHint | None:
    """Return the focus hint a file says."""
    return None if part is None else FocusHint(part.side_px, part.spread)
