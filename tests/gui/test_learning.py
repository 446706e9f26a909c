"""Lessons in the window: begun by themselves, followed, forgotten, saved."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from similarity import CONES, ShyNetwork, cones
from sync_runner import HeldRunner, run

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.gui.segment.controller import Controller


@pytest.fixture
def controller():
    viewer, told = ViewerModel(), []
    made = Controller(
        viewer,
        viewer.add_image(cones(), name="cones"),
        HeldRunner(),
        lambda: Segmenter(ShyNetwork(), device="cpu"),
        lambda *said: told.append(said),
    )
    made.applied.connect(lambda event: made.events.append(event))
    made.events = []
    yield made
    made.close()


def click_and_paint(controller: Controller, number: int) -> None:
    rows, columns = np.indices((136, 180))
    y, x = CONES[number]
    disc = np.hypot(rows - y, columns - x) <= 10
    labels = np.where(disc, number, 0).astype(np.int32)
    made = ev.ClickAdded(number, (), (float(y), float(x)), True, number)
    controller.submit(ev.ObjectCreated(number), made)
    runs = LabelRuns.from_labels(labels, disc, disc.shape)
    controller.submit(ev.Painted((), runs))


def teach(controller: Controller, count: int = 4) -> None:
    """Finish objects, and let the lesson's jobs run one after the other."""
    runner = controller.runner
    for number in range(1, count + 1):
        click_and_paint(controller, number)
    runner.hold()
    controller.learning.want(True)
    runner.release()


def click_another(controller: Controller, number: int) -> int:
    y, x = CONES[number]
    made = ev.ClickAdded(number, (), (float(y), float(x)), True, number)
    controller.submit(ev.ObjectCreated(number), made)
    return controller.objects[number].on(()).mask.area


def test_a_lesson_begins_at_four_objects_is_said_and_forgotten(controller):
    teach(controller)
    assert controller.view.learning.text == "Adapted to your 4 objects"
    assert controller.view.learning.in_use
    wide = click_another(controller, 6)
    controller.learning.forget()
    assert not controller.view.learning.in_use
    assert controller.view.learning.text == ""
    assert click_another(controller, 7) < wide


def test_nothing_is_learnt_from_three_objects_or_unless_wanted(controller):
    teach(controller, 3)
    controller.learning.want(False)
    click_and_paint(controller, 4)
    click_and_paint(controller, 5)
    assert controller.view.learning.text == ""
    assert not any(isinstance(e, ev.ModelAdapted) for e in controller.events)


def test_clicks_come_in_between_and_the_switch_ends_a_lesson(controller):
    runner = controller.runner
    for number in range(1, 5):
        click_and_paint(controller, number)
    runner.hold()
    controller.learning.want(True)
    assert controller.view.learning.text == "Learning from 4 objects …"
    assert len(runner.waiting) == 1  # one short job at a time
    y, x = CONES[6]
    made = ev.ClickAdded(6, (), (float(y), float(x)), True, 6)
    controller.submit(ev.ObjectCreated(6), made)
    run(runner.waiting.pop(0))
    run(runner.waiting.pop(0))
    assert 6 in controller.objects
    controller.learning.want(False)
    runner.release()
    assert not any(isinstance(e, ev.ModelAdapted) for e in controller.events)


def test_what_was_learnt_can_be_saved_only_where_something_was(controller, tmp_path):
    said = []
    controller.learning.save(tmp_path / "mine.safetensors", said.append)
    assert said == [
        "Not saved: nothing was learnt with this model: finish a few objects first"
    ]
