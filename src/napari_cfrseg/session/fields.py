"""What the fields of a session file may hold: strict types, bounded sizes.

Every bound is far beyond any real annotation and small enough that a hostile file is
refused before anything large is made of it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

#: Largest object id: labels are int32.
MOST_OBJECT_ID = 2**31 - 1
#: Longest name, class, unit, …
LONGEST_TEXT = 1000
#: Most axes of an image.
MOST_AXES = 12


class Part(BaseModel):
    """A part of a session file: frozen, strict, nothing unknown, no NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


ObjectId = Annotated[int, Field(ge=1, le=MOST_OBJECT_ID)]
ClickId = Annotated[int, Field(ge=0, le=2**53)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Index = Annotated[int, Field(ge=0, le=2**31 - 1)]
PlaneIndex = Annotated[list[Index], Field(max_length=MOST_AXES - 2)]
Side = Annotated[int, Field(ge=1, le=2**31 - 1)]
Coordinate = Annotated[float, Field(ge=-1e9, le=1e9)]
Position = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
Spacing = Annotated[
    list[Annotated[float, Field(gt=0.0, le=1e12)]], Field(min_length=3, max_length=3)
]
Threshold = Annotated[float, Field(gt=0.0, lt=1.0)]
FocusShift = Annotated[int, Field(ge=-64, le=64)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunNumbers = list[Annotated[int, Field(ge=0, le=2**53)]]


class Hint(Part):
    """What was known of an object's size: the window's side to expect, in pixels."""

    side_px: Annotated[float, Field(gt=0, le=1e9)]
    spread: Annotated[float, Field(ge=1, le=1e6)] = 2.0


class ScalingPart(Part):
    """Image values painted black and white, one per channel."""

    low: Annotated[list[float], Field(min_length=1, max_length=4)]
    high: Annotated[list[float], Field(min_length=1, max_length=4)]


class RefinementPart(Part):
    """How often a click's mask is fed back (standard, CFR-n, A-CFR-n)."""

    kind: Annotated[str, Field(pattern=r"^(standard|cfr|a-cfr)$")] = "standard"
    extra_steps: Annotated[int, Field(ge=0, le=1000)] = 0
    stop_changed_px: Annotated[int, Field(ge=0, le=2**31)] = 20
    ffcm_every_step: bool = True


class MaskPart(Part):
    """A mask: start, length, start, length, … of its runs in the (Y, X) plane."""

    shape: Annotated[list[Side], Field(min_length=2, max_length=2)]
    runs: RunNumbers = Field(default_factory=list)


class LabelsPart(Part):
    """Labels: start, length, label, start, length, label, … in the (Y, X) plane."""

    shape: Annotated[list[Side], Field(min_length=2, max_length=2)]
    runs: RunNumbers = Field(default_factory=list)
