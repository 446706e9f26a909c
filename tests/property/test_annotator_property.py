"""Random sequences of events: undo, redo and replay agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from closed_form import FloodNetwork
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replayed import replay

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.geometry.masks import LabelRuns, MaskPatch
from napari_cfrseg.session.session import objects_after

SHAPE = (24, 30)
PIXELS = np.zeros(SHAPE, np.uint8)
PIXELS[4:12, 4:14] = 180
PIXELS[10:20, 18:28] = 255

masks = st.binary(min_size=90, max_size=90).map(
    lambda raw: np.unpackbits(np.frombuffer(raw, np.uint8)).reshape(SHAPE).astype(bool)
)
places = st.tuples(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1))
ids = st.integers(1, 3)
boxes = st.tuples(places, places).map(
    lambda p: (
        slice(min(p[0][0], p[1][0]), max(p[0][0], p[1][0]) + 1),
        slice(min(p[0][1], p[1][1]), max(p[0][1], p[1][1]) + 1),
    )
)


def stroke(label: int, box: tuple[slice, slice]) -> ev.Painted:
    mask = np.zeros(SHAPE, bool)
    mask[box] = True
    return ev.Painted((), LabelRuns.from_labels(np.full(SHAPE, label), mask, SHAPE))


def add_click(object_id, yx, sign, click_id) -> ev.ClickAdded:
    return ev.ClickAdded(object_id, (), yx, sign, click_id)


clicks_added = st.builds(add_click, ids, places, st.booleans(), st.just(0))
acts = st.one_of(
    clicks_added,
    clicks_added,
    clicks_added,
    st.builds(ev.ClicksRemoved, st.tuples(st.integers(0, 50))),
    st.builds(
        lambda i, yx: ev.ClicksMoved(((i, (float(yx[0]), float(yx[1]))),)),
        st.integers(0, 50),
        places,
    ),
    st.builds(ev.ObjectCreated, ids),
    st.builds(ev.ObjectDeleted, ids),
    st.builds(ev.ObjectLocked, ids, st.booleans()),
    st.builds(ev.ObjectReset, ids, st.just(())),
    st.builds(ev.OverlapChanged, st.sampled_from(ev.OverlapRule)),
    st.builds(ev.ThresholdChanged, ids, st.floats(0.1, 0.9)),
    st.builds(stroke, st.integers(0, 3), boxes),
    st.just(ev.Undone()),
    st.just(ev.Redone()),
)


@given(masks)
def test_runs_and_patches_describe_the_mask(mask):
    assert np.array_equal(LabelRuns.from_mask(mask).mask().to_mask(SHAPE), mask)
    patch = MaskPatch.from_mask(mask)
    assert patch.area == mask.sum()
    assert np.array_equal(patch.to_mask(SHAPE), mask)


@given(masks, masks, masks)
def test_edited_mask_has_the_added_and_not_the_removed(mask, added, removed):
    edited = MaskPatch.from_mask(mask).edited(
        MaskPatch.from_mask(added), MaskPatch.from_mask(removed)
    )
    assert np.array_equal(edited.to_mask(SHAPE), (mask | added) & ~removed)


def aimed(event: ev.Event, annotator: Annotator, step: int) -> ev.Event:
    """Aim an event at objects and clicks there are, where there are any."""
    ids = sorted(annotator.objects)
    clicks = [e.click_id for o in annotator.objects.values() for _, e in o.clicks()]
    if isinstance(event, ev.ClickAdded):
        return replace(
            event,
            click_id=step,
            object_id=ids[event.object_id % len(ids)] if ids else 1,
        )
    if isinstance(event, ev.ClicksRemoved) and clicks:
        return ev.ClicksRemoved((clicks[event.click_ids[0] % len(clicks)],))
    if isinstance(event, ev.ClicksMoved) and clicks:
        ((raw, yx),) = event.moves
        return ev.ClicksMoved(((clicks[raw % len(clicks)], yx),))
    return event


def known(objects) -> list[tuple[object, ...]]:
    """Return what is known of objects without pixels."""
    return [
        (
            (o.object_id, o.name, o.colour, o.locked, o.threshold, o.object_class),
            [(plane, e.click_id, e.click) for plane, e in o.clicks()],
        )
        for o in objects
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(acts, min_size=5, max_size=16))
def test_objects_without_pixels_are_those_of_the_network_s_run(events):
    annotator = Annotator(
        lambda plane: PIXELS[plane], SHAPE, Segmenter(FloodNetwork(), device="cpu")
    )
    recorded = []
    state: tuple[object, ...] = ({}, 0, 0)
    for step, raw in enumerate([ev.ObjectCreated(1), *events]):
        try:
            change = annotator.apply(aimed(raw, annotator, step))
        except CfrSegError:
            continue
        before = state
        state = (dict(change.objects), change.undo_depth, change.redo_depth)
        if state != before:  # a recorder leaves out what changed nothing
            recorded += change.events
    objects = [o for _, o in sorted(annotator.objects.items())]
    assert known(objects_after(recorded, SHAPE)) == known(objects)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(acts, min_size=5, max_size=16))
def test_undo_redo_and_replay_agree(events):
    segmenter = Segmenter(FloodNetwork(), device="cpu")
    annotator = Annotator(lambda plane: PIXELS[plane], SHAPE, segmenter)
    mirror = np.zeros(SHAPE, np.int32)
    applied = []
    depth = 0
    for step, raw in enumerate([ev.ObjectCreated(1), *events]):
        event = aimed(raw, annotator, step)
        locked = {i: mirror == i for i, o in annotator.objects.items() if o.locked}
        before = mirror.copy()
        try:
            change = annotator.apply(event)
        except CfrSegError:
            assert np.array_equal(annotator.labels(), before)
            continue
        applied.append(event)
        for patch in change.patches:
            mirror[patch.indices()] = patch.values()
        assert np.array_equal(mirror, annotator.labels())
        assert set(np.unique(mirror)) - {0} <= set(annotator.objects)
        if not isinstance(event, ev.Undone | ev.Redone):
            for object_id, mask in locked.items():
                assert np.array_equal(mirror == object_id, mask)
        depth = change.undo_depth
    assert np.array_equal(replay(applied, PIXELS, segmenter), mirror)
    for _ in range(depth):
        annotator.apply(ev.Undone())
    assert not annotator.labels().any()
    for _ in range(depth):
        annotator.apply(ev.Redone())
    assert np.array_equal(annotator.labels(), mirror)
