"""A session in memory and in its file: one definition of both, ``schema_version`` 4.

::

    {"schema_version": 4, "session": …, "written_by": …,
     "image": {…}, "model": {…}, "settings": {…},
     "objects": [ one line each ],  a summary for readers; the events are what counts
     "events": [ one line each ],
     "snapshot": {…}}               the labels when the file was saved
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, create_model

from napari_cfrseg.annotation import event_fields as form
from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.engine.refinement import DEFAULT_REFINEMENT
from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.io.axes import back, is_order, put
from napari_cfrseg.io.named_axes import MOST_CHANNELS

SUFFIX = ".cfrseg.json"
SCHEMA_VERSION: Literal[4] = 4

AxisNumber = Annotated[form.Int, Field(ge=0, lt=form.MOST_AXES)]
PixelSize = Annotated[form.Float, Field(gt=0)]


class SelectPart(form.Part):
    """One index taken along one axis of the file's array."""

    axis: AxisNumber
    index: form.Index


class SnapshotPlanePart(form.Part):
    """One plane's labels."""

    plane: Annotated[list[form.Index], Field(max_length=form.MOST_AXES - 2)] = Field(
        default_factory=list
    )
    labels: form.LabelsField


#: (axis, index)
Selected = Annotated[
    tuple[int, int],
    form.FileForm(
        SelectPart,
        tuple,
        lambda part: (part.axis, part.index),
        lambda pair: {"axis": pair[0], "index": pair[1]},
    ),
]
PlaneLabels = Annotated[
    LabelRuns,
    form.FileForm(
        SnapshotPlanePart,
        LabelRuns,
        lambda part: replace(part.labels, plane=tuple(part.plane)),
        lambda runs: {"plane": list(runs.plane), "labels": runs},
        checks=False,
    ),
]


@form.in_file
class ImageReference:
    """Which image was clicked on.

    ``path`` is relative to the session's folder, with forward slashes; None for an
    image that is in no file. ``shape`` are the leading axes, Y, X, and C where there
    are channels; ``axes`` their names, that of channels "c"; ``spacing`` and ``units``
    the size of a pixel along each but C (None: unknown). Of the file's array,
    ``levels`` pyramid levels from ``level`` on were read, the (axis, index) pairs
    ``select`` applied in order, and ``channels`` along ``channel_axis`` became C; ():
    C, if there is any, is the last axis. ``order`` is which of that array's axes, C
    left out, comes where in the other fields and in all of the session's planes (see
    :mod:`.axes`); (): as it is. ``fingerprint`` is the SHA-256 of a sample of the
    pixels.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096)] | None
    shape: Annotated[
        tuple[form.Side, ...], Field(min_length=2, max_length=form.MOST_AXES)
    ]
    dtype: Annotated[str, Field(pattern=r"^(bool|u?int(8|16|32|64)|float(16|32|64))$")]
    axes: Annotated[
        tuple[form.Text, ...], Field(min_length=2, max_length=form.MOST_AXES)
    ]
    fingerprint: form.Sha256
    spacing: tuple[PixelSize, ...] | None = None
    units: tuple[form.Text, ...] | None = None
    level: Annotated[form.Int, Field(ge=0, le=64)] = 0
    levels: Annotated[form.Int, Field(ge=1, le=64)] = 1
    select: Annotated[tuple[Selected, ...], Field(max_length=form.MOST_AXES)] = ()
    channel_axis: AxisNumber | None = None
    channels: Annotated[tuple[form.Index, ...], Field(max_length=MOST_CHANNELS)] = ()
    order: Annotated[tuple[AxisNumber, ...], Field(max_length=form.MOST_AXES)] = ()

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape) or len(set(self.axes)) != len(self.axes):
            msg = f"axes {self.axes}: expected {len(self.shape)} different names"
            raise ValueError(msg)
        count = self.shape[-1] if self.has_channels else 0
        said = (self.channel_axis is not None, len(self.channels))
        if said != (False, 0) and said != (True, count):
            msg = f"channels {self.channels} of axis {self.channel_axis}: C has {count}"
            raise ValueError(msg)
        planes = len(self.axes) - self.has_channels
        if self.order and not is_order(self.order, planes):
            msg = f"order {self.order}: expected the axes 0 to {planes - 1}, each once"
            raise ValueError(msg)

    @property
    def has_channels(self) -> bool:
        """Whether the last axis counts channels."""
        return self.axes[-1] == "c" and len(self.shape) > 2

    @property
    def used_channels(self) -> tuple[int, tuple[int, ...]] | None:
        """Axis and indices of the file's array that are C; None: its last axis."""
        return None if self.channel_axis is None else (self.channel_axis, self.channels)

    @property
    def leading(self) -> tuple[int, ...]:
        """Shape of the axes before Y."""
        return self.shape[: len(self.shape) - 2 - self.has_channels]

    @property
    def in_the_file(self) -> ImageReference:
        """The same image with its axes as the file has them."""
        if not self.order:
            return self
        own = back(self.order)
        return replace(
            self,
            shape=put(self.shape, own),
            axes=put(self.axes, own),
            spacing=None if self.spacing is None else put(self.spacing, own),
            units=None if self.units is None else put(self.units, own),
            order=(),
        )

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(Y, X)."""
        depth = len(self.leading)
        return self.shape[depth], self.shape[depth + 1]


@form.in_file
class ModelReference:
    """Which weights computed the masks: the model's name, and its file's SHA-256."""

    name: form.Text
    sha256: form.Sha256 | None = None


@form.in_file
class SessionSettings:
    """Settings that the result depends on, besides image, model and events.

    The network ran on ``device`` with ``backend``, ``precision`` and ``threads``; a
    replay does the same unless options override it. ``scaling`` None: each plane's own,
    written with its first click. ``refinement`` and ``rule`` hold before the first
    event.
    """

    device: form.Text = "cpu"
    backend: form.Text = ""
    precision: Annotated[str, Field(pattern=r"^(auto|float32|bfloat16|float16)$")] = (
        "float32"
    )
    threads: Annotated[form.Int, Field(ge=1, le=4096)] | None = None
    rgb: form.Bool | None = None
    scaling: form.ScalingField | None = None
    refinement: form.RefinementField = DEFAULT_REFINEMENT
    rule: Annotated[OverlapRule, form.named("overlap")] = OverlapRule.KEEP


@form.in_file
class Snapshot:
    """The labels after the first ``events`` events, plane by plane."""

    events: Annotated[form.Int, Field(ge=0)]
    labels: Annotated[tuple[PlaneLabels, ...], form.named("planes")] = ()


def new_identity() -> str:
    """Return what names a session, also after it was copied or renamed."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class SessionContent:
    """Everything a session file holds."""

    #: on what, with what, how
    image: ImageReference
    model: ModelReference | None = None
    settings: SessionSettings = field(default_factory=SessionSettings)
    events: tuple[form.Event, ...] = ()  #: what was done, in order
    #: the labels when the file was last saved, or None
    snapshot: Snapshot | None = None
    identity: str = field(default_factory=new_identity)


@form.in_file
class ObjectLine:
    """One object in the end, for readers of the file."""

    id: form.ObjectNumber
    name: form.Text
    colour: form.Colour
    locked: form.Bool = False
    object_class: form.Text = ""
    threshold: form.Threshold = 0.5
    clicks: Annotated[form.Int, Field(ge=0)] = 0


class SessionHead(form.Part):
    """A session file without its events."""

    schema_version: Literal[4] = SCHEMA_VERSION
    session: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    written_by: form.Text = ""
    image: ImageReference
    model: ModelReference | None = None
    settings: SessionSettings
    objects: list[ObjectLine] = Field(default_factory=list)
    snapshot: Snapshot | None = None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a session file."""
    events: Any = (list[form.any_event()], Field(default_factory=list))  # type: ignore[misc]  # built from the registry
    whole = create_model("Session", __base__=SessionHead, events=events)
    schema = TypeAdapter(whole).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "napari-cfrseg click session",
        **{k: v for k, v in schema.items() if k not in ("title", "description")},
        "description": "A session file.",
    }
