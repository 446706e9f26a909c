"""Killing, sharing, accumulating and stopping early in the training loop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from train_made import made_atlas, made_trainer, run

from cfrseg_training.loop.atlas import WindowRecipe
from napari_cfrseg.errors import TrainingError
from napari_cfrseg.io.atomic import temporary_beside

#: programs of their own on a busy machine
pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("one_thread")]

PROGRAM = Path(__file__).with_name("train_made.py")


def program(*runs, **environment):
    text = json.dumps([(str(state), options) for state, options in runs])
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), text],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return [int(line) for line in output.splitlines()]


def result(state):
    return json.loads(state.with_suffix(".json").read_text())


def state_of(path):
    return torch.load(path, weights_only=True)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_and_resumed_training_equals_the_uninterrupted_one(tmp_path):
    options = {"steps": 9, "save_every_s": 0.0}
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    killed = program((parts, {**options, "pause_s": 1.0}))
    run(whole, dict(options))
    while not parts.exists():
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert 0 < state_of(parts)["step"] < 9
    run(parts, dict(options))
    assert result(parts) == result(whole)
    one, two = state_of(whole), state_of(parts)
    for part in ("network", "average"):
        for key, value in one[part].items():
            assert torch.equal(value, two[part][key]), key


#: no batch statistics (frozen normalisations), gradients shared over gloo
ALIKE = {"steps": 4, "frozen_norms": True}
ACCUMULATED = {"steps": 2, "accumulate": 2, "frozen_norms": True}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two processes that train together, run after run: a state, the steps of each.

    First one run of ``ALIKE``; then those whose second process has a clock that runs
    late, no watcher, or no state of its own, with shared weights and with gradients.
    """
    folder = tmp_path_factory.mktemp("pair")
    shared = folder / "shared.pt"
    runs = [[(shared, {**ALIKE, "synchronous": True})] * 2]
    for synchronous in (False, True):
        (inner := folder / str(synchronous)).mkdir()
        options = {"steps": 10**6, "average_every": 2, "synchronous": synchronous}
        # a watcher's pauses do not count, so the second clock shows less
        clock = {**options, "stop_after_s": 0.5}
        late = {**clock, "pause_s": 0.1}
        runs.append([(inner / "a.pt", clock), (inner / "b.pt", late)])
        watched = {**options, "stop_at": 4}
        runs.append([(inner / "c.pt", watched), (inner / "d.pt", options)])
        made_trainer(inner / "e.pt", steps=4).run()
        eight = {**options, "steps": 8}
        runs.append([(inner / "e.pt", eight), (inner / "f.pt", eight)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = [
        program(
            *((run[rank]) for run in runs),
            WORLD_SIZE="2",
            RANK=str(rank),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in range(2)
    ]
    steps = list(zip(*(finished(process) for process in both), strict=True))
    return shared, steps


def test_two_processes_take_the_steps_of_one_with_the_doubled_batch(pair, tmp_path):
    alone = tmp_path / "alone.pt"
    run(alone, {**ALIKE, "accumulate": 2})
    expected, shown = result(alone), result(pair[0])
    assert len(shown["losses"]) == 4
    assert shown["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert shown["weights"] == pytest.approx(expected["weights"], rel=1e-5)


def test_two_processes_end_together_by_the_decisions_of_the_first(pair):
    steps = pair[1]
    assert all(first == second for first, second in steps), steps
    assert [first for first, _ in steps[3::3]] == [8, 8]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run in full precision that accumulates."""
    trainer = made_trainer(tmp_path_factory.mktemp("full") / "full.pt", **ACCUMULATED)
    trainer.run()
    return trainer


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_accumulation_is_the_same_with_and_without_mixed_precision(
    full, tmp_path, half
):
    mixed = made_trainer(tmp_path / "mixed.pt", autocast=half, **ACCUMULATED)
    mixed.run()
    losses = [[r["loss"] for r in t.history if "loss" in r] for t in (full, mixed)]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    for a, b in zip(full.network.parameters(), mixed.network.parameters(), strict=True):
        assert (a - b).abs().max() < 5e-3  # two Adam steps of 1e-3 at most


def test_accumulated_gradients_are_the_mean_over_the_batches(tmp_path):
    options = {"steps": 1, "frozen_norms": True, "clip": 1e9}
    both = made_trainer(tmp_path / "both.pt", accumulate=2, **options)
    both.run()
    means = [p.grad for p in both.network.parameters()]
    single = made_trainer(tmp_path / "single.pt", accumulate=2, **options)
    single._prepare()
    parts = []
    for share in single._batches():
        assert share == 0.5
        single.optimizer.zero_grad()
        single.evaluate(single.network, single.config.rounds).loss.backward()
        parts.append([p.grad.clone() for p in single.network.parameters()])
    for mean, first, second in zip(means, *parts, strict=True):
        torch.testing.assert_close(mean, (first + second) / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_error_and_the_state_before_it_is_whole(tmp_path):
    state = tmp_path / "s.pt"
    trainer = made_trainer(state, steps=2)
    trainer.run()
    before = state.read_bytes()
    temporary_beside(state).symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"make room .* state before it is whole"):
        trainer.save()
    assert state.read_bytes() == before
    assert made_trainer(state, steps=2).step == 2


def curve_windows(trainer):
    recipe = WindowRecipe(zoomed=1.0, rotate=False)
    generator = torch.Generator().manual_seed(0)
    return [made_atlas().draw(2, 64, generator, recipe)]


def test_early_stop_and_the_best_weights_survive_a_resume(tmp_path):
    trainer = made_trainer(
        tmp_path / "s.pt", steps=4, keep_best=True, patience=2, learning_rate=0.0
    )
    trainer.validation = curve_windows(trainer)
    trainer.run()  # its last validation is the first: the best
    best = trainer.best
    assert best is not None
    for parameter in trainer.average.network.parameters():
        parameter.data.zero_()
    trainer.validate()
    assert (trainer.stale, trainer.stopping) == (1, False)
    trainer.validate()
    assert (trainer.stale, trainer.stopping) == (2, True)
    trainer.save()
    again = made_trainer(tmp_path / "s.pt", steps=100, keep_best=True, patience=2)
    assert again.stopped
    kept = again.run().state_dict()
    assert again.step == 4
    for key, value in best["network"].items():
        torch.testing.assert_close(kept[key], value, rtol=0, atol=0, msg=key)


def test_a_watcher_may_stop_and_its_waiting_costs_no_budget(tmp_path):
    now = [0.0]

    def watch(trainer):
        now[0] += 1000.0  # a long pause
        return trainer.step < 3

    trainer = made_trainer(tmp_path / "s.pt", budget_s=50.0)
    trainer.clock = lambda: now[0]
    trainer.watch = watch
    trainer.run()
    assert trainer.step == 3
    assert trainer.elapsed_s == 0.0
    assert trainer.stopped
