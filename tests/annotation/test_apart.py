"""A click apart from its object begins the next one; a correction does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from closed_form import FloodNetwork

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.apart import is_apart
from napari_cfrseg.annotation.state import PlaneState, Round
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.io.tiled_labels import label_runs

DISC = np.hypot(*np.mgrid[-20:21, -20:21]) <= 20


def disc_at(mask, y, x):
    mask[y - 20 : y + 21, x - 20 : x + 21] |= DISC


def scene(*, gap=0, bridge=0, size=200):
    """Return a disc, and it beside another one ``gap`` px away or through a bridge."""
    before = np.zeros((size, size), bool)
    disc_at(before, 60, 60)
    after = before.copy()
    disc_at(after, 60, 101 + gap)
    if bridge:
        after[60 - bridge // 2 : 60 + (bridge + 1) // 2, 60 : 101 + gap] = True
    return begun(before), MaskPatch.from_mask(after)


def begun(mask, quality=None) -> PlaneState:
    """Return an object of one click with a mask, of a quality the network expects."""
    patch = MaskPatch.from_mask(mask)
    prediction = replace(Prediction.from_mask(mask), quality=quality)
    return PlaneState(start=patch, rounds=(Round(prediction),), mask=patch)


def alone(mask, quality=None):
    """Return what gives the click's mask as an object's first one."""
    return lambda: replace(Prediction.from_mask(mask), quality=quality)


def joins(before, after, place) -> bool:
    """Whether a click is a part of the mask: alone it would give the same object."""
    return not is_apart(before, after, place, alone(after.to_mask((1400, 1400)), 0.9))


@pytest.mark.parametrize(
    ("shape", "apart"),
    [
        ({"gap": 3}, True),
        ({"gap": 3, "bridge": 6}, True),  # a narrow neck
        ({"gap": 3, "bridge": 30}, False),  # as wide as the discs: one object
    ],
)
def test_the_part_of_the_click_is_compared_with_the_mask_before(shape, apart) -> None:
    assert joins(*scene(**shape), (60, 104)) is not apart


def test_a_rim_that_is_added_is_a_correction() -> None:
    before, after = np.zeros((2, 120, 120), bool)
    disc_at(before, 60, 60)
    disc_at(after, 60, 60)
    disc_at(after, 60, 68)
    assert joins(begun(before), MaskPatch.from_mask(after), (60, 84))


def test_a_mask_that_is_not_right_yet_is_corrected() -> None:
    """A first mask may be a dot in the middle of what was meant."""
    before, after = scene(gap=3)
    mask = before.mask.to_mask((200, 200))
    assert not joins(begun(mask, quality=0.8), after, (60, 104))
    assert joins(begun(mask, quality=0.5), after, (60, 104))


@pytest.mark.parametrize("scale", [1, 7])
def test_large_masks_are_compared_alike(scale) -> None:
    for bridge, apart in ((0, True), (30, False)):
        before, after = scene(gap=4, bridge=bridge)
        both = (one.to_mask((200, 200)) for one in (before.mask, after))
        before, after = (np.kron(one, np.ones((scale, scale), bool)) for one in both)
        place = (60 * scale, 105 * scale)
        patch = MaskPatch.from_mask(after)
        assert joins(begun(before), patch, place) is not apart


def test_without_a_mask_before_or_at_the_click_nothing_is_apart() -> None:
    before, after = scene(gap=3)
    assert joins(PlaneState(), after, (60, 104))
    assert joins(before, after, (60, 82))
    assert joins(before, after, (150, 150))


@pytest.mark.parametrize("quality", [0.8, 0.5])
@pytest.mark.parametrize(
    ("place", "found", "apart"),
    [
        ((60, 104), (60, 104), True),
        ((60, 104), (60, 78), False),  # alone it finds this object, too
        ((60, 84), (60, 104), False),  # at the rim: a correction
    ],
)
def test_fused_objects_are_told_by_the_click_alone(place, found, apart, quality):
    """Also where the network expects little of the mask before."""
    before, after = scene(gap=3, bridge=30)
    before = begun(before.mask.to_mask((200, 200)), quality)
    mask = np.zeros((200, 200), bool)
    disc_at(mask, *found)
    assert is_apart(before, after, place, alone(mask, 0.8)) is apart
    assert not is_apart(before, after, place, alone(mask, 0.5))
    assert not is_apart(before, after, place, alone(mask))


def pixels() -> np.ndarray:
    """Return two bright squares on black."""
    made = np.zeros((80, 100), np.uint8)
    made[10:30, 10:30] = 200
    made[10:30, 60:80] = 200
    return made


def click(object_id, y, x, click_id, is_positive=True):
    return ev.ClickAdded(object_id, (), (float(y), float(x)), is_positive, click_id)


def annotated() -> Annotator:
    """Return an annotator with the first square as object 1."""
    made = Annotator(
        lambda _: pixels(), (80, 100), Segmenter(FloodNetwork(), device="cpu")
    )
    made.apply(ev.ObjectCreated(1), click(1, 20, 20, 1))
    return made


NEXT = (ev.ObjectCreated(2), click(2, 20, 70, 2))


def test_a_click_apart_begins_the_object_as_its_own_events_do() -> None:
    made, by_hand = annotated(), annotated()
    change = made.apply(click(1, 20, 70, 2), if_apart=NEXT)
    by_hand.apply(*NEXT)
    assert [type(event) for event in change.events] == [ev.ObjectCreated, ev.ClickAdded]
    assert np.array_equal(made.labels(), by_hand.labels())
    assert made.objects[1].click_count == 1
    assert change.undo_depth == 2
    undone = made.apply(ev.Undone())
    assert set(undone.objects) == {1}
    assert not (made.labels() == 2).any()
    made.apply(ev.Redone())
    assert np.array_equal(made.labels(), by_hand.labels())


def test_a_click_that_joins_is_one_of_its_object() -> None:
    made, plain = annotated(), annotated()
    joins = click(1, 12, 12, 2)
    change = made.apply(joins, if_apart=(ev.ObjectCreated(2), click(2, 12, 12, 2)))
    plain.apply(joins)
    assert change.events[-1].object_id == 1
    assert set(made.objects) == {1}
    assert np.array_equal(made.labels(), plain.labels())


def test_no_network_decides_beside_a_locked_object_or_far_from_it() -> None:
    labels = np.zeros((80, 100), np.int32)
    labels[10:14, 10:14] = 1
    for event in (ev.ObjectLocked(1, True), ev.MaskImported(1, (), label_runs(labels))):
        made = annotated()
        made.apply(event)
        if isinstance(event, ev.MaskImported):
            made.apply(ev.ObjectReset(1, ()))
        change = made.apply(click(1, 20, 70, 2), if_apart=NEXT)
        assert set(change.objects) == {1, 2}
        assert change.runs == 1


def test_what_is_computed_ahead_is_the_object_that_begins() -> None:
    made, network = annotated(), FloodNetwork()
    network.for_inference = lambda: network
    made.use(Segmenter(network, device="cpu"))
    step = click(1, 20, 70, 2)
    expected = made.look_ahead(step, if_apart=NEXT, check=lambda: None)
    calls = dict(network.calls)
    made.apply(step, if_apart=NEXT)
    assert network.calls == calls
    assert np.array_equal(made.labels() == 2, expected.to_mask((80, 100)))


def test_events_instead_must_follow_each_other() -> None:
    made = annotated()
    wrong = (ev.ObjectCreated(2), ev.ObjectCreated(3))
    with pytest.raises(ValueError, match="does not continue"):
        made.apply(click(1, 20, 70, 2), if_apart=wrong)
