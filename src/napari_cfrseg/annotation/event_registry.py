"""The base of all events: kinds are registered by name, read from JSON and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import field
from functools import cache
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
)

from pydantic import Field, TypeAdapter

from napari_cfrseg.annotation import event_fields as form

E = TypeVar("E", bound="Event")


class Event:
    """Something that was done; each kind is a frozen dataclass.

    Attributes
    ----------
    type
        The kind's name in a session file.
    is_setting
        Whether it only says how later events are done: no undo step of its own.
    """

    __slots__ = ()
    type: str
    is_setting: ClassVar[bool] = False


KINDS: dict[str, type[Event]] = {}
"""All kinds of events by their name in a session file."""


@dataclass_transform(frozen_default=True, field_specifiers=(Field, field))
def event(name: str) -> Callable[[type[E]], type[E]]:
    """Register a class as the kind of event that files call ``name``."""

    def register(cls: type[E]) -> type[E]:
        cls.__annotations__["type"] = Literal[name]
        cls.type = field(default=name, kw_only=True, repr=False)
        made = form.in_file(cls)
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
    fields = {"type": made.type, **form.fields_of(made)}
    return json.dumps(fields, ensure_ascii=False, allow_nan=False)
