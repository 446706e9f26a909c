"""Lessons in an annotation: applied, recorded, replayed, forgotten."""

from __future__ import annotations

import json

import numpy as np
import pytest
from similarity import CONES, ShyNetwork, cones

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.event_fields import event_line, read_event
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.geometry.masks import LabelRuns

SHAPE = cones().shape


def begun(segmenter: Segmenter | None = None) -> Annotator:
    image = cones()
    if segmenter is None:
        segmenter = Segmenter(ShyNetwork(), device="cpu")
    return Annotator(lambda _: image, image.shape, segmenter)


def click(annotator: Annotator, number: int) -> list[ev.Event]:
    y, x = CONES[number]
    made = ev.ClickAdded(number, (), (float(y), float(x)), True, number)
    return list(annotator.apply(ev.ObjectCreated(number), made).events)


def click_and_paint(annotator: Annotator, number: int) -> list[ev.Event]:
    """Draw what the network left out."""
    rows, columns = np.indices(SHAPE)
    y, x = CONES[number]
    disc = np.hypot(rows - y, columns - x) <= 10
    labels = np.where(disc, number, 0).astype(np.int32)
    runs = LabelRuns.from_labels(labels, disc, SHAPE)
    made = click(annotator, number)
    return made + list(annotator.apply(ev.Painted((), runs)).events)


@pytest.fixture(scope="module")
def worked() -> tuple[Annotator, list[ev.Event]]:
    """Four painted outlines, a lesson, a fifth object, nothing learnt, a sixth."""
    annotator = begun()
    recorded = [e for n in range(1, 5) for e in click_and_paint(annotator, n)]
    (*_, taught) = annotator.lesson()
    recorded += annotator.apply(taught).events
    recorded += click(annotator, 5)
    recorded += annotator.apply(ev.ModelAdapted()).events
    recorded += click(annotator, 6)
    return annotator, recorded


def area(annotator: Annotator, number: int) -> int:
    return annotator.objects[number].on(()).mask.area


def test_a_lesson_is_learnt_from_painted_outlines_and_can_be_forgotten(worked):
    annotator, recorded = worked
    taught = next(e for e in recorded if isinstance(e, ev.ModelAdapted))
    assert taught.object_ids == (1, 2, 3, 4)
    assert area(annotator, 5) > 1.1 * area(annotator, 6)


def test_a_replay_from_the_file_gives_the_same_labels(worked):
    annotator, recorded = worked
    replayed = begun()
    for event in recorded:
        replayed.apply(read_event(json.loads(event_line(event))))
    np.testing.assert_array_equal(replayed.labels(), annotator.labels())


def test_another_annotation_with_the_same_segmenter_knows_nothing_of_it(worked):
    annotator, recorded = worked
    shared = Segmenter(ShyNetwork(), device="cpu")
    one = begun(shared)
    for event in recorded[:13]:
        one.apply(event)
    other = begun(shared)
    click(other, 6)
    assert area(other, 6) == area(annotator, 6)


def test_another_model_forgets_what_was_learnt(worked):
    annotator, recorded = worked
    changed = begun()
    for event in (*recorded[:13], ev.ModelChanged("other")):
        changed.apply(event)
    click(changed, 6)
    assert area(changed, 6) == area(annotator, 6)


def test_objects_left_out_and_imported_masks_do_not_teach():
    annotator = begun()
    for number in range(1, 4):
        click_and_paint(annotator, number)
    runs = LabelRuns.from_labels(
        np.full((9, 9), 9, np.int32), np.ones((9, 9), bool), SHAPE, (90, 90)
    )
    annotator.apply(ev.LabelsImported((), runs))
    assert list(annotator.lesson()) == []
    click_and_paint(annotator, 4)
    assert list(annotator.lesson(left_out={3})) == []
