"""Session files of earlier versions, made into files of this one.

Each entry takes the parsed file of its version and returns that of the next. An entry
is never changed once a version was released, and a file of each version stays among
the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from napari_cfrseg.errors import SessionError

Migration = Callable[[dict[str, Any]], dict[str, Any]]


def _to_2(raw: dict[str, Any]) -> dict[str, Any]:
    """Version 2 added kinds of events and took none away."""
    return raw


#: version → how its file becomes one of the next version; 1 is the first ever written
MIGRATIONS: Mapping[int, Migration] = MappingProxyType({1: _to_2})


def migrated(
    raw: dict[str, Any],
    current: int,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> dict[str, Any]:
    """Return a parsed file in the layout of version ``current``.

    Raises
    ------
    SessionError
        No version, one that never was, or one of a newer program.
    """
    version = raw.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        msg = (
            f"expected a whole number ≥ 1 as schema_version, found {str(version)[:40]}"
        )
        raise SessionError(msg)
    if version > current:
        msg = (
            f"written by a newer napari-cfrseg (schema_version {version}; this one "
            f"reads up to {current}): update napari-cfrseg to open it"
        )
        raise SessionError(msg)
    for step in range(version, current):
        raw = {**migrations[step](raw), "schema_version": step + 1}
    return raw
