"""The annotator with a network that can be predicted by hand (see closed_form)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from closed_form import FloodNetwork
from replayed import replay

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.state import History
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import LockedObjectError, SessionError
from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.model.network import NetworkOutput

SHAPE = (80, 100)
#: two bright squares that do not touch, and a third grey one
SQUARES = {
    "left": (slice(10, 30), slice(10, 30)),
    "right": (slice(10, 30), slice(60, 80)),
}
LEFT, RIGHT = (20, 20), (20, 70)


def image() -> np.ndarray:
    pixels = np.zeros(SHAPE, np.uint8)
    for square in SQUARES.values():
        pixels[square] = 200
    return pixels


@pytest.fixture
def segmenter() -> Segmenter:
    return Segmenter(FloodNetwork(), device="cpu")


@pytest.fixture
def annotator(segmenter: Segmenter) -> Annotator:
    pixels = image()
    return Annotator(lambda plane: pixels[plane], SHAPE, segmenter)


def click(object_id, yx, click_id, *, positive=True, plane=(), **kwargs):
    return ev.ClickAdded(object_id, plane, yx, positive, click_id, **kwargs)


def labels_after(annotator: Annotator, *events: ev.Event) -> np.ndarray:
    for event in events:
        annotator.apply(event)
    return annotator.labels().copy()


def area(labels: np.ndarray, object_id: int) -> int:
    return int((labels == object_id).sum())


def iou(labels: np.ndarray, object_id: int, square: str) -> float:
    truth = np.zeros(SHAPE, bool)
    truth[SQUARES[square]] = True
    mask = labels == object_id
    return (mask & truth).sum() / (mask | truth).sum()


def box_mask(y0, y1, x0, x1) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def painted(value: int, mask: np.ndarray, plane=()) -> ev.Painted:
    labels = np.full(mask.shape, value, np.int32)
    return ev.Painted(plane, LabelRuns.from_labels(labels, mask, mask.shape))


def test_click_labels_the_square_under_it(annotator):
    labels = labels_after(annotator, ev.ObjectCreated(1), click(1, LEFT, 1))
    assert iou(labels, 1, "left") > 0.9
    assert set(np.unique(labels)) == {0, 1}


def test_patches_say_exactly_what_changed(annotator):
    annotator.apply(ev.ObjectCreated(1))
    mirror = np.zeros(SHAPE, np.int32)
    events = [
        click(1, LEFT, 1),
        click(1, (20, 26), 2, positive=False),
        ev.ObjectCreated(2),
        click(2, RIGHT, 3),
        ev.Undone(),
        ev.Undone(),
        ev.Redone(),
    ]
    for event in events:
        for patch in annotator.apply(event).patches:
            assert patch.size == len(patch.values())
            assert (mirror[patch.indices()] != patch.values()).all()
            mirror[patch.indices()] = patch.values()
        assert np.array_equal(mirror, annotator.labels())


def test_negative_click_shrinks_and_undo_restores_without_the_network(annotator):
    first = labels_after(annotator, ev.ObjectCreated(1), click(1, LEFT, 1))
    second = labels_after(annotator, click(1, (20, 27), 2, positive=False))
    assert 0 < area(second, 1) < area(first, 1)
    change = annotator.apply(ev.Undone())
    assert change.runs == 0
    assert np.array_equal(annotator.labels(), first)
    assert [e.click_id for _, e in change.objects[1].clicks()] == [1]
    assert annotator.apply(ev.Redone()).runs == 0
    assert np.array_equal(annotator.labels(), second)


@pytest.mark.parametrize("most_bytes", [1_000_000, 500])
def test_undo_goes_back_to_nothing_and_forward_again(annotator, most_bytes):
    """Also where all but the newest arrays of the history are in files."""
    annotator._history = history = History(most_bytes)
    events = [ev.ObjectCreated(1), click(1, LEFT, 1), ev.ObjectCreated(2)]
    events += [click(2, RIGHT, i, positive=i % 2 == 0) for i in range(2, 9)]
    end = labels_after(annotator, *events)
    depth = annotator.apply(ev.OverlapChanged(ev.OverlapRule.KEEP)).undo_depth
    first = history._done[0]
    arrays = [first.patches[0].starts, first.changes[1].after.on(()).mask.mask]
    in_files = most_bytes < 1_000_000
    assert [not array.flags.writeable for array in arrays] == [in_files] * 2
    for left in reversed(range(depth)):
        assert annotator.apply(ev.Undone()).undo_depth == left
    assert not annotator.labels().any()
    assert not annotator.objects
    assert annotator.apply(ev.Undone()).patches == ()
    for _ in range(depth):
        annotator.apply(ev.Redone())
    assert np.array_equal(annotator.labels(), end)
    assert set(annotator.objects) == {1, 2}


def test_creating_and_first_clicking_an_object_are_one_step(annotator):
    labels_after(annotator, ev.ObjectCreated(1), click(1, LEFT, 1), ev.Undone())
    assert not annotator.objects


def test_a_new_click_forgets_what_was_undone(annotator):
    labels_after(
        annotator, ev.ObjectCreated(1), click(1, LEFT, 1), click(1, (25, 25), 2)
    )
    annotator.apply(ev.Undone())
    assert annotator.apply(click(1, (15, 15), 3)).redo_depth == 0


@pytest.mark.parametrize(
    ("edit", "remaining"),
    [
        (ev.ClicksRemoved((2,)), [((20, 20), True), ((12, 12), False)]),
        (ev.ClicksRemoved((1, 3)), [((20, 26), False)]),
        (
            ev.ClicksMoved(((2, (20.0, 28.0)),)),
            [((20, 20), True), ((20, 28), False), ((12, 12), False)],
        ),
    ],
)
def test_edited_clicks_give_what_those_clicks_give_from_scratch(
    annotator, segmenter, edit, remaining
):
    edited = labels_after(
        annotator,
        ev.ObjectCreated(1),
        click(1, (20, 20), 1),
        click(1, (20, 26), 2, positive=False),
        click(1, (12, 12), 3, positive=False),
        edit,
    )
    fresh = replay(
        [
            ev.ObjectCreated(1),
            *(click(1, yx, i, positive=p) for i, (yx, p) in enumerate(remaining)),
        ],
        image(),
        segmenter,
    )
    assert np.array_equal(edited, fresh)


def test_only_rounds_from_the_edited_click_on_are_computed(annotator):
    labels_after(
        annotator, ev.ObjectCreated(1), *(click(1, (20, 14 + i), i) for i in range(6))
    )
    assert annotator.apply(ev.ClicksRemoved((4,))).runs == 1
    assert annotator.apply(ev.ClicksMoved(((2, (21.0, 16.0)),))).runs == 3
    assert annotator.apply(click(1, (12, 12), 9, position=1)).runs == 5


def test_inserted_click_stands_where_it_was_put(annotator, segmenter):
    negative = {"positive": False}
    inserted = labels_after(
        annotator,
        ev.ObjectCreated(1),
        click(1, (20, 20), 1),
        click(1, (20, 29), 3, **negative),
        click(1, (20, 26), 2, position=1, **negative),
    )
    assert [e.click_id for _, e in annotator.objects[1].clicks()] == [1, 2, 3]
    in_order = replay(
        [
            ev.ObjectCreated(1),
            click(1, (20, 20), 1),
            click(1, (20, 26), 2, **negative),
            click(1, (20, 29), 3, **negative),
        ],
        image(),
        segmenter,
    )
    assert np.array_equal(inserted, in_order)


def test_each_click_keeps_the_refinement_it_was_made_with(annotator):
    annotator.apply(ev.RefinementChanged(Refinement.cfr(3)))
    labels_after(annotator, ev.ObjectCreated(1), click(1, LEFT, 1))
    annotator.apply(ev.RefinementChanged(Refinement.standard()))
    assert annotator.apply(click(1, (25, 25), 2)).steps == 1
    annotator.apply(ev.ClicksRemoved((2,)))
    assert annotator.apply(ev.ClicksMoved(((1, (21.0, 21.0)),))).steps == 4


class TestOverlap:
    LEAK = box_mask(5, 35, 5, 75)

    @pytest.fixture
    def leaking(self, annotator) -> Annotator:
        """Object 1 on the left square; object 2's start mask covers it too."""
        labels_after(annotator, ev.ObjectCreated(1), click(1, LEFT, 1))
        return annotator

    def importing(self):
        return (
            ev.ObjectCreated(2),
            ev.MaskImported(2, (), LabelRuns.from_mask(self.LEAK)),
        )

    def test_keep_leaves_the_neighbour_whole(self, leaking):
        before = leaking.labels() == 1
        labels = labels_after(leaking, *self.importing())
        assert np.array_equal(labels == 1, before)
        assert np.array_equal(labels == 2, self.LEAK & ~before)

    def test_overwrite_takes_and_a_correction_gives_back(self, leaking):
        before = leaking.labels().copy()
        leaking.apply(ev.OverlapChanged(ev.OverlapRule.OVERWRITE))
        labels = labels_after(leaking, *self.importing())
        assert area(labels, 1) == 0
        labels = labels_after(leaking, click(2, LEFT, 2, positive=False))
        assert labels[LEFT] == 1
        given_back = ~leaking.objects[2].on(()).mask.to_mask(SHAPE)
        assert np.array_equal((labels == 1)[given_back], (before == 1)[given_back])

    @pytest.mark.parametrize("rule", list(ev.OverlapRule))
    def test_locked_object_never_changes(self, leaking, rule):
        before = leaking.labels() == 1
        leaking.apply(ev.OverlapChanged(rule))
        leaking.apply(ev.ObjectLocked(1, True))
        labels = labels_after(
            leaking,
            *self.importing(),
            click(2, (8, 8), 5),
            click(2, LEFT, 6, positive=False),
            painted(2, box_mask(0, 40, 0, 40)),
            painted(0, box_mask(0, 25, 0, 90)),
            ev.ObjectDeleted(2),
        )
        assert np.array_equal(labels == 1, before)

    def test_locked_object_is_no_heir(self, annotator):
        """A locked object does not gain pixels a neighbour gives back either."""
        mask = LabelRuns.from_mask(self.LEAK)
        labels_after(
            annotator,
            ev.ObjectCreated(1),
            ev.MaskImported(1, (), mask),
            ev.OverlapChanged(ev.OverlapRule.OVERWRITE),
            ev.ObjectCreated(2),
            ev.MaskImported(2, (), LabelRuns.from_mask(box_mask(5, 20, 5, 75))),
        )
        locked = annotator.labels() == 1
        labels = labels_after(annotator, ev.ObjectLocked(1, True), ev.ObjectDeleted(2))
        assert np.array_equal(labels == 1, locked)

    def test_note_where_the_neighbour_keeps_the_clicked_pixel(self, leaking):
        leaking.apply(ev.ObjectCreated(2))
        notes = leaking.apply(click(2, LEFT, 2)).notes
        assert notes == ("Object 1 keeps its pixels (overlap rule: keep)",)


LOCKED_EDITS = [
    click(1, (25, 25), 9),
    click(2, LEFT, 9),
    ev.ClicksRemoved((1,)),
    ev.ClicksMoved(((1, (25.0, 25.0)),)),
    ev.ClicksMoved(((2, (20.0, 20.0)),)),
    ev.ObjectReset(1, ()),
    ev.ObjectDeleted(1),
    ev.ThresholdChanged(1, 0.7),
    ev.MaskImported(1, (), LabelRuns.from_mask(box_mask(0, 4, 0, 4))),
    painted(1, box_mask(0, 4, 0, 4)),
]
UNFIT_EVENTS = [
    ev.ObjectCreated(1),
    ev.ObjectDeleted(7),
    click(7, LEFT, 9),
    click(1, LEFT, 1),
    click(1, (20, 100), 9),
    click(1, (-1, 3), 9),
    click(1, LEFT, 9, position=5),
    ev.ClicksRemoved((44,)),
    ev.ClicksMoved(((44, (1.0, 1.0)),)),
    ev.MaskImported(1, (), LabelRuns.from_mask(np.ones((3, 3), bool))),
]


@pytest.mark.parametrize(
    ("event", "error"),
    [(e, LockedObjectError) for e in LOCKED_EDITS]
    + [(e, SessionError) for e in UNFIT_EVENTS],
)
def test_refused_event_changes_nothing(annotator, event, error):
    before = labels_after(
        annotator,
        ev.ObjectCreated(1),
        click(1, LEFT, 1),
        ev.ObjectCreated(2),
        click(2, RIGHT, 2),
        ev.ObjectLocked(1, error is LockedObjectError),
    )
    objects = dict(annotator.objects)
    with pytest.raises(error):
        annotator.apply(event)
    assert np.array_equal(annotator.labels(), before)
    assert dict(annotator.objects) == objects
    annotator.apply(ev.ObjectLocked(1, False))
    annotator.apply(ev.Undone())


def test_cancelled_click_changes_nothing(annotator):
    class Cancelled(Exception):
        pass

    def cancel(_):
        raise Cancelled

    annotator.apply(ev.RefinementChanged(Refinement.cfr(2)))  # shows a preview
    before = labels_after(annotator, ev.ObjectCreated(1), click(1, LEFT, 1))
    with pytest.raises(Cancelled):
        annotator.apply(click(1, (20, 27), 2, positive=False), on_preview=cancel)
    assert np.array_equal(annotator.labels(), before)
    annotator.apply(click(1, (20, 27), 2, positive=False))
    assert area(annotator.labels(), 1) < area(before, 1)


def test_preview_is_what_the_labels_would_be(annotator):
    seen = []
    annotator.apply(ev.ObjectCreated(1))
    annotator.apply(ev.RefinementChanged(Refinement.cfr(2)))

    def preview(patch):
        shown = annotator.labels().copy()
        assert not shown.any()
        shown[patch.indices()] = patch.values()
        seen.append(shown)

    annotator.apply(click(1, LEFT, 1), on_preview=preview)
    assert len(seen) == 2
    assert iou(seen[0], 1, "left") > 0.9


def test_threshold_moves_the_outline_and_runs_no_network():
    pixels = np.tile(np.linspace(0, 255, 100).astype(np.uint8), (80, 1))

    class Ramp(FloodNetwork):
        def refine(self, features, feedback, newest_click):
            columns = torch.linspace(4, -4, self.grid_size)
            logits = columns.expand(1, 1, self.grid_size, self.grid_size)
            return NetworkOutput(logits=logits)

    annotator = Annotator(
        lambda plane: pixels[plane], SHAPE, Segmenter(Ramp(), device="cpu")
    )
    labels_after(annotator, ev.ObjectCreated(1), click(1, (40, 20), 1))
    middle = area(annotator.labels(), 1)
    change = annotator.apply(ev.ThresholdChanged(1, 0.8))
    assert change.runs == 0
    assert area(annotator.labels(), 1) < middle
    annotator.apply(ev.ThresholdChanged(1, 0.2))
    assert area(annotator.labels(), 1) > middle
    annotator.apply(ev.Undone())  # the slider's way is one step
    assert area(annotator.labels(), 1) == middle
    assert annotator.objects[1].threshold == 0.5


class TestPainting:
    def test_paint_becomes_mask_and_feedback(self, annotator):
        labels_after(annotator, ev.ObjectCreated(1), click(1, LEFT, 1))
        extra = box_mask(40, 50, 40, 50)
        labels = labels_after(annotator, painted(1, extra))
        assert (labels[extra] == 1).all()
        assert annotator.objects[1].on(()).mask.to_mask(SHAPE)[45, 45]
        far = area(labels_after(annotator, click(1, (20, 27), 2, positive=False)), 1)
        assert 0 < far < area(labels, 1)
        annotator.apply(ev.Undone())
        assert np.array_equal(annotator.labels(), labels)

    def test_removing_an_earlier_click_keeps_the_paint(self, annotator):
        labels_after(
            annotator, ev.ObjectCreated(1), click(1, LEFT, 1), click(1, (12, 12), 2)
        )
        extra = box_mask(40, 50, 40, 50)
        labels = labels_after(annotator, painted(1, extra), ev.ClicksRemoved((1,)))
        assert (labels[extra] == 1).all()

    def test_painting_over_a_neighbour_takes_it_even_under_keep(self, annotator):
        labels_after(annotator, ev.ObjectCreated(1), click(1, LEFT, 1))
        stroke = box_mask(15, 25, 0, 50)
        labels = labels_after(annotator, painted(2, stroke))
        assert np.array_equal(labels == 2, stroke)
        assert annotator.objects[2].name == "Object 2"
        assert not (annotator.objects[1].on(()).mask.to_mask(SHAPE) & stroke).any()

    def test_erasing_leaves_background(self, annotator):
        stroke = box_mask(0, 20, 0, 50)
        labels = labels_after(
            annotator, ev.ObjectCreated(1), click(1, LEFT, 1), painted(0, stroke)
        )
        assert not labels[stroke].any()
        assert area(labels, 1) > 0

    def test_threshold_after_painting_keeps_the_stroke(self, annotator):
        extra = box_mask(40, 50, 40, 50)
        labels = labels_after(
            annotator,
            ev.ObjectCreated(1),
            click(1, LEFT, 1),
            painted(1, extra),
            ev.ThresholdChanged(1, 0.9),
        )
        assert (labels[extra] == 1).all()


class TestImport:
    def test_imported_mask_is_shown_and_corrected_by_a_negative_click(self, annotator):
        mask = box_mask(10, 30, 10, 50)
        labels = labels_after(
            annotator,
            ev.ObjectCreated(3),
            ev.MaskImported(3, (), LabelRuns.from_mask(mask)),
        )
        assert np.array_equal(labels == 3, mask)
        labels = labels_after(annotator, click(3, (20, 45), 1, positive=False))
        assert labels[20, 45] == 0
        assert labels[20, 15] == 3
        labels = labels_after(annotator, ev.ObjectReset(3, ()))
        assert np.array_equal(labels == 3, mask)

    def test_every_label_of_another_tool_becomes_an_object_in_one_step(self, annotator):
        labels = np.zeros(SHAPE, np.int32)
        labels[2:6, 2:6], labels[50:60, 50:90] = 4, 9
        annotator.apply(
            ev.LabelsImported((), LabelRuns.from_labels(labels, labels > 0, SHAPE))
        )
        assert np.array_equal(annotator.labels(), labels)
        assert set(annotator.objects) == {4, 9}
        annotator.apply(ev.Undone())
        assert not annotator.labels().any()


class TestPlanes:
    def test_planes_are_apart_and_replay_gives_the_stack(self, segmenter):
        stack = np.stack([image(), image()[:, ::-1], image()])
        annotator = Annotator(lambda plane: stack[plane], SHAPE, segmenter)
        events = [
            ev.ObjectCreated(1),
            click(1, LEFT, 1, plane=(0,)),
            click(1, (20, 80), 2, plane=(1,)),
            click(1, (20, 27), 3, plane=(0,), positive=False),
        ]
        for event in events:
            annotator.apply(event)
        assert annotator.planes == ((0,), (1,))
        assert annotator.objects[1].click_count == 3
        result = replay(events, stack, segmenter)
        assert result.shape == stack.shape
        assert np.array_equal(result, annotator.labels_array((3,)))
        assert not result[2].any()
        assert result[1, 20, 80] == 1


def test_replay_equals_the_live_annotator_with_every_kind_of_event(segmenter):
    pixels = image()
    annotator = Annotator(lambda plane: pixels[plane], SHAPE, segmenter)
    events = [
        ev.ObjectCreated(1, name="nucleus"),
        click(1, LEFT, 1),
        ev.RefinementChanged(Refinement.cfr(2)),
        click(1, (20, 27), 2, positive=False),
        ev.OverlapChanged(ev.OverlapRule.OVERWRITE),
        ev.ObjectCreated(2),
        click(2, (20, 15), 3),
        ev.Undone(),
        ev.Redone(),
        ev.ClicksMoved(((2, (15.0, 28.0)),)),
        painted(2, box_mask(25, 40, 20, 45)),
        ev.ObjectRecoloured(2, "#112233"),
        ev.ObjectRenamed(2, "cell"),
        ev.ObjectLocked(1, True),
        click(2, (12, 12), 4, positive=False, focus_shift=-1),
        ev.ThresholdChanged(2, 0.6),
        ev.ClicksRemoved((3,)),
    ]
    for event in events:
        annotator.apply(event)
    assert np.array_equal(replay(events, pixels, segmenter), annotator.labels())


def test_labels_cannot_be_written_past_the_annotator(annotator):
    with pytest.raises(ValueError, match="read-only"):
        annotator.labels()[0, 0] = 1


# -- several events as one step ------------------------------------------------------


class FailingSegmenter:
    """A segmenter whose next prediction raises an error."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.error: BaseException | None = None

    def __getattr__(self, name):
        return getattr(self.segmenter, name)

    def predict(self, *args, **kwargs):
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.segmenter.predict(*args, **kwargs)


@pytest.mark.parametrize("error", [RuntimeError, OSError, SessionError, MemoryError])
def test_an_error_in_the_first_click_leaves_no_object(segmenter, error):
    failing = FailingSegmenter(segmenter)
    annotator = Annotator(lambda plane: image()[plane], SHAPE, failing)
    annotator.apply(ev.ObjectCreated(1), click(1, LEFT, 1))
    failing.error = error("the file is gone")
    with pytest.raises(error):
        annotator.apply(ev.ObjectCreated(2), click(2, RIGHT, 2))
    assert set(annotator.objects) == {1}
    change = annotator.apply(ev.ObjectCreated(2), click(2, RIGHT, 2))
    assert change.undo_depth == 2
    assert iou(annotator.labels(), 2, "right") > 0.9


def test_a_refused_first_click_keeps_what_can_be_redone(annotator):
    annotator.apply(ev.ObjectCreated(1), click(1, LEFT, 1))
    annotator.apply(ev.ObjectLocked(1, True))
    annotator.apply(ev.ObjectCreated(2), click(2, RIGHT, 2))
    whole = annotator.labels().copy()
    assert annotator.apply(ev.Undone()).redo_depth == 1
    with pytest.raises(LockedObjectError):
        annotator.apply(ev.ObjectCreated(3), click(3, LEFT, 3))
    change = annotator.apply(ev.Redone())
    assert set(change.objects) == {1, 2}
    assert change.objects[2].click_count == 1
    assert np.array_equal(annotator.labels(), whole)


def test_several_events_have_one_change_and_the_undo_steps_of_single_events(segmenter):
    pixels = image()
    events = (ev.ObjectCreated(1), click(1, LEFT, 1))
    together = Annotator(lambda plane: pixels[plane], SHAPE, segmenter)
    change = together.apply(*events)
    single = Annotator(lambda plane: pixels[plane], SHAPE, segmenter)
    changes = [single.apply(event) for event in events]
    assert [type(e) for e in change.events] == [type(e) for e in events]
    assert change.undo_depth == changes[-1].undo_depth == 1
    assert np.array_equal(together.labels(), single.labels())
    assert not together.apply(ev.Undone()).objects


def test_events_that_are_not_one_step_are_refused(annotator):
    with pytest.raises(ValueError, match="ObjectCreated does not continue"):
        annotator.apply(ev.ObjectCreated(1), ev.ObjectCreated(2))
    assert not annotator.objects


class TestStrokesThatHold:
    """Painted pixels stay until a later click contradicts it on the same part."""

    FAR = box_mask(40, 50, 40, 50)

    def painted(self, value, mask):
        return replace(painted(value, mask), holds=True)

    def test_added_pixels_stay_after_the_next_clicks(self, annotator):
        first = (ev.ObjectCreated(1), click(1, LEFT, 1), self.painted(1, self.FAR))
        labels_after(annotator, *first)
        labels = labels_after(
            annotator, click(1, (25, 25), 2), click(1, (20, 27), 3, positive=False)
        )
        assert (labels[self.FAR] == 1).all()
        assert labels[20, 27] == 0

    def test_a_negative_click_takes_the_part_it_lies_in_back(self, annotator):
        both = self.FAR | box_mask(60, 65, 5, 10)
        labels_after(
            annotator, ev.ObjectCreated(1), click(1, LEFT, 1), self.painted(1, both)
        )
        labels = labels_after(annotator, click(1, (45, 45), 2, positive=False))
        assert not labels[self.FAR].any()
        assert (labels[60:65, 5:10] == 1).all()

    def test_erased_pixels_stay_erased_until_a_positive_click(self, annotator):
        hole = box_mask(12, 16, 12, 28)
        labels_after(
            annotator, ev.ObjectCreated(1), click(1, LEFT, 1), self.painted(0, hole)
        )
        labels = labels_after(annotator, click(1, (25, 25), 2))
        assert not labels[hole].any()
        assert labels_after(annotator, click(1, (14, 20), 3))[14, 20] == 1

    def test_undo_and_replay_agree(self, annotator, segmenter):
        events = [
            ev.ObjectCreated(1),
            click(1, LEFT, 1),
            self.painted(1, self.FAR),
            click(1, (20, 27), 2, positive=False),
            ev.ThresholdChanged(1, 0.6),
        ]
        labels = labels_after(annotator, *events)
        labels_after(annotator, ev.Undone(), ev.Undone())
        assert np.array_equal(labels_after(annotator, ev.Redone(), ev.Redone()), labels)
        assert np.array_equal(replay(events, image(), segmenter), labels)
