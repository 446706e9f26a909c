"""A click apart from its object begins the next one; a correction does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from closed_form import FloodNetwork

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.apart import is_part, leaves_out
from napari_cfrseg.annotation.state import PlaneState, Round
from napari_cfrseg.engine.focus import WindowEvidence
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.engine.window_search import Attempt, Look
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Window
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


def joins(before, after, place) -> bool:
    """Whether a click is a part of the mask."""
    return not is_part(before, after, place)


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


@pytest.mark.parametrize("scale", [1, 9])
@pytest.mark.parametrize(
    ("found", "quality", "is_left_out"),
    [
        ((60, 104), 0.8, True),
        ((60, 104), 0.5, False),  # hardly an object
        ((60, 78), 0.8, False),  # the object before, too
    ],
)
def test_a_likely_mask_beside_an_object_leaves_it_out(
    scale, found, quality, is_left_out
) -> None:
    before, alone = np.zeros((2, 200, 200), bool)
    disc_at(before, 60, 60)
    disc_at(alone, *found)
    mask = MaskPatch.from_mask(np.kron(before, np.ones((scale, scale), bool)))
    window = Window(20 * scale, 50 * scale, 96 * scale, grid=96)
    seen = alone[20:116, 50:146]
    attempt = Attempt(
        Look(window, None),
        seen.astype(np.float32),
        WindowEvidence(quality, 0.5, 0.0, 1.0, 1.0),
        0.9,
        quality,
    )
    assert leaves_out(mask, attempt) is is_left_out
    assert not leaves_out(mask, replace(attempt, evidence=None))  # misses the click
    assert not leaves_out(mask, replace(attempt, quality=None))


def pixels() -> np.ndarray:
    """Return two bright squares on black."""
    made = np.zeros((80, 100), np.uint8)
    made[10:30, 10:30] = 200
    made[10:30, 60:80] = 200
    return made


def click(object_id, y, x, click_id, is_positive=True):
    return ev.ClickAdded(object_id, (), (float(y), float(x)), is_positive, click_id)


class SureNetwork(FloodNetwork):
    """Expects a good mask everywhere."""

    def judge(self, output):
        return torch.full((len(output.logits),), 3.0)

    def for_inference(self):
        return self


def annotated(network=None) -> Annotator:
    """Return an annotator with the first square as object 1."""
    segmenter = Segmenter(network or FloodNetwork(), device="cpu")
    made = Annotator(lambda _: pixels(), (80, 100), segmenter)
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


def test_a_likely_object_costs_no_window_but_its_own() -> None:
    """No correction is computed that it is not, nor a window looked at twice."""
    asked, begun_by_hand = SureNetwork(), SureNetwork()
    made, by_hand = annotated(asked), annotated(begun_by_hand)
    near = (ev.ObjectCreated(2), click(2, 20, 64, 2))
    made.apply(click(1, 20, 64, 2), if_apart=near)
    by_hand.apply(*near)
    assert np.array_equal(made.labels(), by_hand.labels())
    assert set(made.objects) == {1, 2}
    assert asked.calls == begun_by_hand.calls


def test_an_image_that_cannot_be_read_is_read_once_for_a_click() -> None:
    reads = []

    def plane(_):
        reads.append(1)
        if len(reads) > 1:
            raise OSError("gone")
        return pixels()

    made = Annotator(plane, (80, 100), Segmenter(SureNetwork(), device="cpu"))
    made.apply(ev.ObjectCreated(1), click(1, 20, 20, 1))
    made.use(Segmenter(SureNetwork(), device="cpu"))  # it reads the plane again
    step = click(1, 20, 70, 2)
    for act in (
        lambda: made.look_ahead(step, if_apart=NEXT, check=lambda: None),
        lambda: made.apply(step, if_apart=NEXT),
    ):
        with pytest.raises(OSError, match="gone"):
            act()
    assert len(reads) == 2


def test_events_instead_must_follow_each_other() -> None:
    made = annotated()
    wrong = (ev.ObjectCreated(2), ev.ObjectCreated(3))
    with pytest.raises(ValueError, match="does not continue"):
        made.apply(click(1, 20, 70, 2), if_apart=wrong)
