"""The controller with napari's viewer model, on the spot: no display, no thread."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import FloodNetwork
from controller_bench import PLACEMENT, Bench, squares
from napari.layers import Layer

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.gui.segment.layers import unheard
from napari_cfrseg.gui.segment.marker_size import POINT_PX


@pytest.fixture
def bench():
    made = Bench(**PLACEMENT)
    yield made
    made.controller.close()


def test_layers_lie_on_the_image(bench):
    for layer in (bench.points, bench.labels):
        assert np.allclose(layer.scale, bench.image.scale)
        assert np.allclose(layer.translate, bench.image.translate)
        assert layer.units == bench.image.units
        assert layer.axis_labels == bench.image.axis_labels
    assert bench.viewer.layers.selection.active is bench.points
    assert bench.points.mode == "add"


def test_click_gives_the_object_under_it(bench):
    bench.click(20, 20)
    assert bench.labels.data[20, 20] == 1
    assert bench.labels.data[20, 70] == 0
    assert bench.agrees()
    (row,) = bench.view.objects
    assert (row.object_id, row.clicks, row.locked) == (1, 1, False)
    assert "ms" in bench.view.timing
    assert bench.labels.selected_label == 1


def test_points_differ_by_symbol_and_colour(bench):
    bench.click(20, 20)
    bench.click(20, 27, right=True)
    assert list(bench.points.features["polarity"]) == ["positive", "negative"]
    assert [str(s) for s in bench.points.symbol] == ["disc", "x"]
    assert not np.allclose(*bench.points.face_color)
    assert bench.agrees()


def test_right_click_is_the_other_polarity_once(bench):
    bench.click(20, 20)
    first = bench.area(1)
    bench.click(20, 27, right=True)
    assert bench.area(1) < first
    bench.click(15, 12)
    bench.controller.toggle_polarity()
    bench.click(12, 12)
    bench.click(25, 25, right=True)
    assert list(bench.points.features["polarity"]) == [
        "positive",
        "negative",
        "positive",
        "negative",
        "positive",
    ]
    assert bench.agrees()


def test_a_negative_click_too_far_away_to_count_says_so():
    bench = Bench(squares((80, 400)))
    bench.click(20, 20)
    before = bench.area(1)
    bench.click(70, 390, right=True)
    assert bench.area(1) == before
    assert f"2 clicks, still {before} px" in bench.view.status
    assert "too far" in bench.view.status
    bench.click(20, 27, right=True)
    assert "3 clicks" in bench.view.status
    assert "too far" not in bench.view.status
    bench.controller.close()


def test_polarity_does_not_recolour_the_point_just_set(bench):
    bench.click(20, 20)
    bench.controller.toggle_polarity()
    assert [str(s) for s in bench.points.symbol] == ["disc"]


def test_undo_redo_bring_points_and_labels_back(bench):
    bench.click(20, 20)
    first = bench.labels.data.copy()
    bench.click(20, 27, right=True)
    second = bench.labels.data.copy()
    calls = dict(bench.network.calls)
    bench.controller.undo()
    assert np.array_equal(bench.labels.data, first)
    assert len(bench.points.data) == 1
    assert bench.agrees()
    bench.controller.undo()
    assert not bench.labels.data.any()
    assert not bench.view.objects
    assert bench.view.selected is None
    bench.controller.redo()
    bench.controller.redo()
    assert np.array_equal(bench.labels.data, second)
    assert bench.view.selected == 1
    assert bench.agrees()
    assert bench.network.calls == calls


def test_second_object_and_back_to_the_first(bench):
    bench.click(20, 20)
    bench.controller.new_object()
    assert bench.view.selected is None
    bench.click(20, 70)
    assert bench.labels.data[20, 70] == 2
    bench.controller.select(1)
    bench.click(20, 27, right=True)
    assert [row.clicks for row in bench.view.objects] == [2, 1]
    assert bench.agrees()


def test_locked_object_refuses_and_nothing_changes(bench):
    bench.click(20, 20)
    bench.controller.submit(ev.ObjectLocked(1, True))
    before = bench.labels.data.copy()
    bench.click(25, 25)
    assert "locked" in bench.told[-1][1]
    assert np.array_equal(bench.labels.data, before)
    assert len(bench.points.data) == 1
    bench.controller.new_object()
    bench.click(25, 25)
    assert np.array_equal(bench.labels.data, before)
    assert bench.agrees()


def test_deleting_and_dragging_points_recompute(bench):
    bench.click(20, 20)
    first = bench.labels.data.copy()
    bench.click(20, 27, right=True)
    shrunk = bench.area(1)
    bench.points.selected_data = {1}
    bench.points.remove_selected()
    assert np.array_equal(bench.labels.data, first)
    assert bench.agrees()
    bench.controller.undo()
    assert bench.area(1) == shrunk
    drag(bench.points, 1, (20, 24))
    assert bench.area(1) < shrunk
    assert bench.agrees()
    drag(bench.points, 1, (20, 500))
    assert bench.told[-1] == ("info", "Clicks stay on the image.")
    assert bench.agrees()


def drag(points, index, to):
    """The events of a drag in napari: data changed in place, then CHANGED."""
    from napari.layers.base import ActionType

    with points.events.data.blocker():
        moved = points.data.copy()
        moved[index] = to
        points.data = moved
    points.events.data(
        value=points.data,
        action=ActionType.CHANGED,
        data_indices=(index,),
        vertex_indices=((),),
    )


def test_painting_updates_the_object(bench):
    bench.click(20, 20)
    bench.labels.selected_label = 1
    bench.labels.brush_size = 6
    bench.labels.paint((50, 50), 1)
    assert bench.controller.annotator.labels()[50, 50] == 1
    assert bench.agrees()
    bench.controller.undo()
    assert bench.labels.data[50, 50] == 0
    assert bench.agrees()


def test_a_stroke_through_several_planes_is_one_undo_step():
    bench = Bench(squares((3, 80, 100)))
    bench.labels.n_edit_dimensions = 3
    bench.labels.brush_size = 4
    bench.labels.paint((1, 50, 50), 7)
    assert [bool((plane == 7).any()) for plane in bench.labels.data] == [True] * 3
    assert bench.view.status == f"Object 7: 0 clicks, {bench.area(7)} px."
    bench.controller.undo()
    assert not bench.labels.data.any()
    bench.controller.redo()
    assert bench.labels.data.any(axis=(1, 2)).all()
    assert bench.agrees()
    bench.controller.submit(ev.ObjectLocked(7, True))
    before = bench.labels.data.copy()
    bench.labels.paint((1, 50, 50), 0)  # refused on all planes
    assert np.array_equal(bench.labels.data, before)
    bench.controller.close()


def test_a_stroke_where_no_object_is_selected_begins_one(bench):
    bench.click(20, 20)
    before = bench.area(1)
    bench.controller.new_object()
    bench.labels.paint((50, 50), bench.labels.selected_label)
    assert bench.area(1) == before
    assert bench.view.selected == 2
    assert bench.labels.selected_label == 2
    bench.click(52, 52)
    assert bench.view.objects[1].clicks == 1
    for _ in range(2):
        bench.controller.undo()
    assert len(bench.view.objects) == 1


def test_the_status_says_what_an_act_left_of_its_objects(bench):
    bench.click(20, 20)
    bench.click(20, 24)
    bench.points.selected_data = {1}
    bench.points.remove_selected()
    assert bench.view.status == f"Object 1: 1 click, {bench.area(1)} px."
    bench.controller.edits.reject()
    assert bench.view.status == "No suggestion is here, and no click is chosen."
    bench.controller.new_object()
    bench.click(20, 70)
    bench.controller.edits.merge([1, 2])
    assert bench.view.status == f"Object 1: 1 click, {bench.area(1)} px."
    bench.controller.delete_selected()
    assert bench.view.status == "Object 1 deleted."


def test_painting_on_a_locked_object_is_put_back(bench):
    bench.click(20, 20)
    bench.controller.submit(ev.ObjectLocked(1, True))
    before = bench.labels.data.copy()
    bench.labels.paint((20, 20), 0)
    assert np.array_equal(bench.labels.data, before)
    bench.labels.paint((20, 28), 5)
    assert np.array_equal(bench.labels.data == 1, before == 1)
    bench.labels.paint((50, 50), 1)
    assert "locked" in bench.told[-1][1]
    assert bench.agrees()


def test_threshold_follows_the_selected_object(bench):
    bench.click(20, 20)
    calls = dict(bench.network.calls)
    bench.controller.set_threshold(0.9)
    assert bench.controller.annotator.objects[1].threshold == 0.9
    assert bench.network.calls == calls
    bench.controller.new_object()
    bench.click(20, 70)
    assert bench.controller.annotator.objects[2].threshold == 0.9
    bench.controller.set_threshold(0.3)
    bench.controller.select(1)
    assert bench.view.threshold == 0.9


def test_settings_are_events(bench):
    bench.controller.set_refinement(Refinement.cfr(2))
    bench.controller.set_rule(ev.OverlapRule.OVERWRITE)
    assert bench.controller.annotator.refinement == Refinement.cfr(2)
    assert bench.controller.annotator.rule is ev.OverlapRule.OVERWRITE
    bench.click(20, 20)
    assert "3 steps" in bench.view.timing


def test_focus_keys_recompute_the_newest_click(bench):
    bench.controller.steps.shift_focus(-1)
    bench.click(20, 20)
    (_, entry), *_ = bench.controller.annotator.objects[1].clicks()
    assert entry.focus_shift == -1
    bench.controller.steps.shift_focus(+1)
    bench.controller.steps.shift_focus(+1)
    (_, entry), *_ = bench.controller.annotator.objects[1].clicks()
    assert entry.focus_shift == 1
    assert bench.agrees()


def test_reset_object(bench):
    bench.click(20, 20)
    bench.click(20, 27, right=True)
    bench.controller.reset_object()
    assert not bench.labels.data.any()
    assert len(bench.points.data) == 0
    assert bench.view.selected == 1
    bench.controller.undo()
    assert bench.agrees()
    assert len(bench.points.data) == 2
    bench.controller.new_object()
    bench.controller.reset_object()
    assert bench.view.status.startswith("No object is selected")
    assert len(bench.points.data) == 2


@pytest.mark.parametrize("index", [(-5, 20), (20, 300)])
def test_clicks_off_the_image_do_not_count(bench, index):
    bench.click(*index)
    assert bench.told[-1] == ("info", "That click is not on the image.")
    assert len(bench.points.data) == 0
    assert not bench.view.objects


def test_stack_gets_its_click_on_the_plane_shown():
    bench = Bench(squares((4, 80, 100)), scale=(3, 0.5, 0.5))
    bench.viewer.dims.set_point(0, 6)
    assert bench.controller.planes.current_plane == (2,)
    bench.click(2, 20, 20)
    assert bench.labels.data[2, 20, 20] == 1
    assert not bench.labels.data[[0, 1, 3]].any()
    bench.viewer.dims.set_point(0, 9)
    bench.click(3, 20, 20)
    assert bench.labels.data[3, 20, 20] == 1
    assert bench.agrees()
    bench.viewer.dims.order = (1, 0, 2)
    bench.click(1, 20, 20)
    assert "annotated on yx planes" in bench.told[-1][1]
    bench.viewer.dims.order = (0, 1, 2)
    bench.labels.paint((3, 60, 60), 1)
    assert bench.agrees()


def test_fill_leaves_planes_outside_its_range_and_forward_leaves_no_gap():
    bench = Bench(squares((7, 80, 100)))
    stack = bench.controller.stack
    bench.viewer.dims.set_point(0, 1)
    bench.click(1, 20, 20)
    bench.viewer.dims.set_point(0, 4)
    stack.over(4, 5)
    assert bench.labels.data.any((1, 2)).tolist() == [0, 1, 0, 0, 1, 1, 0]
    stack.forward()
    assert bench.labels.data.any((1, 2)).tolist() == [0, 1, 1, 1, 1, 1, 1]
    assert bench.agrees()


@pytest.mark.parametrize("is_apart", [False, True])
def test_the_object_whose_first_click_is_being_computed_is_propagated(is_apart):
    bench = Bench(squares((3, 80, 100)))
    bench.click(0, 20, 20)
    bench.controller.auto_next = is_apart
    if not is_apart:
        bench.controller.new_object()
    bench.runner.hold()
    bench.click(0, 20, 70)
    bench.controller.stack.forward()
    bench.runner.release()
    planes = [(bench.labels.data == label).any((1, 2)).tolist() for label in (1, 2)]
    assert planes == [[True, False, False], [True, True, True]]


def test_the_strip_shows_all_objects_when_a_new_one_s_click_was_cancelled():
    bench = Bench(squares((3, 80, 100)))
    bench.viewer.dims.set_current_step(0, 0)
    bench.click(0, 20, 20)
    bench.controller.stack.forward()
    bench.controller.new_object()
    before = bench.view.stack
    bench.runner.hold()
    bench.click(0, 20, 70)
    bench.viewer.dims.set_current_step(0, 1)
    bench.controller.cancel_pending()
    bench.runner.release()
    after = bench.view.stack
    assert [cell.kind for cell in after.cells] == [cell.kind for cell in before.cells]
    assert after.worst == before.worst is not None


def test_a_model_loaded_while_objects_are_suggested_is_ready(bench):
    bench.click(20, 20)
    bench.controller.new_object()
    bench.runner.hold()
    bench.controller.suggestions.start()
    seen = []
    bench.controller.changed.connect(lambda view: seen.append(view))
    bench.controller.load_model(
        lambda: Segmenter(FloodNetwork(0.2), device="cpu"), "other"
    )
    bench.runner.release()
    assert any(view.loading for view in seen)
    assert not any("Loading" in v.status for v in seen if not v.loading)


def test_rgb_image_and_its_axes():
    pixels = np.repeat(squares()[..., None], 3, axis=-1)
    bench = Bench(pixels, rgb=True, scale=(2, 2))
    assert bench.labels.data.shape == (80, 100)
    bench.click(20, 20)
    assert bench.labels.data[20, 20] == 1


def test_pyramid_is_worked_on_at_full_resolution():
    fine = np.kron(squares(), np.ones((2, 2), np.uint8))
    bench = Bench([fine, squares()], multiscale=True, scale=(0.5, 0.5))
    assert bench.labels.data.shape == (160, 200)
    assert np.allclose(bench.labels.scale, 0.5)
    bench.click(41, 41)
    assert bench.labels.data[41, 41] == 1


def test_failed_model_says_so_and_clicks_are_refused():
    from napari_cfrseg.errors import CheckpointError

    def load():
        raise CheckpointError("no such model")

    bench = Bench(load=load)
    assert bench.told == [("warning", "no such model")]
    bench.click(20, 20)
    assert "no model" in bench.told[-1][1]
    assert len(bench.points.data) == 0
    assert not bench.labels.data.any()


def test_recoloured_object_shows_its_colour(bench):
    bench.click(20, 20)
    shown = bench.labels.get_color(1)
    colour = bench.view.objects[0].colour
    assert np.allclose(shown[:3], [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    bench.controller.submit(ev.ObjectRecoloured(1, "#ff0000"))
    assert np.allclose(bench.labels.get_color(1), (1, 0, 0, 1))


@pytest.mark.parametrize("done_at_once", [True, False])
def test_a_click_is_on_its_way_before_its_point_is_shown_in_one_change(
    qtbot, bench, done_at_once
):
    bench.click(20, 20)
    bench.runner.hold()
    seen = []
    bench.points.events.data.connect(
        lambda event: seen.append((len(bench.runner.waiting), len(bench.points.data)))
    )
    bench.click(20, 27)
    assert not seen
    assert bench.view.pending == 1
    if not done_at_once:
        qtbot.waitUntil(lambda: bool(seen))
        assert seen == [(1, 2)]
    assert not bench.points.selected_data
    bench.runner.release()
    qtbot.wait(30)
    assert seen == [(0 if done_at_once else 1, 2)]
    assert bench.agrees()


def test_a_click_is_drawn_once_and_listed_at_rest(qtbot, bench):
    bench.click(20, 20)
    drawn, listed = [], []
    bench.points.events.set_data.connect(lambda: drawn.append(len(bench.points.data)))
    bench.viewer.layers.events.connect(lambda event: listed.append(event.type))
    bench.click(20, 27, right=True)
    assert drawn == [2]
    assert not listed
    qtbot.waitUntil(lambda: listed == ["thumbnail"])
    bench.controller.undo()
    assert drawn == [2, 1]
    assert bench.agrees()


def test_points_are_right_where_napari_cannot_be_kept_from_drawing(bench, monkeypatch):
    bench.click(20, 20)
    monkeypatch.delattr(Layer, "_block_refresh")
    bench.click(20, 27, right=True)
    bench.controller.undo()
    bench.click(20, 70)
    assert bench.agrees()
    assert [str(one) for one in bench.points.symbol] == ["disc", "disc"]


def test_only_the_callbacks_named_are_spared(bench):
    heard = []
    bench.points.events.features.connect(lambda: heard.append("another"))
    bench.points.events.features.connect(bench.controller.ready_to_click)
    bench.viewer.layers.selection.active = bench.image
    with unheard(bench.points.events.features, "ready_to_click"):
        bench.points.events.features()
    assert heard == ["another"]
    assert bench.viewer.layers.selection.active is bench.image
    with unheard(bench.points.events.features, "no such name"):
        bench.points.events.features()
    assert bench.viewer.layers.selection.active is bench.points


def test_layers_come_without_showing_others_controls_and_get_their_tools(qtbot):
    bench = Bench()
    seen = []
    bench.viewer.layers.selection.events.active.connect(
        lambda event: seen.append(event.value)
    )
    image = bench.viewer.add_image(squares(), name="more")
    second = Controller(
        bench.viewer, image, bench.runner, lambda: None, lambda *_: None
    )
    assert second.labels.layer not in seen
    assert seen[-1] is second.clicks.layer
    assert list(bench.viewer.layers)[-2:] == [second.labels.layer, second.clicks.layer]
    tools = second.labels.layer._overlays
    qtbot.waitUntil(lambda: tools["polygon"].visible and tools["brush_stroke"].visible)
    second.close()
    bench.controller.close()


def test_closing_leaves_layers_alone(bench):
    bench.click(20, 20)
    bench.controller.close()
    assert bench.points in bench.viewer.layers
    bench.points.add((20, 70))
    assert bench.labels.data[20, 70] == 0
    assert bench.controller.view.pending == 0


def test_replay_of_the_window_s_events_gives_its_labels(bench):
    """Hops 3, 5, 6, 7 of a click are the same code with and without a window."""
    from replayed import replay

    applied = []
    bench.controller.applied.connect(applied.append)
    bench.click(20, 20)
    bench.click(20, 27, right=True)
    bench.controller.new_object()
    bench.click(20, 70)
    bench.controller.undo()
    bench.labels.paint((50, 50), 1)
    bench.click(15, 65)
    segmenter = Segmenter(FloodNetwork(), device="cpu")
    assert np.array_equal(replay(applied, squares(), segmenter), bench.labels.data)


def test_object_whose_first_click_fails_does_not_stay_behind(bench):
    """Any error takes the creation back, not only those the person can mend."""
    whole = bench.network.refine

    def fails(features, feedback, newest_click):
        raise RuntimeError("out of memory")

    bench.network.refine = fails
    with pytest.raises(RuntimeError, match="out of memory"):
        bench.click(20, 20)
    bench.network.refine = whole
    assert not bench.controller.annotator.objects
    assert bench.view.selected is None
    assert len(bench.points.data) == 0
    bench.click(20, 20)
    assert bench.labels.data[20, 20] == 1
    assert bench.view.undo_depth == 1
    assert bench.agrees()


def test_refused_new_object_leaves_redo_as_it_was(bench):
    bench.controller.set_rule(ev.OverlapRule.OVERWRITE)
    bench.click(20, 20)
    bench.controller.submit(ev.ObjectLocked(1, True))
    bench.controller.new_object()
    bench.click(20, 70)
    bench.controller.undo()
    assert bench.view.redo_depth == 1
    bench.controller.new_object()
    bench.click(20, 20)
    assert "locked" in bench.told[-1][1]
    assert bench.view.redo_depth == 1
    bench.controller.redo()
    assert bench.labels.data[20, 70] == 2
    assert bench.agrees()


def test_slider_moved_while_work_waits_reaches_each_object(bench):
    """Each object gets the last value the slider had while it was selected."""
    bench.click(20, 20)
    bench.controller.new_object()
    bench.click(20, 70)
    bench.runner.hold()
    bench.controller.select(1)
    bench.controller.set_threshold(0.6)
    bench.controller.set_threshold(0.7)
    bench.controller.select(2)
    assert bench.view.threshold == 0.5
    bench.controller.set_threshold(0.3)
    bench.controller.select(1)
    assert bench.view.threshold == 0.7
    bench.controller.select(2)
    bench.runner.release()
    objects = bench.controller.annotator.objects
    assert (objects[1].threshold, objects[2].threshold) == (0.7, 0.3)
    assert bench.view.threshold == 0.3
    assert bench.view.pending == 0
    assert bench.agrees()


def test_undo_and_redo_select_the_object_they_changed(bench):
    for x in (20, 70):
        bench.controller.new_object()
        bench.click(20, x)
        bench.click(20, x + 5)
    bench.controller.choose(1)
    for expected in (2, None, 1, None):
        bench.controller.undo()
        assert bench.view.selected == expected
    for expected in (1, 1, 2, 2):
        bench.controller.redo()
        assert bench.view.selected == expected
        assert bench.labels.selected_label == expected
    assert "Object 2" in bench.view.status
    assert bench.agrees()


def test_points_have_one_size_on_the_screen(bench):
    """And no limits, with which napari draws a dot where no point is."""
    bench.click(20, 20)
    camera = bench.viewer.scene.camera
    for zoom in (0.5, 4, 40):
        camera.zoom = zoom
        shown = bench.points.size * bench.points.scale[-1] * zoom
        assert np.allclose(shown, POINT_PX, rtol=0.2)
        assert bench.points.canvas_size_limits[0] == 0


def test_points_are_drawn_smaller_on_objects_small_on_the_screen(bench):
    camera, pixel = bench.viewer.scene.camera, bench.points.scale[-1]
    camera.zoom = 0.5 / pixel  # an object of 20 pixels is 10 wide
    bench.click(20, 20)
    ((_, whole),) = bench.controller.objects.items()
    side = min(whole.on(()).mask.mask.shape)
    least = bench.points.canvas_size_limits[1]
    assert least == pytest.approx(max(4, side * 0.5 / 3))
    assert np.allclose(bench.points.size * pixel * camera.zoom, POINT_PX, rtol=0.2)
    camera.zoom = 24 / side / pixel
    assert bench.points.canvas_size_limits[1] == pytest.approx(8)
    camera.zoom = 10 / pixel
    assert bench.points.canvas_size_limits[1] > POINT_PX
    bench.controller.undo()
    camera.zoom = 0.1 / pixel
    assert bench.points.canvas_size_limits[1] > POINT_PX


def test_a_size_given_to_points_stays_at_every_zoom(bench):
    bench.click(20, 20)
    camera, pixel = bench.viewer.scene.camera, bench.points.scale[-1]
    camera.zoom = 2 / pixel
    bench.points.current_size = 15.0  # as napari's slider does
    for zoom in (0.5, 2, 40):
        camera.zoom = zoom / pixel
        assert np.allclose(bench.points.size * zoom, 30, rtol=0.11)
        assert bench.points.canvas_size_limits[1] > 30


def test_new_point_is_not_selected_so_that_its_sign_shows(bench):
    bench.click(20, 20)
    assert not bench.points.selected_data
    bench.click(20, 27, right=True)
    assert not bench.points.selected_data
    bench.points.selected_data = {0}
    assert bench.points.selected_data == {0}


def test_device_line_says_what_computes_and_notices_are_said_once(bench):
    bench.click(20, 20)
    assert bench.view.device == "cpu"
    assert "as asked for" in bench.view.placement
    assert bench.view.backend.startswith("torch")
    assert bench.view.timing.startswith("cpu · ")
    segmenter = bench.controller._shown.segmenter
    segmenter.notices.warns = False
    segmenter.notices.add("cuda is out of memory; from now on the CPU computes")
    bench.click(25, 20)
    assert "out of memory" in bench.view.status
    bench.click(12, 20)
    assert "out of memory" not in bench.view.status
