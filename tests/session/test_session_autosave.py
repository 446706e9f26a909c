"""Autosave: killed at any moment, on a full or read-only disk, opened twice."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kill_writer import content, event_number, start_writer

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.event_fields import event_line
from napari_cfrseg.errors import SessionError
from napari_cfrseg.io.atomic import AppendOnly, atomic_path, temporary_beside
from napari_cfrseg.session import session_writer
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_file import (
    Journal,
    journal_line,
    journal_path,
    lock_path,
    read_journal,
)
from napari_cfrseg.session.session_writer import SessionWriter
from napari_cfrseg.session.unsaved_sessions import (
    SessionInUseError,
    is_locked,
    unsaved_path,
    unsaved_sessions,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.cfrseg.json"


def fill(writer: SessionWriter, count: int) -> None:
    for number in range(writer.event_count, count):
        writer.record(event_number(number))


def read(path: Path) -> list[ev.Event]:
    return list(Session.open(path).content.events)


def expected(count: int) -> list[ev.Event]:
    return [event_number(n) for n in range(count)]


# -- killed --------------------------------------------------------------------------


def kill_once(path: Path, seed: int, delay_s: float) -> tuple[int, int]:
    """Kill a writer after a while: (events said to be recorded, events found)."""
    process, received = start_writer(path, seed)
    recorded = received.recv()
    threading.Timer(delay_s, process.kill).start()
    with received, suppress(EOFError, OSError):  # OSError: killed while it sent
        while True:
            recorded = received.recv() + 1
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    return recorded, len(read(path))


def kill_test(folder: Path, times: int) -> None:
    seed = int(os.environ.get("CFRSEG_KILL_SEED", time.time_ns() % 10**9))
    log = Path(os.environ.get("CFRSEG_KILL_LOG", folder / "kills.log"))
    chance = random.Random(seed)
    path = folder / "killed.cfrseg.json"
    with log.open("a") as file:
        file.write(f"seed {seed}, {times} kills\n")
        for kill in range(times):
            delay_s = chance.uniform(0.0, 0.25)
            recorded, found = kill_once(path, chance.randrange(10**6), delay_s)
            file.write(f"{kill}: {delay_s:.4f} s, {recorded} said, {found} found\n")
            file.flush()
            assert recorded <= found <= recorded + 1, (seed, kill)
            assert read(path) == expected(found), (seed, kill)
            if chance.random() < 0.2:
                path.unlink()
                journal_path(path).unlink(missing_ok=True)
    sys.stdout.write(log.read_text())


def test_kill_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    kill_test(tmp_path, 20)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kill_at_random_moments_200_times(tmp_path: Path) -> None:
    kill_test(tmp_path, 200)


def test_a_line_cut_at_any_byte_costs_that_line_only(path: Path) -> None:
    writer = SessionWriter.create(path, content())
    fill(writer, 4)
    journal = journal_path(path).read_bytes()
    writer._lock.release()
    last = journal.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(journal)):
        journal_path(path).write_bytes(journal[:cut])
        assert read(path) == expected(3)
    journal_path(path).write_bytes(journal[: last + 9])
    again = SessionWriter.open(path)
    fill(again, 6)
    assert read(path) == expected(6)
    again.close()
    assert not journal_path(path).exists()
    assert read(path) == expected(6)


def test_crash_between_compaction_and_clearing_repeats_nothing(path: Path) -> None:
    writer = SessionWriter.create(path, content())
    fill(writer, 5)
    journal = journal_path(path).read_bytes()
    writer.save()
    journal_path(path).write_bytes(journal)
    assert read(path) == expected(5)
    fill(writer, 7)
    assert read(path) == expected(7)
    writer.close()


def test_file_half_written_when_killed_is_removed_by_the_next(path: Path) -> None:
    SessionWriter.create(path, content()).close()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    name = temporary_beside(path).name.replace(f"-{os.getpid()}", f"-{process.pid}")
    half, foreign = path.with_name(name), path.with_name(f".b{name[1:]}")
    for left in (half, foreign):
        left.write_text("{")
    SessionWriter.open(path).close()
    assert {p.name for p in path.parent.iterdir()} == {path.name, foreign.name}


def test_journal_that_does_not_continue_the_file_is_kept_aside(path: Path) -> None:
    writer = SessionWriter.create(path, content())
    fill(writer, 3)
    writer.close()
    gap = journal_line("5" * 32, 8, event_line(event_number(8)))
    journal_path(path).write_bytes(gap)
    assert read(path) == expected(3)
    writer = SessionWriter.open(path)
    fill(writer, 4)
    writer.close()
    kept = list(path.parent.glob("*.lost-*"))
    assert [p.read_bytes() for p in kept] == [gap]
    assert read(path) == expected(4)


def test_journal_of_another_session_is_not_mixed_in(path: Path) -> None:
    SessionWriter.create(path, content()).close()
    foreign = journal_line("6" * 32, 0, event_line(event_number(0)))
    journal_path(path).write_bytes(foreign)
    assert read(path) == []


def test_flipped_bits_are_noticed(path: Path) -> None:
    writer = SessionWriter.create(path, content())
    fill(writer, 3)
    data = bytearray(journal_path(path).read_bytes())
    writer._lock.release()
    data[-100] ^= 1
    journal_path(path).write_bytes(data)
    found = read(path)
    assert found == expected(len(found))
    assert len(found) < 3


# -- compaction ----------------------------------------------------------------------


def test_long_journals_are_folded_into_the_file(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(session_writer, "COMPACT_BYTES", 2000)
    writer = SessionWriter.create(path, content())
    sizes = []
    for count in range(1, 200):
        fill(writer, count)
        sizes.append(journal_path(path).stat().st_size)
    assert sizes.count(0) >= 3
    # amortised: ever rarer as the file grows
    assert sizes.count(0) < 12
    assert max(sizes) < path.stat().st_size + 3000
    assert read(path) == expected(199)
    writer.close()


def test_reader_during_saves_sees_every_state_whole(path: Path) -> None:
    writer = SessionWriter.create(path, content())
    fill(writer, 1)
    done = threading.Event()

    def work() -> None:
        for count in range(2, 80):
            fill(writer, count)
            writer.save()
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    seen = [0]
    while not done.is_set():
        found = read(path)
        assert found == expected(len(found))
        assert len(found) >= seen[-1]
        seen.append(len(found))
    thread.join()
    writer.close()


def test_moving_takes_everything_along(path: Path, tmp_path: Path) -> None:
    writer = SessionWriter.create(path, content())
    fill(writer, 3)
    target = tmp_path / "saved" / "b.cfrseg.json"
    target.parent.mkdir()
    writer.move_to(target, content())
    fill(writer, 5)
    assert read(target) == expected(5)
    assert not path.exists()
    assert not journal_path(path).exists()
    assert not is_locked(lock_path(path))
    assert is_locked(lock_path(target))
    writer.close()
    assert sorted(p.name for p in target.parent.iterdir()) == ["b.cfrseg.json"]


def test_a_session_saved_under_another_name_leaves_the_first_as_it_was(
    path: Path, tmp_path: Path
) -> None:
    writer = SessionWriter.create(path, content())
    fill(writer, 3)
    target = tmp_path / "b.cfrseg.json"
    writer.move_to(target, content(), keep=True)
    fill(writer, 5)
    assert read(path) == expected(3)
    assert not is_locked(lock_path(path))
    assert not journal_path(path).exists()
    assert read(target) == expected(5)
    writer.close()


# -- two windows ---------------------------------------------------------------------


def test_second_window_is_told_who_has_the_session(path: Path) -> None:
    first = SessionWriter.create(path, content())
    with pytest.raises(SessionInUseError, match=f"process {os.getpid()} on"):
        SessionWriter.open(path)
    fill(first, 2)
    assert read(path) == expected(2)  # reading is free
    first.close()
    second = SessionWriter.open(path)
    assert second.event_count == 2
    second.close()
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


def test_lock_of_another_process_ends_with_it(path: Path) -> None:
    process, received = start_writer(path, 0)
    received.recv()
    with pytest.raises(SessionInUseError, match=f"process {process.pid} on"):
        SessionWriter.open(path)
    process.kill()
    process.join(30)
    received.close()
    assert lock_path(path).exists()  # left behind, but locks nothing
    writer = SessionWriter.open(path)
    count = writer.event_count
    fill(writer, count + 1)
    writer.close()
    assert len(read(path)) == count + 1


def test_many_windows_at_once_one_wins(path: Path) -> None:
    SessionWriter.create(path, content()).close()
    won: list[SessionWriter] = []
    lost: list[SessionError] = []
    gate = threading.Barrier(8)

    def window() -> None:
        gate.wait()
        try:
            won.append(SessionWriter.open(path))
        except SessionInUseError as error:
            lost.append(error)

    threads = [threading.Thread(target=window) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].close()


# -- full disks, read-only folders ---------------------------------------------------


def as_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not as_root() or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 1000):
            pass


def test_full_disk_warns_until_there_is_room_and_loses_nothing(
    small_disk: Path,
) -> None:
    path = small_disk / "a.cfrseg.json"
    writer = SessionWriter.create(path, content())
    told: list[str | None] = []
    writer.on_problem = told.append
    fill(writer, 100)
    filler = small_disk / "filler"
    fill_up(filler)
    fill(writer, 300)  # work goes on
    assert writer.problem is not None
    assert "No space left" in writer.problem
    found = read(path)
    assert found == expected(len(found))  # nothing corrupt
    assert 100 <= len(found) < 300
    with pytest.raises(OSError, match="No space"):
        writer.save()
    assert read(path) == found
    assert not list(small_disk.glob(".*.tmp"))
    filler.unlink()
    fill(writer, 301)
    assert writer.problem is None
    assert told[-1] is None
    assert read(path) == expected(301)
    writer.close()


def test_read_only_disk_warns_and_work_goes_on(small_disk: Path) -> None:
    path = small_disk / "a.cfrseg.json"
    writer = SessionWriter.create(path, content())
    fill(writer, 2)
    writer.save()
    writer._journal.close()  # else the open file keeps the disk busy
    writer._journal = None
    writer._lock._lock.release()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    fill(writer, 4)
    assert "Read-only" in str(writer.problem)
    assert read(path) == expected(2)
    with pytest.raises(OSError, match="Read-only"):
        SessionWriter.open(path)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    fill(writer, 5)
    assert writer.problem is None
    assert read(path) == expected(5)


@pytest.fixture
def file_size_limit() -> Iterator[int]:
    """No file of this process may grow beyond 8 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        yield 8192
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_file_size_limit_is_met_like_a_full_disk(
    path: Path, file_size_limit: int
) -> None:
    writer = SessionWriter.create(path, content())
    fill(writer, 200)
    assert "File too large" in str(writer.problem)
    found = read(path)
    assert found == expected(len(found))
    assert 10 < len(found) < 200
    assert journal_path(path).stat().st_size <= file_size_limit
    before = path.read_bytes()
    with pytest.raises(OSError, match="too large"):
        writer.save()
    assert path.read_bytes() == before
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    fill(writer, 201)
    assert writer.problem is None
    assert read(path) == expected(201)
    writer.close()


def test_folder_that_vanished_warns_and_work_goes_on(path: Path) -> None:
    folder = path.parent / "gone"
    target = folder / path.name
    writer = SessionWriter.create(target, content())
    fill(writer, 1)
    writer.save()
    shutil.rmtree(folder)
    with pytest.raises(OSError, match="No such file"):
        writer.save()
    writer.close()
    assert "is not being saved" in str(writer.problem)


@pytest.mark.skipif(as_root(), reason="root may write anywhere; see the mounted disk")
def test_read_only_folder_is_refused_at_once(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            SessionWriter.create(path, content())
    finally:
        path.parent.chmod(0o700)


def test_failed_append_leaves_no_trace(tmp_path: Path) -> None:
    file = AppendOnly(tmp_path / "j", 0)
    file.append(b"one\n")
    file.close()
    with pytest.raises(OSError, match="closed"):
        file.append(b"two\n")
    again = AppendOnly(tmp_path / "j", 2)
    again.append(b"!\n")
    again.close()
    assert (tmp_path / "j").read_bytes() == b"on!\n"


# -- a million events ----------------------------------------------------------------


@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "count",
    [5_000, pytest.param(10**6, marks=pytest.mark.slow)],
    ids=["many", "a million"],
)
def test_many_events_stay_usable(path: Path, count: int) -> None:
    writer = SessionWriter.create(path, content())
    writer._note([event_number(0)], [event_line(event_number(0))])
    for number in range(1, count):
        if number % 40 == 0:  # an object has some clicks, not a million
            event: ev.Event = ev.ObjectCreated(number)
        else:
            owner = max(1, number // 40 * 40)
            event = ev.ClickAdded(
                owner, (), (number % 8, number % 7), number % 3 > 0, number
            )
        writer._note([event], [event_line(event)])
    start = time.perf_counter()
    writer.save()
    saved = time.perf_counter() - start
    busy = time.process_time()
    writer.record(ev.ObjectRenamed(1, "still quick"))
    assert time.process_time() - busy < 10  # not minutes: no rewriting
    writer.close()
    start, busy = time.perf_counter(), time.process_time()
    session = Session.open(path)
    opened, busy = time.perf_counter() - start, time.process_time() - busy
    assert len(session.content.events) == count + 1
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        f"{path.stat().st_size / 1e6:.0f} MB opened in {opened:.1f} s ({busy:.1f} s of "
        f"processor time), saved in {saved:.1f} s, {peak_mb:.0f} MB of memory at most\n"
    )
    assert json.loads(path.read_bytes())["objects"][0]["name"] == "still quick"


def test_saving_through_a_link_writes_the_file_it_leads_to(
    path: Path, tmp_path: Path
) -> None:
    SessionWriter.create(path, content()).close()
    link = tmp_path / "link.cfrseg.json"
    link.symlink_to(path)
    writer = SessionWriter.open(link)
    fill(writer, 3)
    writer.move_to(link, writer.content)
    writer.close()
    assert link.is_symlink()
    assert read(path) == read(link) == expected(3)


def test_a_session_that_cannot_be_begun_is_not_left_locked(path: Path) -> None:
    wrong = replace(content(), events=("no event",))
    with pytest.raises(AttributeError):
        SessionWriter.create(path, wrong)
    SessionWriter.create(path, content()).close()


@pytest.mark.parametrize("name", ["a.txt", "folder/a.txt"])
def test_a_file_behind_a_link_is_replaced_and_the_link_stays(
    tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    target.parent.mkdir(exist_ok=True)
    target.write_text("before")
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    with atomic_path(link) as temporary:
        temporary.write_text("after")
    assert link.is_symlink()
    assert target.read_text() == "after"


def test_an_unsaved_session_that_is_gone_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFRSEG_SESSIONS", str(tmp_path))
    left = {unsaved_path(f"{number:032x}") for number in range(8)}
    for path in left:
        path.touch()
        unsaved_path(f"gone{path.stem[-10:-7]}").symlink_to(tmp_path / "nowhere")
    assert set(unsaved_sessions()) == left


def test_a_journal_that_goes_while_it_is_opened_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "a.cfrseg.journal", os.open
    path.write_bytes(b"as another program closes the session, it removes this")

    def remove_first(name: Path, *given: Any) -> int:
        path.unlink()
        return whole(name, *given)

    monkeypatch.setattr(os, "open", remove_first)
    assert read_journal(path, "0" * 32, 0) == Journal()
