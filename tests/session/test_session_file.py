"""The session file: what is written comes back, and gives the same labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from replayed import replay
from session_cases import (
    EVERY_EVENT,
    SHAPE,
    WORK,
    flood_segmenter,
    is_of,
    pixels,
    record,
    start,
)

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.event_fields import KINDS, event_line
from napari_cfrseg.annotation.handlers import perform
from napari_cfrseg.annotation.transaction import Draft
from napari_cfrseg.errors import SessionError
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.session import format as schema
from napari_cfrseg.session.format import SessionContent, SessionSettings
from napari_cfrseg.session.recording import snapshot_array
from napari_cfrseg.session.references import reference_of
from napari_cfrseg.session.session import Session, objects_after
from napari_cfrseg.session.session_file import migrated, parse_session, session_lines
from napari_cfrseg.session.session_writer import SessionWriter

VERSIONS = Path(__file__).parent / "versions"


def text_of(content: SessionContent) -> bytes:
    lines = map(event_line, content.events)
    return "".join(session_lines(content, (), lines)).encode()


def unscaled(events) -> tuple[ev.Event, ...]:
    """Leave out what reading and recording add to clicks."""
    return tuple(
        replace(e, scaling=None, threshold=None) if isinstance(e, ev.ClickAdded) else e
        for e in events
    )


def test_every_kind_of_event_is_among_the_cases() -> None:
    assert {type(e) for e in EVERY_EVENT} == set(KINDS.values())


def test_a_session_comes_back_as_it_was_written() -> None:
    content = SessionContent(
        reference_of(pixels(), path="/somewhere/a.tif", folder="/somewhere/else"),
        settings=SessionSettings("cuda:1", "torch", "bfloat16", 3, True),
        events=EVERY_EVENT,
    )
    back = parse_session(text_of(content))
    assert back == content
    assert back.image.path == "../a.tif"
    assert text_of(back) == text_of(content)


def test_each_event_has_a_line_of_its_own_and_no_line_is_cut() -> None:
    content = SessionContent(reference_of(pixels()), events=EVERY_EVENT)
    lines = text_of(content).decode().splitlines()
    first = lines.index(' "events": [') + 1
    for line, event in zip(lines[first:], EVERY_EVENT, strict=False):
        assert json.loads(line.rstrip(",")) == json.loads(event_line(event))


def test_window_python_and_plain_replay_give_identical_labels(tmp_path: Path) -> None:
    annotator, path = record(tmp_path)
    expected = annotator.labels_array()
    assert len(np.unique(expected)) >= 5
    session = Session.open(path)
    assert unscaled(session.content.events) == WORK
    assert np.array_equal(session.apply(segmenter=flood_segmenter()), expected)
    image = tifffile.imread(tmp_path / "work.tif")
    assert np.array_equal(session.apply(image, flood_segmenter()), expected)
    assert np.array_equal(replay(WORK, image, flood_segmenter()), expected)
    snapshot = session.content.snapshot
    assert snapshot is not None
    assert snapshot.events == len(WORK)
    assert np.array_equal(snapshot_array(snapshot, (), SHAPE), expected)


def test_rounds_are_the_changes_of_each_event(tmp_path: Path) -> None:
    annotator, path = record(tmp_path)
    mirror = np.zeros(SHAPE, np.int32)
    changes = list(Session.open(path).rounds(segmenter=flood_segmenter()))
    assert unscaled(e for c in changes for e in c.events) == WORK
    for change in changes:
        for patch in change.patches:
            mirror[patch.indices()] = patch.values()
    assert np.array_equal(mirror, annotator.labels())


def test_objects_are_known_without_image_and_network(tmp_path: Path) -> None:
    annotator, path = record(tmp_path)
    (tmp_path / "work.tif").unlink()
    found = {o.object_id: o for o in Session.open(path).objects()}
    assert found.keys() == annotator.objects.keys()
    for object_id, state in annotator.objects.items():
        said = found[object_id]
        assert (said.name, said.colour) == (state.name, state.colour)
        assert (said.locked, said.threshold) == (state.locked, state.threshold)
        assert said.object_class == state.object_class
        assert [(c.click_id, c.click) for _, c in said.clicks()] == [
            (e.click_id, e.click) for _, e in state.clicks()
        ]
    listed = json.loads(path.read_text())["objects"]
    assert [o["id"] for o in listed] == sorted(annotator.objects)


def test_undo_history_goes_on_after_reopening(tmp_path: Path) -> None:
    annotator, path = record(tmp_path)
    session = Session.open(path)
    reopened = session.annotator(segmenter=flood_segmenter())
    for _ in reopened.restore(session.content):
        pass
    for event in (ev.Undone(), ev.Undone(), ev.Redone(), ev.Undone(), ev.Undone()):
        expected, found = annotator.apply(event), reopened.apply(event)
        assert expected.undo_depth == found.undo_depth
        assert np.array_equal(annotator.labels(), reopened.labels())


def test_acts_that_change_nothing_are_not_written(tmp_path: Path) -> None:
    annotator, writer = start(tmp_path)
    annotator.apply(ev.Undone())
    annotator.apply(ev.ObjectCreated(1))
    annotator.apply(ev.ObjectLocked(1, False))
    annotator.apply(ev.Redone())
    with pytest.raises(SessionError):
        annotator.apply(ev.ObjectCreated(1))
    assert writer.content.events == (ev.ObjectCreated(1),)
    writer.close()


def test_scaling_of_a_plane_is_written_once_and_read_back(tmp_path: Path) -> None:
    image = np.stack([pixels(), pixels() // 2]).astype(np.uint16) * 9
    tifffile.imwrite(tmp_path / "a.tif", image)
    reference = reference_of(image, path=tmp_path / "a.tif", folder=tmp_path)
    writer = SessionWriter.create(tmp_path / "a.cfrseg.json", SessionContent(reference))
    from napari_cfrseg.session.recording import RecordedAnnotator

    annotator = RecordedAnnotator(lambda plane: image[plane], SHAPE, flood_segmenter())
    annotator.writer = writer
    annotator.apply(ev.ObjectCreated(1))
    for click_id, plane in enumerate([(0,), (1,), (0,), (1,)]):
        annotator.apply(ev.ClickAdded(1, plane, (20, 20 + click_id), True, click_id))
    text = (tmp_path / "a.cfrseg.journal").read_text()
    assert text.count('"scaling"') == 2
    writer.close()
    session = Session.open(writer.path)
    clicks = [e for e in session.content.events if isinstance(e, ev.ClickAdded)]
    assert [e.scaling and e.scaling.high for e in clicks] == [
        (240.0 * 9,),
        (120.0 * 9,),
        None,
        None,
    ]
    # another scaling than the pixels' own is obeyed
    wide = Scaling((0.0,), (1e6,))
    events = tuple(
        replace(e, scaling=wide) if getattr(e, "click_id", None) == 0 else e
        for e in session.content.events
    )
    changed = Session(session.path, SessionContent(reference, events=events))
    labels = changed.apply(segmenter=flood_segmenter())
    assert not np.array_equal(labels, annotator.labels_array((2,)))
    assert np.array_equal(labels[1], annotator.labels((1,)))
    # also where the plane was looked at before the session came, as the window does
    opened = RecordedAnnotator(lambda plane: image[plane], SHAPE, flood_segmenter())
    opened.first_click_s((0,))
    for _ in opened.restore(changed.content):
        pass
    assert np.array_equal(opened.labels_array((2,)), labels)


def test_numpy_numbers_are_written_as_plain_ones(tmp_path: Path) -> None:
    event = ev.ClickAdded(
        np.int64(3), (np.int64(1),), (np.float32(0.5), np.int64(2)), True, np.int64(7)
    )
    assert json.loads(event_line(event)) == {
        "type": "click_added",
        "object": 3,
        "click": 7,
        "plane": [1],
        "yx": [0.5, 2.0],
        "positive": True,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": "red"},
        {"name": "bad \udc80 name"},
        {"name": "long" * 1000},
        {"threshold": 1.0},
        {"object_id": 0},
        {"object_id": "1"},
        {"object_id": True},
    ],
)
def test_an_event_no_file_may_hold_cannot_be_made(wrong) -> None:
    with pytest.raises(SessionError, match="ObjectCreated") as caught:
        ev.ObjectCreated(**{"object_id": 1, **wrong})
    assert "\n" not in str(caught.value)


def test_image_is_found_beside_a_session_that_moved(tmp_path: Path) -> None:
    _, path = record(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("work.tif", "work.cfrseg.json"):
        (tmp_path / name).rename(elsewhere / name)
    session = Session.open(elsewhere / path.name)
    assert session.open_image().shape == SHAPE


def test_missing_and_changed_images_are_told_apart(tmp_path: Path) -> None:
    _, path = record(tmp_path)
    session = Session.open(path)
    image = pixels()
    image[79, 99] ^= 1
    tifffile.imwrite(tmp_path / "work.tif", image)
    with pytest.raises(SessionError, match="other pixels"):
        session.open_image()
    tifffile.imwrite(tmp_path / "work.tif", image[:40])
    with pytest.raises(SessionError, match=r"\(40, 100\).*made on"):
        session.open_image()
    (tmp_path / "work.tif").unlink()
    with pytest.raises(SessionError, match="is not there"):
        session.open_image()


def test_no_absolute_path(tmp_path: Path) -> None:
    _, path = record(tmp_path)
    assert str(tmp_path) not in path.read_text()


@pytest.mark.parametrize("path", sorted(VERSIONS.glob("v*.cfrseg.json")), ids=str)
def test_every_version_ever_written_is_read(path: Path) -> None:
    session = Session.open(path)
    version = json.loads(path.read_text())["schema_version"]
    known = tuple(e for e in EVERY_EVENT if is_of(version, e))
    assert unscaled(session.content.events) == known


def test_there_is_a_file_of_every_version() -> None:
    versions = {
        json.loads(p.read_text())["schema_version"] for p in VERSIONS.glob("v*.json")
    }
    assert versions == set(range(1, schema.SCHEMA_VERSION + 1))


def test_older_files_are_migrated_step_by_step() -> None:
    steps = {
        1: lambda raw: {**raw, "steps": [*raw.get("steps", []), 1]},
        2: lambda raw: {**raw, "steps": [*raw["steps"], 2]},
    }
    assert migrated({"schema_version": 1}, 3, steps) == {
        "schema_version": 3,
        "steps": [1, 2],
    }
    assert migrated({"schema_version": 3}, 3, steps) == {"schema_version": 3}


@pytest.mark.parametrize(
    ("version", "said"),
    [(5, "newer"), (10**30, "newer"), (0, "≥ 1"), (None, "≥ 1"), ("1", "≥ 1"),
     (True, "≥ 1"), (1.0, "≥ 1")],
)  # fmt: skip
def test_unknown_versions_are_one_clear_line(version, said) -> None:
    content = SessionContent(reference_of(pixels()))
    raw = json.loads(text_of(content))
    raw["schema_version"] = version
    with pytest.raises(SessionError, match=said) as caught:
        parse_session(json.dumps(raw).encode())
    assert "\n" not in str(caught.value)


def test_the_published_json_schema_is_the_code_s() -> None:
    published = Path(__file__).parents[2] / "docs" / "session.schema.json"
    assert json.loads(published.read_text()) == schema.json_schema()


def test_summary_names_the_event_that_does_not_fit() -> None:
    with pytest.raises(SessionError, match="event 1: there is no object 2"):
        objects_after([ev.ObjectCreated(1), ev.ObjectDeleted(2)], SHAPE)
    twice = ev.ClickAdded(1, (), (1, 1), True, 5)
    with pytest.raises(SessionError, match="event 2: click id 5 is used twice"):
        objects_after([ev.ObjectCreated(1), twice, twice], SHAPE)


def test_apply_refuses_planes_and_images_that_do_not_fit(tmp_path: Path) -> None:
    reference = reference_of(pixels())
    events = (ev.ObjectCreated(1), ev.ClickAdded(1, (0,), (1, 1), True, 1))
    session = Session(tmp_path, SessionContent(reference, events=events))
    with pytest.raises(SessionError, match="event 1 is on plane"):
        session.apply(pixels(), flood_segmenter())
    with pytest.raises(SessionError, match="of shape"):
        session.apply(pixels()[None], flood_segmenter())


def test_a_plain_annotator_is_not_disturbed_by_recording(tmp_path: Path) -> None:
    annotator, _ = record(tmp_path)
    plain = Annotator(lambda plane: pixels()[plane], SHAPE, flood_segmenter())
    for event in WORK:
        plain.apply(event)
    assert np.array_equal(plain.labels(), annotator.labels())


def test_a_new_kind_of_event_needs_a_definition_and_a_handler_only(
    tmp_path: Path,
) -> None:
    @ev.event("object_starred")
    class ObjectStarred(ev.Event):
        """An object was marked with a star."""

        object_id: int

    @perform.register(ObjectStarred)
    def _(event, draft: Draft) -> None:
        known = draft.known(event.object_id)
        draft.put(event.object_id, replace(known, name=f"* {known.name}"))

    try:
        events = (*WORK, ObjectStarred(1), ObjectStarred(2), ev.Undone())
        annotator, path = record(tmp_path, events)
        session = Session.open(path)
        assert session.content.events[-2] == ObjectStarred(2)
        names = {o.object_id: o.name for o in session.objects()}
        assert names == {i: o.name for i, o in annotator.objects.items()}
        assert names[1].startswith("* ")
        assert not names[2].startswith("* ")
        assert "object_starred" in json.dumps(schema.json_schema())
    finally:
        del KINDS["object_starred"]
