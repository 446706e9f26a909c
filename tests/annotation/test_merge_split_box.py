"""Merging and splitting objects, clicks in a dragged box, and strokes of clicks."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import FloodNetwork
from replayed import replay

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import LockedObjectError, SessionError
from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.session.session import objects_after

SHAPE = (80, 100)
LEFT, RIGHT = (slice(10, 30), slice(10, 30)), (slice(10, 30), slice(60, 80))


def image() -> np.ndarray:
    pixels = np.zeros(SHAPE, np.uint8)
    pixels[LEFT] = pixels[RIGHT] = 200
    return pixels


@pytest.fixture
def annotator() -> Annotator:
    pixels = image()
    network = Segmenter(FloodNetwork(), device="cpu")
    return Annotator(lambda plane: pixels[plane], SHAPE, network)


def imported(*masks, plane=()) -> ev.LabelsImported:
    """Labels 1, 2, … in the masks."""
    labels = np.zeros(SHAPE, np.int32)
    for number, mask in enumerate(masks, 1):
        labels[mask] = number
    return ev.LabelsImported(plane, LabelRuns.from_labels(labels, labels > 0, SHAPE))


def apply(annotator: Annotator, *events: ev.Event) -> np.ndarray:
    for event in events:
        annotator.apply(event)
    return annotator.labels().copy()


CLICKED = (
    ev.ObjectCreated(1),
    ev.ClickAdded(1, (), (20, 20), True, 1),
    ev.ObjectCreated(2),
    ev.ClickAdded(2, (), (20, 70), True, 2),
)


@pytest.mark.parametrize("begun", [CLICKED, (imported(LEFT, RIGHT),)], ids=str)
def test_merged_object_has_the_pixels_of_both_in_one_step(annotator, begun):
    apart = apply(annotator, *begun)
    depth = annotator.apply(ev.ObjectClassified(1, "cell")).undo_depth
    change = annotator.apply(ev.ObjectsMerged((1, 2)))
    assert change.undo_depth == depth + 1
    assert set(annotator.objects) == {1}
    assert np.array_equal(annotator.labels() == 1, apart > 0)
    apply(annotator, ev.Undone())
    assert set(annotator.objects) == {1, 2}
    assert np.array_equal(annotator.labels(), apart)
    assert np.array_equal(apply(annotator, ev.Redone()) == 1, apart > 0)


def test_merged_pixels_stay_after_the_next_click_and_give_way_to_a_negative_one(
    annotator,
):
    merged = apply(annotator, *CLICKED, ev.ObjectsMerged((1, 2)))
    after = apply(annotator, ev.ClickAdded(1, (), (12, 12), True, 3))
    assert np.array_equal(after[RIGHT], merged[RIGHT])
    after = apply(annotator, ev.ClickAdded(1, (), (20, 70), False, 4))
    assert not after[RIGHT].any()
    assert after[20, 20] == 1


def test_locked_objects_are_not_merged(annotator):
    before = apply(annotator, *CLICKED, ev.ObjectLocked(2, True))
    with pytest.raises(LockedObjectError):
        annotator.apply(ev.ObjectsMerged((1, 2)))
    assert np.array_equal(annotator.labels(), before)
    assert set(annotator.objects) == {1, 2}


def test_split_part_is_an_object_of_its_own(annotator):
    both = np.zeros(SHAPE, bool)
    both[LEFT] = both[RIGHT] = True
    before = apply(annotator, imported(both), ev.ObjectClassified(1, "cell"))
    after = apply(annotator, ev.ObjectSplit(1, (), (20, 70), 2))
    assert (after[RIGHT] == 2).all()
    assert (after[LEFT] == 1).all()
    assert annotator.objects[2].object_class == "cell"
    after = apply(annotator, ev.ClickAdded(2, (), (12, 62), True, 1))
    assert after[20, 70] == 2
    assert (after[LEFT] == 1).all()
    apply(annotator, ev.Undone())
    assert np.array_equal(apply(annotator, ev.Undone()), before)
    assert set(annotator.objects) == {1}


@pytest.mark.parametrize("place", [(20, 20), (50, 50)])
def test_nothing_is_split_from_an_object_of_one_part_or_beside_it(annotator, place):
    before = apply(annotator, *CLICKED)
    with pytest.raises(SessionError, match="no part of its own"):
        annotator.apply(ev.ObjectSplit(1, (), place, 3))
    assert np.array_equal(annotator.labels(), before)
    assert set(annotator.objects) == {1, 2}


def test_box_ends_the_first_mask_and_later_clicks_go_beyond(annotator):
    box = (8, 8, 32, 20)
    first = ev.ClickAdded(1, (), (20, 14), True, 1, box=box)
    labels = apply(annotator, ev.ObjectCreated(1), first)
    assert labels[20, 14] == labels[20, 19] == 1
    assert not labels[:, 20:].any()
    labels = apply(annotator, ev.ClickAdded(1, (), (20, 27), True, 2))
    assert labels[20, 27] == 1


def test_a_click_beside_its_box_is_refused():
    with pytest.raises(SessionError, match="not in its box"):
        ev.ClickAdded(1, (), (20, 40), True, 1, box=(8, 8, 32, 20))


def test_clicks_of_a_stroke_are_one_step(annotator):
    clicks = [
        ev.ClickAdded(1, (), (20, x), True, x, stroke=x > 12) for x in (12, 18, 25)
    ]
    change = annotator.apply(ev.ObjectCreated(1), *clicks)
    assert change.undo_depth == 1
    assert annotator.objects[1].click_count == 3
    assert not apply(annotator, ev.Undone()).any()


def test_replay_and_summary_agree_with_the_live_annotator(annotator):
    both = np.zeros(SHAPE, bool)
    both[LEFT] = both[RIGHT] = True
    events = (
        imported(both),
        ev.ObjectSplit(1, (), (20, 70), 2),
        ev.ObjectCreated(3),
        ev.ClickAdded(3, (), (40, 50), True, 1, box=(30, 40, 50, 60)),
        ev.ClickAdded(3, (), (40, 52), True, 2, stroke=True),
        ev.ObjectsMerged((2, 3)),
        ev.Undone(),
        ev.Redone(),
        ev.ClickAdded(2, (), (12, 62), True, 4),
    )
    live = apply(annotator, *events)
    network = Segmenter(FloodNetwork(), device="cpu")
    assert np.array_equal(replay(events, image(), network), live)
    summary = objects_after(events, SHAPE)
    assert [o.object_id for o in summary] == sorted(annotator.objects)
    for found in summary:
        own = annotator.objects[found.object_id]
        assert found.click_count == own.click_count
        assert set(found.planes) == set(own.planes)


def test_a_stroke_is_not_joined_to_the_click_before_it(annotator):
    apply(annotator, *CLICKED[:2])
    stroke = [ev.ClickAdded(1, (), (20, x), True, x, stroke=x > 12) for x in (12, 25)]
    assert annotator.apply(*stroke).undo_depth == 2
    apply(annotator, ev.Undone())
    assert annotator.objects[1].click_count == 1
