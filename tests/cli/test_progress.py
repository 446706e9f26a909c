"""A log gets few plain lines; a terminal gets a bar that leaves nothing behind."""

from __future__ import annotations

import io

from napari_cfrseg.cli.options import LOG_EVERY_S, counting, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_quick_job_logs_its_end_only() -> None:
    log = io.StringIO()
    assert list(track("abc", "spelling", stream=log, clock=lambda: 0.0)) == [*"abc"]
    assert log.getvalue() == "spelling: 3/3\n"


def test_a_slow_job_logs_now_and_then() -> None:
    log = io.StringIO()
    elapsed: list[float] = []
    for _ in track(range(6), "waiting", stream=log, clock=lambda: sum(elapsed)):
        elapsed.append(LOG_EVERY_S / 2)
    assert log.getvalue() == "waiting: 2/6\nwaiting: 4/6\nwaiting: 6/6\n"


def test_what_is_reported_twice_is_said_once() -> None:
    log = io.StringIO()
    with counting("spelling", 2, stream=log, clock=lambda: 0.0) as report:
        for done in (1, 2, 2):
            report(done)
    assert log.getvalue() == "spelling: 2/2\n"


def test_nothing_to_do_says_nothing() -> None:
    log = io.StringIO()
    assert list(track([], "resting", stream=log)) == []
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    terminal = Terminal()
    assert list(track([1, 2], "counting", stream=terminal)) == [1, 2]
    assert "counting" in terminal.getvalue()
    assert "\n1/2" not in terminal.getvalue()
