"""The session file as pydantic sees it: ``schema_version`` 2.

::

    {"schema_version": 2, "session": …, "written_by": …,
     "image": {…}, "model": {…}, "settings": {…},
     "objects": [ one line each ],  a summary for readers; the events are what counts
     "events": [ one line each ],
     "snapshot": {…}}               the labels when the file was saved
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from napari_cfrseg.session.event_parts import EventPart
from napari_cfrseg.session.fields import (
    MOST_AXES,
    Colour,
    Index,
    LabelsPart,
    ObjectId,
    Part,
    PlaneIndex,
    RefinementPart,
    ScalingPart,
    Sha256,
    Side,
    Text,
    Threshold,
)

SCHEMA_VERSION: Literal[2] = 2


class SelectPart(Part):
    """One index taken along one axis of the file's array."""

    axis: Annotated[int, Field(ge=0, lt=MOST_AXES)]
    index: Index


class ImagePart(Part):
    """Which image."""

    path: Annotated[str, Field(min_length=1, max_length=4096)] | None
    shape: Annotated[list[Side], Field(min_length=2, max_length=MOST_AXES)]
    dtype: Annotated[str, Field(pattern=r"^(bool|u?int(8|16|32|64)|float(16|32|64))$")]
    axes: Annotated[list[Text], Field(min_length=2, max_length=MOST_AXES)]
    fingerprint: Sha256
    spacing: list[Annotated[float, Field(gt=0)]] | None = None
    units: list[Text] | None = None
    level: Annotated[int, Field(ge=0, le=64)] = 0
    select: Annotated[list[SelectPart], Field(max_length=MOST_AXES)] = Field(
        default_factory=list
    )
    order: Annotated[
        list[Annotated[int, Field(ge=0, lt=MOST_AXES)]], Field(max_length=MOST_AXES)
    ] = Field(default_factory=list)


class ModelPart(Part):
    """Which weights."""

    name: Text
    sha256: Sha256 | None = None


class SettingsPart(Part):
    """What else the result depends on."""

    device: Text = "cpu"
    backend: Text = ""
    precision: Annotated[str, Field(pattern=r"^(auto|float32|bfloat16)$")] = "float32"
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    rgb: bool | None = None
    scaling: ScalingPart | None = None
    refinement: RefinementPart
    overlap: Annotated[str, Field(pattern=r"^(keep|overwrite)$")] = "keep"


class ObjectPart(Part):
    """What the objects are in the end, for whoever reads the file."""

    id: ObjectId
    name: Text
    colour: Colour
    locked: bool = False
    object_class: Text = ""
    threshold: Threshold = 0.5
    clicks: Annotated[int, Field(ge=0)] = 0


class SnapshotPlanePart(Part):
    """One plane's labels."""

    plane: PlaneIndex = Field(default_factory=list)
    labels: LabelsPart


class SnapshotPart(Part):
    """The labels after so many events."""

    events: Annotated[int, Field(ge=0)]
    planes: list[SnapshotPlanePart] = Field(default_factory=list)


class HeadPart(Part):
    """A session file without its events."""

    schema_version: Literal[2] = SCHEMA_VERSION
    session: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    written_by: Text = ""
    image: ImagePart
    model: ModelPart | None = None
    settings: SettingsPart
    objects: list[ObjectPart] = Field(default_factory=list)
    snapshot: SnapshotPart | None = None


class SessionPart(HeadPart):
    """A session file."""

    events: list[EventPart] = Field(default_factory=list)


#: validates one event at a time, so that a long session is never held twice
EVENT = TypeAdapter[Any](EventPart)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a session file."""
    schema = SessionPart.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "napari-cfrseg click session",
        **{k: v for k, v in schema.items() if k != "title"},
    }
