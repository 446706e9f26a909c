from __future__ import annotations

import numpy as np
import pytest

from napari_cfrseg.engine.refinement import Refinement, run_cascade


def growing(limit: int, by: int = 30):
    """A step that adds ``by`` mask pixels until ``limit``; counts its calls."""
    calls = []

    def step(feedback, index):
        calls.append(index)
        before = 0 if feedback is None else int((feedback > 0.5).sum())
        out = np.zeros(1000)
        out[: min(before + by, limit)] = 0.9
        return out

    return step, calls


@pytest.mark.parametrize(
    ("refinement", "limit", "steps"),
    [
        (Refinement.standard(), 900, 1),
        (Refinement.cfr(4), 900, 5),
        (Refinement.cfr(4), 30, 5),  # CFR-n goes on at a fixed point
        (Refinement.adaptive(4), 900, 5),  # never stops changing: n extra steps
        (Refinement.adaptive(4), 30, 2),  # the second evaluation changes nothing
        (Refinement.adaptive(4), 80, 3),  # 30, 60, 80: 20 changed pixels are few enough
        (Refinement.adaptive(4), 81, 4),  # 21 are not
        (Refinement.adaptive(4, stop_changed_px=30), 900, 2),
        (Refinement.cfr(0), 900, 1),
    ],
)
def test_how_many_steps_are_taken(refinement, limit, steps):
    step, calls = growing(limit)
    cascade = run_cascade(step, None, refinement)
    assert len(cascade) == steps
    assert calls == list(range(steps))
    assert int((cascade[-1] > 0.5).sum()) == min(30 * steps, limit)


def test_each_step_sees_the_one_before():
    seen = []

    def step(feedback, index):
        seen.append(feedback)
        return np.full(4, index / 10)

    start = np.full(4, 0.7)
    run_cascade(step, start, Refinement.cfr(2))
    assert seen[0] is start
    assert [s[0] for s in seen[1:]] == [0, 0.1]


def test_changes_that_do_not_cross_the_threshold_do_not_count():
    def step(feedback, index):
        return np.full(1000, 0.6 + 0.05 * index)

    assert len(run_cascade(step, None, Refinement.adaptive(9))) == 2


def test_listeners_hear_of_every_step_that_another_one_follows():
    heard = []
    step, _ = growing(900)
    run_cascade(
        step, None, Refinement.cfr(2), on_step=lambda p, i: heard.append((i, p.sum()))
    )
    assert [i for i, _ in heard] == [0, 1]
    assert [round(total / 0.9) for _, total in heard] == [30, 60]


@pytest.mark.parametrize(("limit", "expected"), [(30, [0]), (80, [0, 1])])
def test_listeners_do_not_hear_of_the_step_at_which_an_adaptive_one_stops(
    limit, expected
):
    heard = []
    step, _ = growing(limit)
    run_cascade(
        step, None, Refinement.adaptive(4), on_step=lambda _, i: heard.append(i)
    )
    assert heard == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("standard", Refinement.standard()),
        ("CFR-4", Refinement.cfr(4)),
        ("cfr2", Refinement.cfr(2)),
        ("A-CFR-4", Refinement.adaptive(4)),
        ("acfr-10", Refinement.adaptive(10)),
    ],
)
def test_names_are_read(name, expected):
    assert Refinement.parse(name) == expected
    assert Refinement.parse(str(expected)) == expected


def test_more_steps_than_anyone_waits_for_are_refused():
    with pytest.raises(ValueError, match="at most 1000 steps"):
        Refinement.parse("CFR-99999999")


@pytest.mark.parametrize("name", ["", "cfr", "cfr-x", "b-cfr-4", "cfr--1"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="standard, CFR-n or A-CFR-n"):
        Refinement.parse(name)


def test_impossible_refinements_are_refused():
    with pytest.raises(ValueError, match="negative"):
        Refinement.cfr(-1)
    with pytest.raises(ValueError, match="no extra steps"):
        Refinement("standard", 3)
    with pytest.raises(ValueError, match="expected standard"):
        Refinement("brs")
