"""Neighbours that walk together share a window, and with it one embedding a plane."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import FloodNetwork

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Window
from napari_cfrseg.propagation import SegmenterPlanes, Track, propagate
from napari_cfrseg.propagation.planes import common_windows, fits

SIZE, PLANES = 160, 10


def disk(yx, radius):
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.hypot(y - yx[0], x - yx[1]) <= radius


def walk(*disks, ahead=False):
    """Carry disks, (yx, radius) each, from plane 0 on; (network, planes, IoUs)."""
    image = np.full((PLANES, SIZE, SIZE), 20, np.uint8)
    tracks, truth = [], {}
    for number, (yx, radius) in enumerate(disks, 1):
        truth[number] = disk(yx, radius)
        image[:, truth[number]] = 90 + 50 * number
        anchor = {0: MaskPatch.from_mask(truth[number])}
        tracks.append(Track(number, anchor, 0, PLANES - 1))
    network = FloodNetwork(0.1)
    planes = SegmenterPlanes(Segmenter(network, device="cpu"), image, ahead=ahead)
    ious = []
    for result in propagate(planes, tracks):
        found, wanted = result.mask.to_mask((SIZE, SIZE)), truth[result.object_id]
        ious.append((found & wanted).sum() / (found | wanted).sum())
    return network, planes, ious


def test_two_neighbours_are_embedded_once_a_plane():
    network, planes, ious = walk(((80, 60), 10), ((80, 83), 10))
    assert planes.runs == 2 * PLANES  # each on nine planes, and its anchor asked once
    # both anchors, each alone on the first plane, and one window from the second on
    assert network.calls["embed_image"] == 4 + (PLANES - 2)
    assert len(ious) == 2 * (PLANES - 1)
    assert min(ious) > 0.8


def test_three_in_a_row_are_no_worse():
    network, planes, ious = walk(*(((80, 45 + 23 * i), 10) for i in range(3)))
    assert network.calls["embed_image"] < planes.runs - (PLANES - 3)
    assert min(ious) > 0.8


def test_far_apart_each_has_its_own():
    network, planes, ious = walk(((40, 40), 10), ((120, 120), 10))
    assert network.calls["embed_image"] == planes.runs
    assert min(ious) > 0.8


def test_the_shared_window_is_embedded_ahead():
    network, planes, _ = walk(((80, 60), 10), ((80, 83), 10), ahead=True)
    assert planes.ahead.hits >= PLANES - 4
    # what was embedded for the first planes, where each has its own, is in vain
    assert network.calls["embed_image"] <= 4 + (PLANES - 2) + 4


OWN = Window(0, 0, 32, 96)


@pytest.mark.parametrize(
    ("boxes", "groups"),
    [
        ([(40, 40, 60, 60), (40, 62, 60, 82)], [0, 0]),
        ([(40, 40, 60, 60), (40, 90, 60, 110)], [None, None]),
        ([(40, 40, 60, 60), (40, 62, 44, 66)], [None, None]),  # too small to see
        (
            [(40, 40, 60, 60), (9, 9, 29, 29), (40, 62, 60, 82), (9, 31, 29, 51)],
            [0, 1, 0, 1],
        ),
        ([(40, 40, 60, 60), None], [None, None]),
        ([], []),
    ],
)
def test_who_shares(boxes, groups):
    found = common_windows([(box, OWN) for box in boxes], (SIZE, SIZE))
    names = {None: None}
    for window in found:
        names.setdefault(window, len(names) - 1)
    assert [names[window] for window in found] == groups
    for box, window in zip(boxes, found, strict=True):
        assert window is None or fits(window, box)


def test_a_window_that_shows_all_of_them_stays():
    boxes = [(40, 40, 60, 60), (40, 62, 60, 82)]
    (first, _) = common_windows([(box, OWN) for box in boxes], (SIZE, SIZE))
    moved = [(42, 41, 62, 61), (42, 63, 62, 83)]
    again = common_windows([(box, first) for box in moved], (SIZE, SIZE))
    assert again == [first, first]


def test_on_the_first_plane_nobody_has_a_window_yet():
    boxes = [(40, 40, 60, 60), (40, 62, 60, 82)]
    assert common_windows([(b, None) for b in boxes], (SIZE, SIZE)) == [None, None]
