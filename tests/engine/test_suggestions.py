"""Suggestions on discs that a network in closed form finds."""

from __future__ import annotations

import numpy as np
import pytest
from similarity import SimilarityNetwork

from napari_cfrseg.engine.likeness import Seed
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.engine.stages import Answer, Stages
from napari_cfrseg.engine.suggestions import (
    Suggester,
    Verdict,
    shared,
    weights_after,
)
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Window, shape_of, slices
from napari_cfrseg.io.plane_image import open_plane

RADIUS = 9
PLACES = [(20 + 40 * y, 22 + 40 * x) for y in range(6) for x in range(8)]


@pytest.fixture(scope="module")
def discs() -> np.ndarray:
    """Noise of little contrast with bright discs; one large square that is none."""
    rng = np.random.default_rng(3)
    image = rng.normal(60, 4, (320, 340))
    for y, x in PLACES:
        image[_disc(y, x)] += 120
    image[262:312, 40:300] += 120
    return np.clip(image, 0, 255).astype(np.uint8)


def _disc(y: int, x: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices((320, 340))
    return np.nonzero((rows - y) ** 2 + (columns - x) ** 2 <= RADIUS**2)


def _mask(y: int, x: int) -> MaskPatch:
    plane = np.zeros((320, 340), bool)
    plane[_disc(y, x)] = True
    return MaskPatch.from_mask(plane)


@pytest.fixture(scope="module")
def segmenter(discs: np.ndarray) -> Segmenter:
    found = Segmenter(SimilarityNetwork(64), device="cpu")
    found.set_image(discs)
    return found


def _all(segmenter: Segmenter, finished: list[MaskPatch], **kwargs: object) -> list:
    def taken(box: tuple[int, int, int, int]) -> np.ndarray:
        return np.any([mask.window(box) for mask in finished], axis=0)

    known = segmenter.learn(finished)
    batches = list(segmenter.suggest(known, taken=taken, **kwargs))
    assert batches[-1].done == batches[-1].total
    return [s for batch in batches for s in batch.found]


def test_other_discs_are_proposed_once_and_the_finished_ones_not(segmenter):
    finished = [_mask(*place) for place in PLACES[:3]]
    found = _all(segmenter, finished)
    good = [s for s in found if s.score >= 0.5]
    for place in PLACES[3:]:
        hits = [s for s in good if shared(s.mask, _mask(*place)) > 0.9]
        assert len(hits) == 1, place
    for suggestion in found:
        assert max(shared(suggestion.mask, mask) for mask in finished) == 0
    square = [s for s in good if s.mask.area > 2 * finished[0].area]
    assert square == []


def test_objects_of_an_almost_empty_field_are_seen_apart():
    """The sample shows noise: without more, discs and what is under them are white."""
    field = np.random.default_rng(0).integers(0, 8, (4000, 4000)).astype(np.uint16)
    field[2000:2110, 2000:2110] = 500
    places = [(2015 + 26 * y, 2015 + 26 * x) for y in range(4) for x in range(4)]
    rows, columns = np.indices((13, 13)) - 6
    disc = rows**2 + columns**2 <= 36
    masks = [MaskPatch.from_mask(disc, (y - 6, x - 6)) for y, x in places]
    for mask in masks:
        field[slices(mask.box)][disc] = 900
    made = Segmenter(SimilarityNetwork(64), device="cpu")
    made.set_image(field)
    known = made.learn(masks[:3])
    batches = made.suggest(known, region=(1990, 1990, 2120, 2120))
    found = [s for batch in batches for s in batch.found if s.score >= 0.5]
    hits = [any(shared(s.mask, mask) > 0.8 for s in found) for mask in masks[3:]]
    assert np.mean(hits) > 0.8


def test_a_mask_that_is_not_sure_is_looked_at_again_from_its_middle(segmenter, discs):
    known = segmenter.learn([_mask(*place) for place in PLACES[:3]])
    stages = Stages(segmenter.network, "cpu")
    taken = np.zeros(discs.shape, bool)
    suggester = Suggester(
        stages, open_plane(discs), known, lambda box: taken[slices(box)]
    )
    y, x = PLACES[20]
    (sure,) = suggester.answer([Seed((y - 6, x + 2), 2.0 * RADIUS, 1.0)])
    assert sure.seed == (y - 6, x + 2)
    edge = Seed((y - RADIUS + 1, x), 1.5 * RADIUS, 1.0)  # its window cuts the disc
    (again,) = suggester.answer([edge])
    assert again.seed == (y, x)
    for found in (sure, again):
        assert shared(found.mask, _mask(y, x)) > 0.95


def test_a_mask_is_cut_where_its_border_is_like_those_of_the_finished(segmenter, discs):
    """Here the network is half sure 2.5 pixels within the disc's border."""
    image = open_plane(discs)
    known = segmenter.learn([_mask(*place) for place in PLACES[:3]])
    stages = Stages(segmenter.network, "cpu")
    suggester = Suggester(
        stages, image, known, lambda box: np.zeros(shape_of(box), bool)
    )
    y, x = PLACES[20]
    window = Window.centred((y, x), 48, 64, discs.shape)
    rows, columns = (np.indices((64, 64)) + 0.5) * 0.75 - 0.5
    away = np.hypot(rows - (y - window.y0), columns - (x - window.x0))
    probability = np.clip(0.5 + (RADIUS - 2.5 - away) / 20, 0, 1).astype(np.float32)
    answer = Answer(window, image.crop(window), probability, 0.9)
    found = suggester._judged(Seed((y, x), 2.0 * RADIUS, 1.0), answer)
    assert found is not None
    area, truth = found[0].mask.area, _mask(y, x)
    common = shared(found[0].mask, truth) * min(area, truth.area)
    assert common / (area + truth.area - common) > 0.85


def test_only_the_region_is_searched(segmenter):
    finished = [_mask(*place) for place in PLACES[:3]]
    found = _all(segmenter, finished, region=(100, 100, 200, 200))
    assert found
    assert all(100 <= y < 200 and 100 <= x < 200 for y, x in (s.seed for s in found))


def test_what_was_rejected_does_not_come_again_and_the_like_score_less(segmenter):
    finished = [_mask(*place) for place in PLACES[:3]]
    before = {s.seed: s for s in _all(segmenter, finished)}
    rejected = list(before.values())[:4]
    verdicts = [Verdict(s.mask, s.traits, right=False) for s in rejected]
    after = {s.seed: s for s in _all(segmenter, finished, verdicts=verdicts)}
    assert not after.keys() & {s.seed for s in rejected}
    both = before.keys() & after.keys()
    assert len(both) > 30
    assert all(after[seed].score < before[seed].score for seed in both)


def test_verdicts_move_the_weights_towards_them(segmenter):
    finished = [_mask(*place) for place in PLACES[:3]]
    found = _all(segmenter, finished)[0]
    plain = weights_after(())
    for right, sign in ((True, 1), (False, -1)):
        moved = weights_after([Verdict(found.mask, found.traits, right)])
        assert sign * (moved[-1] - plain[-1]) > 0


def test_one_finished_object_is_enough_and_none_is_refused(segmenter):
    assert len(_all(segmenter, [_mask(*PLACES[0])])) >= 40
    with pytest.raises(ValueError, match="finished"):
        segmenter.learn([MaskPatch.empty()])


def test_objects_of_very_different_sizes_are_found_together():
    """Grey values smoothed for the large ones show none of the small ones."""
    image = np.random.default_rng(3).normal(60, 8, (320, 340))
    rows, columns = np.indices(image.shape)
    small = [(20, x) for x in range(20, 330, 40)]
    large = [(y, x) for y in (100, 240) for x in (60, 170, 280)]
    discs = {
        (y, x): (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        for places, radius in ((small, 3), (large, 40))
        for y, x in places
    }
    for inside in discs.values():
        image[inside] += 60
    segmenter = Segmenter(SimilarityNetwork(64), device="cpu")
    segmenter.set_image(np.clip(image, 0, 255).astype(np.uint8))
    finished = [MaskPatch.from_mask(discs[at]) for at in (small[0], *large[:2])]
    found = _all(segmenter, finished)
    shown = np.any([s.mask.to_mask(image.shape) for s in found], axis=0)
    hit = {at for at in discs if shown[at]}
    assert {*large[2:]} <= hit
    assert len({*small[1:]} & hit) >= 6


def speckles_first(seeds_in):
    """Return the search for seeds with a hundred in one place before the others."""

    def found(self, tile):
        more = [Seed((250 + i // 10, 250 + i % 10), 18.0, 9.0) for i in range(100)]
        return more + seeds_in(self, tile)

    return found


def test_strong_blobs_of_a_texture_do_not_end_the_search(monkeypatch):
    image = np.full((320, 340), 60.0)
    for y, x in PLACES[:24]:
        image[_disc(y, x)] += 60
    segmenter = Segmenter(SimilarityNetwork(64), device="cpu")
    segmenter.set_image(np.clip(image, 0, 255).astype(np.uint8))
    monkeypatch.setattr(Suggester, "seeds_in", speckles_first(Suggester.seeds_in))
    found = _all(segmenter, [_mask(*place) for place in PLACES[:3]])
    hit = [
        p for p in PLACES[3:24] if any(shared(s.mask, _mask(*p)) > 0.9 for s in found)
    ]
    assert len(hit) >= 20


def test_tiles_do_not_change_what_is_found(segmenter, monkeypatch):
    finished = [_mask(*place) for place in PLACES[:3]]
    known = segmenter.learn(finished)
    one = {s.mask.box for b in segmenter.suggest(known) for s in b.found}
    parts = set()
    for region in ((0, 0, 160, 340), (160, 0, 320, 340)):
        batches = segmenter.suggest(known, region=region)
        parts |= {s.mask.box for b in batches for s in b.found if s.score >= 0.5}
    sure = (s for b in segmenter.suggest(known) for s in b.found if s.score >= 0.5)
    good = {s.mask.box for s in sure}
    assert good <= one
    assert len(good ^ parts) <= 1
