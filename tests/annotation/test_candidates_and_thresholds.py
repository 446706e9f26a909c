"""The first click's other masks and moved outlines, in the annotator and its file."""

from __future__ import annotations

import numpy as np
import pytest
from engine_networks import NestedNetwork, ShownNetwork, nested_image

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.event_fields import event_line, read_event
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import SessionError
from napari_cfrseg.session.session_file import migrated

PIXELS = nested_image()


def annotator(network: object) -> Annotator:
    segmenter = Segmenter(network, device="cpu")
    return Annotator(lambda plane: PIXELS[plane], PIXELS.shape, segmenter)


def areas(made: Annotator, *events: ev.Event) -> list[int]:
    found = []
    for event in events:
        made.apply(event)
        found.append(int((made.labels() == 1).sum()))
    return found


CREATED = ev.ObjectCreated(1)
CLICK = ev.ClickAdded(1, (), (100.0, 100.0), True, 1)
NEXT = ev.ClickAdded(1, (), (104.0, 104.0), True, 2)


def test_another_candidate_is_one_undo_step_and_runs_no_network():
    network = NestedNetwork(64)
    made = annotator(network)
    _, best = areas(made, CREATED, CLICK)
    calls = dict(network.calls)
    second, undone, redone, back = areas(
        made,
        ev.CandidateChosen(1, 1),
        ev.Undone(),
        ev.Redone(),
        ev.CandidateChosen(1, 0),
    )
    assert network.calls == calls
    assert second != best
    assert (undone, redone, back) == (best, second, best)
    with pytest.raises(SessionError, match="no click 5"):
        made.apply(ev.CandidateChosen(5, 1))


def test_masks_of_an_object_finished_long_ago_are_computed_again():
    alone, among_others = annotator(NestedNetwork(64)), annotator(NestedNetwork(64))
    _, best, second = areas(alone, CREATED, CLICK, ev.CandidateChosen(1, 1))
    areas(among_others, CREATED, CLICK)
    for other in range(2, 12):
        among_others.apply(ev.ObjectCreated(other))
        click = ev.ClickAdded(other, (), (90.0 + other, 100.0), True, other)
        among_others.apply(click)
        among_others.apply(ev.ObjectDeleted(other))
    (rounds,) = among_others.objects[1].on(()).rounds
    assert rounds.masks >= 2
    assert rounds.prediction.choices == ()
    assert areas(
        among_others, ev.CandidateChosen(1, 1), ev.Undone(), ev.CandidateChosen(1, 0)
    ) == [second, best, best]


def test_replay_and_a_choice_before_later_clicks_give_the_same_labels():
    live = annotator(NestedNetwork(64))
    events = [CREATED, CLICK, ev.CandidateChosen(1, 1), NEXT]
    areas(live, *events)
    again = annotator(NestedNetwork(64))
    areas(again, CREATED, CLICK, NEXT, ev.CandidateChosen(1, 1))
    assert np.array_equal(live.labels(), again.labels())
    # a click that is moved back and forth keeps its candidate
    there, here = (((1, (99.0, 100.0)),), ((1, (100.0, 100.0)),))
    areas(live, ev.ClicksMoved(there), ev.ClicksMoved(here))
    assert np.array_equal(live.labels(), again.labels())


def test_the_next_click_corrects_the_mask_at_the_objects_threshold():
    network = ShownNetwork(64)
    made = annotator(network)
    _, _, shown = areas(made, CREATED, CLICK, ev.ThresholdChanged(1, 0.2))
    (after,) = areas(made, NEXT)
    entries = made.objects[1].on(()).entries
    assert [entry.threshold for entry in entries] == [0.5, 0.2]
    assert after == pytest.approx(shown, rel=0.1)


def test_several_positions_of_the_slider_are_one_undo_step():
    made = annotator(ShownNetwork(64))
    _, first = areas(made, CREATED, CLICK)
    moved = areas(made, *(ev.ThresholdChanged(1, t) for t in (0.4, 0.3, 0.2)))
    assert moved[-1] > first
    assert areas(made, ev.Undone()) == [first]


def test_clicks_of_older_files_correct_the_mask_cut_at_one_half():
    raw = {
        "schema_version": 2,
        "events": [
            {"type": "object_created", "object": 1, "threshold": 0.3},
            {"type": "click_added", "object": 1, "click": 1},
        ],
    }
    events = migrated(raw, 3)["events"]
    assert events[0] == raw["events"][0]
    assert events[1]["threshold"] == 0.5
    plain = {"schema_version": 2, "events": [raw["events"][1]]}
    assert migrated(plain, 3)["events"] == plain["events"]


def test_a_session_keeps_the_candidate():
    chosen = ev.CandidateChosen(1, 2)
    line = event_line(chosen)
    assert line == '{"type": "candidate_chosen", "click": 1, "candidate": 2}'
    assert read_event({"type": "candidate_chosen", "click": 1, "candidate": 2}) == (
        chosen
    )
    with pytest.raises(SessionError, match="candidate"):
        ev.CandidateChosen(1, -1)
