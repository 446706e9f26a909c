"""A session in memory: frozen values, no pydantic."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from napari_cfrseg.annotation.events import Event, OverlapRule
from napari_cfrseg.engine.refinement import DEFAULT_REFINEMENT, Refinement
from napari_cfrseg.geometry.masks import LabelRuns, Plane
from napari_cfrseg.io.axes import back, put
from napari_cfrseg.io.plane_image import Scaling

SUFFIX = ".cfrseg.json"


@dataclass(frozen=True, slots=True)
class ImageReference:
    """Which image was clicked on.

    Attributes
    ----------
    path
        Relative to the session's folder, with forward slashes (absolute only if
        asked for); None for an image that is in no file.
    shape
        Leading axes, Y, X, and C where there are channels.
    dtype
        NumPy's name.
    axes
        One name for each axis, the channel axis called "c".
    spacing, units
        Size of a pixel along each axis but the channels, and in what; None: unknown.
    level
        Pyramid level worked on.
    select
        (axis, index) pairs, applied in order to the file's array to get this image.
    order
        Which of that array's axes comes where in ``shape``, ``axes``, ``spacing``,
        ``units`` and all of the session's planes (see :mod:`.turning`); (): as it is.
    fingerprint
        SHA-256 of a sample of the pixels (see :mod:`.fingerprint`).
    """

    path: str | None
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]
    fingerprint: str
    spacing: tuple[float, ...] | None = None
    units: tuple[str, ...] | None = None
    level: int = 0
    select: tuple[tuple[int, int], ...] = ()
    order: tuple[int, ...] = ()

    @property
    def has_channels(self) -> bool:
        """Whether the last axis counts channels."""
        return self.axes[-1] == "c" and len(self.shape) > 2

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


@dataclass(frozen=True, slots=True)
class ModelReference:
    """Which weights computed the masks: the model's name, and its file's SHA-256."""

    name: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What the result depends on besides image, model and events.

    Attributes
    ----------
    device, backend, precision, threads
        Where the network ran; a replay uses the same unless told otherwise.
    rgb, scaling
        How pixels were read; scaling None: each plane's own, written with its first
        click.
    refinement, rule
        In force before the first event.
    """

    device: str = "cpu"
    backend: str = ""
    precision: str = "float32"
    threads: int | None = None
    rgb: bool | None = None
    scaling: Scaling | None = None
    refinement: Refinement = DEFAULT_REFINEMENT
    rule: OverlapRule = OverlapRule.KEEP


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The labels after the first ``events`` events, plane by plane."""

    events: int
    labels: tuple[tuple[Plane, LabelRuns], ...] = ()


@dataclass(frozen=True, slots=True)
class SessionContent:
    """All that a session file says.

    Attributes
    ----------
    image, model, settings
        On what, with what, how.
    events
        What was done, in order.
    scalings
        Black and white of the planes clicked on.
    snapshot
        The labels when the file was last saved, or None.
    identity
        Which session it is, also after it was copied or renamed.
    """

    image: ImageReference
    model: ModelReference | None = None
    settings: SessionSettings = field(default_factory=SessionSettings)
    events: tuple[Event, ...] = ()
    scalings: Mapping[Plane, Scaling] = field(
        default_factory=lambda: MappingProxyType({})
    )
    snapshot: Snapshot | None = None
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
