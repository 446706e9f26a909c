"""Anchors stay, gaps fill, runs stop: on a network one can predict by hand."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import FloodNetwork
from replayed import replay

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.transaction import Progress
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import LockedObjectError, SessionError
from napari_cfrseg.geometry.masks import LabelRuns, MaskPatch
from napari_cfrseg.propagation import (
    PropagationSettings,
    StopReason,
    Track,
    gaps_of,
    planes_along,
    propagate,
    suggest,
)
from napari_cfrseg.propagation.planes import SegmenterPlanes
from napari_cfrseg.propagation.shapes import (
    Bridge,
    Cap,
    Profile,
    interpolate,
    overlap_iou,
)

SIZE = 64


def disk(yx, radius):
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.hypot(y - yx[0], x - yx[1]) <= radius


def stack(planes=9, first=0, last=None, second=False):
    """A bright disk that moves and swells, dark elsewhere; maybe a neighbour."""
    out = np.full((planes, SIZE, SIZE), 20, np.uint8)
    truth = np.zeros((planes, SIZE, SIZE), np.int32)
    for z in range(planes):
        if first <= z <= (planes - 1 if last is None else last):
            truth[z][disk((24 + z * 7.2 / planes, 22), 9 + 2.7 * z / planes)] = 1
            if second:
                truth[z][disk((26, 46), 8) & (truth[z] == 0)] = 2
    out[truth == 1] = 150
    out[truth == 2] = 220
    return out, truth


def segmenter():
    return Segmenter(FloodNetwork(), device="cpu")


def annotator(image):
    return Annotator(lambda plane: image[plane], image.shape[1:], segmenter())


def clicked(image, *clicks):
    """Objects with a click each: (object id, plane, yx)."""
    done = annotator(image)
    for number, (object_id, z, yx) in enumerate(clicks, 1):
        if object_id not in done.objects:
            done.apply(ev.ObjectCreated(object_id))
        done.apply(ev.ClickAdded(object_id, (z,), yx, True, number))
    return done


def whole(image, *object_ids, **options):
    count = len(image)
    return ev.Propagated(
        object_ids or (1,),
        (0,),
        0,
        options.pop("first", 0),
        options.pop("last", count - 1),
        count,
        **options,
    )


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


class TestPlanes:
    def test_one_click_finds_the_object_on_all_planes(self):
        image, truth = stack()
        done = clicked(image, (1, 4, (27, 22)))
        before = done.labels((4,)).copy()
        done.apply(whole(image))
        labels = done.labels_array((9,))
        assert all(iou(labels[z] == 1, truth[z] == 1) > 0.85 for z in range(9))
        assert (labels[4] == before).all()

    def test_a_run_stops_where_the_object_ends_and_says_why(self):
        image, truth = stack(9, first=2, last=6)
        done = clicked(image, (1, 4, (27, 22)))
        done.apply(whole(image))
        labels = done.labels_array((9,))
        assert not labels[:2].any()
        assert not labels[7:].any()
        assert iou(labels[6] == 1, truth[6] == 1) > 0.8
        carried = done.objects[1].on((7,)).carried
        assert carried is not None
        assert carried.stop in {
            StopReason.EMPTY,
            StopReason.UNSUPPORTED,
            StopReason.FADED,
        }
        assert (8,) not in done.objects[1].planes

    def test_an_object_that_grows_dim_with_depth_is_kept_to_its_last_plane(self):
        image, _ = stack(12, last=9)
        here = image[4] > 100
        image[:] = 20
        for z in range(10):
            image[z][here] = 20 + round(130 * 0.75 ** max(z - 2, 0))
        done = clicked(image, (1, 2, (27, 22)))
        done.apply(whole(image))
        planes = {p[0] for p, s in done.objects[1].planes.items() if s.mask.area}
        assert planes == set(range(10))

    def test_a_mask_the_network_denies_is_not_copied_for_ever(self):
        """Beside the object lies nothing: only copying could go on."""
        image = np.full((40, SIZE, SIZE), 90, np.uint8)
        image[20][disk((32, 32), 8)] = 95
        image[:, 12:20, 12:20] = 160
        done = annotator(image)
        done.apply(ev.ObjectCreated(1))
        patch = LabelRuns.from_mask(disk((32, 32), 8))
        done.apply(ev.MaskImported(1, (20,), patch))
        done.apply(whole(image))
        planes = {p[0] for p, s in done.objects[1].planes.items() if s.mask.area}
        assert planes <= set(range(12, 29))
        stops = {s.carried.stop for s in done.objects[1].planes.values() if s.carried}
        assert StopReason.EDGE not in stops

    def test_what_is_found_on_every_plane_is_followed_through_all(self):
        image, _ = stack(60)
        done = clicked(image, (1, 2, (24, 22)))
        done.apply(whole(image))
        assert all(done.objects[1].on((z,)).mask.area > 150 for z in range(60))

    def test_one_that_becomes_two_and_one_again_keeps_both_parts(self):
        image = np.full((9, SIZE, SIZE), 20, np.uint8)
        truth = np.zeros(image.shape, bool)
        for z in range(9):
            off = (4 - abs(z - 4)) * 2.8
            truth[z] = disk((32, 32 - off), 9) | disk((32, 32 + off), 9)
        image[truth] = 150
        track = Track(1, {0: MaskPatch.from_mask(truth[0])}, 0, 8)
        planes = SegmenterPlanes(segmenter(), image)
        found = {
            r.index: r.mask.to_mask((SIZE, SIZE)) for r in propagate(planes, [track])
        }
        assert set(found) == set(range(1, 9))
        for z, mask in found.items():
            off = round((4 - abs(z - 4)) * 2.8)
            assert mask[32, 32 - off]
            assert mask[32, 32 + off]
        assert all(iou(found[z], truth[z]) > 0.85 for z in (1, 2, 5, 6, 7, 8))

    def test_a_hole_stays_open(self):
        image = np.full((5, SIZE, SIZE), 20, np.uint8)
        ring = disk((32, 32), 16) & ~disk((32, 32), 7)
        image[:, ring] = 150
        planes = SegmenterPlanes(segmenter(), image)
        track = Track(1, {2: MaskPatch.from_mask(ring)}, 0, 4)
        for result in propagate(planes, [track]):
            mask = result.mask.to_mask((SIZE, SIZE))
            assert not mask[32, 32]
            assert iou(mask, ring) > 0.85

    def test_an_object_that_jumps_away_is_left(self):
        image = np.full((6, SIZE, SIZE), 20, np.uint8)
        for z in range(6):
            image[z][disk((16 if z < 3 else 44, 30), 8)] = 150
        done = clicked(image, (1, 1, (16, 30)))
        done.apply(whole(image))
        assert done.objects[1].on((2,)).mask.area
        assert not any(done.objects[1].on((z,)).mask.area for z in (3, 4, 5))

    def test_the_end_of_the_stack_is_a_reason_too(self):
        image, _ = stack()
        done = clicked(image, (1, 4, (27, 22)))
        done.apply(whole(image, last=6))
        on = done.objects[1].on
        assert on((0,)).carried.stop == StopReason.EDGE
        assert on((6,)).carried.stop == StopReason.RANGE
        assert on((5,)).carried.stop is None
        assert (7,) not in done.objects[1].planes

    def test_a_range_on_one_side_leaves_the_other_alone(self):
        image, _ = stack()
        done = clicked(image, (1, 4, (27, 22)))
        done.apply(whole(image, first=4))
        assert set(done.objects[1].planes) == {(z,) for z in range(4, 9)}

    def test_siblings_do_not_leak_into_each_other(self):
        image, truth = stack(second=True)
        done = clicked(image, (1, 4, (27, 22)), (2, 4, (26, 46)))
        done.apply(whole(image, 1, 2))
        labels = done.labels_array((9,))
        for z in range(9):
            assert iou(labels[z] == 1, truth[z] == 1) > 0.8
            assert iou(labels[z] == 2, truth[z] == 2) > 0.8

    def test_a_locked_neighbours_pixels_are_not_taken(self):
        image, _ = stack()
        done = clicked(image, (1, 4, (27, 22)))
        done.apply(ev.ObjectCreated(2))
        wall = np.zeros((SIZE, SIZE), bool)
        wall[:, 24:] = True
        done.apply(ev.MaskImported(2, (6,), LabelRuns.from_mask(wall)))
        done.apply(ev.ObjectLocked(2, True))
        done.apply(whole(image))
        assert not done.objects[1].on((6,)).mask.to_mask((SIZE, SIZE))[wall].any()


class TestActs:
    def test_undo_takes_the_whole_propagation_back(self):
        image, _ = stack()
        done = clicked(image, (1, 4, (27, 22)))
        before = done.labels_array((9,))
        depth = done.apply(whole(image)).undo_depth
        after = done.labels_array((9,))
        change = done.apply(ev.Undone())
        assert change.undo_depth == depth - 1
        assert (done.labels_array((9,)) == before).all()
        assert set(done.objects[1].planes) == {(4,)}
        done.apply(ev.Redone())
        assert (done.labels_array((9,)) == after).all()

    def test_a_correction_recomputes_only_its_gaps(self):
        image, _ = stack(100)
        places = ((1, 2, (26, 22)), (1, 12, (28, 22)), (1, 97, (34, 22)))
        done = clicked(image, *places)
        done.apply(whole(image))
        anchors = {z: done.labels((z,)).copy() for z in (2, 12, 97)}
        old = {z: done.objects[1].on((z,)) for z in range(100)}
        done.apply(ev.ClickAdded(1, (7,), (27, 36), False, 9))
        corrected = done.objects[1].on((7,))
        rounds = done.apply(whole(image)).runs
        new = {z: z for z in range(100) if done.objects[1].on((z,)) is not old[z]}
        assert set(new) == {3, 4, 5, 6, 7, 8, 9, 10, 11}
        assert done.objects[1].on((7,)) is corrected
        assert all((done.labels((z,)) == m).all() for z, m in anchors.items())
        # two passes over eight planes, and two anchors asked at each of two gaps
        assert rounds <= 2 * 8 + 4
        again = done.apply(whole(image))
        assert not again.patches
        assert again.runs == 0

    def test_cancelled_keeps_what_is_done_and_replays_to_the_same(self):
        image, _ = stack()
        done = clicked(image, (1, 2, (26, 22)))
        seen = []

        def stop(progress):
            if isinstance(progress, Progress) and progress.patches:
                seen.append(progress)
            return len(seen) == 3

        change = done.apply(whole(image), on_preview=stop)
        assert change.events[-1].results == 3
        assert {(2,), (3,), (4,), (5,)} == set(done.objects[1].planes)
        again = clicked(image, (1, 2, (26, 22)))
        again.apply(change.events[-1])
        assert (again.labels_array((9,)) == done.labels_array((9,))).all()

    def test_cancelled_at_once_changes_nothing(self):
        image, _ = stack()
        done = clicked(image, (1, 2, (26, 22)))
        change = done.apply(whole(image), on_preview=lambda _: True)
        assert not change.patches
        assert change.undo_depth == 1

    def test_replay_equals(self):
        image, _ = stack()
        events = [
            ev.ObjectCreated(1),
            ev.ClickAdded(1, (2,), (26, 22), True, 1),
            whole(image),
            ev.ClickAdded(1, (6,), (30, 22), True, 2),
            whole(image),
            ev.PlaneConfirmed(1, (8,)),
            ev.Undone(),
        ]
        done = annotator(image)
        for event in events:
            done.apply(event)
        assert (replay(events, image, segmenter()) == done.labels_array((9,))).all()

    def test_a_confirmed_plane_is_an_anchor(self):
        image, _ = stack()
        done = clicked(image, (1, 2, (26, 22)))
        done.apply(whole(image))
        assert not done.objects[1].on((6,)).is_anchor
        done.apply(ev.PlaneConfirmed(1, (6,)))
        assert done.objects[1].on((6,)).is_anchor
        with pytest.raises(SessionError, match="no propagated mask"):
            done.apply(ev.PlaneConfirmed(1, (6,)))

    def test_refused(self):
        image, _ = stack()
        done = clicked(image, (1, 2, (26, 22)))
        done.apply(ev.ObjectCreated(2))
        with pytest.raises(SessionError, match="annotated on no plane"):
            done.apply(whole(image, 1, 2))
        done.apply(ev.ObjectLocked(1, True))
        with pytest.raises(LockedObjectError):
            done.apply(whole(image))
        with pytest.raises(
            SessionError, match=r"^Propagated: planes 3 to 9 of 9: no such"
        ):
            ev.Propagated((1,), (0,), 0, 3, 9, 9)

    def test_a_plane_of_several_axes(self):
        image, _ = stack()
        both = np.stack([image, image[::-1]])
        done = Annotator(lambda plane: both[plane], image.shape[1:], segmenter())
        done.apply(ev.ObjectCreated(1))
        done.apply(ev.ClickAdded(1, (1, 4), (27, 22), True, 1))
        done.apply(ev.Propagated((1,), (1, 0), 1, 0, 8, 9))
        assert set(done.objects[1].planes) == {(1, z) for z in range(9)}


class TestStack:
    class Lazy:
        """A stack that counts what is read of it."""

        def __init__(self, image):
            self.image, self.reads = image, []
            self.shape, self.dtype = image.shape, image.dtype

        def __len__(self):
            return len(self.image)

        def __getitem__(self, z):
            outer = self

            class Plane:
                shape, dtype = outer.image.shape[1:], outer.image.dtype

                def __getitem__(self, key):
                    outer.reads.append(z)
                    return outer.image[z][key]

            return Plane()

    def test_planes_are_read_one_by_one_and_twice_at_most(self):
        image, truth = stack(12)
        lazy = self.Lazy(image)
        planes = SegmenterPlanes(segmenter(), lazy)
        anchors = {z: MaskPatch.from_mask(truth[z] == 1) for z in (1, 10)}
        results = list(propagate(planes, [Track(1, anchors, 1, 10)]))
        assert sorted(r.index for r in results) == list(range(2, 10))
        assert max(np.bincount(lazy.reads)) <= 4  # two sweeps, and two anchors' trust

    def test_gap_follows_the_network_where_interpolation_is_wrong(self):
        image, truth = stack(9)
        swollen = disk((28, 22), 14)
        image[4][swollen], truth[4][swollen] = 150, 1
        anchors = {z: MaskPatch.from_mask(truth[z] == 1) for z in (2, 6)}
        planes = SegmenterPlanes(segmenter(), image)
        settings = PropagationSettings()
        found = {
            r.index: r.mask.to_mask((SIZE, SIZE))
            for r in propagate(planes, [Track(1, anchors, 2, 6)], settings)
        }
        plain = interpolate(anchors[2], anchors[6], 0.5, (0, 0, SIZE, SIZE)).values > 0
        assert iou(found[4], truth[4] == 1) > iou(plain, truth[4] == 1)

    @pytest.mark.parametrize("axis", [1, 2])
    def test_planes_across_y_and_x_with_the_voxels_size(self, axis):
        z, y, x = np.mgrid[:24, :48, :48]
        inside = ((z - 12) / 6) ** 2 + ((y - 24) / 12) ** 2 + ((x - 24) / 12) ** 2 < 1
        image = np.where(inside, 150, 20).astype(np.uint8)
        planes = planes_along(segmenter(), image, axis, voxel=(2.0, 1.0, 1.0))
        assert planes.shape == (24, 48)
        assert planes.sampling == (1.0, 2.0, 1.0)
        anchor = MaskPatch.from_mask(np.take(inside, 24, axis=axis))
        found = {
            r.index: r.mask.to_mask((24, 48))
            for r in propagate(planes, [Track(1, {24: anchor}, 17, 31)])
        }
        for index, mask in found.items():
            assert iou(mask, np.take(inside, index, axis=axis)) > 0.75

    def test_cancelled_between_planes(self):
        image, truth = stack()
        planes = SegmenterPlanes(segmenter(), image)
        track = Track(1, {4: MaskPatch.from_mask(truth[4] == 1)}, 0, 8)
        results = propagate(planes, [track], cancelled=lambda: planes.runs > 2)
        assert len(list(results)) <= 2

    @pytest.mark.parametrize("clicked", [(2,), (7,), (0, 3), (0, 8)])
    @pytest.mark.parametrize("spans", [False, True])
    def test_planes_outside_the_range_stay_as_they_are(self, clicked, spans):
        image, truth = stack()
        anchors = {z: MaskPatch.from_mask(truth[z] == 1) for z in clicked}
        planes = SegmenterPlanes(segmenter(), image)
        found = propagate(planes, [Track(1, anchors, 4, 6, spans)])
        masks = {r.index: r.mask.to_mask(image.shape[1:]) for r in found}
        assert sorted(masks) == [4, 5, 6]
        for index, mask in masks.items():
            assert spans or iou(mask, truth[index] == 1) > 0.8

    def test_outside_the_stack(self):
        image, truth = stack()
        track = Track(1, {4: MaskPatch.from_mask(truth[4] == 1)}, 0, 9)
        with pytest.raises(ValueError, match="stack of 9"):
            list(propagate(SegmenterPlanes(segmenter(), image), [track]))


@pytest.mark.parametrize(
    ("anchors", "first", "last", "gaps"),
    [
        ((4,), 0, 8, ((None, 4), (4, None))),
        ((0, 8), 0, 8, ((0, 8),)),
        ((2, 3), 0, 8, ((None, 2), (3, None))),
        ((2, 6), 3, 4, ((2, 6),)),
        ((2, 6), 7, 8, ((6, None),)),
        ((), 0, 8, ()),
    ],
)
def test_gaps(anchors, first, last, gaps):
    assert gaps_of(anchors, first, last) == gaps


def test_interpolation_halfway_of_two_squares():
    a, b = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    a[10:30, 10:30] = True
    b[14:26, 14:26] = True
    found = interpolate(
        MaskPatch.from_mask(a), MaskPatch.from_mask(b), 0.5, (0, 0, 40, 40)
    ).mask()
    assert found.box == (12, 12, 28, 28)


class TestProfile:
    """A ball of radius 9.6 around plane 10, annotated on planes 5 and 15."""

    @staticmethod
    def ball(z):
        return MaskPatch.from_mask(disk((30, 30), (9.6**2 - (z - 10) ** 2) ** 0.5))

    def expected(self, index, ends):
        anchors = {5: self.ball(5), 15: self.ball(15)}
        profile = Profile(anchors, ends)
        bridge = Bridge(5, 15, anchors[5], anchors[15], (1.0, 1.0), profile)
        cap = Cap(anchors[15], (1.0, 1.0), profile)
        prior = bridge if index < 15 else cap
        return prior.field(index, (0, 0, SIZE, SIZE)).mask()

    @pytest.mark.parametrize("index", [7, 10, 13, 16, 17])
    def test_between_and_beyond_equal_anchors_it_finds_the_ball(self, index):
        found, wanted = self.expected(index, (0, 20)), self.ball(index)
        assert overlap_iou(found, wanted) > 0.85

    def test_with_no_known_end_the_shape_between_stays_flat(self):
        found = self.expected(10, (None, None))
        assert overlap_iou(found, self.ball(5)) == 1

    def test_one_anchor_and_one_end_shrink_like_a_ball(self):
        profile = Profile({10: self.ball(10)}, (None, 20))
        assert profile.radius(10) == pytest.approx(9.6, abs=0.3)
        assert profile.radius(15) == pytest.approx(8.2, abs=0.5)

    def test_an_outline_does_not_explode(self):
        wide = disk((30, 30), 4)
        anchors = {
            5: MaskPatch.from_mask(wide),
            7: MaskPatch.from_mask(disk((9, 9), 9)),
        }
        profile = Profile(anchors, (0, 40))
        found = Cap(anchors[5], (1.0, 1.0), profile).field(6, (0, 0, SIZE, SIZE))
        assert found.mask().area < 2.5 * wide.sum()


class TestSuggestion:
    def test_the_least_sure_plane_and_where_it_differs(self):
        square = np.zeros((40, 40), bool)
        square[10:20, 10:20] = True
        leaked = square.copy()
        leaked[10:20, 20:30] = True
        masks = {0: square, 1: square, 2: leaked, 3: square}
        patches = {z: MaskPatch.from_mask(m) for z, m in masks.items()}
        found = suggest(patches, {1: 0.9, 2: 0.3, 3: 0.8})
        assert found.index == 2
        y, x = (round(v) for v in found.yx)
        assert leaked[y, x]
        assert not square[y, x]

    def test_nothing_propagated(self):
        assert suggest({0: MaskPatch.from_mask(np.ones((3, 3), bool))}, {}) is None


class TestMovingCells:
    """A textured cell of radius 7 that moves farther than that from frame to frame."""

    RADIUS = 7

    def frames(self, places, neighbour=None):
        rng = np.random.default_rng(0)
        texture = rng.integers(-25, 25, (SIZE, SIZE))
        out = np.full((len(places), SIZE, SIZE), 20, np.uint8)
        truth = np.zeros(out.shape, bool)
        if neighbour is not None:
            out[:, disk(neighbour, self.RADIUS)] = 150
        for z, yx in enumerate(places):
            truth[z] = disk(yx, self.RADIUS)
            shift = yx[0] - places[0][0], yx[1] - places[0][1]
            out[z][truth[z]] = (150 + np.roll(texture, shift, (0, 1)))[truth[z]]
        return out, truth

    def masks(self, image, truth, anchors):
        track = Track(
            1, {z: MaskPatch.from_mask(truth[z]) for z in anchors}, 0, len(image) - 1
        )
        results = propagate(SegmenterPlanes(segmenter(), image), [track])
        return {r.index: r.mask.to_mask((SIZE, SIZE)) for r in results}

    def test_it_is_followed_to_the_last_frame(self):
        image, truth = self.frames([(20 + 3 * z, 10 + 9 * z) for z in range(6)])
        masks = self.masks(image, truth, [0])
        assert all(iou(masks[z], truth[z]) > 0.85 for z in range(1, 6))

    def test_it_is_not_taken_for_a_cell_that_stays(self):
        places = [(20 + 9 * z, 20) for z in range(5)]
        image, truth = self.frames(places, neighbour=(24, 40))
        masks = self.masks(image, truth, [0])
        assert all(iou(masks[z], truth[z]) > 0.85 for z in range(1, 5))

    def test_between_two_anchors_it_may_take_any_way(self):
        places = [(12 + 9 * z, 10 + 9 * min(z, 4 - z)) for z in range(5)]
        image, truth = self.frames(places)
        masks = self.masks(image, truth, [0, 4])
        assert all(iou(masks[z], truth[z]) > 0.8 for z in range(1, 4))
