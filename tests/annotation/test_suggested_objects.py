"""Suggestions that become objects, are rejected, corrected, undone and replayed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from similarity import SimilarityNetwork

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.event_fields import event_line, read_event
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.engine.suggestions import Batch
from napari_cfrseg.errors import SessionError
from napari_cfrseg.session.session import objects_after

SHAPE = (120, 140)
PLACES = [(20 + 40 * y, 22 + 40 * x) for y in range(3) for x in range(3)]


def _image() -> np.ndarray:
    image = np.random.default_rng(3).normal(60, 4, SHAPE)
    rows, columns = np.indices(SHAPE)
    for y, x in PLACES:
        image[(rows - y) ** 2 + (columns - x) ** 2 <= 81] += 120
    return np.clip(image, 0, 255).astype(np.uint8)


def _annotator() -> Annotator:
    image = _image()
    segmenter = Segmenter(SimilarityNetwork(64), device="cpu")
    return Annotator(lambda _: image, SHAPE, segmenter)


@pytest.fixture
def annotator() -> Annotator:
    """Three objects are finished; its events are recorded in ``recorded``."""
    made = _annotator()
    made.recorded = []
    for number, (y, x) in enumerate(PLACES[:3], 1):
        click = ev.ClickAdded(number, (), (float(y), float(x)), True, number)
        _do(made, ev.ObjectCreated(number), click)
    return made


def _do(annotator: Annotator, *events: ev.Event) -> None:
    annotator.recorded += annotator.apply(*events).events


def _proposals(annotator: Annotator) -> list[ev.Proposal]:
    found = [s for batch in annotator.suggest() for s in batch.found]
    return [ev.Proposal.of(s, SHAPE) for s in found if s.score > 0.5]


def _discs(proposals: list[ev.Proposal]) -> list[tuple[int, int]]:
    """Return the middles of the discs that each proposal is on."""
    return sorted(
        min(PLACES, key=lambda place: math.dist(place, p.yx)) for p in proposals
    )


def test_the_other_discs_are_suggested_and_nothing_changes(annotator):
    before = annotator.labels().copy()
    proposals = _proposals(annotator)
    assert _discs(proposals) == PLACES[3:]
    for proposal in proposals:
        rows, columns = proposal.mask.indices()
        middle = (rows.mean(), columns.mean())
        assert np.allclose(middle, _discs([proposal])[0], atol=3)
    assert (annotator.labels() == before).all()
    assert len(annotator.objects) == 3


def test_accepting_many_is_one_step_and_a_correction_starts_from_the_mask(annotator):
    proposals = _proposals(annotator)
    _do(annotator, ev.SuggestionsAccepted(4, (), 4, tuple(proposals)))
    assert len(annotator.objects) == 9
    for number, proposal in enumerate(proposals, 4):
        assert np.count_nonzero(annotator.labels() == number) == proposal.mask.size
        assert annotator.objects[number].is_as_suggested()
    y, x = proposals[0].yx
    _do(annotator, ev.ClickAdded(4, (), (y - 6, x), False, 20))
    corrected = annotator.objects[4]
    assert not corrected.is_as_suggested()
    assert corrected.click_count == 2
    assert annotator.labels()[round(y - 6), round(x)] == 0
    assert annotator.labels()[round(y + 3), round(x)] == 4
    _do(annotator, ev.Undone())
    _do(annotator, ev.Undone())
    assert len(annotator.objects) == 3
    assert annotator.judged == ()
    _do(annotator, ev.Redone())
    assert len(annotator.judged) == 6


def test_a_rejected_one_is_not_suggested_again_until_undone(annotator):
    proposals = _proposals(annotator)
    _do(annotator, ev.SuggestionsRejected((), (proposals[0],)))
    assert _discs(_proposals(annotator)) == _discs(proposals[1:])
    _do(annotator, ev.Undone())
    assert _discs(_proposals(annotator)) == _discs(proposals)


def test_a_replay_of_the_written_events_gives_the_same_labels(annotator):
    proposals = _proposals(annotator)
    seeds = tuple((*p.yx, p.score) for p in proposals)
    _do(annotator, ev.ObjectsSuggested((), seeds))
    _do(annotator, ev.SuggestionsAccepted(4, (), 4, tuple(proposals[:2])))
    _do(annotator, ev.SuggestionsRejected((), (proposals[2],)))
    _do(annotator, ev.Undone())
    y, x = proposals[1].yx
    _do(annotator, ev.ClickAdded(5, (), (y + 7, x), False, 20))
    lines = [event_line(event) for event in annotator.recorded]
    events = [read_event(json.loads(line)) for line in lines]
    replayed = _annotator()
    for event in events:
        replayed.apply(event)
    assert (replayed.labels() == annotator.labels()).all()
    assert len(replayed.judged) == len(annotator.judged) == 2
    summary = objects_after(events, SHAPE)
    assert [o.click_count for o in summary] == [1, 1, 1, 1, 2]


def test_what_was_learnt_serves_another_image(annotator):
    other = _annotator()
    known = annotator.learn()
    found = [s for batch in other.suggest(known=known) for s in batch.found]
    assert len([s for s in found if s.score > 0.5]) == len(PLACES)


def test_without_an_object_and_with_a_taken_number_it_is_refused(annotator):
    with pytest.raises(SessionError, match="Finish an object first"):
        _annotator().suggest()
    proposals = _proposals(annotator)
    with pytest.raises(SessionError, match="exists already"):
        annotator.apply(ev.SuggestionsAccepted(3, (), 9, (proposals[0],)))
    with pytest.raises(SessionError, match="used twice"):
        annotator.apply(ev.SuggestionsAccepted(4, (), 3, (proposals[0],)))
    assert len(annotator.objects) == 3


def test_objects_of_the_plane_before_are_suggested_first_and_continued():
    images = np.stack([_image(), np.roll(_image(), 3, axis=1)])
    segmenter = Segmenter(SimilarityNetwork(64), device="cpu")
    annotator = Annotator(lambda plane: images[plane], SHAPE, segmenter)
    annotator.recorded = []
    for number, (y, x) in enumerate(PLACES[:3], 1):
        click = ev.ClickAdded(number, (0,), (float(y), float(x)), True, number)
        _do(annotator, ev.ObjectCreated(number), click)
    found = [s for batch in annotator.suggest((1,), along=0) for s in batch.found]
    assert sorted(s.continues for s in found[:3]) == [1, 2, 3]
    assert not any(s.continues for s in found[3:])
    others = [s for s in found[3:] if s.score > 0.5]
    assert np.allclose(
        sorted(s.seed for s in others), np.add(PLACES[3:], (0, 3)), atol=3
    )
    # what was found before is not searched for again
    earlier = [Batch(tuple(found), 1, 1, (0, 0, *SHAPE))]
    again = annotator.suggest((1,), along=0, earlier=earlier)
    assert [s for batch in again for s in batch.found] == []
    proposals = tuple(ev.Proposal.of(s, SHAPE) for s in found[:2] + others[:1])
    _do(annotator, ev.SuggestionsAccepted(4, (1,), 4, proposals))
    assert sorted(annotator.objects) == [1, 2, 3, 6]
    for suggestion in found[:2]:
        whole = annotator.objects[suggestion.continues]
        assert whole.click_count == 2
        assert whole.is_as_suggested((1,))
        assert not whole.is_as_suggested()
    with pytest.raises(SessionError, match="already"):
        annotator.apply(ev.SuggestionsAccepted(9, (1,), 9, proposals[:1]))
    lines = [event_line(event) for event in annotator.recorded]
    replayed = Annotator(lambda plane: images[plane], SHAPE, segmenter)
    for line in lines:
        replayed.apply(read_event(json.loads(line)))
    assert (replayed.labels_array((2,)) == annotator.labels_array((2,))).all()
    # a rejected one does not come again
    third = ev.Proposal.of(found[2], SHAPE)
    _do(annotator, ev.SuggestionsRejected((1,), (third,)))
    found = [s for batch in annotator.suggest((1,), along=0) for s in batch.found]
    assert not any(s.continues for s in found)
    _do(annotator, ev.Undone())
    _do(annotator, ev.Undone())
    assert sorted(annotator.objects) == [1, 2, 3]
    assert not annotator.labels((1,)).any()
