"""Tables of clicks: CSV as spreadsheets, napari and this program write it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import SessionError

#: larger tables of clicks are refused
MOST_BYTES = 1 << 28
_POSITIVE = {"+", "1", "true", "positive", ""}
_NEGATIVE = {"-", "−", "0", "-1", "false", "negative"}
_AXIS = re.compile(r"axis[-_ ](\d+)")
#: how programs write that a cell has no value
_MISSING = {"nan", "none", "<na>"}
#: so many lines are looked through for the names of the columns
_LINES_ABOVE = 50
#: columns that ImageJ's tables of results have beside X and Y
_OF_IMAGEJ = {" ", "Area", "Mean", "Slice", "Frame", "Ch", "Counter", "XM", "YM"}


@dataclass(frozen=True, slots=True)
class TableClick:
    """One row of a table."""

    owner: str  #: the object: a whole number without leading zeros, or any other text
    name: str  #: the object's, or ""
    plane: tuple[int, ...]  #: index of the axes before Y
    click: Click
    where: str = ""  #: the file and the line, or the point


def read_clicks(
    path: Path,
    axes: Sequence[str] | None = None,
    pixel_size: tuple[float, float] | None = None,
) -> list[TableClick]:
    """Read a table with a row for each click and the names of its columns on top.

    Cells are separated by commas, semicolons or tabs; beside the last two a comma is a
    decimal point. UTF-8, UTF-16 with its mark, or Windows' Latin letters. Lines above
    the names of the columns (remarks, Excel's ``sep=;``) do not count.

    The columns are ``y`` and ``x``, after ``axis_0`` … or ``t``, ``z`` for the plane;
    or napari's ``axis-0`` …, the last two of which are Y and X. Planes are rounded.
    ``object`` names the object of a click: numbers that are equal (``01``, ``1``,
    ``1.0``) are one object, other texts one each, and without it every row is an object
    of its own. ``sign`` or ``polarity`` is + or − (+ by default). ``name`` names the
    object, else a text in ``object`` does; other columns do not count. A SessionError
    names the line that cannot be read.

    ImageJ's tables of results have ``X`` and ``Y``, capitals, beside ``Area``,
    ``Slice`` and the like. The plane is their ``Frame`` (t), ``Slice`` (z) and ``Ch``
    (c), from 1, of the image's ``axes`` before Y (None: frame and slice); a
    SessionError names an axis of which they say nothing. X and Y are in pixels, or in
    units of the image's ``pixel_size``, (y, x), whichever makes all of them whole or
    half pixels; a SessionError says that both do, or neither. Without a size they are
    in pixels.
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
    lines = io.StringIO(text, newline="")
    above, separator, columns = _columns(lines, path, axes)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    rows, begin = [], above + 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_row(cells, columns, separator, path, begin))
            begin = above + reader.line_num + 1
    except (ValueError, csv.Error) as error:
        said = " ".join(str(error).split())[:200]
        raise SessionError(f"{path}, line {begin}: no click ({said})") from error
    return _in_pixels(rows, pixel_size, path) if columns.is_imagej else rows


def _in_pixels(
    rows: list[TableClick], size: tuple[float, float] | None, path: Path
) -> list[TableClick]:
    """Bring ImageJ's places, whose first pixel is the square from 0 to 1, to ours."""
    scale = (1.0, 1.0)
    if rows and size is not None and size != scale:
        sizes = [s for s in (scale, size) if all(_is_of_pixels(r, s) for r in rows)]
        if len(sizes) != 1:
            raise SessionError(
                f"{path}: X and Y may be pixels or the image's units: name them x, y "
                "if they are pixels, else measure again after Analyze → Set Scale → "
                "Click to Remove Scale"
            )
        (scale,) = sizes
    found = []
    for row in rows:
        y, x = (v / s - 0.5 for v, s in zip(row.click.yx, scale, strict=True))
        plane = tuple(max(i - 1, 0) for i in row.plane)
        found.append(replace(row, plane=plane, click=replace(row.click, yx=(y, x))))
    return found


def _is_of_pixels(row: TableClick, size: tuple[float, float]) -> bool:
    """Whether a place is in whole or half pixels, as far as three digits say."""
    halves = [(2 * v / s, 0.0011 / s) for v, s in zip(row.click.yx, size, strict=True)]
    return all(math.isfinite(n) and abs(n - round(n)) <= near for n, near in halves)


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
    is_imagej: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether there are columns that only tables of clicks have."""
        return bool(self.plane) or (self.owner, self.sign) != (None, None)


def _columns(
    lines: Iterable[str], path: Path, axes: Sequence[str] | None
) -> tuple[int, str, _Columns]:
    """Read on to the names of coordinates.

    Returns the number of their line, the separator that parts them, and what is where.
    """
    first = ""
    for count, line in enumerate(islice(lines, _LINES_ABOVE), start=1):
        for separator in ",;\t":
            cells = next(csv.reader([line[:100_000]], delimiter=separator), [])
            names = [cell.strip().lower() for cell in cells]
            found = _places(names)
            is_imagej = {"X", "Y"} <= {*cells} and _OF_IMAGEJ & {*cells}
            if found is not None and is_imagej and not found.is_ours:
                planes = _stack_columns(names, axes, path)
                found = replace(found, plane=planes, is_imagej=True)
            if found is not None:
                return count, separator, found
        first = first or " ".join(line.split())[:200]
    raise SessionError(f"{path}: expected the columns y and x, found {first}")


def _stack_columns(
    names: list[str], axes: Sequence[str] | None, path: Path
) -> tuple[int, ...]:
    """Return which columns of ImageJ say the place on an image's axes before Y."""
    if {"y", "x"} & {*(axes or ())}:
        msg = (
            "ImageJ's tables lie on the file's own planes: roll the axes back (Ctrl+E)"
        )
        raise SessionError(msg)
    said = (("z", "slice"), ("t", "frame"), ("c", "ch"))
    there = {axis: names.index(name) for axis, name in said if name in names}
    if axes is None:
        return tuple(there[axis] for axis in "tz" if axis in there)
    if len(axes) == 1 and axes[0] not in there:
        axes = [*there, *axes][:1]  # a series, or channels, opened as a stack
    for axis in axes:
        if axis not in there:
            raise SessionError(
                f"{path}: no column says where along the axis {axis} a click is: "
                "ImageJ's are Frame (t), Slice (z) and Ch (c); name the axes so, or "
                "add the column"
            )
    return tuple(there[axis] for axis in axes)


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


def _row(
    cells: list[str], columns: _Columns, separator: str, path: Path, line: int
) -> TableClick:
    def cell(place: int | None) -> str:
        return cells[place].strip() if place is not None and place < len(cells) else ""

    def with_point(place: int | None) -> str:
        return cell(place) if separator == "," else cell(place).replace(",", ".")

    def number(place: int) -> float:
        value = float(with_point(place))
        if not math.isfinite(value):
            raise ValueError(f"{cell(place)!r} is no finite number")
        return value

    y, x = columns.yx
    plane = tuple(math.floor(number(place) + 0.5) for place in columns.plane)
    click = Click((number(y), number(x)), is_positive(with_point(columns.sign)))
    owner = object_key(with_point(columns.owner)) or f"line {line}"
    name = cell(columns.name) or name_in(cell(columns.owner))
    return TableClick(owner, name, plane, click, f"{path}, line {line}")


def is_positive(sign: str) -> bool:
    """Return whether a sign stands for a positive click; ValueError if for none."""
    key = object_key(sign.lower())
    if key not in _POSITIVE | _NEGATIVE:
        raise ValueError(f"sign {sign[:20]!r}: expected + or -")
    return key in _POSITIVE


def object_key(text: str) -> str:
    """Return a text that is equal for equal numbers: "01", "1" and "1.0" are "1".

    It is "" where nothing is said (NaN).
    """
    said = text.strip()
    whole = re.fullmatch(r"([+-]?\d{1,18})(\.0*)?", said)
    return str(int(whole[1])) if whole else "" if said.lower() in _MISSING else said


def name_in(text: str) -> str:
    """Return what names an object where it has a text instead of a number."""
    return text if object_key(text) and re.search(r"[^\W\d_]", text) else ""


def clicks_csv(rows: Iterable[tuple[int, TableClick]], depth: int) -> str:
    """Return clicks and their numbers as CSV; ``depth`` axes lie before Y."""
    planes = [f"axis_{i}" for i in range(depth)]
    lines: list[list[object]] = [["object", "name", "click", "sign", *planes, "y", "x"]]
    for number, row in rows:
        sign = "+" if row.click.is_positive else "-"
        place = (*row.plane, *map(repr, row.click.yx))
        lines.append([row.owner, row.name, number, sign, *place])
    return csv_text(lines)


def csv_text(lines: Iterable[Sequence[object]]) -> str:
    """Return lines of cells as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
