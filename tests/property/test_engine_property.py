from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from similarity import SimilarityNetwork

from napari_cfrseg.clicks import Click, effective_clicks
from napari_cfrseg.engine.corrections import honour, violated
from napari_cfrseg.engine.focus import FocusSettings
from napari_cfrseg.engine.one_way import FROM_CLICK
from napari_cfrseg.engine.probability_patch import Patch
from napari_cfrseg.engine.refinement import Refinement, run_cascade
from napari_cfrseg.engine.segmenter import Segmenter

PLANE = (90, 120)

clicks = st.builds(
    Click,
    st.tuples(st.integers(0, PLANE[0] - 1), st.integers(0, PLANE[1] - 1)),
    st.booleans(),
)
click_lists = st.lists(clicks, min_size=1, max_size=6)
seeds = st.integers(0, 2**32 - 1)
refinements = st.sampled_from(
    [Refinement.standard(), Refinement.cfr(2), Refinement.adaptive(3)]
)
start_masks = st.none() | st.tuples(
    st.integers(0, 60), st.integers(0, 90), st.integers(1, 30), st.integers(1, 30)
)


def field(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (PLANE[0] // 15, PLANE[1] // 15), dtype=np.uint8)
    return np.kron(coarse, np.ones((15, 15), dtype=np.uint8))


def mask_of(box: tuple[int, int, int, int] | None) -> np.ndarray | None:
    if box is None:
        return None
    mask = np.zeros(PLANE, dtype=bool)
    mask[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = True
    return mask


def segmenter(seed: int, focus: FocusSettings | None = None, **options: object):
    made = Segmenter(SimilarityNetwork(16, **options), device="cpu", focus=focus)
    made.set_image(field(seed))
    return made


@settings(max_examples=40)
@given(click_lists, seeds, refinements, start_masks, st.booleans())
def test_every_click_is_honoured(listed, seed, refinement, start, stubborn):
    made = segmenter(seed, stubborn=stubborn)
    prediction = made.predict(listed, previous=mask_of(start), refinement=refinement)
    mask = prediction.mask
    if prediction.window is None:  # nothing to find, or clicks that change nothing
        began = mask_of(start)
        assert np.array_equal(mask, np.zeros(PLANE, bool) if began is None else began)
    for click in effective_clicks(listed):
        assert mask[click.pixel] == click.is_positive
        # the probability itself says so: it is what is stored and fed back
        (probability,) = prediction.patch.at_pixels(np.array([click.pixel]))
        assert (probability > 0.5) == click.is_positive
    for threshold in (0.1, 0.9):
        shown = prediction.mask_at(threshold)
        assert all(shown[c.pixel] == c.is_positive for c in effective_clicks(listed))


@settings(max_examples=25)
@given(click_lists, seeds, refinements, start_masks)
def test_the_mask_depends_on_image_start_and_clicks_only(
    listed, seed, refinement, start
):
    fresh = segmenter(seed).predict(
        listed, previous=mask_of(start), refinement=refinement
    )
    used = segmenter(seed)
    used.predict([Click((3, 3)), Click((50, 60), False)])  # fills the caches
    rounds, last = [], mask_of(start)
    for count in range(1, len(listed) + 1):
        last = used.predict(listed[:count], previous=last, refinement=refinement)
        rounds.append(last)
    assert np.array_equal(fresh.mask, last.mask)
    assert np.array_equal(fresh.probability_plane(), last.probability_plane())
    middle = len(listed) // 2
    before = rounds[middle - 1] if middle else mask_of(start)
    again = used.predict(
        listed, previous=before, refinement=refinement
    )  # undo, then redo
    assert np.array_equal(again.probability_plane(), last.probability_plane())


@settings(max_examples=40)
@given(
    st.lists(clicks, min_size=FROM_CLICK, max_size=7, unique_by=lambda c: c.pixel),
    seeds,
    refinements,
)
def test_a_late_click_only_adds_or_only_removes(listed, seed, refinement):
    made, masks = segmenter(seed, stubborn=True), []
    previous = None
    for count in range(1, len(listed) + 1):
        previous = made.predict(
            listed[:count], previous=previous, refinement=refinement
        )
        masks.append(previous.mask)
    for index in range(FROM_CLICK - 1, len(listed)):
        before, after, click = masks[index - 1], masks[index], listed[index]
        if click.is_positive and not before[click.pixel]:
            assert not (before & ~after).any()
        if not click.is_positive and before[click.pixel]:
            assert not (after & ~before).any()


@settings(max_examples=25)
@given(click_lists, seeds)
@example([Click((0, 29)), *(Click((0, 0), up) for up in (False, True, False))], 0)
def test_the_window_holds_the_newest_click_that_changes_something(listed, seed):
    made = segmenter(seed, FocusSettings(first_side=16, min_side=16, max_side=40))
    before = None
    for count in range(1, len(listed) + 1):
        click = listed[count - 1]
        made_now = made.predict(listed[:count], previous=before)
        if made_now.aside[-1:] == (click,):
            assert not click.is_positive
            assert made_now.window == before.window
            assert np.array_equal(made_now.mask, before.mask)
        elif made_now.window is not None:
            y, x = click.pixel
            assert made_now.window.holds((y, x, y + 1, x + 1))
            assert made_now.window.side <= 40
        before = made_now


@given(
    st.lists(clicks, min_size=1, max_size=12, unique_by=lambda c: c.pixel),
    st.floats(0.2, 60),
    st.floats(0.01, 0.99),
    seeds,
)
def test_one_pass_honours_all_clicks_at_any_threshold(listed, scale, threshold, seed):
    plane = np.random.default_rng(seed).random(PLANE, dtype=np.float32)
    patch, _ = honour(
        Patch(PLANE, 0, 0, plane), listed, threshold=threshold, px_per_cell=scale
    )
    assert violated(patch, listed, threshold) == []
    assert patch.probability.min(initial=0) >= 0
    assert patch.probability.max(initial=0) <= 1


@given(
    st.integers(0, 8),
    st.sampled_from(["cfr", "a-cfr"]),
    st.integers(0, 50),
    seeds,
    st.floats(0, 1),
)
def test_a_cascade_ends_and_rests_at_a_fixed_point(extra, kind, stop, seed, pull):
    target = np.random.default_rng(seed).random(400)

    def step(feedback, index):
        return target if feedback is None else feedback + pull * (target - feedback)

    refinement = Refinement(kind, extra, stop)
    start = np.random.default_rng(seed + 1).random(400)
    steps = run_cascade(step, start, refinement)
    assert 1 <= len(steps) <= extra + 1
    if kind == "cfr":
        assert len(steps) == extra + 1
    resting = run_cascade(step, target, refinement)
    assert np.array_equal(resting[-1] > 0.5, target > 0.5)
    if kind == "a-cfr" and extra:
        assert len(resting) == 2
