"""Tables of clicks: CSV as spreadsheets, napari and this program write it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import SessionError

#: larger tables of clicks are refused
MOST_BYTES = 1 << 28
_POSITIVE = {"+", "1", "true", "positive", ""}
_NEGATIVE = {"-", "−", "0", "-1", "false", "negative"}
_AXIS = re.compile(r"axis[-_ ](\d+)")


@dataclass(frozen=True, slots=True)
class TableClick:
    """One row of a table."""

    owner: str  #: the object: a whole number without leading zeros, or any other text
    name: str  #: the object's, or ""
    plane: tuple[int, ...]  #: index of the axes before Y
    click: Click


def read_clicks(path: Path) -> list[TableClick]:
    """Read a table with a row for each click and the names of its columns on top.

    Cells are separated by commas, semicolons or tabs; beside the last two a comma is a
    decimal point. UTF-8, UTF-16 with its mark, or Windows' Latin letters.

    The columns are ``y`` and ``x``, after ``axis_0`` … or ``t``, ``z`` for the plane;
    or napari's ``axis-0`` …, the last two of which are Y and X. Planes are rounded.
    ``object`` names the object of a click: numbers that are equal (``01``, ``1``,
    ``1.0``) are one object, other texts one each, and without it every row is an object
    of its own. ``sign`` or ``polarity`` is + or − (+ by default). ``name`` names the
    object; other columns do not count. A SessionError names the line that cannot be
    read.
    """
    try:
        if not path.is_file():
            raise SessionError(f"{path}: no such table")
        if path.stat().st_size > MOST_BYTES:
            msg = f"{path}: larger than {MOST_BYTES >> 20} MB: no table of clicks"
            raise SessionError(msg)
        text = _decoded(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SessionError(f"{path} cannot be read: {error}") from error
    separator, columns = _columns(text, path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows = []
    try:
        next(cells for cells in reader if cells)  # the names
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_row(cells, columns, separator, reader.line_num))
    except (ValueError, csv.Error) as error:
        raise SessionError(
            f"{path}, line {reader.line_num}: no click "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    return rows


def _decoded(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where in a row what is."""

    yx: tuple[int, int]
    plane: tuple[int, ...]
    owner: int | None
    sign: int | None
    name: int | None


def _columns(text: str, path: Path) -> tuple[str, _Columns]:
    """Return the separator with which there are columns of coordinates, and these."""
    head = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0][:100_000]
    for separator in ",;\t":
        cells = next(csv.reader([head], delimiter=separator), [])
        names = [cell.strip().lower() for cell in cells]
        found = _places(names)
        if found is not None:
            return separator, found
    msg = f"{path}: expected the columns y and x, found {' '.join(head.split())[:200]}"
    raise SessionError(msg)


def _places(names: list[str]) -> _Columns | None:
    def place(*wanted: str) -> int | None:
        return next((names.index(name) for name in wanted if name in names), None)

    numbered = {int(m[1]): i for i, n in enumerate(names) if (m := _AXIS.fullmatch(n))}
    axes = [numbered[number] for number in sorted(numbered)]
    y, x = place("y"), place("x")
    if y is None or x is None:
        if len(axes) < 2:
            return None
        *axes, y, x = axes
    elif not axes:
        axes = [i for i, name in enumerate(names) if name in ("t", "z")]
    owner, sign = place("object", "object_id"), place("sign", "polarity")
    return _Columns((y, x), tuple(axes), owner, sign, place("name"))


def _row(cells: list[str], columns: _Columns, separator: str, line: int) -> TableClick:
    def cell(place: int | None) -> str:
        return cells[place].strip() if place is not None and place < len(cells) else ""

    def number(place: int) -> float:
        said = cell(place)
        value = float(said if separator == "," else said.replace(",", "."))
        if not math.isfinite(value):
            raise ValueError(f"{said!r} is no finite number")
        return value

    sign = cell(columns.sign).lower()
    if sign not in _POSITIVE | _NEGATIVE:
        raise ValueError(f"sign {sign[:20]!r}")
    y, x = columns.yx
    plane = tuple(math.floor(number(place) + 0.5) for place in columns.plane)
    click = Click((number(y), number(x)), sign in _POSITIVE)
    owner = cell(columns.owner)
    owner = object_key(owner if separator == "," else owner.replace(",", "."))
    owner = owner or f"line {line}"
    return TableClick(owner, cell(columns.name), plane, click)


def object_key(text: str) -> str:
    """Return a text that is equal for equal numbers: "01", "1" and "1.0" are "1"."""
    whole = re.fullmatch(r"\+?(\d{1,18})(\.0*)?", text.strip())
    return str(int(whole[1])) if whole else text.strip()


def clicks_csv(rows: Iterable[tuple[int, TableClick]], depth: int) -> str:
    """Return clicks and their numbers as CSV; ``depth`` axes lie before Y."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    planes = [f"axis_{i}" for i in range(depth)]
    writer.writerow(["object", "name", "click", "sign", *planes, "y", "x"])
    for number, row in rows:
        sign = "+" if row.click.is_positive else "-"
        place = (*row.plane, *map(repr, row.click.yx))
        writer.writerow([row.owner, row.name, number, sign, *place])
    return out.getvalue()
