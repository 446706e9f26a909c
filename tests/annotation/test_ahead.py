"""A click computed ahead of it gives the same labels, sooner, and changes nothing."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from engine_networks import NestedNetwork, nested_image

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.io.tiled_labels import label_runs

PIXELS = nested_image()
CREATED = ev.ObjectCreated(1)
CLICK = ev.ClickAdded(1, (), (100.0, 100.0), True, 1)
NEXT = ev.ClickAdded(1, (), (104.0, 104.0), True, 2)
TAKEN = ev.ClickAdded(2, (), (100.0, 100.0), True, 3)


def annotator(network: NestedNetwork) -> Annotator:
    segmenter = Segmenter(network, device="cpu")
    return Annotator(lambda plane: PIXELS[plane], PIXELS.shape, segmenter)


def nothing() -> None:
    """Let the work go on."""


def test_the_click_gives_what_was_computed_ahead_and_runs_no_network():
    network = NestedNetwork(64)
    made, plain = annotator(network), annotator(NestedNetwork(64))
    for step in ((CREATED, CLICK), (NEXT,)):
        expected = made.look_ahead(*step, check=nothing)
        calls = dict(network.calls)
        made.apply(*step)
        assert network.calls == calls
        plain.apply(*step)
        found = made.labels() == 1
        assert np.array_equal(found, expected.to_mask(PIXELS.shape))
        assert np.array_equal(made.labels(), plain.labels())


def test_looking_ahead_changes_nothing():
    made = annotator(NestedNetwork(64))
    assert made.look_ahead(CREATED, CLICK, check=nothing).area
    assert not made.objects
    assert not made.labels().any()
    change = made.apply(CREATED, CLICK)
    assert change.undo_depth == 1


def test_a_click_on_an_imported_mask_is_computed_ahead_from_that_mask():
    made, plain = annotator(NestedNetwork(64)), annotator(NestedNetwork(64))
    mask = np.zeros(PIXELS.shape, np.int32)
    mask[80:90, 80:90] = 1
    for one in (made, plain):
        one.apply(CREATED)
        one.apply(ev.MaskImported(1, (), label_runs(mask)))
    expected = made.look_ahead(CLICK, check=nothing)
    made.apply(CLICK)
    plain.apply(CLICK)
    assert np.array_equal(made.labels(), plain.labels())
    assert np.array_equal(made.labels() == 1, expected.to_mask(PIXELS.shape))


def test_another_place_than_the_one_looked_at_is_computed():
    made, plain = annotator(NestedNetwork(64)), annotator(NestedNetwork(64))
    made.look_ahead(CREATED, CLICK, check=nothing)
    elsewhere = ev.ClickAdded(1, (), (20.0, 30.0), True, 1)
    made.apply(CREATED, elsewhere)
    plain.apply(CREATED, elsewhere)
    assert np.array_equal(made.labels(), plain.labels())


def test_work_that_gives_way_keeps_what_was_embedded():
    network = NestedNetwork(64)
    made = annotator(network)
    runs = []

    def check() -> None:
        runs.append(1)
        if len(runs) == 4:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        made.look_ahead(CREATED, CLICK, check=check)
    before = network.calls["embed_image"]
    made.apply(CREATED, CLICK)
    alone = NestedNetwork(64)
    annotator(alone).apply(CREATED, CLICK)
    assert before > 0
    # windows looked at one by one: none is looked at ahead in vain
    assert network.calls["embed_image"] <= alone.calls["embed_image"]


def test_pixels_that_a_neighbour_keeps_are_not_expected():
    made = annotator(NestedNetwork(64))
    made.apply(CREATED, CLICK)
    second = ev.ObjectCreated(2)
    assert not made.look_ahead(second, TAKEN, check=nothing).area
    made.apply(ev.OverlapChanged(ev.OverlapRule.OVERWRITE))
    assert made.look_ahead(second, TAKEN, check=nothing).area
    made.apply(ev.ObjectLocked(1, True))
    assert not made.look_ahead(second, TAKEN, check=nothing).area


def test_a_trial_says_how_long_a_first_click_takes():
    assert 0 < annotator(NestedNetwork(64)).first_click_s(()) < 60


def test_an_image_that_cannot_be_read_is_read_once_for_a_click_and_again_for_the_next():
    reads = []

    def pixels(plane):
        reads.append(plane)
        if len(reads) == 1:
            raise OSError("the store does not answer")
        return PIXELS[plane]

    segmenter = Segmenter(NestedNetwork(64), device="cpu")
    made = Annotator(pixels, PIXELS.shape, segmenter)
    for act in (partial(made.look_ahead, check=nothing), made.apply):
        with pytest.raises(OSError, match="does not answer"):
            act(CREATED, CLICK)
    assert len(reads) == 1
    assert made.apply(CREATED, CLICK).patches
