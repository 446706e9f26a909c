"""3-D robots on a stack that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import FloodNetwork
from stack_fillers import FILLERS, Filler
from stack_robots import (
    AnchorRow,
    RobotRow,
    Sample,
    anchor_table,
    robot_table,
    run_anchors,
    run_clicking,
    run_robot,
)
from stack_volumes import Volume, objects_of, spread_anchors

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.geometry.masks import MaskPatch

SIZE = 48


@pytest.fixture
def ball():
    """A ball of radius 9.6 around plane 10 of 21, and a speck."""
    z, y, x = np.mgrid[:21, :SIZE, :SIZE]
    labels = np.zeros(z.shape, np.uint16)
    labels[(z - 10) ** 2 + (y - 24) ** 2 + (x - 20) ** 2 < 9.6**2] = 3
    labels[2:4, 2:4, 2:4] = 5
    image = np.where(labels == 3, 150, 20).astype(np.uint8)
    return Volume("stacks/made", "ball", image, labels, (1.0, 1.0, 1.0))


@pytest.fixture
def segmenter():
    return Segmenter(FloodNetwork(), device="cpu")


def truth(volume, *planes):
    item = objects_of(volume)[0]
    return item, {z: MaskPatch.from_mask(item.truth[z]) for z in planes}


def test_objects_that_are_asked_for(ball):
    (item,) = objects_of(ball)
    assert (item.label, item.first, item.last, item.planes) == (3, 1, 19, 19)
    assert spread_anchors(item, 1) == [10]
    assert spread_anchors(item, 3) == [4, 10, 16]


def test_an_object_in_two_pieces_is_not_asked_for(ball):
    ball.labels[9] = 0
    assert objects_of(ball) == []


def test_what_each_way_makes_of_exact_anchors(ball, segmenter):
    item, anchors = truth(ball, 5, 15)
    ious = {}
    for name in FILLERS:
        masks = Filler(name, segmenter, ball, item).fill(anchors)
        assert all(masks[z] is anchors[z] for z in anchors)
        ious[name] = item.iou(masks)
    # flat between equal anchors, and copied beyond them: the same masks
    assert ious["interpolation"] == pytest.approx(ious["copying"], abs=0.02)
    # a ball's cross-sections are what the prior's spline finds
    assert ious["prior"] > 0.9 > ious["interpolation"]
    assert ious["propagation"] > 0.9
    assert ious["free"] > 0.85


def test_only_asked_gaps_are_filled(ball, segmenter):
    item, anchors = truth(ball, 5, 10, 15)
    for name in ("propagation", "prior"):
        filler = Filler(name, segmenter, ball, item)
        found = filler.fill(anchors, {}, ((5, 10),))
        assert sorted(found) == [5, 6, 7, 8, 9, 10, 15]
        assert filler.planes_computed == 4


def test_rows_of_the_same_clicks(ball, segmenter):
    (item,) = objects_of(ball)
    samples: list[Sample] = []
    rows = list(run_anchors(segmenter, ball, item, [1, 2], samples=samples))
    assert [r.method for r in rows] == [*FILLERS, *FILLERS]
    assert len({r.clicks for r in rows[: len(FILLERS)]}) == 1
    assert {r.anchors for r in rows} == {1, 2}
    assert samples
    assert all(0 < s.confidence < 1 and 0 <= s.iou <= 1 for s in samples)


def test_outlines_drawn_by_hand_cost_no_click(ball, segmenter):
    (item,) = objects_of(ball)
    rows = list(run_anchors(segmenter, ball, item, [2], drawn=True))
    assert {r.clicks for r in rows} == {0}


def test_the_robot_goes_to_the_worst_plane_and_computes_its_gaps(ball, segmenter):
    (item,) = objects_of(ball)
    row = run_robot(segmenter, ball, item, "copying", target=0.97, most_planes=4)
    assert row.ious[-1] > row.ious[0]
    assert len(row.clicks) == 4
    # a copied ball is worst at its ends: each correction fills one side again
    assert 0 < row.computed < 3 * item.planes
    assert row.clicks_to(0.5) == row.clicks[0]
    assert row.clicks_to(1.1) is None


def test_every_plane_clicked(ball, segmenter):
    (item,) = objects_of(ball)
    row = run_clicking(segmenter, ball, item)
    assert row.clicks >= item.planes
    assert row.iou > 0.95


def test_tables():
    rows = [
        AnchorRow("made", "s", 1, method, 2, 4, iou, 9, 0.5)
        for method, iou in (("propagation", 0.9), ("copying", 0.5))
    ]
    rows.append(AnchorRow("made", "s", 1, "clicking", 9, 18, 0.95, 9, 0.5))
    lines = anchor_table(rows).splitlines()
    assert lines[2] == "| made | 2 | 1 | 4.0 | 0.900 | 0.500 |"
    assert lines[3] == "| made | every plane clicked | 1 | 18.0 | 0.950 | |"
    robots = [
        RobotRow("made", "s", 1, "copying", (2, 5), (0.7, 0.82), 6, 1.0),
        RobotRow("made", "s", 2, "copying", (3,), (0.6,), 0, 1.0),
    ]
    line = robot_table(robots).splitlines()[2]
    assert line == (
        "| made | copying | 2 | 5.0 (1/2) | – (0/2) | – (0/2) "
        "| 1.5 | 0.710 | 3.0 | 1.0 |"
    )
