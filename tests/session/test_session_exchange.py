"""Exports say the same as the labels; imports say the same as their source."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from session_cases import record

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.errors import OutputError, SessionError
from napari_cfrseg.io.object_exports import ExportedObject
from napari_cfrseg.session.format import ImageReference, ModelReference, SessionContent
from napari_cfrseg.session.imported_events import (
    events_from_csv,
    events_from_labels,
    events_from_points,
)
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_exports import FORMATS, export, methods_paragraph
from napari_cfrseg.session.session_writer import SessionWriter

ROWS = (ExportedObject(1, "ring", "#ff0080", "vesicle"), ExportedObject(3, "two parts"))


def labels() -> np.ndarray:
    out = np.zeros((20, 24), np.int32)
    out[2:10, 3:12] = 1
    out[4:7, 5:9] = 0
    out[5, 6] = 1  # an island in the hole
    out[12:14, 1] = 3
    out[14:18, 2:4] = 3  # touches at a corner only
    out[19, 23] = 300
    return out


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_is_written_from_a_session(tmp_path: Path, ending: str) -> None:
    if ending == ".zarr":
        pytest.importorskip("zarr")
    if ending == ".zip":
        pytest.importorskip("roifile")
    annotator, path = record(tmp_path)
    session = Session.open(path)
    target = tmp_path / "out" / f"a{ending}"
    found = annotator.labels_array()
    export(target, session.content, tuple(session.objects()), found)
    assert target.exists()
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    if ending.endswith(".tif"):
        assert np.array_equal(tifffile.imread(target), found)


def test_unknown_endings_are_refused(tmp_path: Path) -> None:
    _, path = record(tmp_path)
    session = Session.open(path)
    with pytest.raises(SessionError, match="expected one of the endings"):
        export(tmp_path / "a.xyz", session.content, (), np.zeros((2, 2), int))


def test_methods_paragraph_counts_what_is_there(tmp_path: Path) -> None:
    annotator, path = record(tmp_path)
    session = Session.open(path)
    text = methods_paragraph(session.content, tuple(session.objects()))
    clicks = sum(o.click_count for o in annotator.objects.values())
    made = f"{len(annotator.objects)} objects were made with {clicks} clicks"
    assert made in text
    assert "80 × 100 pixels" in text
    assert "\n" not in text
    assert "an unnamed model" in text
    assert "standard and CFR-2 inference" in text
    changes = (ev.ModelChanged("b", "cd" * 32), ev.ModelChanged("a", "ab" * 32))
    content = replace(
        session.content,
        model=ModelReference("a", "ab" * 32),
        events=(*session.content.events, *changes),
    )
    said = f"the models a (weights SHA-256 {'ab' * 32}), then b (weights SHA-256 "
    assert said in methods_paragraph(content, tuple(session.objects()))


def test_clicks_csv_comes_back_as_the_same_clicks(tmp_path: Path) -> None:
    _, path = record(tmp_path)
    session = Session.open(path)
    objects = tuple(session.objects())
    target = tmp_path / "a.csv"
    export(target, session.content, objects, np.zeros((80, 100), int))
    events = events_from_csv(target)
    added = [e for e in events if isinstance(e, ev.ClickAdded)]
    expected = [(o.object_id, p, c.click) for o in objects for p, c in o.clicks()]
    assert [(e.object_id, e.plane, e.click) for e in added] == expected
    created = [e for e in events if isinstance(e, ev.ObjectCreated)]
    assert [e.name for e in created] == [o.name for o in objects if list(o.clicks())]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "columns y and x"),
        ("y,x\n1,two\n", "line 2"),
        ("y,x,sign\n1,2,?\n", "sign"),
        ("y,x\n1,nan\n", "finite"),
        ("", "columns y and x"),
    ],
)
def test_tables_that_are_no_clicks_are_one_clear_line(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(SessionError, match=said) as caught:
        events_from_csv(path)
    assert "\n" not in str(caught.value)


def numbers_and_names(events: list[ev.Event]) -> list[tuple[int, str]]:
    return [(e.object_id, e.name) for e in events if isinstance(e, ev.ObjectCreated)]


def test_a_table_s_names_and_large_numbers(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("y,x,object,name\n1,2,70000,\n3,4,70000,late\n5,6,2,\n7,8,b,\n")
    assert numbers_and_names(events_from_csv(path)) == [
        (70_000, "late"),
        (2, ""),
        (1, "b"),
    ]
    small = events_from_csv(path, first_object=4, most=65_535)
    assert numbers_and_names(small) == [(5, "late"), (4, ""), (6, "b")]


@pytest.mark.parametrize("row", ["-1,2,3,a", "1,1e300,3,a", "1,2,3," + "n" * 2000])
def test_the_line_of_a_click_that_cannot_be(tmp_path: Path, row: str) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(f"z,y,x,name\n1,2,3,a\n{row}\n")
    with pytest.raises(SessionError, match=re.escape(f"{path}, line 3: ")):
        events_from_csv(path)


def test_points_that_cannot_be_clicks() -> None:
    with pytest.raises(SessionError, match="point 1"):
        events_from_points([[1, 2, 3], [np.inf, 2, 3]])
    with pytest.raises(ValueError, match="shorter"):
        events_from_points([[1, 2], [3, 4]], objects=["a"])
    alone = events_from_points([[1, 2], [3, 4]], objects=[np.nan, np.nan])
    assert numbers_and_names(alone) == [(1, ""), (2, "")]


def test_points_become_objects_or_clicks_of_one() -> None:
    points = np.array([[1, 2.6, 3], [0, 4, 5], [0, 6, 7]])
    alone = events_from_points(points, first_object=5)
    assert [e.object_id for e in alone[::2]] == [5, 6, 7]
    assert alone[1].plane == (1,)
    assert alone[1].click.yx == (2.6, 3.0)
    joint = events_from_points(points, objects=["b", "a", "b"], positive=[1, 1, 0])
    clicks = [e for e in joint if isinstance(e, ev.ClickAdded)]
    assert [e.object_id for e in clicks] == [1, 2, 1]
    assert [e.click.is_positive for e in clicks] == [True, True, False]


def test_labels_become_objects_plane_by_plane() -> None:
    stack = np.stack([labels(), np.zeros_like(labels()), labels()])
    events = list(events_from_labels(stack))
    assert [e.plane for e in events] == [(0,), (2,)]
    assert set(events[0].labels.after) == {1, 3, 300}


def test_an_export_never_replaces_its_image(tmp_path: Path) -> None:
    image, labels = tmp_path / "image.tif", np.ones((4, 4), np.int32)
    tifffile.imwrite(image, labels.astype(np.uint8))
    content = SessionContent(
        ImageReference("image.tif", (4, 4), "uint8", ("y", "x"), "0" * 64)
    )
    elsewhere = replace(content, image=replace(content.image, path="../image.tif"))
    for one, source in ((content, None), (elsewhere, image)):
        with pytest.raises(OutputError, match="is the image itself"):
            export(image, one, [], labels, source=source)
    assert tifffile.imread(image).dtype == np.uint8
    export(tmp_path / "labels.tif", content, [], labels)


@pytest.mark.parametrize(
    "write",
    [
        *(
            lambda p, c, e=e: export(f"{p}{e}", c, [], np.ones((4, 4), int))
            for e in FORMATS
        ),
        lambda p, c: SessionWriter.create(f"{p}.cfrseg.json", c),
        lambda p, c: SessionWriter.open(f"{p}.cfrseg.json"),
    ],
)
def test_a_name_that_no_file_can_have_is_one_line(tmp_path: Path, write) -> None:
    content = SessionContent(
        ImageReference(None, (4, 4), "uint8", ("y", "x"), "0" * 64)
    )
    with pytest.raises(OutputError, match=r"a\\0b.*: a name cannot hold the character"):
        write(tmp_path / "a\0b", content)
    assert not list(tmp_path.iterdir())
