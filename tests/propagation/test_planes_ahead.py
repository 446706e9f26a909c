"""The next plane is read and embedded ahead: nothing changes but the time it takes."""

from __future__ import annotations

import threading
from collections import Counter
from weakref import WeakSet

import numpy as np
import pytest
from closed_form import FloodNetwork

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import ImageError
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Window
from napari_cfrseg.io.plane_image import open_plane
from napari_cfrseg.propagation import SegmenterPlanes, Track, propagate
from napari_cfrseg.propagation import planes_ahead as ahead_module
from napari_cfrseg.propagation.planes_ahead import HeldPlane, PlanesAhead, held

SIZE, PLANES = 96, 12


def disk(yx, radius):
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.hypot(y - yx[0], x - yx[1]) <= radius


def tube(speed=0.5):
    """A bright disk, ``speed`` pixels farther right on each plane."""
    image = np.full((PLANES, SIZE, SIZE), 20, np.uint8)
    for z in range(PLANES):
        image[z][disk((40, 36 + speed * z), 12)] = 150
    return image


class Lazy:
    """A stack read plane by plane; notes who read what, and may fail on one."""

    def __init__(self, image, broken=None):
        self.image, self.broken = image, broken
        self.reads = Counter()
        self.shape, self.dtype = image.shape, image.dtype

    def __len__(self):
        return len(self.image)

    def __getitem__(self, z):
        return LazyPlane(self, z)


class LazyPlane:
    def __init__(self, stack, z):
        self.stack, self.z = stack, z
        self.shape, self.dtype = stack.image.shape[1:], stack.image.dtype

    def __getitem__(self, key):
        if self.z == self.stack.broken:
            msg = "the disk\nis on fire"
            raise OSError(msg)
        self.stack.reads[self.z] += 1
        return self.stack.image[self.z][key]


class Watched(FloodNetwork):
    """Notes on which thread each image was embedded."""

    def __init__(self):
        super().__init__(0.2)
        self.threads = []

    def embed_image(self, image):
        self.threads.append(threading.current_thread().name)
        return super().embed_image(image)


def track(anchor=2, first=0, last=PLANES - 1, speed=0.5):
    mask = MaskPatch.from_mask(disk((40, 36 + speed * anchor), 12))
    return Track(1, {anchor: mask}, first, last)


def threads_ahead():
    return [t.name for t in threading.enumerate() if t.name.startswith("cfrseg-ahead")]


def walk(stack, *, ahead=True, network=None, tracks=None):
    planes = SegmenterPlanes(
        Segmenter(network or Watched(), device="cpu"), stack, ahead=ahead
    )
    return planes, list(propagate(planes, tracks or [track()]))


def said(results):
    return [
        (r.index, r.mask.offset, r.mask.mask.tobytes(), r.confidence, r.evidence)
        for r in results
    ]


@pytest.mark.parametrize("speed", [0.0, 0.5, 2.5])
def test_nothing_is_different_but_who_embeds(speed):
    tracks = [track(speed=speed)]
    image = tube(speed)
    alone, ahead = Watched(), Watched()
    _, without = walk(Lazy(image), ahead=False, network=alone, tracks=tracks)
    planes, found = walk(Lazy(image), network=ahead, tracks=tracks)
    assert said(found) == said(without)
    assert len(found) == PLANES - 1
    assert not any(n.startswith("cfrseg-ahead") for n in alone.threads)
    if speed < 1:  # the same window for several planes on end
        assert planes.ahead.hits >= PLANES // 2


def test_the_shipped_model_gives_the_same_bits():
    rng = np.random.default_rng(0)
    image = np.clip(tube() + rng.normal(0, 8, (PLANES, SIZE, SIZE)), 0, 255)
    image = image.astype(np.uint8)
    segmenter = Segmenter.load("default", device="cpu")
    results = {}
    for ahead in (False, True):
        planes = SegmenterPlanes(segmenter, Lazy(image), ahead=ahead)
        results[ahead] = list(propagate(planes, [track(last=6)]))
        assert planes.ahead.hits > 0 or not ahead
    assert said(results[True]) == said(results[False])


def test_each_plane_is_read_once_in_a_sweep_and_four_are_held_at_most(monkeypatch):
    alive, held_at_once = WeakSet(), []

    class Counted(HeldPlane):
        def __init__(self, plane):
            alive.add(self)
            held_at_once.append(len(alive))
            super().__init__(plane)

    monkeypatch.setattr(ahead_module, "HeldPlane", Counted)
    stack = Lazy(tube())
    planes, _ = walk(stack)
    assert set(stack.reads) == set(range(PLANES))
    # the anchor, for how it looks and how far to trust the network; up and down
    assert max(stack.reads.values()) <= 2
    assert 2 <= max(held_at_once) <= 4
    assert len(alive) <= 1  # what the segmenter shows
    assert planes.ahead.hits


def test_planes_behind_a_stop_are_not_read():
    image = tube()
    image[6:] = 20
    stack = Lazy(image)
    walk(stack, tracks=[track(first=2)])
    assert max(stack.reads) == 7  # the one where it ended, and one ahead of it


def test_a_plane_that_cannot_be_read_fails_when_its_turn_comes():
    planes = SegmenterPlanes(Segmenter(Watched(), device="cpu"), Lazy(tube(), broken=6))
    results = propagate(planes, [track()])
    seen = [next(results).index for _ in range(3)]
    with pytest.raises(ImageError, match=r"^plane 6 cannot be read: the disk is on"):
        next(results)
    assert seen == [3, 4, 5]
    assert not threads_ahead()


def test_a_broken_plane_that_nobody_comes_to_harms_nobody():
    image = tube()
    planes = SegmenterPlanes(Segmenter(Watched(), device="cpu"), Lazy(image, broken=6))
    found = [r.index for r in propagate(planes, [track(first=2, last=5)])]
    assert found == [3, 4, 5]


def test_a_plane_without_a_finite_pixel_ends_the_run_only():
    image = tube().astype(np.float32)
    image[6] = np.nan
    _, found = walk(image, tracks=[track(first=2)])
    assert [r.index for r in found] == [3, 4, 5, 6]
    assert found[-1].stop is not None


def test_cancelled_no_thread_is_left():
    planes = SegmenterPlanes(Segmenter(Watched(), device="cpu"), Lazy(tube()))
    results = propagate(planes, [track()], cancelled=lambda: planes.runs > 3)
    assert len(list(results)) < 4
    assert not threads_ahead()


def test_left_in_the_middle_no_thread_is_left():
    planes = SegmenterPlanes(Segmenter(Watched(), device="cpu"), Lazy(tube()))
    results = propagate(planes, [track()])
    assert next(results).index == 3
    assert threads_ahead()
    results.close()
    assert not threads_ahead()


class TestAnnotator:
    def clicked(self, stack, network=None):
        done = Annotator(
            lambda plane: stack[plane[0]],
            (SIZE, SIZE),
            Segmenter(network or Watched(), device="cpu"),
        )
        done.apply(ev.ObjectCreated(1))
        done.apply(ev.ClickAdded(1, (2,), (40, 37), True, 1))
        return done

    def test_planes_are_embedded_ahead_there_too(self):
        network, stack = Watched(), Lazy(tube())
        done = self.clicked(stack, network)
        stack.reads.clear()
        done.apply(ev.Propagated((1,), (0,), 0, 0, PLANES - 1, PLANES))
        assert len(done.objects[1].planes) == PLANES
        assert sum(n.startswith("cfrseg-ahead") for n in network.threads) > PLANES // 2
        assert max(stack.reads.values()) <= 2
        assert not threads_ahead()

    def test_a_plane_that_cannot_be_read_takes_the_whole_act_back(self):
        stack = Lazy(tube())
        done = self.clicked(stack)
        stack.broken = 6
        before = done.objects[1]
        with pytest.raises(ImageError, match="plane 6 cannot be read"):
            done.apply(ev.Propagated((1,), (0,), 0, 0, PLANES - 1, PLANES))
        assert done.objects[1] is before
        assert not threads_ahead()

    def test_the_plane_shown_is_measured_again_afterwards(self):
        stack = Lazy(tube())
        done = self.clicked(stack)
        done.apply(ev.Propagated((1,), (0,), 0, 0, PLANES - 1, PLANES))
        done.apply(ev.ClickAdded(1, (2,), (40, 30), True, 2))
        again = self.clicked(stack)
        again.apply(ev.ClickAdded(1, (2,), (40, 30), True, 2))
        assert (done.labels((2,)) == again.labels((2,))).all()


class TestPlanesAhead:
    def ahead(self, embed=lambda image, window: None):
        stack = Lazy(tube())
        return PlanesAhead(
            lambda z: held(stack[z]), lambda _, pixels: open_plane(pixels), embed
        )

    def test_windows_of_the_present_plane_only_and_no_more_than_fit(self):
        planes = self.ahead()
        planes.expect(3, 4)
        planes.used(2, Window(0, 0, 32, 96))
        assert planes.early(4) == {}
        for x in range(20):
            planes.used(3, Window(0, x, 32, 96))
        assert len(planes.early(4)) == 8
        assert planes.early(3) == {}
        planes.close()

    def test_what_an_embedding_raises_is_raised_where_it_is_needed(self):
        begun = threading.Event()

        def embed(image, window):
            begun.set()
            msg = "no such kernel"
            raise RuntimeError(msg)

        planes = self.ahead(embed)
        window = Window(0, 0, 32, 96)
        planes.expect(3, 4)
        planes.used(3, window)
        planes.image(4)
        assert begun.wait(10)
        with pytest.raises(RuntimeError, match="no such kernel"):
            planes.early(4)[window]()
        planes.close()


@pytest.mark.parametrize("shape", [(40, 50), (1400, 900), (1100, 1000, 3)])
def test_a_lazy_plane_read_ahead_has_the_black_and_white_it_had(shape):
    rng = np.random.default_rng(1)
    image = rng.gamma(2.0, 40.0, (1, *shape)).astype(np.float32)
    plane = Lazy(image)[0]
    assert open_plane(held(plane)).scaling == open_plane(plane).scaling


def test_planes_in_memory_are_not_copied_and_vast_ones_not_read():
    image = tube()
    assert held(image[3]).base is image

    class Vast:
        shape, dtype = (40_000, 40_000), np.dtype(np.uint16)

    vast = Vast()
    assert held(vast) is vast
