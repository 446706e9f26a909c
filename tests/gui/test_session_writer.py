"""napari's File → Save: everything on the image's pixels, or one line that says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image, Labels, Points
from session_cases import SHAPE, WORK, flood_segmenter, pixels, record

from napari_cfrseg.annotation.events import OverlapChanged, OverlapRule
from napari_cfrseg.errors import SessionError
from napari_cfrseg.gui.session.session_layers import read_session, write_session
from napari_cfrseg.session.session import Session


def save(folder: Path, *layers) -> Session:
    """Save layers as napari does, and open the session."""
    named = [layer.as_layer_data_tuple() for layer in layers]
    (path,) = write_session(str(folder / "made.cfrseg.json"), named)
    return Session.open(path)


def replayed(session: Session) -> np.ndarray:
    return np.asarray(session.apply(pixels(), flood_segmenter()))


def image(**placed) -> Image:
    return Image(pixels(), name="cells", **placed)


def square(label: int, y: int = 10, x: int = 10, dtype: type = int) -> np.ndarray:
    labels = np.zeros(SHAPE, dtype)
    labels[y : y + 12, x : x + 15] = label
    return labels


def test_labels_edited_by_hand_on_a_session_s_layers_are_kept(tmp_path):
    annotator, path = record(tmp_path)
    layers = read_session(str(path))
    (edited,) = [data for data, _, kind in layers if kind == "labels"]
    before = annotator.labels()
    assert np.array_equal(edited, before)
    edited[:] = np.where(before == 1, 0, before)
    edited[2:6, 2:9] = 7
    (copy,) = write_session(str(tmp_path / "copy.cfrseg.json"), layers)
    session = Session.open(copy)
    assert np.array_equal(session.saved_labels(), edited)
    assert np.array_equal(replayed(session), edited)
    assert session.content.identity != Session.open(path).content.identity
    assert np.array_equal(Session.open(path).saved_labels(), before)


def test_labels_that_are_new_beside_a_session_become_objects(tmp_path):
    annotator, path = record(tmp_path)
    layers = read_session(str(path))
    known = set(annotator.objects)
    place = np.argwhere(annotator.labels() == 0)[0]
    labels = np.zeros(SHAPE, int)
    labels[tuple(place)] = min(known)
    layers.append((labels, {"name": "more"}, "labels"))
    (copy,) = write_session(str(tmp_path / "copy.cfrseg.json"), layers)
    found = {o.object_id for o in Session.open(copy).objects()}
    assert known < found
    assert len(found) == len(known) + 1


@pytest.mark.parametrize("rule", list(OverlapRule))
def test_labels_wholly_under_a_session_s_objects_are_left_out(tmp_path, said, rule):
    _, path = record(tmp_path, (*WORK, OverlapChanged(rule)))
    layers = read_session(str(path))
    (there,) = [data for data, _, kind in layers if kind == "labels"]
    known = {o.object_id for o in Session.open(path).objects()}
    labels = np.zeros(SHAPE, int)
    labels[tuple(np.argwhere(there > 0)[0])] = 1
    labels[tuple(np.argwhere(there == 0)[0])] = 2
    layers.append((labels, {"name": "more"}, "labels"))
    (copy,) = write_session(str(tmp_path / "copy.cfrseg.json"), layers)
    made = len(Session.open(copy).objects()) - len(known)
    line = "1 label of “more” not saved: wholly under other objects."
    assert (made, said) == {"keep": (1, [line]), "overwrite": (2, [])}[rule]


@pytest.mark.parametrize(
    ("rule", "left"), [(OverlapRule.KEEP, "more"), (OverlapRule.OVERWRITE, "less")]
)
def test_labels_wholly_under_those_saved_with_them_are_left_out(
    tmp_path, said, rule, left
):
    _, path = record(tmp_path, (*WORK, OverlapChanged(rule)))
    layers = read_session(str(path))
    (there,) = [data for data, _, kind in layers if kind == "labels"]
    known = {o.object_id for o in Session.open(path).objects()}
    free = np.argwhere(there == 0)
    less, more = np.zeros((2, *SHAPE), int)
    for labels in (less, more):
        labels[tuple(free[:9].T)] = 1
    less[tuple(free[9])], more[tuple(free[10])] = 2, 2
    layers += [(less, {"name": "less"}, "labels"), (more, {"name": "more"}, "labels")]
    (copy,) = write_session(str(tmp_path / "copy.cfrseg.json"), layers)
    assert len(Session.open(copy).objects()) == len(known) + 3
    assert said == [f"1 label of “{left}” not saved: wholly under other objects."]


def test_points_in_micrometres_lie_on_the_image(tmp_path):
    points = Points(np.array([[10.0, 25.0]]))  # on a scale of 1: micrometres
    session = save(tmp_path, image(scale=(0.5, 0.5), units=("um", "um")), points)
    ((_, made),) = session.objects()[0].clicks()
    assert made.click.yx == (20.0, 50.0)


def test_the_image_s_spacing_and_units_are_kept(tmp_path):
    placed = {"scale": (0.5, 0.25), "units": ("um", "um")}
    session = save(tmp_path, image(**placed), Labels(square(4), **placed))
    assert session.image.spacing == (0.5, 0.25)
    assert session.image.units == ("micrometer", "micrometer")


def test_a_second_labels_layer_of_the_same_numbers_is_renumbered(tmp_path):
    first, second = square(4), square(4, 40, 30)
    session = save(tmp_path, image(), Labels(first), Labels(second))
    labels = replayed(session)
    assert np.array_equal(labels == 4, first == 4)
    assert np.array_equal(labels == 5, second == 4)


def test_numbers_too_large_for_objects_are_replaced(tmp_path):
    labels = square(1, dtype=np.int64)
    labels[labels == 1] = 2**31 + 5
    labels[40:50, 40:50] = 9
    found = replayed(save(tmp_path, image(), Labels(labels)))
    assert np.array_equal(found > 0, labels > 0)
    assert set(np.unique(found)) == {0, 1, 2}


@pytest.mark.parametrize(
    "placed",
    [
        {"translate": (7, 9)},
        {"scale": (2, 2)},
        {"scale": (0.5, 1), "translate": (3, 0)},
    ],
    ids=str,
)
def test_labels_that_lie_otherwise_are_put_where_they_are_seen(tmp_path, placed):
    layer = Labels(square(4), **placed)
    found = replayed(save(tmp_path, image(), layer)) == 4
    places = np.argwhere(np.ones(SHAPE, bool))
    exact = np.array([layer.world_to_data(place) for place in places.astype(float)])
    seen = np.round(exact).astype(int)
    inside = ((seen >= 0) & (seen < SHAPE)).all(axis=1)
    expected = np.zeros(len(places), bool)
    expected[inside] = layer.data[tuple(seen[inside].T)] == 4
    between = (np.abs(exact % 1 - 0.5) < 1e-6).any(axis=1)  # two pixels, equally far
    assert np.array_equal(found.ravel()[~between], expected[~between])
    assert expected.any()


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (lambda: [image(), Labels(square(4)[:20])], "has the shape"),
        (lambda: [image(), Labels(square(4)[None])], "has the shape"),
        (lambda: [image(), Labels(square(4), translate=(500, 0))], "do not lie on"),
        (lambda: [image(), Points([[5, 5], [900, 5]])], "1 points of .* do not lie on"),
        (lambda: [image(), Points([[0, 5, 5]])], "Points has 3 axes"),
        (lambda: [Labels(square(4))], "select the image"),
        (lambda: [image(), image(), Labels(square(4))], "select the image"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_nothing_is_written(
    tmp_path, layers, reason
):
    with pytest.raises(SessionError, match=reason) as error:
        save(tmp_path, *layers())
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
