"""Events to the parts of a file, and back: one function for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from types import MappingProxyType
from typing import Any

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.clicks import Click
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.session import event_parts as p
from napari_cfrseg.session.convert import (
    hint_of,
    hint_part,
    labels_of,
    labels_part,
    mask_of,
    mask_part,
    refinement_of,
    refinement_part,
    scaling_part,
)
from napari_cfrseg.session.fields import Part


def _plane(index: Plane) -> list[int]:
    return [int(i) for i in index]


def _yx(numbers: list[float]) -> tuple[float, float]:
    y, x = numbers
    return y, x


@singledispatch
def part_of(event: object, scaling: Scaling | None = None) -> Part:
    """Return an event as the file says it.

    ``scaling`` is written with a click that is the first on its plane.
    """
    msg = f"{type(event).__name__} is no event that a session file knows"
    raise TypeError(msg)


@part_of.register
def _(event: ev.ObjectCreated, scaling: Scaling | None = None) -> Part:
    return p.ObjectCreatedPart(
        object=int(event.object_id),
        name=event.name,
        colour=event.colour,
        threshold=float(event.threshold),
    )


@part_of.register
def _(event: ev.ObjectDeleted, scaling: Scaling | None = None) -> Part:
    return p.ObjectDeletedPart(object=int(event.object_id))


@part_of.register
def _(event: ev.ObjectRenamed, scaling: Scaling | None = None) -> Part:
    return p.ObjectRenamedPart(object=int(event.object_id), name=event.name)


@part_of.register
def _(event: ev.ObjectRecoloured, scaling: Scaling | None = None) -> Part:
    return p.ObjectRecolouredPart(object=int(event.object_id), colour=event.colour)


@part_of.register
def _(event: ev.ObjectClassified, scaling: Scaling | None = None) -> Part:
    return p.ObjectClassifiedPart(
        object=int(event.object_id), object_class=event.object_class
    )


@part_of.register
def _(event: ev.ObjectLocked, scaling: Scaling | None = None) -> Part:
    return p.ObjectLockedPart(object=int(event.object_id), locked=event.locked)


@part_of.register
def _(event: ev.ObjectReset, scaling: Scaling | None = None) -> Part:
    return p.ObjectResetPart(object=int(event.object_id), plane=_plane(event.plane))


@part_of.register
def _(event: ev.ClickAdded, scaling: Scaling | None = None) -> Part:
    return p.ClickAddedPart(
        object=int(event.object_id),
        click=int(event.click_id),
        plane=_plane(event.plane),
        yx=list(event.click.yx),
        positive=event.click.is_positive,
        focus_shift=int(event.focus_shift),
        hint=hint_part(event.hint),
        position=event.position,
        scaling=scaling_part(scaling),
    )


@part_of.register
def _(event: ev.ClicksMoved, scaling: Scaling | None = None) -> Part:
    moves = [
        p.MovePart(click=int(i), yx=[float(y), float(x)]) for i, (y, x) in event.moves
    ]
    return p.ClicksMovedPart(moves=moves)


@part_of.register
def _(event: ev.ClickRefocused, scaling: Scaling | None = None) -> Part:
    return p.ClickRefocusedPart(
        click=int(event.click_id), focus_shift=int(event.focus_shift)
    )


@part_of.register
def _(event: ev.ClicksRemoved, scaling: Scaling | None = None) -> Part:
    return p.ClicksRemovedPart(clicks=[int(i) for i in event.click_ids])


@part_of.register
def _(event: ev.Painted, scaling: Scaling | None = None) -> Part:
    return p.PaintedPart(plane=_plane(event.plane), labels=labels_part(event.labels))


@part_of.register
def _(event: ev.MaskImported, scaling: Scaling | None = None) -> Part:
    return p.MaskImportedPart(
        object=int(event.object_id),
        plane=_plane(event.plane),
        mask=mask_part(event.mask),
    )


@part_of.register
def _(event: ev.LabelsImported, scaling: Scaling | None = None) -> Part:
    return p.LabelsImportedPart(
        plane=_plane(event.plane), labels=labels_part(event.labels)
    )


@part_of.register
def _(event: ev.Propagated, scaling: Scaling | None = None) -> Part:
    return p.PropagatedPart(
        objects=[int(i) for i in event.object_ids],
        plane=_plane(event.plane),
        axis=int(event.axis),
        first=int(event.first),
        last=int(event.last),
        count=int(event.count),
        spacing=[float(v) for v in event.spacing],
        spans=event.spans,
        only_stale=event.only_stale,
        results=event.results,
    )


@part_of.register
def _(event: ev.PlaneConfirmed, scaling: Scaling | None = None) -> Part:
    return p.PlaneConfirmedPart(object=int(event.object_id), plane=_plane(event.plane))


@part_of.register
def _(event: ev.ThresholdChanged, scaling: Scaling | None = None) -> Part:
    return p.ThresholdChangedPart(
        object=int(event.object_id), threshold=float(event.threshold)
    )


@part_of.register
def _(event: ev.RefinementChanged, scaling: Scaling | None = None) -> Part:
    return p.RefinementChangedPart(refinement=refinement_part(event.refinement))


@part_of.register
def _(event: ev.ModelChanged, scaling: Scaling | None = None) -> Part:
    return p.ModelChangedPart(name=event.name, sha256=event.sha256)


@part_of.register
def _(event: ev.OverlapChanged, scaling: Scaling | None = None) -> Part:
    return p.OverlapChangedPart(rule=event.rule.value)


@part_of.register
def _(event: ev.Undone, scaling: Scaling | None = None) -> Part:
    return p.UndonePart()


@part_of.register
def _(event: ev.Redone, scaling: Scaling | None = None) -> Part:
    return p.RedonePart()


def _click_added(part: p.ClickAddedPart) -> ev.Event:
    return ev.ClickAdded(
        part.object,
        tuple(part.plane),
        Click(_yx(part.yx), part.positive),
        part.click,
        part.focus_shift,
        hint_of(part.hint),
        part.position,
    )


def _propagated(part: p.PropagatedPart) -> ev.Event:
    between, y, x = part.spacing
    return ev.Propagated(
        tuple(part.objects),
        tuple(part.plane),
        part.axis,
        part.first,
        part.last,
        part.count,
        (between, y, x),
        part.spans,
        part.only_stale,
        part.results,
    )


_EVENTS: Mapping[type[Part], Callable[[Any], ev.Event]] = MappingProxyType(
    {
        p.ObjectCreatedPart: lambda e: ev.ObjectCreated(
            e.object, e.name, e.colour, e.threshold
        ),
        p.ObjectDeletedPart: lambda e: ev.ObjectDeleted(e.object),
        p.ObjectRenamedPart: lambda e: ev.ObjectRenamed(e.object, e.name),
        p.ObjectRecolouredPart: lambda e: ev.ObjectRecoloured(e.object, e.colour),
        p.ObjectClassifiedPart: lambda e: ev.ObjectClassified(e.object, e.object_class),
        p.ObjectLockedPart: lambda e: ev.ObjectLocked(e.object, e.locked),
        p.ObjectResetPart: lambda e: ev.ObjectReset(e.object, tuple(e.plane)),
        p.ClickAddedPart: _click_added,
        p.ClicksMovedPart: lambda e: ev.ClicksMoved(
            tuple((m.click, _yx(m.yx)) for m in e.moves)
        ),
        p.ClickRefocusedPart: lambda e: ev.ClickRefocused(e.click, e.focus_shift),
        p.ClicksRemovedPart: lambda e: ev.ClicksRemoved(tuple(e.clicks)),
        p.PaintedPart: lambda e: ev.Painted(tuple(e.plane), labels_of(e.labels)),
        p.MaskImportedPart: lambda e: ev.MaskImported(
            e.object, tuple(e.plane), mask_of(e.mask)
        ),
        p.LabelsImportedPart: lambda e: ev.LabelsImported(
            tuple(e.plane), labels_of(e.labels)
        ),
        p.PropagatedPart: _propagated,
        p.PlaneConfirmedPart: lambda e: ev.PlaneConfirmed(e.object, tuple(e.plane)),
        p.ThresholdChangedPart: lambda e: ev.ThresholdChanged(e.object, e.threshold),
        p.RefinementChangedPart: lambda e: ev.RefinementChanged(
            refinement_of(e.refinement)
        ),
        p.ModelChangedPart: lambda e: ev.ModelChanged(e.name, e.sha256),
        p.OverlapChangedPart: lambda e: ev.OverlapChanged(ev.OverlapRule(e.rule)),
        p.UndonePart: lambda _: ev.Undone(),
        p.RedonePart: lambda _: ev.Redone(),
    }
)


def event_of(part: Part) -> ev.Event:
    """Return the event a part of the file says.

    Raises
    ------
    ValueError
        Its numbers are no runs of the plane.
    """
    return _EVENTS[type(part)](part)
