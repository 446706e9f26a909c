"""Values and events as a session file has them: names, bounds and pydantic types.

:func:`in_file` makes a frozen dataclass that is validated when it is made and when it
is read; its fields are the file's. :class:`FileForm` is for values of classes that do
not know pydantic (a mask, a refinement): in memory they are themselves, in a file a
:class:`Part`. Every bound is far beyond any real annotation and small enough that a
hostile file is refused before anything large is made of it. Kinds of events
(:func:`event`) are registered by name, read from JSON and written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import field, fields
from functools import cache, wraps
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    dataclass_transform,
)

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass
from pydantic_core import CoreSchema, core_schema

from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.refinement import MOST_STEPS, Refinement
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import MOST_LABEL, LabelRuns
from napari_cfrseg.io.plane_image import Scaling

#: Longest name, class, unit, …
LONGEST_TEXT = 1000
#: Most axes of an image.
MOST_AXES = 12
_LONGEST_PROBLEM = 300

T = TypeVar("T")
_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=True)


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def in_file(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose fields stand in a file.

    Wrong values raise :class:`~napari_cfrseg.errors.SessionError` in one line.
    """
    made: type[Any] = dataclass(frozen=True, slots=True, config=_CONFIG)(cls)
    plain_init = made.__init__
    names = [one.name for one in fields(made) if not one.kw_only]

    @wraps(plain_init)
    def init(self: T, *args: object, **kwargs: object) -> None:
        named_args = dict(zip(names, args, strict=False))  # errors name the field
        try:
            plain_init(self, *args[len(names) :], **named_args, **kwargs)
        except ValidationError as error:
            raise SessionError(f"{made.__name__}: {one_line(error)}") from error

    made.__init__ = init
    return made


def fields_of(value: Any, *, defaults: bool = False) -> dict[str, Any]:
    """Return a value's fields as a file has them, without those at their defaults."""
    values: dict[str, Any] = value.__pydantic_serializer__.to_python(
        value, mode="json", by_alias=True, exclude_defaults=not defaults
    )
    return values


def one_line(error: ValidationError) -> str:
    """Return the first problem of a file in one line."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    where = ".".join(str(step)[:40] for step in first["loc"][:8])
    problem = first["msg"].removeprefix("Value error, ")
    if len(problem) > _LONGEST_PROBLEM:
        problem = f"{problem[:_LONGEST_PROBLEM]}…"
    if where:  # else it is of several fields together, and names them
        problem = f"{where}: {problem}, found {repr(first['input'])[:60]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return shown(f"{problem}{more}")


def shown(text: str) -> str:
    """Return one line without control characters for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _plain(value: Any) -> Any:
    """Return a NumPy number as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def named(name: str) -> Any:
    """Return a field's name in the file."""
    return Field(validation_alias=name, serialization_alias=name)


class _MayBeAbsent(NamedTuple):
    """A field that a file may leave out, though it is given where the value is made."""

    default: Any

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=self.default)


Int = Annotated[int, Strict(), BeforeValidator(_plain)]
Float = Annotated[float, Strict(), BeforeValidator(_plain)]
Bool = Annotated[bool, Strict(), BeforeValidator(_plain)]
Text = Annotated[str, Strict(), Field(max_length=LONGEST_TEXT)]
Colour = Annotated[str, Strict(), Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Sha256 = Annotated[str, Strict(), Field(pattern=r"^[0-9a-f]{64}$")]
Index = Annotated[Int, Field(ge=0, le=2**31 - 1)]
Side = Annotated[Int, Field(ge=1, le=2**31 - 1)]
ObjectNumber = Annotated[Int, Field(ge=1, le=MOST_LABEL)]
ClickNumber = Annotated[Int, Field(ge=0, le=2**53)]
Objects = Annotated[tuple[ObjectNumber, ...], named("objects")]
ObjectId = Annotated[ObjectNumber, named("object")]
ClickId = Annotated[ClickNumber, named("click")]
Candidate = Annotated[Int, Field(ge=0, le=1000)]
FocusShift = Annotated[Int, Field(ge=-64, le=64)]
Threshold = Annotated[Float, Field(gt=0.0, lt=1.0)]
PlaneIndex = Annotated[tuple[Index, ...], Field(max_length=MOST_AXES - 2)]
EventPlane = Annotated[PlaneIndex, _MayBeAbsent(())]
Probability = Annotated[Float, Field(ge=0.0, le=1.0)]
Coordinate = Annotated[Float, Field(ge=-1e9, le=1e9)]
Position = tuple[Coordinate, Coordinate]
BoxField = tuple[Index, Index, Side, Side]
VoxelSide = Annotated[Float, Field(gt=0.0, le=1e12)]
Spacing = tuple[VoxelSide, VoxelSide, VoxelSide]


class Part(BaseModel):
    """A part of a session file: frozen, strict, nothing unknown, no NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class FileForm(NamedTuple):
    """The form in a file of a value that is something else in memory."""

    part: type[Part]
    kind: type[Any]  #: the value's class in memory
    #: makes the value of a part; its ValueError says what is wrong
    read: Callable[[Any], Any]
    write: Callable[[Any], dict[str, Any]]  #: returns the part's fields
    checks: bool = True  #: a value made in memory is held against the part's bounds

    def __get_pydantic_core_schema__(
        self, _source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate as the part, keep as the value, write as the part."""
        form = handler.generate_schema(self.part)

        def validate(value: Any, part_of: Callable[[Any], Any]) -> Any:
            if not isinstance(value, self.kind):
                return self.read(part_of(value))
            return self.read(part_of(self.write(value))) if self.checks else value

        def written(value: Any) -> Part:
            return self.part.model_construct(**self.write(value))

        return core_schema.no_info_wrap_validator_function(
            validate,
            form,
            serialization=core_schema.plain_serializer_function_ser_schema(
                written, return_schema=form
            ),
        )


def _same_names(part: type[Part], kind: type[Any]) -> FileForm:
    """Return the form of a value whose fields have the same names in the file."""
    names = tuple(field.name for field in fields(kind))

    def read(part: Part) -> Any:
        values = ((name, getattr(part, name)) for name in names)
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values})

    def write(value: Any) -> dict[str, Any]:
        values = {name: getattr(value, name) for name in names}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    return FileForm(part, kind, read, write)


class HintPart(Part):
    """A hint of an object's size: the side of the window to expect, in pixels."""

    side_px: Annotated[Float, Field(gt=0, le=1e9)]
    spread: Annotated[Float, Field(ge=1, le=1e6)] = 2.0


class ScalingPart(Part):
    """Image values painted black and white, one per channel."""

    low: Annotated[list[Float], Field(min_length=1, max_length=4)]
    high: Annotated[list[Float], Field(min_length=1, max_length=4)]


class RefinementPart(Part):
    """How often a click's mask is fed back (standard, CFR-n, A-CFR-n).

    ``ffcm_every_step`` is in early files; it is read and has no effect.
    """

    kind: Annotated[str, Field(pattern=r"^(standard|cfr|a-cfr)$")] = "standard"
    extra_steps: Annotated[Int, Field(ge=0, le=MOST_STEPS)] = 0
    stop_changed_px: Annotated[Int, Field(ge=0, le=2**31)] = 20
    ffcm_every_step: bool = True


class RunsPart(Part):
    """Runs of pixels in the (Y, X) plane."""

    shape: Annotated[list[Side], Field(min_length=2, max_length=2)]
    runs: list[Annotated[int, Field(ge=0, le=2**53)]] = Field(default_factory=list)

    def rows(self, width: int) -> NDArray[np.int64]:
        """Return the runs, (N, width)."""
        if len(self.runs) % width:
            names = ("start", "length", "label")[:width]
            msg = f"{len(self.runs)} numbers are no list of {', '.join(names)}"
            raise ValueError(msg)
        return np.array(self.runs, np.int64).reshape(-1, width)


class MaskPart(RunsPart):
    """A mask: start, length, start, length, … of its runs in the (Y, X) plane."""


class LabelsPart(RunsPart):
    """Labels: start, length, label, start, length, label, … in the (Y, X) plane."""


class MovePart(Part):
    """A click's new place."""

    click: ClickNumber
    yx: Annotated[list[Coordinate], Field(min_length=2, max_length=2)]


def _read_runs(part: RunsPart) -> LabelRuns:
    starts, lengths, *labels = part.rows(3 if isinstance(part, LabelsPart) else 2).T
    height, width = part.shape
    values = labels[0] if labels else np.ones(len(starts), np.int32)
    return LabelRuns((height, width), starts, lengths, values)


def _write_runs(runs: LabelRuns, *columns: NDArray[np.integer]) -> dict[str, Any]:
    numbers = np.stack([runs.starts, runs.lengths, *columns], axis=1)
    return {"shape": list(runs.shape), "runs": numbers.ravel().tolist()}


def _write_labels(runs: LabelRuns) -> dict[str, Any]:
    return _write_runs(runs, runs.after)


HintField = Annotated[FocusHint, _same_names(HintPart, FocusHint)]
ScalingField = Annotated[Scaling, _same_names(ScalingPart, Scaling)]
RefinementField = Annotated[Refinement, _same_names(RefinementPart, Refinement)]
MaskField = Annotated[
    LabelRuns, FileForm(MaskPart, LabelRuns, _read_runs, _write_runs, checks=False)
]
LabelsField = Annotated[
    LabelRuns, FileForm(LabelsPart, LabelRuns, _read_runs, _write_labels, checks=False)
]
#: (click id, (row, column))
Move = Annotated[
    tuple[int, tuple[float, float]],
    FileForm(
        MovePart,
        tuple,
        lambda part: (part.click, tuple(part.yx)),
        lambda move: {"click": move[0], "yx": list(move[1])},
    ),
]


# -- events --------------------------------------------------------------------------

E = TypeVar("E", bound="Event")


class Event:
    """Something that was done; each kind is a frozen dataclass."""

    __slots__ = ()
    type: str  #: the kind's name in a session file
    #: whether it only says how later events are done: no undo step of its own
    is_setting: ClassVar[bool] = False


KINDS: dict[str, type[Event]] = {}
"""All kinds of events by their name in a session file."""


@dataclass_transform(frozen_default=True, field_specifiers=(Field, field))
def event(name: str) -> Callable[[type[E]], type[E]]:
    """Register a class as the kind of event that files call ``name``."""

    def register(cls: type[E]) -> type[E]:
        cls.__annotations__["type"] = Literal[name]
        cls.type = field(default=name, kw_only=True, repr=False)
        made = in_file(cls)
        KINDS[name] = made
        return made

    return register


def any_event() -> Any:
    """Return the type of all kinds, distinguished by name, for pydantic."""
    return Annotated[
        Union[tuple(KINDS.values())],  # noqa: UP007 - the kinds are not known before
        Field(discriminator="type"),
    ]


def read_event(raw: Any) -> Event:
    """Return the event of its parsed JSON; pydantic's ValidationError if it is none."""
    reader = _reader(tuple(KINDS))
    made: Event = reader.validate_python(raw, by_alias=True, by_name=False)
    return made


@cache
def _reader(_kinds: tuple[str, ...]) -> TypeAdapter[Any]:
    return TypeAdapter(any_event())


def event_line(made: Event) -> str:
    """Return an event as one line of JSON."""
    values = {"type": made.type, **fields_of(made)}
    return json.dumps(values, ensure_ascii=False, allow_nan=False)
