"""Clicks and labels made elsewhere, as events."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.io.click_tables import TableClick, object_key, read_clicks


def events_from_csv(
    path: str | os.PathLike[str], *, first_object: int = 1, first_click: int = 1
) -> list[ev.Event]:
    """Read a table of clicks (:func:`~napari_cfrseg.io.click_tables.read_clicks`).

    ``first_object`` and ``first_click`` are numbers that are free. A SessionError names
    the line that cannot be read.
    """
    return _events(read_clicks(Path(path)), first_object, first_click)


def events_from_points(
    points: NDArray[np.floating] | Sequence[Sequence[float]],
    *,
    objects: Sequence[object] | None = None,
    positive: Sequence[bool] | None = None,
    first_object: int = 1,
    first_click: int = 1,
) -> list[ev.Event]:
    """Make clicks of points, (N, D) in array indices (a napari Points layer's data).

    The leading D − 2 coordinates choose the plane. ``objects`` says whose click each is
    (by default every point is an object of its own), ``positive`` gives their signs (by
    default all positive).
    """
    rows = []
    for number, point in enumerate(np.asarray(points, dtype=float)):
        *leading, y, x = (float(v) for v in point)
        whose = (
            f"point {number}" if objects is None else object_key(str(objects[number]))
        )
        sign = True if positive is None else bool(positive[number])
        plane = tuple(math.floor(v + 0.5) for v in leading)
        rows.append(TableClick(whose, "", plane, Click((y, x), sign)))
    return _events(rows, first_object, first_click)


def renumbered(
    labels: NDArray[np.integer], first_object: int, most: int
) -> NDArray[np.int64]:
    """Return labels whose numbers are free and small enough to be objects'.

    Labels are (…, Y, X) integers, 0 and below: background. They keep their numbers
    where ``first_object``, the first that is free, is 1. More labels than numbers up to
    ``most`` are a SessionError.
    """
    found = np.where(labels > 0, labels, 0).astype(np.int64)
    if first_object == 1 and int(found.max(initial=0)) <= most:
        return found
    ids, compact = np.unique(found, return_inverse=True)
    count = int((ids > 0).sum())
    if first_object + count - 1 > most:
        raise SessionError(
            f"{count} labels: {most} objects are the most, {first_object - 1} are there"
        )
    numbers = np.zeros(len(ids), np.int64)
    numbers[ids > 0] = np.arange(first_object, first_object + count)
    return numbers[compact].reshape(found.shape)


def events_from_labels(labels: NDArray[np.integer]) -> Iterator[ev.Event]:
    """Make an object of every label, plane by plane: its mask is the first feedback.

    ``labels`` are (…, Y, X) integers, 0 = background.
    """
    shape = (int(labels.shape[-2]), int(labels.shape[-1]))
    for plane in np.ndindex(labels.shape[:-2]):
        found = labels[plane]
        if (found > 0).any():
            runs = LabelRuns.from_labels(found, found > 0, shape)
            yield ev.LabelsImported(tuple(int(i) for i in plane), runs)


def _events(
    rows: Sequence[TableClick], first_object: int, first_click: int
) -> list[ev.Event]:
    """Give objects numbers as they appear; a plain number keeps itself."""
    numeric = {row.owner for row in rows if row.owner.isdecimal()}
    wanted = {w: int(w) for w in numeric if len(w) < 11 and 0 < int(w) < 2**31}
    shift = max(0, first_object - min(wanted.values(), default=first_object))
    used = {n + shift for n in wanted.values()}
    free = (n for n in itertools.count(first_object) if n not in used)
    numbers: dict[str, int] = {}
    events: list[ev.Event] = []
    for click_id, row in enumerate(rows, start=first_click):
        whose, click = row.owner, row.click
        if whose not in numbers:
            known = whose in wanted
            numbers[whose] = wanted[whose] + shift if known else next(free)
            events.append(ev.ObjectCreated(numbers[whose], row.name))
        signed = (click.yx, click.is_positive, click_id)
        events.append(ev.ClickAdded(numbers[whose], row.plane, *signed))
    return events
