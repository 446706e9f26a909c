"""Clicks and labels made elsewhere, as events."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import SessionError
from napari_cfrseg.geometry.masks import MOST_LABEL, LabelRuns, Plane
from napari_cfrseg.io.click_tables import (
    TableClick,
    name_in,
    object_key,
    read_clicks,
)
from napari_cfrseg.io.outline_files import Outline
from napari_cfrseg.io.tiled_labels import label_runs, pixel_counts

#: says of a plane which pixels are an object's already; None: none is
Taken: TypeAlias = Callable[[Plane], LabelRuns | None]


def events_from_csv(
    path: str | os.PathLike[str],
    *,
    first_object: int = 1,
    first_click: int = 1,
    most: int = MOST_LABEL,
    axes: Sequence[str] | None = None,
    pixel_size: tuple[float, float] | None = None,
) -> list[ev.Event]:
    """Read a table of clicks (:func:`~napari_cfrseg.io.click_tables.read_clicks`).

    ``first_object`` and ``first_click`` are numbers that are free; objects of numbers
    above ``most`` get others. A SessionError names the line that cannot be read.
    """
    rows = read_clicks(Path(path), axes, pixel_size)
    return _events(rows, first_object, first_click, most)


def events_from_points(
    points: NDArray[np.floating] | Sequence[Sequence[float]],
    *,
    objects: Sequence[object] | None = None,
    positive: Sequence[bool] | None = None,
    first_object: int = 1,
    first_click: int = 1,
    most: int = MOST_LABEL,
) -> list[ev.Event]:
    """Make clicks of points, (N, D) in array indices (a napari Points layer's data).

    The leading D − 2 coordinates choose the plane. ``objects`` says whose click each is
    (by default every point is an object of its own), ``positive`` gives their signs (by
    default all positive), each one for every point. The numbers are those of
    :func:`events_from_csv`; a SessionError names the point that has no place.
    """
    places = np.asarray(points, dtype=float)
    owners = [""] * len(places) if objects is None else [str(o) for o in objects]
    signs = [True] * len(places) if positive is None else positive
    rows = []
    for number, (point, owner, sign) in enumerate(
        zip(places, owners, signs, strict=True)
    ):
        if not np.isfinite(point).all():
            raise SessionError(f"point {number}: {point.tolist()} is no place")
        *leading, y, x = (float(v) for v in point)
        whose = object_key(owner) or f"point {number}"
        plane = tuple(math.floor(v + 0.5) for v in leading)
        click = Click((y, x), bool(sign))
        rows.append(TableClick(whose, name_in(owner), plane, click, f"point {number}"))
    return _events(rows, first_object, first_click, most)


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

    ``labels`` are (…, Y, X) integers, 0 = background. All are one undo step.
    """
    shape, together = (int(labels.shape[-2]), int(labels.shape[-1])), False
    for plane in np.ndindex(labels.shape[:-2]):
        found = labels[plane]
        if (found > 0).any():
            runs = LabelRuns.from_labels(found, found > 0, shape)
            index = tuple(int(i) for i in plane)
            yield ev.LabelsImported(index, runs, together)
            together = True


def hidden_labels(labels: NDArray[np.integer], taken: Taken) -> list[int]:
    """Return the labels of (…, Y, X) that would get no pixel beside what is there."""
    under = [np.zeros(0, labels.dtype)]
    for plane in np.ndindex(labels.shape[:-2]):
        held = taken(tuple(int(i) for i in plane))
        if held is not None:
            under.append(labels[plane][held.indices()])
    whole, hidden = pixel_counts(labels), pixel_counts(np.concatenate(under))
    return [label for label, count in whole.items() if count == hidden.get(label)]


def taken_beside(annotator: Annotator) -> Taken:
    """Return what says of a plane which pixels an object imported now cannot get."""
    planes, objects = annotator.planes, annotator.objects
    locked = [number for number, whole in objects.items() if whole.locked]

    def taken(plane: Plane) -> LabelRuns | None:
        if plane not in planes:
            return None
        runs = label_runs(annotator.labels(plane))
        if annotator.rule is ev.OverlapRule.KEEP:
            return runs
        held = np.isin(runs.after, locked)
        own = runs.starts[held], runs.lengths[held], runs.after[held]
        return LabelRuns(runs.shape, *own)

    return taken


def events_from_outlines(
    outlines: Iterable[Outline],
    shape: tuple[int, ...],
    *,
    axes: Sequence[str] = (),
    here: Plane = (),
    first_object: int = 1,
    most: int = MOST_LABEL,
    taken: Taken = lambda _: None,
) -> list[ev.Event]:
    """Make an object of every outline, in one undo step: it is the first feedback.

    ``shape`` is (…, Y, X), and ``axes`` are the names of its axes. An outline that says
    nothing of an axis is on the plane ``here``. Where outlines overlap, the smallest
    has the pixels; ``taken`` says which none of them gets. One that gets none has no
    event; a SessionError says that none gets any, or that there are too many objects.
    """
    placed = [(one, one.plane(here, axes)) for one in outlines]
    places = Counter((one.key, plane) for one, plane in placed)
    repeated = {key for (key, _), count in places.items() if count > 1}
    events: list[ev.Event] = []
    numbers: dict[str, int] = {}
    number = first_object - 1
    for outline, plane, runs in _apart(placed, shape, taken):
        key = "" if outline.key in repeated else outline.key
        is_new = key not in numbers
        if is_new:
            number += 1
            together = bool(events)
            events.append(ev.ObjectCreated(number, outline.name, together=together))
        owner = numbers.setdefault(key, number) if key else number
        events.append(ev.MaskImported(owner, plane, runs, together=not is_new))
        if is_new and outline.object_class:
            classified = ev.ObjectClassified(
                number, outline.object_class, together=True
            )
            events.append(classified)
    if not events:
        raise SessionError("no outline has a pixel of the image that is free")
    if number > most:
        raise SessionError(f"{number} objects: {most} are the most")
    return events


def _apart(
    placed: Sequence[tuple[Outline, Plane]], shape: tuple[int, ...], taken: Taken
) -> list[tuple[Outline, Plane, LabelRuns]]:
    """Return the outlines that get pixels with those: the smallest are served first."""
    on_planes: dict[Plane, dict[int, LabelRuns]] = defaultdict(dict)
    for index, (outline, plane) in enumerate(placed):
        if all(0 <= i < n for i, n in zip(plane, shape[:-2], strict=True)):
            on_planes[plane][index] = outline.runs((shape[-2], shape[-1]))
    found = {
        index: runs
        for plane, drawn in on_planes.items()
        for index, runs in _served(drawn, taken(plane)).items()
    }
    return [(*placed[index], found[index]) for index in sorted(found)]


def _served(
    drawn: Mapping[int, LabelRuns], held: LabelRuns | None
) -> dict[int, LabelRuns]:
    """Return what outlines on one plane leave each other; none where nothing is free.

    The plane's pixels are one line, cut where any run begins or ends: the outlines give
    their numbers to its pieces, the largest first.
    """
    order = sorted(drawn, key=lambda i: (drawn[i].size, i), reverse=True)
    own = [drawn[index] for index in order]
    others = [] if held is None else [held]
    cuts = [cut for r in (*own, *others) for cut in (r.starts, r.starts + r.lengths)]
    pieces = np.unique(np.concatenate([np.zeros(1, np.int64), *cuts]))
    owner = np.full(pieces.size, -1)
    for index, runs in zip(order, own, strict=True):
        first = np.searchsorted(pieces, runs.starts).tolist()
        end = np.searchsorted(pieces, runs.starts + runs.lengths).tolist()
        for piece in map(slice, first, end):
            owner[piece] = index
    is_held = np.zeros(pieces.size, np.int8)
    for runs in others:
        is_held[np.searchsorted(pieces, runs.starts)] += 1
        is_held[np.searchsorted(pieces, runs.starts + runs.lengths)] -= 1
    free = {*owner[np.cumsum(is_held) == 0].tolist()} - {-1}
    kept = np.flatnonzero(np.diff(owner, prepend=-1))
    starts, lengths = pieces[kept], np.diff(pieces[kept], append=0)
    by_owner = np.argsort(owner[kept], kind="stable")
    found, first = np.unique(owner[kept][by_owner], return_index=True)
    return {
        index: LabelRuns(drawn[index].shape, starts[of], lengths[of], np.ones_like(of))
        for index, of in zip(
            found.tolist(), np.split(by_owner, first[1:]), strict=False
        )
        if index in free
    }


def _events(
    rows: Sequence[TableClick], first_object: int, first_click: int, most: int
) -> list[ev.Event]:
    """Give objects numbers as they appear; a plain number keeps itself.

    All are one undo step.
    """
    numeric = {row.owner: int(row.owner) for row in rows if row.owner.isdecimal()}
    lowest = min((n for n in numeric.values() if n > 0), default=first_object)
    shift = max(0, first_object - lowest)
    numbers = {w: n + shift for w, n in numeric.items() if 0 < n <= most - shift}
    used = set(numbers.values())
    free = (n for n in itertools.count(first_object) if n not in used)
    names = {row.owner: row.name for row in reversed(rows) if row.name}
    created: set[str] = set()
    events: list[ev.Event] = []
    for click_id, row in enumerate(rows, start=first_click):
        whose, click = row.owner, row.click
        try:
            if whose not in created:
                created.add(whose)
                if whose not in numbers:
                    numbers[whose] = next(free)
                named = numbers[whose], names.get(whose, "")
                events.append(ev.ObjectCreated(*named, together=bool(events)))
            signed = (click.yx, click.is_positive, click_id)
            made = ev.ClickAdded(numbers[whose], row.plane, *signed, together=True)
            events.append(made)
        except SessionError as error:
            raise SessionError(f"{row.where}: {error}") from error
    return events
