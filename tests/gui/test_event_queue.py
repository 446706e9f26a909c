"""The worker thread: order, newest wins, cancel, close."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from napari_cfrseg.errors import JobCancelled
from napari_cfrseg.gui.segment.worker import Job, Worker

pytestmark = pytest.mark.gui


@pytest.fixture
def runner(qtbot):
    made = Worker()
    yield made
    made.close()


class Log(list):
    def job(self, name, work=lambda report: None) -> Job:
        return Job(
            work,
            lambda result: self.append((name, "done", result)),
            lambda error: self.append((name, "failed", type(error))),
            lambda value: self.append((name, "report", value)),
        )


def test_jobs_run_in_order_off_the_window_s_thread_and_answer_on_it(runner, qtbot):
    log, threads = Log(), set()
    for number in range(20):

        def work(report, number=number):
            threads.add(threading.current_thread())
            return number

        runner.submit(log.job(number, work))
    qtbot.waitUntil(lambda: len(log) == 20)
    assert log == [(n, "done", n) for n in range(20)]
    assert len(threads) == 1
    assert threading.main_thread() not in threads


@pytest.mark.skipif(sys.platform != "linux", reason="glibc keeps what is freed")
def test_freed_memory_goes_back_to_the_system(runner, qtbot):
    def resident_mb() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    blocks = [bytearray(64_000) for _ in range(2000)]
    kept = blocks[::2]  # the others leave holes
    del blocks
    before, log = resident_mb(), Log()
    for number in range(25):
        runner.submit(log.job(number))
    qtbot.waitUntil(lambda: len(log) == 25)
    assert resident_mb() < before - 40
    assert len(kept) == 1000


def test_reports_of_the_newest_job_only(runner, qtbot):
    log, go = Log(), threading.Event()

    def waits(report):
        go.wait(10)
        report("first mask")

    runner.submit(log.job("old", waits))
    runner.submit(log.job("new", lambda report: report("first mask")))
    go.set()
    qtbot.waitUntil(lambda: len(log) == 3)
    assert log == [
        ("old", "done", None),
        ("new", "report", "first mask"),
        ("new", "done", None),
    ]


def test_cancelled_job_ends_before_it_starts_or_at_its_next_report(runner, qtbot):
    log, started, go = Log(), threading.Event(), threading.Event()

    def works(report):
        started.set()
        go.wait(10)
        report("step")
        return "never"

    running, waiting = log.job("running", works), log.job("waiting")
    runner.submit(running)
    runner.submit(waiting)
    assert started.wait(10)
    waiting.cancel()
    running.cancel()
    go.set()
    qtbot.waitUntil(lambda: len(log) == 2)
    assert log == [
        ("running", "failed", JobCancelled),
        ("waiting", "failed", JobCancelled),
    ]


def test_failure_reaches_the_owner_and_the_worker_goes_on(runner, qtbot):
    log = Log()

    def breaks(report):
        raise RuntimeError

    runner.submit(log.job("bad", breaks))
    runner.submit(log.job("good"))
    qtbot.waitUntil(lambda: len(log) == 2)
    assert log == [("bad", "failed", RuntimeError), ("good", "done", None)]


def test_close_ends_the_thread_and_tells_nobody(qtbot):
    log, started = Log(), threading.Event()
    runner = Worker()

    def endless(report):
        started.set()
        while True:
            report("step")

    runner.submit(log.job("endless", endless))
    runner.submit(log.job("waiting"))
    assert started.wait(10)
    runner.close()
    said = len(log)
    qtbot.wait(20)
    assert len(log) == said
    assert all(entry[1] == "report" for entry in log)
    assert not [t for t in threading.enumerate() if t.name.startswith("cfrseg-worker")]
