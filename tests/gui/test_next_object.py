"""A click apart from the selected object begins the next one, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import FloodNetwork
from controller_bench import PLACEMENT, Bench

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.engine.segmenter import Segmenter

FIRST, SECOND, THIRD = (20, 20), (20, 70), (60, 20)


def squares() -> np.ndarray:
    """Return three bright squares on black."""
    pixels = np.zeros((80, 100), np.uint8)
    for y, x in (FIRST, SECOND, THIRD):
        pixels[y - 10 : y + 10, x - 10 : x + 10] = 200
    return pixels


@pytest.fixture
def bench():
    made = Bench(squares(), **PLACEMENT)
    made.controller.auto_next = True
    yield made
    made.controller.close()


def clicks(bench) -> list[int]:
    return [row.clicks for row in bench.view.objects]


def test_it_is_one_undo_step_selected_and_said(bench) -> None:
    bench.click(*FIRST)
    bench.click(*SECOND)
    assert clicks(bench) == [1, 1]
    assert (bench.view.selected, bench.view.next_id) == (2, 3)
    assert bench.view.status == "Object 2 started. M joins it to Object 1."
    assert bench.agrees()
    bench.controller.undo()
    assert clicks(bench) == [1]
    assert (bench.view.selected, bench.view.next_id) == (1, 2)
    bench.controller.redo()
    assert clicks(bench) == [1, 1]
    assert bench.view.selected == 2


def test_a_correction_stays_with_its_object(bench) -> None:
    bench.click(*FIRST)
    bench.click(12, 12)
    assert clicks(bench) == [2]
    assert bench.view.next_id == 2
    bench.controller.new_object()
    bench.click(*SECOND)
    assert bench.labels.data[SECOND] == 2


def test_negative_clicks_and_strokes_begin_none(bench) -> None:
    bench.click(*FIRST)
    bench.click(*SECOND, right=True)
    assert clicks(bench) == [2]
    image = bench.image
    path = [image.data_to_world(place) for place in (SECOND, (25, 75))]
    bench.controller.steps.drawn(path, is_box=False, is_other=False)
    assert len(bench.view.objects) == 1
    assert clicks(bench)[0] > 2


def test_a_pixel_of_another_object_begins_none(bench) -> None:
    bench.click(*FIRST)
    bench.click(*SECOND)
    bench.controller.select(1)
    bench.click(22, 72)
    assert clicks(bench) == [2, 1]


def test_a_negative_click_corrects_the_object_it_is_on(bench) -> None:
    bench.click(*FIRST)
    bench.click(*SECOND)
    before = bench.area(1)
    bench.click(27, 27, right=True)  # of the first object, while the second is selected
    assert clicks(bench) == [2, 1]
    assert bench.view.selected == 1
    assert bench.labels.data[27, 27] == 0
    assert bench.area(1) < before
    bench.controller.new_object()
    bench.click(27, 77, right=True)  # none is selected
    assert clicks(bench) == [2, 2]
    assert bench.agrees()


def test_a_negative_click_on_a_locked_object_says_so(bench) -> None:
    bench.click(*FIRST)
    bench.controller.submit(ev.ObjectLocked(1, True))
    bench.click(*SECOND)
    bench.click(27, 27, right=True)
    assert clicks(bench) == [1, 1]
    assert bench.told[-1][1].startswith("Object 1 is locked: unlock it")


def test_pixels_that_neighbours_keep_are_said(bench) -> None:
    bench.click(*FIRST)
    whole = bench.area(1)
    bench.click(27, 27, right=True)
    bench.controller.new_object()
    bench.click(27, 27)
    mine, kept = bench.area(2), bench.area(1)
    assert 0 < mine < whole
    assert bench.view.status == (
        f"Object 2: 1 click, {mine} px; {kept} px more stay with neighbours."
    )


def test_beside_a_locked_object_the_next_one_begins(bench) -> None:
    bench.click(*FIRST)
    bench.controller.submit(ev.ObjectLocked(1, True))
    bench.click(*SECOND)
    assert clicks(bench) == [1, 1]
    assert not bench.told


def test_quick_clicks_follow_the_object_that_begins(bench) -> None:
    """Those made before the network has answered, too."""
    bench.click(*FIRST)
    bench.runner.hold()
    bench.click(*SECOND)
    bench.click(22, 78, right=True)
    bench.click(*THIRD)
    bench.click(55, 12)
    bench.runner.release()
    assert clicks(bench) == [1, 2, 2]
    assert bench.view.selected == 3
    assert bench.view.next_id == 4
    assert bench.agrees()


def test_the_next_object_s_number_stays_free(bench) -> None:
    bench.click(*FIRST)
    bench.runner.hold()
    bench.click(9, 9)
    bench.controller.new_object()
    bench.click(*SECOND)
    bench.click(*THIRD)
    bench.runner.release()
    assert clicks(bench)[0] == 2
    assert {int(bench.labels.data[place]) for place in (SECOND, THIRD)} == {3, 4}
    assert bench.agrees()


def test_another_object_chosen_meanwhile_stays_chosen(bench) -> None:
    bench.click(*FIRST)
    bench.runner.hold()
    bench.click(*SECOND)
    bench.controller.new_object()
    bench.runner.release()
    assert clicks(bench) == [1, 1]
    assert bench.view.selected is None
    assert bench.view.next_id == 3


def test_m_joins_it_to_the_object_before(bench) -> None:
    bench.click(*FIRST)
    bench.click(*SECOND)
    bench.viewer.cursor.position = bench.image.data_to_world(SECOND)
    bench.controller.edits.merge_pointed()
    assert [row.object_id for row in bench.view.objects] == [1]
    assert bench.labels.data[SECOND] == 1
    assert bench.view.selected == 1
    bench.controller.undo()
    assert len(bench.view.objects) == 2


def test_what_was_applied_replays_to_the_same_labels(bench) -> None:
    events: list[ev.Event] = []
    bench.controller.applied.connect(events.append)
    bench.click(*FIRST)
    bench.click(*SECOND)
    bench.click(22, 78, right=True)
    bench.click(*THIRD)
    bench.controller.undo()
    again = Annotator(
        lambda _: squares(), (80, 100), Segmenter(FloodNetwork(), device="cpu")
    )
    for event in events:
        again.apply(event)
    assert np.array_equal(again.labels(), bench.labels.data)
    assert set(again.objects) == {1, 2}


def test_switched_off_a_click_apart_is_the_object_s(bench) -> None:
    bench.controller.auto_next = False
    bench.click(*FIRST)
    bench.click(*SECOND)
    assert clicks(bench) == [2]


def test_a_cancelled_click_begins_nothing(bench) -> None:
    bench.click(*FIRST)
    bench.runner.hold()
    bench.click(*SECOND)
    bench.controller.cancel_pending()
    bench.click(12, 12)
    bench.runner.release()
    assert clicks(bench) == [2]
    assert bench.view.next_id == 2


def test_on_another_plane_a_click_goes_on_with_the_object() -> None:
    bench = Bench(np.stack([squares()] * 3))
    bench.controller.auto_next = True
    bench.click(1, *FIRST)
    bench.viewer.dims.set_point(0, 2)
    bench.click(2, *SECOND)
    assert clicks(bench) == [2]
    bench.click(2, *THIRD)
    assert clicks(bench) == [2, 1]
    bench.controller.close()
