"""Work ahead of clicks: a click's mask, its time, what finished objects teach."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.apart import is_apart, is_part
from napari_cfrseg.annotation.handlers import new_object
from napari_cfrseg.annotation.rounds import RoundComputer, shown_mask
from napari_cfrseg.annotation.state import ClickEntry, ObjectState, Round, Settings
from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.geometry.masks import MaskPatch, Plane
from napari_cfrseg.geometry.windows import slices
from napari_cfrseg.io.tiled_labels import AnyLabels

Objects = Mapping[int, ObjectState]
#: sides of the windows that a trial looks at; the second one is timed
_TRIAL_PX = (96.0, 64.0)


def mask_after(
    objects: Objects,
    computer: RoundComputer,
    settings: Settings,
    labels_of: Callable[[Plane], AnyLabels],
    events: Sequence[ev.Event],
    if_apart: Sequence[ev.Event],
    check: Callable[[], None],
) -> MaskPatch:
    """Return the pixels an object would have (``Annotator.look_ahead``)."""
    *created, click = events
    if not isinstance(click, ev.ClickAdded):
        raise TypeError(f"{type(click).__name__} is not a click")
    whole = objects.get(click.object_id)
    for event in created:
        if isinstance(event, ev.ObjectCreated):
            whole = new_object(event.object_id, threshold=event.threshold)
    own = objects, computer, settings, labels_of
    if is_apart(objects, computer, settings, click, if_apart, check):
        return mask_after(*own, if_apart, (), check)
    if whole is None or whole.locked:
        return MaskPatch.empty()
    state = whole.on(click.plane)
    entry = ClickEntry.of(click, settings.refinement, whole.threshold)
    found = computer.look_ahead(click.plane, state, entry, check)
    entries = (*state.entries, entry)
    rounds = (*state.rounds, Round(prediction=found))
    mask = shown_mask(state.start, entries, rounds, whole.threshold)
    if if_apart and is_part(state, mask, click.click.pixel):
        return mask_after(*own, if_apart, (), check)
    if not mask.mask.size:
        return mask
    labels = labels_of(click.plane)[slices(mask.box)]
    others = (labels != 0) & (labels != click.object_id)
    if settings.rule is ev.OverlapRule.OVERWRITE:
        others &= np.isin(labels, [i for i, o in objects.items() if o.locked])
    return MaskPatch.from_mask(mask.mask & ~others, mask.offset)


def first_click_s(
    computer: RoundComputer, plane: Plane, plane_shape: tuple[int, int]
) -> float:
    """Measure, on a small window, how long a first click takes at most.

    Torch prepares itself at its first run, so the first click is faster after it.
    """
    segmenter = computer.on(plane)
    y, x = plane_shape
    click = Click(((y - 1) / 2, (x - 1) / 2))
    segmenter.try_windows(click, FocusHint(_TRIAL_PX[0], 1.0))
    start = time.perf_counter()
    tried = segmenter.try_windows(click, FocusHint(_TRIAL_PX[1], 1.0))
    a_window_s = (time.perf_counter() - start) / len(tried)
    return a_window_s * segmenter.focus.most_candidates


def lesson(
    objects: Objects,
    computer: RoundComputer,
    plane: Plane,
    left_out: Collection[int] = (),
) -> Iterator[ev.ModelAdapted | None]:
    """Learn from finished objects for first clicks (``Annotator.lesson``).

    Only objects that a person clicked on teach, not masks from elsewhere.
    """
    from napari_cfrseg.engine.adaptation import Finished

    states = {i: o.on(plane) for i, o in objects.items() if i not in left_out}
    finished = [i for i, s in states.items() if s.clicks and s.mask.mask.size]
    ids = sorted(finished, key=lambda i: (states[i].stamp, i))
    taught_by = []
    for state in (states[i] for i in ids):
        click = state.clicks[0].click
        taught_by.append(Finished(state.mask, click.yx if click.is_positive else None))
    learning = computer.on(plane).lesson(taught_by)
    yield from learning.run()
    found = learning.result
    if found is not None:
        taught = tuple(ids[-learning.taught :])
        yield ev.ModelAdapted(taught, found.base, found.numbers, found.gain)
