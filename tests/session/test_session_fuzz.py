"""Malformed and hostile session files: one-line errors, bounded cost, no output."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from session_cases import EVERY_EVENT, SHAPE, WORK, flood_segmenter, pixels

from napari_cfrseg.annotation.event_fields import event_line
from napari_cfrseg.errors import CfrSegError, SessionError
from napari_cfrseg.session.format import SessionContent, Snapshot
from napari_cfrseg.session.references import reference_of
from napari_cfrseg.session.replay_session import ReplayTask, replay_session
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_file import MOST_BYTES, parse_session, session_lines


def document(events=WORK) -> dict[str, Any]:
    content = SessionContent(
        reference_of(pixels(), path="/a/image.tif", folder="/a"),
        events=events,
        snapshot=Snapshot(len(events)),
        identity="0" * 32,
    )
    lines = session_lines(content, (), map(event_line, events))
    found: dict[str, Any] = json.loads("".join(lines))
    return found


VALID = (document(), document(EVERY_EVENT))

hostile = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(
        [-1, 0, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, -(10**30), 1e300, 5e-324, 0.5]
    ),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
    st.sampled_from(
        ["", "../../../etc/passwd", "/dev/zero", "a\0b", "\u202e", "x" * 5000, "NaN"]
    ),
    st.lists(st.integers(-3, 3), max_size=4),
    st.just([[[[[[]]]]]]),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.just({"__class__": "os.system", "type": "undone"}),
)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, child in value.items():
            found += nodes(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value[:40]):
            found += nodes(child, (*path, index))
    return found


NODES = tuple(nodes(document) for document in VALID)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid session in which some places hold something else."""
    which = draw(st.integers(0, len(VALID) - 1))
    raw = copy.deepcopy(VALID[which])
    for _ in range(draw(st.integers(1, 3))):
        *steps, last = draw(st.sampled_from(NODES[which]))
        parent: Any = raw
        try:
            for step in steps:
                parent = parent[step]
            act = draw(st.sampled_from(["replace", "replace", "remove", "double"]))
            if act == "remove":
                del parent[last]
            elif act == "double" and isinstance(parent, list):
                parent.insert(last, parent[last])
            else:
                # what is drawn may be one object each time
                parent[last] = copy.deepcopy(draw(hostile))
        except (KeyError, IndexError, TypeError):
            continue
    text = json.dumps(raw)
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(st.sampled_from(["", "NaN", "{", "]", "\0", "1e999"]))
    return text.encode("utf-8", "surrogatepass")


files = st.one_of(mutated(), mutated(), mutated(), mutated(), st.binary(max_size=200))


def check_bytes(data: bytes) -> None:
    """Read, sum up and apply: a result, or one line that says why not."""
    start = time.process_time()
    said = ""
    try:
        content = parse_session(data)
        session = Session(Path("fuzzed.cfrseg.json"), content)
        list(session.objects())
        if content.image.shape == SHAPE:
            session.saved_labels()
    except SessionError as error:
        said = str(error)
    assert said.isprintable()
    assert len(said) < 1000
    assert time.process_time() - start < 20  # on the slowest machine


SLACK = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],
}


@settings(max_examples=500, **SLACK)
@given(files)
def test_fuzzed_files_give_a_session_or_one_line(data: bytes) -> None:
    check_bytes(data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=10_000, **SLACK)
@given(files)
def test_ten_thousand_fuzzed_files(data: bytes) -> None:
    check_bytes(data)


@settings(max_examples=40, **SLACK)
@given(mutated())
def test_fuzzed_files_are_applied_or_refused_in_one_line(data: bytes) -> None:
    said, shape = "", SHAPE
    try:
        session = Session(Path("fuzzed.cfrseg.json"), parse_session(data))
        shape = session.apply(pixels(), flood_segmenter()).shape
    except CfrSegError as error:
        said = str(error)
    assert "\n" not in said
    assert shape == SHAPE


def deep(levels: int) -> bytes:
    return b'{"schema_version": 1, "image": ' + b"[" * levels + b"]" * levels + b"}"


def with_image(**changes: Any) -> bytes:
    raw = copy.deepcopy(VALID[0])
    raw["image"] |= changes
    return json.dumps(raw).encode()


def with_event(event: dict[str, Any]) -> bytes:
    raw = copy.deepcopy(VALID[0])
    raw["events"].append(event)
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe\x00",
        deep(10**6),
        b'{"schema_version": NaN}',
        b'{"schema_version": 1' + b"0" * 10**6 + b"}",
        b'{"schema_version": 1, "events": {}}',
        json.dumps({**VALID[0], "unknown": 1}).encode(),
        with_image(shape=[10**18, 10**18]),
        with_image(axes=["y", "y"]),
        with_image(axes=["y"]),
        with_image(dtype="object"),
        with_image(fingerprint="0"),
        with_event({"type": "x" * 5000}),
        with_event({"type": "a\nb\x1b[2Jc"}),
        with_event({"type": "undone", "a\nb\x1b[2J": 1}),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_hostile_files_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(SessionError) as caught:
        parse_session(data)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def write(folder: Path, raw: dict[str, Any], name: str = "evil") -> Path:
    path = folder / f"{name}.cfrseg.json"
    path.write_text(json.dumps(raw))
    return path


def replay_into(path: Path, out: Path) -> str:
    result = replay_session(ReplayTask(path, out, "evil", device="cpu"))
    assert result.status == "failed"
    assert "\n" not in result.reason
    assert not out.exists()  # nothing written
    return result.reason


def test_duplicate_ids_are_named(tmp_path: Path) -> None:
    raw = copy.deepcopy(VALID[0])
    raw["events"].insert(2, raw["events"][1])
    path = write(tmp_path, raw)
    assert "click id 1 is used twice" in replay_into(path, tmp_path / "out")
    raw["events"] = [raw["events"][0]] * 2
    path = write(tmp_path, raw)
    assert "object 1 exists already" in replay_into(path, tmp_path / "out")


def test_huge_planes_cost_nothing(tmp_path: Path) -> None:
    raw = copy.deepcopy(VALID[0])
    raw["image"]["shape"] = [2**31 - 1, 2**31 - 1]
    big = {"shape": raw["image"]["shape"], "runs": [0, 2**50]}
    raw["events"] = [
        {"type": "object_created", "object": 1},
        {"type": "mask_imported", "object": 1, "mask": big},
    ]
    raw["snapshot"] = None
    path = write(tmp_path, raw)
    tifffile.imwrite(tmp_path / "image.tif", pixels())
    start, before_mb = time.process_time(), peak_mb()
    assert [o.object_id for o in Session.open(path).objects()] == [1]
    replay_into(path, tmp_path / "out")
    with pytest.raises(SessionError, match="plane of shape"):
        Session.open(path).apply(pixels(), flood_segmenter())
    assert time.process_time() - start < 10
    assert peak_mb() - before_mb < 100


def peak_mb() -> float:
    """Return this process's largest memory so far (0 where it is not told)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_devices_and_folders_are_no_sessions(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.cfrseg.json"
    os.mkfifo(pipe)
    link = tmp_path / "zero.cfrseg.json"
    link.symlink_to("/dev/zero")
    folder = tmp_path / "folder.cfrseg.json"
    folder.mkdir()
    loop = tmp_path / "loop.cfrseg.json"
    loop.symlink_to(loop)
    for path in (pipe, link, folder, loop, tmp_path / "none", tmp_path / "a\0b"):
        with pytest.raises(SessionError) as caught:
            Session.open(path)
        assert "\n" not in str(caught.value)


def test_oversized_files_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.cfrseg.json"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)  # sparse
    with pytest.raises(SessionError, match="at most"):
        Session.open(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_image_paths_may_point_anywhere_but_nothing_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.tif"
    tifffile.imwrite(outside, pixels())
    for name in ("pipe.tif", "/dev/zero", "\0", "x" * 3000, "..", "../" * 90):
        raw = copy.deepcopy(VALID[0])
        raw["image"]["path"] = name
        replay_into(write(tmp_path, raw), tmp_path / "out")
    raw["image"]["path"] = f"../{outside.name}"
    session = Session.open(write(tmp_path, raw))
    assert np.array_equal(session.open_image(), pixels())


def test_a_symlinked_session_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, VALID[0], "real")
    link = tmp_path / "link.cfrseg.json"
    link.symlink_to(path)
    assert Session.open(link).content == Session.open(path).content


def test_names_of_results_cannot_leave_the_output(tmp_path: Path) -> None:
    from napari_cfrseg.session.replay_session import name_of

    for name in (".cfrseg.json", "..cfrseg.json", ".hidden.cfrseg.json"):
        with pytest.raises(SessionError, match="rename"):
            name_of(tmp_path / name)
    assert name_of(tmp_path / "a b.cfrseg.json") == "a b"
